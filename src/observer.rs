//! An instance's reports about its own work, for logs and metrics.
//!
//! They explain a finding, but never acquit: the judge's evidence comes from the database, the network and registered
//! consumers instead.

mod limiter;
mod log;

use std::fmt::Display;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::limits::LimitHit;
use tokio::time::Instant;

use squall_env::{Noop, TaskKind, TaskObserver, TaskSpawner};
use squall_protocol::{InstanceName, Newer, Role, StreamName, Token};

pub use log::Log;

/// The surroundings of an instance.
pub type Env = squall_env::Env<dyn Observer>;

/// The surroundings of an instance that is a real process; see [`squall_env::Env::of_process`].
pub fn process_env(bind: IpAddr, observer: Rc<dyn Observer>) -> Env {
    let tasks = TaskSpawner::new(observer.clone());
    Env::of_process(bind, observer, tasks)
}

/// Receives an instance's reports about its own work. Every method does nothing unless implemented.
pub trait Observer: TaskObserver {
    /// Something went wrong from which the instance recovers by itself, such as a failed catch-up.
    fn event(&self, _event: InstanceEvent<'_>) {}
    /// The connection to `_target` is set up: every stream it carries has announced its position and is caught up.
    fn set_up(&self, _target: &str) {}
    /// Processes that served `_users` users were silent past their expiry.
    fn process_expired(&self, _users: usize) {}
    /// A row names a cache that this version of the program does not have.
    fn unknown_cache(&self, _name: &str) {}
    /// An attempt to connect to `_target` begins.
    fn connecting(&self, _target: &str) {}
    /// A connection in which this instance has `_role` was opened.
    fn opened(&self, _role: Role) {}
    /// A connection in which this instance had `_role` was closed.
    fn closed(&self, _role: Role) {}
    /// A command was received.
    fn received(&self, _command: &'static str) {}
    /// A line or a payload is being sent. Its first word is the name of the command.
    fn sent(&self, _line: &[u8]) {}
    /// `_rows` missed rows of `_writer` in `_stream` were fetched.
    fn fetched(&self, _stream: &StreamName, _writer: &InstanceName, _rows: usize) {}
    /// The position of `_writer`, which is this instance, in `_stream` waits for this write; `None` if for no one.
    fn outstanding(&self, _stream: &StreamName, _writer: &InstanceName, _oldest: Option<&OutstandingWrite>) {}
    /// The database can no longer be written, for this reason, or it can be written again.
    fn unwritable(&self, _reason: Option<&dyn Display>) {}
    /// The instance has hit one of its limits.
    fn limit_hit(&self, _limit: LimitHit) {}
    /// A request over HTTP was answered with this status. The endpoint's name is empty if no endpoint has the path.
    fn answered(&self, _endpoint: &'static str, _status: u16) {}
}

/// A problem from which an instance recovers by itself.
#[derive(Debug, Clone)]
pub enum InstanceEvent<'a> {
    /// Fetching missed rows failed; the instance retries.
    CatchUp {
        /// The stream to be caught up.
        stream: &'a StreamName,
        /// The writer of the missed rows.
        writer: &'a InstanceName,
        /// The cause.
        error: &'a dyn std::error::Error,
    },
    /// Reading rows to send failed; the instance retries.
    Streaming {
        /// The stream whose rows could not be read.
        stream: &'a StreamName,
        /// The cause.
        error: &'a dyn std::error::Error,
    },
    /// A connection ended or could not be made.
    Connection {
        /// The other end.
        peer: &'a str,
        /// The cause.
        error: &'a dyn std::error::Error,
    },
    /// A row has a shape that this version of the program does not know.
    Row {
        /// The stream of the row.
        stream: &'a StreamName,
        /// The part that does not fit.
        error: &'a dyn std::error::Error,
    },
    /// The database is not that of the deployment, so nothing was written.
    ForeignDatabase {
        /// The stream that was to be written.
        stream: &'a StreamName,
        /// The evidence.
        error: &'a dyn std::error::Error,
    },
    /// A row or a position has a token that the database has not allocated, or that its writer, which holds its rows in memory,
    /// does not have. It is ignored.
    NotAllocated {
        /// The stream.
        stream: &'a StreamName,
        /// The writer, as the line says.
        writer: &'a InstanceName,
        /// The token.
        token: Token,
    },
    /// A process announced a syncing user, and as many are remembered as may be. The announcement is ignored.
    AnnouncementIgnored {
        /// The id of the process, as it says.
        process: &'a str,
    },
    /// A row or a position belongs to a stream that this version of the program does not have.
    UnknownStream {
        /// The stream.
        stream: &'a StreamName,
    },
    /// A command is of a newer version of the protocol. Reported once for each kind and connection.
    NewerCommand {
        /// The other end of the connection on which it arrived.
        peer: &'a str,
        /// The part that this version does not know.
        newer: &'a Newer,
    },
    /// A row or a position is of a writer that the configuration does not name. It is ignored.
    UnknownWriter {
        /// The stream.
        stream: &'a StreamName,
        /// The writer.
        writer: &'a InstanceName,
        /// True for the first one of this writer and stream.
        is_first: bool,
    },
    /// The database has the position of a writer that the configuration does not name. It is ignored.
    UnclaimedPosition {
        /// The stream.
        stream: &'a StreamName,
        /// The writer.
        writer: &'a InstanceName,
    },
}

/// A write whose ids are outstanding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutstandingWrite {
    /// The time at which it began.
    pub since: Instant,
    /// The lowest of its ids; `None` if the database has not allocated it yet.
    pub token: Option<Token>,
    /// The name of its transaction.
    pub operation: &'static str,
}

/// Reports to two observers, the first one first.
#[derive(Clone)]
pub struct Tee(pub Rc<dyn Observer>, pub Rc<dyn Observer>);

impl Tee {
    fn both(&self, report: impl Fn(&dyn Observer)) {
        report(&*self.0);
        report(&*self.1);
    }
}

impl TaskObserver for Tee {
    fn task_started(&self, kind: TaskKind, running: u64) {
        self.both(|observer| observer.task_started(kind, running));
    }

    fn task_ended(&self, kind: TaskKind, took: Duration) {
        self.both(|observer| observer.task_ended(kind, took));
    }
}

impl Observer for Tee {
    fn event(&self, event: InstanceEvent<'_>) {
        self.both(|observer| observer.event(event.clone()));
    }

    fn set_up(&self, target: &str) {
        self.both(|observer| observer.set_up(target));
    }

    fn process_expired(&self, users: usize) {
        self.both(|observer| observer.process_expired(users));
    }

    fn unknown_cache(&self, name: &str) {
        self.both(|observer| observer.unknown_cache(name));
    }

    fn connecting(&self, target: &str) {
        self.both(|observer| observer.connecting(target));
    }

    fn opened(&self, role: Role) {
        self.both(|observer| observer.opened(role));
    }

    fn closed(&self, role: Role) {
        self.both(|observer| observer.closed(role));
    }

    fn received(&self, command: &'static str) {
        self.both(|observer| observer.received(command));
    }

    fn sent(&self, line: &[u8]) {
        self.both(|observer| observer.sent(line));
    }

    fn fetched(&self, stream: &StreamName, writer: &InstanceName, rows: usize) {
        self.both(|observer| observer.fetched(stream, writer, rows));
    }

    fn outstanding(&self, stream: &StreamName, writer: &InstanceName, oldest: Option<&OutstandingWrite>) {
        self.both(|observer| observer.outstanding(stream, writer, oldest));
    }

    fn unwritable(&self, reason: Option<&dyn Display>) {
        self.both(|observer| observer.unwritable(reason));
    }

    fn limit_hit(&self, limit: LimitHit) {
        self.both(|observer| observer.limit_hit(limit));
    }

    fn answered(&self, endpoint: &'static str, status: u16) {
        self.both(|observer| observer.answered(endpoint, status));
    }
}

impl Observer for Noop {}
