//! The recorder: it turns events of the network and the database into observations, and gives them to the judge.
//!
//! Nothing depends on reports of the stack itself. Commits come from the database wrapper, connections and lines from the simulated
//! network, and applied rows from a `Witness`, which is a consumer like any other component of a
//! homeserver.

use std::cell::{Cell, Ref, RefCell};
use std::io::{self, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::database::{CommittedRow, DatabaseTap, Fetched, InboxMessage, RareEnd, UniqueWrite};
use super::deployment::BROKER_PORT;
use super::input::Injected;
use super::wire::{self, Wire};
use crate::store::SOURCES;
use squall_judge::{self as judge, Client, Device, Judge, Line, Observation, SimTime};
use squall_netsim::{Attempt, End, Side, Tap, time};
use squall_protocol::rows::Row;
use squall_protocol::{Command, Header, InstanceName, Position, StreamName, UserSync};

/// The numbers that every verdict reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines read by the client ends of connections.
    pub commands: u64,
    /// Rows that took effect in the database.
    pub rows_committed: u64,
    /// Rows that were given to consumers, over all followers.
    pub rows_applied: u64,
}

/// The way of every observation to the judge, with its time.
pub(super) struct Recorder {
    started: Cell<Option<Duration>>,
    judge: RefCell<Judge>,
    /// Notified of each new violation.
    violated: Notify,
    counts: Cell<Counts>,
    /// The number of reads that clients began.
    reads: Cell<u64>,
    /// The decoded bytes of the connections.
    wire: RefCell<Wire>,
    /// Lines that were injected and not reported yet.
    injected: Injected,
    /// A copy of every observation, as text.
    trace: Option<RefCell<Box<dyn Write>>>,
}

impl Recorder {
    /// Creates a recorder for a run that has not started. It writes every observation to `trace` and ignores errors of
    /// that.
    pub(super) fn new(judge: Judge, trace: Option<Box<dyn Write>>) -> Rc<Self> {
        Rc::new(Recorder {
            started: Cell::new(None),
            judge: RefCell::new(judge),
            violated: Notify::new(),
            counts: Cell::default(),
            reads: Cell::new(0),
            wire: RefCell::default(),
            injected: Injected::default(),
            trace: trace.map(RefCell::new),
        })
    }

    /// Starts the run's time.
    pub(super) fn start(&self) {
        self.started.set(Some(time::elapsed()));
    }

    /// Returns the simulated time since the run began.
    pub(super) fn now(&self) -> SimTime {
        SimTime(self.started.get().map_or(0, |started| (time::elapsed() - started).as_millis() as u64))
    }

    /// Passes an observation to the judge, after the reports of injected lines that came before it.
    pub(super) fn observe(&self, observation: &Observation) {
        for line in self.injected.take() {
            self.judge_next(&line.into());
        }
        self.judge_next(observation);
    }

    fn judge_next(&self, observation: &Observation) {
        let now = self.now();
        if let Some(trace) = &self.trace {
            // An error of the trace does not end the run.
            let _ = writeln!(trace.borrow_mut(), "{now} {observation:?}");
        }
        let mut judge = self.judge.borrow_mut();
        let before = judge.violations().len();
        judge.observe(now, observation);
        if judge.violations().len() > before {
            self.violated.notify_one();
        }
    }

    /// Waits for a violation that has `fingerprint`.
    pub(super) async fn sees(&self, fingerprint: &str) {
        while !self.judge().has_seen(fingerprint) {
            self.violated.notified().await;
        }
    }

    /// Returns the judge of the run.
    pub(super) fn judge(&self) -> Ref<'_, Judge> {
        self.judge.borrow()
    }

    /// Returns the numbers so far.
    pub(super) fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// Returns the queue for lines that are injected.
    pub(super) fn injected(&self) -> Injected {
        self.injected.clone()
    }

    /// Returns the number of the next read of a client.
    pub(super) fn next_read(&self) -> u64 {
        let read = self.reads.get();
        self.reads.set(read + 1);
        read
    }

    /// Counts rows that a consumer was given.
    pub(super) fn count_applied(&self, rows: u64) {
        self.count(|counts| counts.rows_applied += rows);
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }
}

impl DatabaseTap for Recorder {
    fn committed(&self, row: CommittedRow) {
        self.count(|counts| counts.rows_committed += 1);
        let CommittedRow { stream, writer, token, row } = row;
        let row = parse_row(&stream, row);
        self.observe(&Observation::Committed { stream, writer, token, row });
    }

    fn unique_write(&self, UniqueWrite { place, words }: UniqueWrite) {
        self.observe(&Observation::TookEffect { place, words });
    }

    fn inbox_message(&self, message: InboxMessage) {
        let InboxMessage { token, user_id, device_id, message_id } = message;
        self.observe(&Observation::MessageLeft { client: Client { user_id, device_id }, token, message_id });
    }

    fn removed(&self, row: CommittedRow) {
        let CommittedRow { stream, writer, token, row } = row;
        let row = parse_row(&stream, row);
        self.observe(&Observation::Removed { stream, writer, token, row });
    }

    fn fetched(&self, Fetched { instance, transaction, rows }: Fetched) {
        let source = SOURCES.iter().find(|source| source.transaction == transaction);
        let stream = source.expect("rows are read by the transactions of streams").name.into();
        self.observe(&Observation::Fetched { instance, stream, rows });
    }

    fn rare_end(&self, end: RareEnd) {
        self.observe(&match end {
            RareEnd::LateCommit { instance } => Observation::LateCommit { instance },
            RareEnd::Fenced { instance } => Observation::Fenced { instance },
            RareEnd::AcknowledgementLost { instance } => Observation::AcknowledgementLost { instance },
        });
    }
}

fn parse_row(stream: &StreamName, row: serde_json::Value) -> Row {
    Row::parse(stream, row).expect("the database wrapper builds rows in the shape of their stream")
}

impl Tap for Recorder {
    fn connecting(&self, attempt: &Attempt) {
        if !wire::is_of_replication(attempt.to.port) {
            return;
        }
        let instance = InstanceName::from(Arc::clone(&attempt.host));
        let target = wire::target(&attempt.to);
        self.wire.borrow_mut().connecting(attempt.id, &target);
        self.observe(&Observation::Connecting { instance, target, attempt: attempt.id });
    }

    fn connect_ended(&self, attempt: &Attempt, result: Result<(), io::ErrorKind>) {
        if !wire::is_of_replication(attempt.to.port) {
            return;
        }
        let instance = InstanceName::from(Arc::clone(&attempt.host));
        self.observe(&match result {
            Ok(()) => Observation::Connected { instance, attempt: attempt.id },
            Err(_) => Observation::Failed { instance, attempt: attempt.id },
        });
    }

    fn read(&self, end: &End, bytes: &[u8]) {
        if !wire::is_of_replication(end.port) || end.side != Side::Client {
            return;
        }
        let wire::Read { lines, count, is_answered, has_pong } = self.wire.borrow_mut().read(end, bytes);
        self.count(|counts| counts.commands += count);
        let greeting = if end.port == BROKER_PORT { "REPLICATE" } else { "SERVER" };
        let mut has_greeted = false;
        let mut announced = Vec::new();
        // Most lines are rows, of which nothing is needed here.
        for line in lines.iter().filter(|line| !line.starts_with("RDATA ")) {
            match Header::peek(line) {
                // A broker sends every command back to its own sender too.
                Ok(Header::Position(position)) if position.writer.as_str() != &*end.host => announced.push(position),
                Ok(Header::Other { name }) if name == greeting => has_greeted = true,
                _ => {}
            }
        }
        let instance = InstanceName::from(Arc::clone(&end.host));
        let attempt = end.connection;
        if has_greeted || is_answered {
            self.observe(&Observation::Greeted { instance: instance.clone(), attempt });
        }
        if has_pong {
            self.observe(&Observation::Ponged { instance: instance.clone(), attempt });
        }
        for Position { stream, writer, prev, new: position } in announced {
            let instance = instance.clone();
            self.observe(&Observation::Announced { instance, attempt, stream, writer, prev, position });
        }
    }

    fn written(&self, end: &End, bytes: &[u8]) {
        if !wire::is_of_replication(end.port) {
            return;
        }
        let lines = self.wire.borrow_mut().written(end, bytes);
        let instance = InstanceName::from(Arc::clone(&end.host));
        let attempt = end.connection;
        let role = wire::role(end);
        for line in lines {
            let (line, command) = line.map_or((Line::Nonsense, None), |line| parse_line(&line, role));
            self.observe(&Observation::Wrote { instance: instance.clone(), attempt, role, line });
            let instance = instance.clone();
            let Some(command) = command else { continue };
            self.observe(&match command {
                Command::UserSync(UserSync { instance_id, user_id: user, device_id: device, is_syncing, .. }) => {
                    let device = Device { user, device };
                    Observation::SyncSaid { instance, attempt, instance_id, device, is_syncing }
                }
                Command::ClearUserSync(instance_id) => Observation::SyncsCleared { instance, attempt, instance_id },
                _ => Observation::GivenUp { instance, attempt },
            });
        }
    }

    fn ended(&self, end: &End) {
        if wire::is_of_replication(end.port) && end.side == Side::Client {
            self.observe(&Observation::GivenUp { instance: Arc::clone(&end.host).into(), attempt: end.connection });
        }
    }

    fn closed(&self, end: &End) {
        if !wire::is_of_replication(end.port) {
            return;
        }
        self.wire.borrow_mut().closed(end);
        if end.side == Side::Client {
            self.observe(&Observation::Closed { instance: Arc::clone(&end.host).into(), attempt: end.connection });
        }
    }
}

/// Parses a line for the judge. Returns the whole command too, if the judge needs more of it than its name.
fn parse_line(line: &str, role: judge::Role) -> (Line, Option<Command>) {
    let name = match Header::peek(line) {
        Ok(Header::Rdata(rdata)) => {
            let line = Line::Rdata { stream: rdata.stream.into(), writer: rdata.writer.into(), token: rdata.token };
            return (line, None);
        }
        Ok(Header::Position(Position { stream, writer, prev, new })) => {
            return (Line::Position { stream, writer, prev, new }, None);
        }
        Ok(Header::Other { name }) => Command::NAMES.iter().find(|known| **known == name),
        Err(_) => None,
    };
    let Some(name) = name else { return (Line::Nonsense, None) };
    let is_needed = role != judge::Role::Server && ["USER_SYNC", "CLEAR_USER_SYNC", "ERROR"].contains(name);
    let command = if is_needed { Command::parse(line).ok() } else { None };
    (Line::Other(name), command)
}
