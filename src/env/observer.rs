//! What the stack tells of its own work.
//!
//! These are an instance's own words: they explain a finding and feed metrics, but never acquit. The judge's evidence
//! comes from the database, the network and registered consumers instead.

use std::rc::Rc;
use std::time::Duration;

use crate::protocol::{InstanceName, StreamName};
use crate::replication::Side;

/// Receives an instance's account of its own work. Every method does nothing unless implemented.
pub trait Observer {
    /// A named background task began, and now `_running` of that name are under way.
    fn task_started(&self, _name: &'static str, _running: u64) {}
    /// A named background task ended after `took`.
    fn task_ended(&self, _name: &'static str, _took: Duration) {}
    /// Something went wrong that the instance will get over by itself (a failed catch-up, a refused connection).
    fn trouble(&self, _what: Trouble<'_>) {}
    /// A connection to `_target` is set up: every stream it writes has announced its position and is caught up.
    fn set_up(&self, _target: &str) {}
    /// Processes that served `_users` users have been silent for too long, and are taken for dead.
    fn process_expired(&self, _users: usize) {}
    /// A cache was to be invalidated that this instance does not have: another version of the program has it.
    fn unknown_cache(&self, _name: &str) {}
    /// A connection to `_target` is about to be tried.
    fn connecting(&self, _target: &str) {}
    /// There is a connection of which this is that end.
    fn opened(&self, _side: Side) {}
    /// It is no more.
    fn closed(&self, _side: Side) {}
    /// A command came in.
    fn received(&self, _command: &'static str) {}
    /// A line or a payload goes out: a command, with its name as the first word.
    fn sent(&self, _line: &[u8]) {}
    /// So many rows were fetched that `_writer` had written to `_stream`, as they had been missed.
    fn fetched(&self, _stream: &StreamName, _writer: &InstanceName, _rows: usize) {}
    /// A request over HTTP was answered with this status. The endpoint's name is empty if there is none at its path.
    fn answered(&self, _endpoint: &'static str, _status: u16) {}
}

/// Trouble an instance met and will try to get over.
#[derive(Debug, Clone)]
pub enum Trouble<'a> {
    /// Fetching missed rows failed; it will be tried again.
    CatchUp {
        /// The stream to be caught up.
        stream: &'a StreamName,
        /// Whose rows were asked for.
        writer: &'a InstanceName,
        /// Why it failed.
        error: &'a dyn std::error::Error,
    },
    /// Reading rows to send failed; it will be tried again.
    Streaming {
        /// The stream whose rows could not be read.
        stream: &'a StreamName,
        /// Why it failed.
        error: &'a dyn std::error::Error,
    },
    /// A connection ended or could not be made.
    Connection {
        /// The other end.
        peer: &'a str,
        /// Why it ended.
        error: &'a dyn std::error::Error,
    },
    /// A row could not be understood.
    Row {
        /// The stream it came on.
        stream: &'a StreamName,
        /// Why it could not be understood.
        error: &'a dyn std::error::Error,
    },
    /// A row or a position came of a stream that this version of the program does not have.
    UnknownStream {
        /// The stream.
        stream: &'a StreamName,
    },
}

/// Logs through `tracing`: trouble as warnings, the rest for whoever wants to know more.
#[derive(Debug, Clone, Copy, Default)]
pub struct Log;

impl Observer for Log {
    fn task_ended(&self, name: &'static str, took: Duration) {
        tracing::trace!(name, ?took, "task ended");
    }

    fn trouble(&self, what: Trouble<'_>) {
        match what {
            Trouble::CatchUp { stream, writer, error } => {
                tracing::warn!(%stream, %writer, %error, "catch-up failed; trying again");
            }
            Trouble::Streaming { stream, error } => {
                tracing::warn!(%stream, %error, "cannot read rows to send; trying again");
            }
            Trouble::Connection { peer, error } => tracing::warn!(peer, %error, "connection ended"),
            Trouble::Row { stream, error } => {
                tracing::warn!(%stream, %error, "a row that cannot be understood; fetching it from the source");
            }
            // As many as the stream has rows, and nothing that anybody here could do about it.
            Trouble::UnknownStream { stream } => tracing::debug!(%stream, "a stream that is not here; passed over"),
        }
    }

    fn set_up(&self, target: &str) {
        tracing::info!(target, "connection set up");
    }

    fn process_expired(&self, users: usize) {
        tracing::warn!(users, "processes that served users have been silent for too long");
    }

    fn unknown_cache(&self, name: &str) {
        tracing::debug!(name, "asked to invalidate a cache that is not here");
    }
}

/// Tells two observers, the first one first.
#[derive(Clone)]
pub struct Both(pub Rc<dyn Observer>, pub Rc<dyn Observer>);

impl Both {
    fn tell(&self, what: impl Fn(&dyn Observer)) {
        what(&*self.0);
        what(&*self.1);
    }
}

impl Observer for Both {
    fn task_started(&self, name: &'static str, running: u64) {
        self.tell(|observer| observer.task_started(name, running));
    }

    fn task_ended(&self, name: &'static str, took: Duration) {
        self.tell(|observer| observer.task_ended(name, took));
    }

    fn trouble(&self, what: Trouble<'_>) {
        self.tell(|observer| observer.trouble(what.clone()));
    }

    fn set_up(&self, target: &str) {
        self.tell(|observer| observer.set_up(target));
    }

    fn process_expired(&self, users: usize) {
        self.tell(|observer| observer.process_expired(users));
    }

    fn unknown_cache(&self, name: &str) {
        self.tell(|observer| observer.unknown_cache(name));
    }

    fn connecting(&self, target: &str) {
        self.tell(|observer| observer.connecting(target));
    }

    fn opened(&self, side: Side) {
        self.tell(|observer| observer.opened(side));
    }

    fn closed(&self, side: Side) {
        self.tell(|observer| observer.closed(side));
    }

    fn received(&self, command: &'static str) {
        self.tell(|observer| observer.received(command));
    }

    fn sent(&self, line: &[u8]) {
        self.tell(|observer| observer.sent(line));
    }

    fn fetched(&self, stream: &StreamName, writer: &InstanceName, rows: usize) {
        self.tell(|observer| observer.fetched(stream, writer, rows));
    }

    fn answered(&self, endpoint: &'static str, status: u16) {
        self.tell(|observer| observer.answered(endpoint, status));
    }
}

/// An observer that listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
