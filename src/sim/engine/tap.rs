//! The network witness.
//!
//! What the stack says of its own traffic never acquits it, so the engine itself tells what was dialled, sent and
//! received. A process that is killed is gagged first: nothing is told of what its drop handlers do.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use crate::env::Address;

/// A connection attempt of one process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt {
    /// Its number, counted over the whole run. The connection that comes of it keeps it.
    pub id: u64,
    /// Who dials.
    pub host: Arc<str>,
    /// Which boot of that host.
    pub boot: u64,
    /// Who is dialled.
    pub to: Address,
}

/// An attempt under way. Tells the tap how it ended, also when its future is dropped.
pub(super) struct Dialling<F: Fn() -> Option<Rc<dyn Tap>>> {
    attempt: Attempt,
    /// Who is to be told, as long as the process that dials has not ended.
    tap: F,
    told: bool,
}

impl<F: Fn() -> Option<Rc<dyn Tap>>> Dialling<F> {
    /// The attempt begins.
    pub fn begin(attempt: Attempt, tap: F) -> Self {
        if let Some(tap) = tap() {
            tap.connecting(&attempt);
        }
        Dialling { attempt, tap, told: false }
    }

    /// It ended like this.
    pub fn ended(mut self, result: Result<(), io::ErrorKind>) {
        self.tell(result);
    }

    fn tell(&mut self, result: Result<(), io::ErrorKind>) {
        self.told = true;
        if let Some(tap) = (self.tap)() {
            tap.connect_ended(&self.attempt, result);
        }
    }
}

impl<F: Fn() -> Option<Rc<dyn Tap>>> Drop for Dialling<F> {
    fn drop(&mut self) {
        if !self.told {
            self.tell(Err(io::ErrorKind::Interrupted));
        }
    }
}

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The end that dialled.
    Client,
    /// The end that accepted.
    Server,
}

/// One end of an established connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// [`Attempt::id`] of the attempt that made the connection.
    pub connection: u64,
    /// Which end this is.
    pub side: Side,
    /// Whose end it is.
    pub host: Arc<str>,
    /// Which boot of that host.
    pub boot: u64,
    /// The host at the other end.
    pub peer: Arc<str>,
    /// The server's port.
    pub port: u16,
}

/// Is told of all traffic, synchronously, at the simulated instant it happens.
///
/// Implementations must not call back into the engine.
pub trait Tap {
    /// A process dials.
    fn connecting(&self, _attempt: &Attempt) {}
    /// An attempt ended; [`io::ErrorKind::Interrupted`] if the application gave it up.
    fn connect_ended(&self, _attempt: &Attempt, _result: Result<(), io::ErrorKind>) {}
    /// An application accepted a connection.
    fn accepted(&self, _end: &End) {}
    /// The application at `end` has read `bytes`.
    fn read(&self, _end: &End, _bytes: &[u8]) {}
    /// The application at `end` has written `bytes`: its kernel took them, the peer may never see them.
    fn written(&self, _end: &End, _bytes: &[u8]) {}
    /// The application at `end` was told that its connection is over: by an error, or by the end of what it reads.
    fn ended(&self, _end: &End) {}
    /// The application at `end` dropped its stream.
    fn closed(&self, _end: &End) {}
}

/// Listens to nothing.
impl Tap for () {}
