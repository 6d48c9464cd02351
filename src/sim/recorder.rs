//! The storm's witnesses: they see what happens and tell the judge.
//!
//! None of them is the accused. What was committed comes from the database wrapper, what was attempted and announced
//! from the simulated network, and what a follower applied from a consumer that is registered on it as any part of a
//! homeserver would be.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::database::{DatabaseTap, Fetched, Rare};
use super::engine::{Attempt, End, Side, Tap, time};
use super::strangers::{Brought, Stranger};
use super::wire::{self, Wire};
use super::witness::{CommittedRow, LeftMessage, Said};
use super::world::BROKER_PORT;
use crate::caches::Cached;
use crate::env::Observer;
use crate::env::observer::Trouble;
use crate::judge::{self, Client, Device, Judge, Line, Moment, Observation};
use crate::protocol::{Command, Header, InstanceName, Position, StreamName, Token, UserSync};
use crate::replication::Consumer;
use crate::streams::{Row, SOURCES, TypingRow, typing};

/// Numbers every verdict reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines that a client end has read.
    pub commands: u64,
    /// Rows that took effect in the database.
    pub rows_committed: u64,
    /// Rows that consumers were told of, over all followers.
    pub rows_applied: u64,
}

/// Hands everything that is witnessed to the judge, with the time.
pub struct Recorder {
    started: Cell<Option<Duration>>,
    judge: RefCell<Judge>,
    /// Something new was violated.
    violated: Notify,
    counts: Cell<Counts>,
    /// Reads that clients began.
    reads: Cell<u64>,
    /// What goes over the connections.
    wire: RefCell<Wire>,
    /// What strange peers have brought, and the judge has to be told before anything else.
    brought: Brought,
    /// Where every observation is written to, for a person to read.
    trace: Option<RefCell<Box<dyn Write>>>,
}

impl Recorder {
    /// A recorder before the beginning of a run. It writes every observation to `trace`, as far as that can be written.
    pub fn new(judge: Judge, trace: Option<Box<dyn Write>>) -> Rc<Self> {
        Rc::new(Recorder {
            started: Cell::new(None),
            judge: RefCell::new(judge),
            violated: Notify::new(),
            counts: Cell::default(),
            reads: Cell::new(0),
            wire: RefCell::default(),
            brought: Brought::default(),
            trace: trace.map(RefCell::new),
        })
    }

    /// The run begins.
    pub fn start(&self) {
        self.started.set(Some(time::elapsed()));
    }

    /// Simulated time since the run began.
    pub fn now(&self) -> Moment {
        Moment(self.started.get().map_or(0, |started| (time::elapsed() - started).as_millis() as u64))
    }

    /// Tells the judge.
    pub fn observe(&self, observation: &Observation) {
        for Stranger { instance, target, stream } in self.brought.take() {
            self.tell(&Observation::Strange { instance, target, stream });
        }
        self.tell(observation);
    }

    fn tell(&self, observation: &Observation) {
        let now = self.now();
        if let Some(trace) = &self.trace {
            // The run matters more than its trace.
            let _ = writeln!(trace.borrow_mut(), "{now} {observation:?}");
        }
        let mut judge = self.judge.borrow_mut();
        let before = judge.violations().len();
        judge.observe(now, observation);
        if judge.violations().len() > before {
            self.violated.notify_one();
        }
    }

    /// Waits until something is violated in the way that `fingerprint` says.
    pub async fn sees(&self, fingerprint: &str) {
        while !self.judge().has_seen(fingerprint) {
            self.violated.notified().await;
        }
    }

    /// The judge, who has seen everything so far.
    pub fn judge(&self) -> std::cell::Ref<'_, Judge> {
        self.judge.borrow()
    }

    /// The numbers so far.
    pub fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// Where strange peers put what they bring.
    pub fn brought(&self) -> Brought {
        self.brought.clone()
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
        let row = Row::parse(&stream, row).expect("the wrapper builds rows of the stream's own shape");
        self.observe(&Observation::Committed { stream, writer, token, row });
    }

    fn said(&self, Said { place, words }: Said) {
        self.observe(&Observation::TookEffect { place, words });
    }

    fn left(&self, message: LeftMessage) {
        let LeftMessage { token, user_id, device_id, message_id } = message;
        self.observe(&Observation::MessageLeft { client: Client { user_id, device_id }, token, message_id });
    }

    fn removed(&self, row: CommittedRow) {
        let CommittedRow { stream, writer, token, row } = row;
        let row = Row::parse(&stream, row).expect("the wrapper builds rows of the stream's own shape");
        self.observe(&Observation::Removed { stream, writer, token, row });
    }

    fn fetched(&self, Fetched { instance, transaction, rows }: Fetched) {
        let source = SOURCES.iter().find(|source| source.transaction == transaction);
        let stream = source.expect("rows are read by the transactions of streams").name.into();
        self.observe(&Observation::Fetched { instance, stream, rows });
    }

    fn rare(&self, end: Rare) {
        self.observe(&match end {
            Rare::LateCommit { instance } => Observation::LateCommit { instance },
            Rare::Fenced { instance } => Observation::Fenced { instance },
            Rare::AcknowledgementLost { instance } => Observation::AcknowledgementLost { instance },
        });
    }
}

impl Tap for Recorder {
    fn connecting(&self, attempt: &Attempt) {
        if wire::is_of_replication(attempt.to.port) {
            let (instance, target) = (InstanceName::from(Arc::clone(&attempt.host)), wire::target(&attempt.to));
            self.wire.borrow_mut().connecting(attempt.id, &target);
            self.observe(&Observation::Connecting { instance, target, attempt: attempt.id });
        }
    }

    fn connect_ended(&self, attempt: &Attempt, result: Result<(), io::ErrorKind>) {
        if wire::is_of_replication(attempt.to.port) {
            let (instance, id) = (InstanceName::from(Arc::clone(&attempt.host)), attempt.id);
            self.observe(&match result {
                Ok(()) => Observation::Connected { instance, attempt: id },
                Err(_) => Observation::Failed { instance, attempt: id },
            });
        }
    }

    fn read(&self, end: &End, bytes: &[u8]) {
        if !wire::is_of_replication(end.port) || end.side != Side::Client {
            return;
        }
        let wire::Read { lines, count, is_answered, has_pong } = self.wire.borrow_mut().read(end, bytes);
        self.count(|counts| counts.commands += count);
        let (mut has_greeted, mut announced) = (false, Vec::new());
        let greeting = if end.port == BROKER_PORT { "REPLICATE" } else { "SERVER" };
        for line in &lines {
            match Header::peek(line) {
                // At a broker everybody hears what they have said themselves.
                Ok(Header::Position(position)) if position.writer.as_str() != &*end.host => announced.push(position),
                Ok(Header::Other { name }) if name == greeting => has_greeted = true,
                _ => {}
            }
        }
        let (instance, attempt) = (InstanceName::from(Arc::clone(&end.host)), end.connection);
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
        let said = self.wire.borrow_mut().written(end, bytes);
        let (instance, attempt) = (InstanceName::from(Arc::clone(&end.host)), end.connection);
        let side = wire::side(end);
        for line in said {
            let (line, command) = line.map_or((Line::Nonsense, None), |line| understood(&line, side));
            self.observe(&Observation::Wrote { instance: instance.clone(), attempt, side, line });
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

/// What a line says; and the whole command, if it is one that the judge wants to know more of.
fn understood(line: &str, side: judge::Side) -> (Line, Option<Command>) {
    let name = match Header::peek(line) {
        Ok(Header::Rdata(rdata)) => {
            let (stream, writer) = (rdata.stream.into(), rdata.writer.into());
            return (Line::Rdata { stream, writer, token: rdata.token }, None);
        }
        Ok(Header::Position(Position { stream, writer, prev, new })) => {
            return (Line::Position { stream, writer, prev, new }, None);
        }
        Ok(Header::Other { name }) => Command::NAMES.iter().find(|known| **known == name),
        Err(_) => None,
    };
    let Some(name) = name else { return (Line::Nonsense, None) };
    let is_wanted = side != judge::Side::Server && ["USER_SYNC", "CLEAR_USER_SYNC", "ERROR"].contains(name);
    (Line::Other(name), is_wanted.then(|| Command::parse(line).ok()).flatten())
}

/// The consumer that the storm registers on one boot of one instance. Once the boot is over it says nothing: what the
/// drop handlers of a killed process do is not to be taken for its deeds.
#[derive(Clone)]
pub struct Witness {
    instance: InstanceName,
    boot: u64,
    is_gagged: Rc<Cell<bool>>,
    recorder: Rc<Recorder>,
}

impl Witness {
    /// A witness of `instance`'s current boot.
    pub fn new(instance: InstanceName, boot: u64, is_gagged: Rc<Cell<bool>>, recorder: Rc<Recorder>) -> Self {
        Witness { instance, boot, is_gagged, recorder }
    }

    /// The typing handler of this instance, which writes the stream, has made a change.
    pub fn typing_changed(&self, token: Token, row: &TypingRow) {
        let (stream, writer, boot) = (typing::NAME.into(), self.instance.clone(), self.boot);
        self.say(|_| Observation::Changed { stream, writer, boot, token, row: Row::Typing(row.clone()) });
    }

    /// A client begins to sync, with this process.
    pub fn sync_began(&self, device: &Device) {
        let (boot, device) = (self.boot, device.clone());
        self.say(|instance| Observation::SyncBegan { instance, boot, device });
    }

    /// The client has ended its sync.
    pub fn sync_ended(&self, device: &Device) {
        let (boot, device) = (self.boot, device.clone());
        self.say(|instance| Observation::SyncEnded { instance, boot, device });
    }

    /// A client asks for `what`. Gives the number of its question.
    pub fn asked(&self, what: Cached) -> u64 {
        let read = self.recorder.reads.get();
        self.recorder.reads.set(read + 1);
        self.say(|instance| Observation::Asked { instance, read, what });
        read
    }

    /// The client that asked the question numbered `read` was answered.
    pub fn told(&self, read: u64, version: Option<Token>) {
        self.say(|instance| Observation::Told { instance, read, version });
    }

    /// A client was told that its write is done: `what` was changed by `writer`, under `token`.
    pub fn answered(&self, what: Cached, writer: &InstanceName, token: Token) {
        let writer = writer.clone();
        self.say(|instance| Observation::Answered { instance, what, writer, token });
    }

    /// The instance is made to say something that everybody is told.
    pub fn began(&self, command: &'static str) {
        self.say(|_| Observation::Began { command });
    }

    /// A client was told that its instance waited in vain for `writer`'s position.
    pub fn wait_timed_out(&self, stream: &StreamName, writer: &InstanceName, position: Token) {
        let (stream, writer) = (stream.clone(), writer.clone());
        self.say(|instance| Observation::WaitTimedOut { instance, stream, writer, position });
    }

    fn say(&self, what: impl FnOnce(InstanceName) -> Observation) {
        if !self.is_gagged.get() {
            self.recorder.observe(&what(self.instance.clone()));
        }
    }
}

/// Watches one boot of one instance: its tasks, from the scope in which they run, and what it says of its own work.
pub struct StackWitness {
    witness: Witness,
    /// The most of each name so far.
    most: RefCell<BTreeMap<&'static str, u64>>,
}

impl StackWitness {
    /// A witness of the same boot as `witness`.
    pub fn new(witness: Witness) -> Self {
        StackWitness { witness, most: RefCell::default() }
    }
}

impl Observer for StackWitness {
    /// Tells of each doubling: enough to see that there is no bound.
    fn task_started(&self, task: &'static str, running: u64) {
        let mut most = self.most.borrow_mut();
        let most = most.entry(task).or_default();
        if running >= (2 * *most).max(1) {
            *most = running;
            self.witness.say(|instance| Observation::Tasks { instance, task, running });
        }
    }

    fn trouble(&self, what: Trouble<'_>) {
        if let Trouble::Row { stream, .. } | Trouble::UnknownStream { stream } = what {
            let stream = stream.clone();
            self.witness.say(|instance| Observation::Reported { instance, stream });
        }
    }

    fn process_expired(&self, _users: usize) {
        self.witness.say(|instance| Observation::Expired { instance });
    }
}

impl Consumer for Witness {
    fn following(&self, stream: &StreamName, writer: &InstanceName, position: Token) {
        let (stream, writer) = (stream.clone(), writer.clone());
        self.say(|instance| Observation::Following { instance, stream, writer, position });
    }

    fn applied(&self, stream: &StreamName, writer: &InstanceName, token: Token, rows: &[Row]) {
        self.recorder.count(|counts| counts.rows_applied += rows.len() as u64);
        let (stream, writer, rows) = (stream.clone(), writer.clone(), rows.to_vec());
        self.say(|instance| Observation::Applied { instance, stream, writer, token, rows });
    }

    fn positioned(&self, stream: &StreamName, writer: &InstanceName, position: Token) {
        let (stream, writer) = (stream.clone(), writer.clone());
        self.say(|instance| Observation::Positioned { instance, stream, writer, position });
    }

    fn reset(&self, stream: &StreamName, writer: &InstanceName) {
        let (stream, writer) = (stream.clone(), writer.clone());
        self.say(|instance| Observation::Reset { instance, stream, writer, position: Token(0) });
    }
}
