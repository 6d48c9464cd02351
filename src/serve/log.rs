//! Logs replicated rows.

use crate::replication::Consumer;
use squall_protocol::rows::Row;
use squall_protocol::{InstanceName, StreamName, Token};

/// A consumer that logs every batch of applied rows at the level `trace`.
pub(super) struct Rows;

impl Consumer for Rows {
    fn following(&self, stream: &StreamName, writer: &InstanceName, position: Token) {
        tracing::trace!(%stream, %writer, token = position.0, "following");
    }

    fn applied(&self, stream: &StreamName, writer: &InstanceName, token: Token, rows: &[Row]) {
        tracing::trace!(%stream, %writer, token = token.0, rows = rows.len(), "applied");
    }

    fn reset(&self, stream: &StreamName, writer: &InstanceName) {
        tracing::trace!(%stream, %writer, "reset");
    }
}
