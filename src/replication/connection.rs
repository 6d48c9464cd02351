//! One connection as the command handler sees it: its peer, its outbox, and the progress of setting it up. The
//! transport reads and writes the bytes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::{COMMANDS_QUEUED_MAX, LimitHit};
use crate::observer::Observer;
use squall_env::Noop;
use squall_protocol::{Command, EncodeError, Framing, Newer, Role, StreamName};

/// Time without a failure after which a connection to a broker counts as set up.
pub const QUIET_UNTIL_SET_UP: Duration = Duration::from_secs(5);

/// The part of an outbox's limit above which it is crowded. A follower of a writer that fills its outbox only so far is never
/// dropped in a burst, and has enough to read until the writer's next turn.
const CROWDED_PART: usize = 20;

/// Number of kinds of commands of a newer version that are remembered, and reported, for each connection.
pub const NEWER_KINDS_MAX: usize = 100;

/// One connection of an instance to a peer or to the broker.
pub struct Connection {
    id: u64,
    role: Role,
    peer: RefCell<String>,
    outbox: RefCell<VecDeque<Bytes>>,
    /// Largest number of commands in the outbox.
    commands_queued_max: usize,
    /// True if the outbox was not emptied while a streamer waited for that. Until it is, none waits again.
    is_stuck: Cell<bool>,
    /// True once the instance stops. Then an overflow discards nothing.
    is_finishing: Cell<bool>,
    /// The observer of a full outbox.
    observer: Rc<dyn Observer>,
    state: Cell<State>,
    /// Wakes the transport: there is something to send, or the connection is to be closed.
    changed: Notify,
    /// Wakes the senders: the outbox was emptied, or the connection accepts no more commands.
    emptied: Notify,
    last_sent: Cell<Instant>,
    /// The streams whose position has yet to be announced and caught up with. Only for [`Role::Client`].
    awaited: RefCell<BTreeSet<StreamName>>,
    /// The kinds of commands of a newer version that have arrived: the names, and true where a known command had more
    /// arguments.
    newer_kinds: RefCell<BTreeSet<(String, bool)>>,
    /// The progress of setting up a connection to a broker.
    broker: BrokerProgress,
    was_set_up: Cell<bool>,
}

/// The progress of setting up a connection to a broker.
///
/// A broker does not say which positions will arrive. So three conditions count instead: the connection has been seen
/// to work, every position that arrived is caught up with, and there was no failure for [`QUIET_UNTIL_SET_UP`].
struct BrokerProgress {
    /// True once a `REPLICATE` arrived on a subscription, or once the broker accepted a published message.
    is_working: Cell<bool>,
    /// Number of positions that arrived and are not yet caught up with.
    positions_pending: Cell<usize>,
    /// Time at which the connection was made, or of the last failure.
    quiet_since: Cell<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// No more commands are accepted; those in the outbox are still to be sent.
    Closing,
    Closed,
}

impl Connection {
    /// Returns a new connection to `peer`, which counts as set up once the streams in `awaited` are caught up with.
    pub fn new(id: u64, role: Role, peer: impl Into<String>, awaited: BTreeSet<StreamName>) -> Self {
        Connection {
            id,
            role,
            peer: RefCell::new(peer.into()),
            outbox: RefCell::default(),
            commands_queued_max: COMMANDS_QUEUED_MAX,
            is_stuck: Cell::new(false),
            is_finishing: Cell::new(false),
            observer: Rc::new(Noop),
            state: Cell::new(State::Open),
            changed: Notify::new(),
            emptied: Notify::new(),
            last_sent: Cell::new(Instant::now()),
            awaited: RefCell::new(awaited),
            newer_kinds: RefCell::default(),
            broker: BrokerProgress {
                is_working: Cell::new(false),
                positions_pending: Cell::new(0),
                quiet_since: Cell::new(Instant::now()),
            },
            was_set_up: Cell::new(false),
        }
    }

    /// Returns the connection with an outbox of at most `commands_queued_max` commands. A full one is reported to
    /// `observer`.
    pub fn with_outbox(self, commands_queued_max: usize, observer: Rc<dyn Observer>) -> Self {
        Connection { commands_queued_max, observer, ..self }
    }

    /// Returns the largest number of commands in the outbox.
    pub fn commands_queued_max(&self) -> usize {
        self.commands_queued_max
    }

    /// Returns the connection's id, unique within its instance.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the end of the connection that this instance holds.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns the peer's name, as far as it is known. For messages.
    pub fn peer(&self) -> String {
        self.peer.borrow().clone()
    }

    /// Sets the peer's name, which it sent in `NAME`.
    pub fn rename(&self, peer: &str) {
        *self.peer.borrow_mut() = peer.to_owned();
    }

    /// Puts a command into the outbox. On a connection that is closing, the command is dropped.
    ///
    /// # Errors
    /// The command does not fit a line.
    pub fn send(&self, command: &Command) -> Result<(), EncodeError> {
        self.send_line(self.framing().encode(command)?);
        Ok(())
    }

    /// Puts the last command of this instance into the outbox, also if the connection is closing already: an overflow may have
    /// closed it just before the instance stops, and no later connection repeats the command (seed 1001015 of `redis_swarm`).
    ///
    /// # Errors
    /// The command does not fit a line.
    pub fn send_last(&self, command: &Command) -> Result<(), EncodeError> {
        if self.state.get() != State::Closing {
            return self.send(command);
        }
        self.outbox.borrow_mut().push_back(self.framing().encode(command)?);
        self.changed.notify_one();
        Ok(())
    }

    /// Keeps everything in the outbox from now on, because the instance stops: `CLEAR_USER_SYNC` will be there, and no later
    /// connection can repeat it (seed 9110 of `redis_swarm`). The outbox may become twice as long. After that the connection
    /// sends what it has, and accepts no more.
    pub fn begin_finishing(&self) {
        self.is_finishing.set(true);
    }

    /// Returns the encoding of commands on this connection.
    pub fn framing(&self) -> Framing {
        self.role.framing()
    }

    /// Puts an encoded command into the outbox. Its encoding must be that of [`framing`](Self::framing).
    pub(super) fn send_line(&self, line: Bytes) {
        self.send_lines(&[line]);
    }

    /// Puts encoded commands into the outbox, as [`send_line`](Self::send_line) does one by one.
    pub(super) fn send_lines(&self, lines: &[Bytes]) {
        if self.state.get() != State::Open || lines.is_empty() {
            return;
        }
        self.last_sent.set(Instant::now());
        let queued_max = if self.is_finishing.get() { 2 * self.commands_queued_max } else { self.commands_queued_max };
        let mut outbox = self.outbox.borrow_mut();
        // One more than there may be is an overflow, and what follows it is lost in any case.
        let taken = lines.len().min((queued_max + 1).saturating_sub(outbox.len()));
        outbox.extend(lines[..taken].iter().cloned());
        let overflows = outbox.len() > queued_max;
        drop(outbox);
        if overflows {
            self.observer.limit_hit(LimitHit::OutboxOverflowed);
            if self.is_finishing.get() {
                return self.close();
            }
            self.outbox.borrow_mut().clear();
            self.close_with_error("Failed to keep up");
        }
        self.changed.notify_one();
    }

    /// Sends `ERROR` with the reason `why`, and closes once everything in the outbox has been sent. To a broker no
    /// `ERROR` is sent, because every instance would receive it.
    pub fn close_with_error(&self, why: &str) {
        if self.framing() == Framing::Payloads {
            return self.close();
        }
        // The reason may quote the peer's input, which must not break the line or exceed its limit.
        let text: String = why.chars().filter(|c| !c.is_control()).take(500).collect();
        if self.send(&Command::Error(text)).is_err() {
            debug_assert!(false, "a short text without line breaks fits a line");
        }
        self.close();
    }

    /// Closes once everything in the outbox has been sent.
    pub fn close(&self) {
        if self.state.get() == State::Open {
            self.state.set(State::Closing);
        }
        self.changed.notify_one();
        self.emptied.notify_waiters();
    }

    /// Marks the connection as closed by the transport, and discards the outbox.
    pub fn closed(&self) {
        self.state.set(State::Closed);
        self.outbox.borrow_mut().clear();
        self.changed.notify_one();
        self.emptied.notify_waiters();
    }

    /// Returns true if the connection still accepts commands.
    pub fn is_open(&self) -> bool {
        self.state.get() == State::Open
    }

    /// Returns the time at which a command was last put into the outbox.
    pub fn last_sent(&self) -> Instant {
        self.last_sent.get()
    }

    /// Notes that a command of a newer version arrived. Returns true for the first one of its kind.
    pub(super) fn is_new(&self, newer: &Newer) -> bool {
        let mut kinds = self.newer_kinds.borrow_mut();
        kinds.len() < NEWER_KINDS_MAX && kinds.insert((newer.name().to_owned(), matches!(newer, Newer::Arguments(_))))
    }

    /// Waits for encoded commands to send. Returns none once the connection is to be closed and the outbox is empty.
    /// Cancel-safe.
    pub async fn outgoing(&self) -> Option<VecDeque<Bytes>> {
        loop {
            let lines = std::mem::take(&mut *self.outbox.borrow_mut());
            if !lines.is_empty() {
                self.is_stuck.set(false);
                self.emptied.notify_waiters();
                return Some(lines);
            }
            if self.state.get() != State::Open {
                return None;
            }
            self.changed.notified().await;
        }
    }

    /// Waits until the outbox is empty or the connection accepts no more commands. A caller with many commands that
    /// waits for this between parts of them never exceeds the outbox's limit.
    pub async fn drained(&self) {
        while self.is_open() && !self.outbox.borrow().is_empty() {
            self.emptied.notified().await;
        }
    }

    /// Returns true if so many commands wait that a sender of many should wait for the peer. A peer for which one has waited in
    /// vain is not waited for.
    pub(super) fn is_crowded(&self) -> bool {
        let is_waited_for = self.is_open() && !self.is_stuck.get();
        is_waited_for && self.outbox.borrow().len() > self.commands_queued_max / CROWDED_PART
    }

    /// Waits until the outbox is not crowded.
    pub(super) async fn has_room(&self) {
        while self.is_crowded() {
            self.emptied.notified().await;
        }
    }

    /// Notes that a sender waited in vain, if the outbox is still crowded.
    pub(super) fn waited_in_vain(&self) {
        if self.is_crowded() {
            self.is_stuck.set(true);
        }
    }

    /// Waits until the connection accepts no more commands.
    pub async fn over(&self) {
        while self.is_open() {
            self.emptied.notified().await;
        }
    }

    /// Notes that the peer sent its greeting. Returns true if the connection is set up by that, which is the case where
    /// no stream is awaited.
    pub fn greeted(&self) -> bool {
        self.set_up_if_complete()
    }

    /// Notes that the position of `stream` was announced on this connection and that this instance has caught up with
    /// it. Returns true if the connection is set up by that.
    pub fn caught_up(&self, stream: &StreamName) -> bool {
        self.awaited.borrow_mut().remove(stream);
        self.set_up_if_complete()
    }

    /// Notes that a connection to a broker has been seen to carry messages.
    pub fn mark_working(&self) {
        self.broker.is_working.set(true);
    }

    /// Returns true if the connection to a broker has been seen to carry messages.
    pub fn is_working(&self) -> bool {
        self.broker.is_working.get()
    }

    /// Notes that a position arrived which has yet to be caught up with.
    pub(super) fn position_pending(&self) {
        self.broker.positions_pending.set(self.broker.positions_pending.get() + 1);
    }

    /// Notes that a pending position was caught up with, or no longer needs to be.
    pub(super) fn position_handled(&self) {
        self.broker.positions_pending.set(self.broker.positions_pending.get() - 1);
    }

    /// Notes that catching up failed and will be retried.
    pub(super) fn catch_up_failed(&self) {
        self.broker.quiet_since.set(Instant::now());
    }

    /// Returns true if a connection to a broker counts as set up from now on: once, when its conditions are first met.
    pub fn settle(&self) -> bool {
        let BrokerProgress { is_working, positions_pending, quiet_since } = &self.broker;
        let is_quiet = quiet_since.get().elapsed() >= QUIET_UNTIL_SET_UP;
        is_working.get() && positions_pending.get() == 0 && is_quiet && !self.was_set_up.replace(true)
    }

    fn set_up_if_complete(&self) -> bool {
        if self.framing() == Framing::Payloads {
            return false; // see `settle`
        }
        let is_complete = self.awaited.borrow().is_empty();
        is_complete && !self.was_set_up.replace(true)
    }

    /// Returns true if the connection was set up: the peer sent its greeting, and every stream that it writes was
    /// announced and caught up with. On a connection to a broker, see [`settle`](Self::settle).
    pub fn was_set_up(&self) -> bool {
        self.was_set_up.get()
    }
}

#[cfg(test)]
mod tests;
