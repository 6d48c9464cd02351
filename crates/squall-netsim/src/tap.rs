//! The tap: the observer of a simulation's traffic.
//!
//! A service's own report of its traffic may contain the defect, so the engine itself reports each dial, read and write.
//! A process that is killed is silenced first: the work of its drop handlers is not reported.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use squall_env::Address;

/// A connection attempt of one process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt {
    /// Its number, counted over the whole run. The resulting connection has the same number.
    pub id: u64,
    /// The host that dials.
    pub host: Arc<str>,
    /// The boot of that host.
    pub boot: u64,
    /// The address dialled.
    pub to: Address,
}

/// An attempt under way. Reports its end to the tap, also when its future is dropped.
pub(super) struct Dialling<F: Fn() -> Option<Rc<dyn Tap>>> {
    attempt: Attempt,
    /// Returns the tap, as long as the process that dials has not ended.
    tap: F,
    is_reported: bool,
}

impl<F: Fn() -> Option<Rc<dyn Tap>>> Dialling<F> {
    /// Begins the attempt and reports it.
    pub(crate) fn begin(attempt: Attempt, tap: F) -> Self {
        if let Some(tap) = tap() {
            tap.connecting(&attempt);
        }
        Dialling { attempt, tap, is_reported: false }
    }

    /// Ends the attempt with `result`.
    pub(crate) fn ended(mut self, result: Result<(), io::ErrorKind>) {
        self.report(result);
    }

    fn report(&mut self, result: Result<(), io::ErrorKind>) {
        self.is_reported = true;
        if let Some(tap) = (self.tap)() {
            tap.connect_ended(&self.attempt, result);
        }
    }
}

impl<F: Fn() -> Option<Rc<dyn Tap>>> Drop for Dialling<F> {
    fn drop(&mut self) {
        if !self.is_reported {
            self.report(Err(io::ErrorKind::Interrupted));
        }
    }
}

/// One of the two ends of a connection.
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
    /// The side of this end.
    pub side: Side,
    /// The host of this end.
    pub host: Arc<str>,
    /// The boot of that host.
    pub boot: u64,
    /// The host at the other end.
    pub peer: Arc<str>,
    /// The server's port.
    pub port: u16,
}

/// An observer of all traffic. The engine calls it synchronously, at the simulated instant of each event.
///
/// Every method does nothing unless implemented. An implementation must not call back into the engine.
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
    /// The application at `end` learned that its connection is over: it read an error or the end of the stream.
    fn ended(&self, _end: &End) {}
    /// The application at `end` dropped its stream.
    fn closed(&self, _end: &End) {}
}

/// Ignores everything.
impl Tap for () {}
