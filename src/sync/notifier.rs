//! Wakes whoever waits for news.

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::protocol::{InstanceName, StreamName, Token};
use crate::replication::Consumer;
use crate::streams::Row;

/// Wakes every waiting sync whenever a position of this instance may have moved: by replication, as a [`Consumer`], or
/// by its own writes, as whoever makes them says. It tells nobody what is new: they look for themselves.
#[derive(Default)]
pub struct Notifier {
    moved: Notify,
}

impl Notifier {
    /// A position may have moved, or the instance is about to stop.
    pub fn notify(&self) {
        self.moved.notify_waiters();
    }

    /// Completes with the next [`notify`](Self::notify) after this call, even if it comes before the first poll: look
    /// only after having asked.
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
