//! The notifier that wakes waiting syncs.

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::replication::Consumer;
use squall_protocol::rows::Row;
use squall_protocol::{InstanceName, StreamName, Token};

/// Wakes every waiting sync when a position of this instance may have moved: by replication, as a [`Consumer`], or by the
/// instance's own writes, whose callers notify it. A woken sync reads the positions itself.
#[derive(Default)]
pub struct Notifier {
    moved: Notify,
}

impl Notifier {
    /// Wakes every waiting sync: a position may have moved, or the instance is about to stop.
    pub fn notify(&self) {
        self.moved.notify_waiters();
    }

    /// Completes at the next [`notify`](Self::notify) after this call, even if that comes before the first poll. So a sync
    /// calls this before it reads the positions.
    pub(super) fn news(&self) -> Notified<'_> {
        self.moved.notified()
    }
}

impl Consumer for Notifier {
    fn applied(&self, _stream: &StreamName, _writer: &InstanceName, _token: Token, _rows: &[Row]) {
        self.notify();
    }

    fn positioned(&self, _stream: &StreamName, _writer: &InstanceName, _position: Token) {
        self.notify();
    }

    fn reset(&self, _stream: &StreamName, _writer: &InstanceName) {
        self.notify();
    }
}
