//! Whoever in a homeserver wants to know of replicated rows: the notifier, the pushers, a federation sender.

use std::cell::RefCell;
use std::rc::Rc;

use crate::protocol::{Command, InstanceName, StreamName, Token};
use crate::streams::Row;

/// Is told of what an instance learns by replication, always after it has been taken in and the position has moved.
/// Calls come in the order of each (stream, writer). Every method does nothing unless implemented.
pub trait Consumer {
    /// The instance begins to follow `writer`'s rows of `stream` after `position`.
    fn following(&self, _stream: &StreamName, _writer: &InstanceName, _position: Token) {}
    /// All rows of one token.
    fn applied(&self, _stream: &StreamName, _writer: &InstanceName, _token: Token, _rows: &[Row]) {}
    /// The position is now `position`, and there were no rows between the last one and it.
    fn positioned(&self, _stream: &StreamName, _writer: &InstanceName, _position: Token) {}
    /// `writer` started over: all its rows so far are void.
    fn reset(&self, _stream: &StreamName, _writer: &InstanceName) {}
    /// A command that is not about streams: a remote server is up again, a lock was released.
    fn heard(&self, _command: &Command) {}
}

/// All consumers of one instance.
#[derive(Clone, Default)]
pub struct Consumers {
    registered: Rc<RefCell<Vec<Rc<dyn Consumer>>>>,
}

impl Consumers {
    /// Adds a consumer, which is told of everything from now on.
    pub fn register(&self, consumer: Rc<dyn Consumer>) {
        self.registered.borrow_mut().push(consumer);
    }

    /// Tells every consumer, in the order of their registration.
    pub fn tell(&self, what: impl Fn(&dyn Consumer)) {
        for consumer in self.registered.borrow().iter() {
            what(&**consumer);
        }
    }
}
