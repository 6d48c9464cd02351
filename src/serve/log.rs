//! What is replicated, in the log, for whoever wants to follow it row by row.

use crate::protocol::{InstanceName, StreamName, Token};
use crate::replication::Consumer;
use crate::streams::Row;

/// Logs what is applied, at the level `trace`.
pub struct Rows;

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
