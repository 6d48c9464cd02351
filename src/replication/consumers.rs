//! Callbacks for components that consume replicated rows: the notifier of waiting syncs, metrics, a federation sender.

use std::cell::RefCell;
use std::rc::Rc;

use squall_protocol::rows::Row;
use squall_protocol::{Command, InstanceName, StreamName, Token};

/// Receives what an instance learns by replication.
///
/// A call comes after the rows were applied and the position was moved. The calls for one (stream, writer) come in the
/// order of the rows. Every method does nothing unless implemented.
pub trait Consumer {
    /// The instance begins to follow `writer`'s rows of `stream` after `position`.
    fn following(&self, _stream: &StreamName, _writer: &InstanceName, _position: Token) {}
    /// All rows of one token were applied.
    fn applied(&self, _stream: &StreamName, _writer: &InstanceName, _token: Token, _rows: &[Row]) {}
    /// The position moved to `position`, and there are no rows between the last one and it.
    fn positioned(&self, _stream: &StreamName, _writer: &InstanceName, _position: Token) {}
    /// `writer` was restarted and began again: all its earlier rows are void.
    fn reset(&self, _stream: &StreamName, _writer: &InstanceName) {}
    /// A command arrived that concerns no stream: a remote server is up again, or a lock was released.
    fn command_received(&self, _command: &Command) {}
}

/// All consumers of one instance.
#[derive(Clone, Default)]
pub struct Consumers {
    registered: Rc<RefCell<Vec<Rc<dyn Consumer>>>>,
}

impl Consumers {
    /// Adds a consumer, which receives every call from now on.
    pub fn register(&self, consumer: Rc<dyn Consumer>) {
        self.registered.borrow_mut().push(consumer);
    }

    /// Runs `call` on every consumer, in the order of their registration.
    pub(super) fn notify(&self, call: impl Fn(&dyn Consumer)) {
        for consumer in self.registered.borrow().iter() {
            call(&**consumer);
        }
    }
}
