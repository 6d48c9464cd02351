//! One connection as the command handler sees it: who is at the other end, what is to be sent to them, and how far
//! setting it up has come. How bytes get in and out is the transport's business.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::protocol::{Command, EncodeError, Framing, StreamName};

/// A peer with more commands than this waiting for it is dropped: it comes back and catches up from the source.
pub const COMMANDS_QUEUED_MAX: usize = 10_000;

/// How long a connection to a broker has to be without trouble before it counts as set up.
pub const QUIET_UNTIL_SET_UP: Duration = Duration::from_secs(5);

/// Which end of a connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// We connected: rows come in.
    Client,
    /// We accepted: rows go out.
    Server,
    /// We subscribed with a broker: everybody's rows come in, ours among them. Nothing is sent.
    Subscriber,
    /// We publish with a broker: our rows go out to everybody. Nothing comes in.
    Publisher,
}

impl Side {
    /// How commands are sent and come on such a connection.
    pub fn framing(self) -> Framing {
        match self {
            Side::Client | Side::Server => Framing::Lines,
            Side::Subscriber | Side::Publisher => Framing::Payloads,
        }
    }
}

/// One connection.
pub struct Link {
    id: u64,
    side: Side,
    peer: RefCell<String>,
    outbox: RefCell<VecDeque<Bytes>>,
    state: Cell<State>,
    changed: Notify,
    /// The outbox was emptied, or the connection takes no more.
    taken: Notify,
    last_sent: Cell<Instant>,
    /// The streams whose position has yet to be announced and caught up. Only for [`Side::Client`].
    awaited: RefCell<BTreeSet<StreamName>>,
    /// With a broker: what there is of the state of setting up.
    settling: Settling,
    was_set_up: Cell<bool>,
}

/// How far a connection to a broker has come. Nobody there says which positions will come, so what counts is that some
/// were asked for, that all that came are caught up with, and that there was no trouble for a while.
struct Settling {
    /// Whether what it was made for has been seen to work: our own `REPLICATE` came back, or the broker took something.
    works: Cell<bool>,
    /// Positions that came and are not yet caught up with.
    positions: Cell<usize>,
    /// When it began, or when something last went wrong.
    quiet_since: Cell<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// No more commands are taken; those in the outbox are still to be sent.
    Closing,
    Closed,
}

impl Link {
    /// A new connection to `peer`, which counts as set up once all of `awaited` are caught up.
    pub fn new(id: u64, side: Side, peer: impl Into<String>, awaited: BTreeSet<StreamName>) -> Self {
        Link {
            id,
            side,
            peer: RefCell::new(peer.into()),
            outbox: RefCell::default(),
            state: Cell::new(State::Open),
            changed: Notify::new(),
            taken: Notify::new(),
            last_sent: Cell::new(Instant::now()),
            awaited: RefCell::new(awaited),
            settling: Settling {
                works: Cell::new(false),
                positions: Cell::new(0),
                quiet_since: Cell::new(Instant::now()),
            },
            was_set_up: Cell::new(false),
        }
    }

    /// Distinguishes this connection from all others of its instance.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// What is known of the other end's name, for messages.
    pub fn peer(&self) -> String {
        self.peer.borrow().clone()
    }

    /// The other end has told its name.
    pub fn rename(&self, peer: &str) {
        *self.peer.borrow_mut() = peer.to_owned();
    }

    /// Puts a command into the outbox. Commands no line can carry are refused; on a connection that is closing, every
    /// command is dropped.
    pub fn send(&self, command: &Command) -> Result<(), EncodeError> {
        self.send_line(self.framing().encode(command)?);
        Ok(())
    }

    /// How commands are encoded that are sent here.
    pub fn framing(&self) -> Framing {
        self.side.framing()
    }

    /// Puts a line into the outbox that is encoded as [`framing`](Self::framing) says.
    pub fn send_line(&self, line: Bytes) {
        if self.state.get() != State::Open {
            return;
        }
        self.last_sent.set(Instant::now());
        self.outbox.borrow_mut().push_back(line);
        if self.outbox.borrow().len() > COMMANDS_QUEUED_MAX {
            self.outbox.borrow_mut().clear();
            self.close_with_error("Failed to keep up");
        }
        self.changed.notify_one();
    }

    /// Says why, and closes once everything in the outbox has been sent. A broker is not told: everybody would be.
    pub fn close_with_error(&self, why: &str) {
        if self.framing() == Framing::Payloads {
            return self.close();
        }
        // What a peer sent may be part of the reason: it must not be able to break the line or make it too long.
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
        self.taken.notify_waiters();
    }

    /// The transport is done with this connection.
    pub fn closed(&self) {
        self.state.set(State::Closed);
        self.outbox.borrow_mut().clear();
        self.changed.notify_one();
        self.taken.notify_waiters();
    }

    /// Whether the connection still takes commands.
    pub fn is_open(&self) -> bool {
        self.state.get() == State::Open
    }

    /// When a command was last put into the outbox.
    pub fn last_sent(&self) -> Instant {
        self.last_sent.get()
    }

    /// Waits for lines to send. `None` once the connection is to be closed and nothing is left. Cancel-safe.
    pub async fn outgoing(&self) -> Option<VecDeque<Bytes>> {
        loop {
            let lines = std::mem::take(&mut *self.outbox.borrow_mut());
            if !lines.is_empty() {
                self.taken.notify_waiters();
                return Some(lines);
            }
            if self.state.get() != State::Open {
                return None;
            }
            self.changed.notified().await;
        }
    }

    /// Waits until the transport has taken all that was to be sent, or the connection takes no more: whoever has
    /// much to say and waits for this now and then never has the peer dropped as too slow.
    pub async fn drained(&self) {
        while self.is_open() && !self.outbox.borrow().is_empty() {
            self.taken.notified().await;
        }
    }

    /// Waits until the connection takes no more.
    pub async fn over(&self) {
        while self.is_open() {
            self.taken.notified().await;
        }
    }

    /// The other end has greeted us. Tells whether that sets the connection up: it does where no stream is awaited.
    pub fn greeted(&self) -> bool {
        self.set_up_if_complete()
    }

    /// The position of `stream` has been announced on this connection, and this instance has caught up with it. Tells
    /// whether that sets the connection up.
    pub fn caught_up(&self, stream: &StreamName) -> bool {
        self.awaited.borrow_mut().remove(stream);
        self.set_up_if_complete()
    }

    /// What a connection to a broker was made for has been seen to work.
    pub fn works(&self) {
        self.settling.works.set(true);
    }

    /// Whether that was seen.
    pub fn is_working(&self) -> bool {
        self.settling.works.get()
    }

    /// A position came, which has yet to be caught up with.
    pub fn position_came(&self) {
        self.settling.positions.set(self.settling.positions.get() + 1);
    }

    /// It was caught up with, or no longer needs to be.
    pub fn position_done(&self) {
        self.settling.positions.set(self.settling.positions.get() - 1);
    }

    /// Something that came could not be dealt with, and is tried again.
    pub fn troubled(&self) {
        self.settling.quiet_since.set(Instant::now());
    }

    /// On a connection to a broker: tells whether it counts as set up from now on.
    pub fn settle(&self) -> bool {
        let Settling { works, positions, quiet_since } = &self.settling;
        let is_quiet = quiet_since.get().elapsed() >= QUIET_UNTIL_SET_UP;
        works.get() && positions.get() == 0 && is_quiet && !self.was_set_up.replace(true)
    }

    fn set_up_if_complete(&self) -> bool {
        if self.framing() == Framing::Payloads {
            return false; // see `settle`
        }
        let is_complete = self.awaited.borrow().is_empty();
        is_complete && !self.was_set_up.replace(true)
    }

    /// Whether the other end has greeted us, and every stream that it writes was announced and caught up with.
    pub fn was_set_up(&self) -> bool {
        self.was_set_up.get()
    }
}

#[cfg(test)]
mod tests;
