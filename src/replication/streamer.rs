//! Sends the rows that this instance writes. Each stream has a streamer of its own.
//!
//! A streamer is poked when its stream moved. It reads the new rows and puts them into the outbox of every connection
//! that sent `REPLICATE`. The same task announces positions, so a position and the rows around it are sent in order. A
//! streamer that cannot read its rows retries, and delays no other streamer.
//!
//! **A position never hides a row.** A follower fetches what it lacks unless `prev <= its position <= new`. So the
//! streamer sends `POSITION prev new` with `prev < new` only where the stream has just reported no row in between.
//! Wherever that is not certain it sends `POSITION now now`, which makes every follower that is behind catch up.
//!
//! Before each read the streamer waits for room in the outboxes, so that a follower that keeps up is not dropped in a burst.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{Backoff, Connection};
use crate::observer::Env;
use crate::observer::InstanceEvent;
use crate::streams::{Stream, UpdateError};
use squall_protocol::rows::{Row, Updates};
use squall_protocol::{Command, Framing, InstanceName, Position, Role, StreamName, Token};

/// Interval at which each stream's position is announced, whether or not rows are written.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest interval between announcements of a position that moved only by other writers' rows (Synapse #8499).
pub const IDLE_ANNOUNCEMENT_INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait for a peer whose outbox is crowded. A peer that has stopped reading holds up the others once for so long. Then
/// its outbox overflows, and it is dropped.
const ROOM_TIMEOUT: Duration = Duration::from_millis(100);

/// Sends this instance's rows of one stream.
pub struct Streamer {
    stream: Rc<dyn Stream>,
    /// This instance, the writer of the rows.
    writer: InstanceName,
    env: Env,
    poked: Notify,
    /// Connections that sent `REPLICATE` and have not been answered yet.
    asking: RefCell<Vec<Rc<Connection>>>,
    /// Connections that know the position and receive everything after it.
    following: RefCell<Vec<Rc<Connection>>>,
    /// The position up to which rows have been sent.
    sent_upto: watch::Sender<Token>,
    /// Time of the last announcement of a position that only other writers had moved.
    announced_idle: Cell<Instant>,
}

impl Streamer {
    /// Returns a streamer of `writer`'s rows of `stream`. The caller must spawn its [`run`](Self::run).
    pub(super) fn new(stream: Rc<dyn Stream>, writer: InstanceName, env: Env) -> Self {
        let sent_upto = stream.position(&writer);
        Streamer {
            stream,
            writer,
            env,
            poked: Notify::new(),
            asking: RefCell::default(),
            following: RefCell::default(),
            sent_upto: watch::Sender::new(sent_upto),
            announced_idle: Cell::new(Instant::now()),
        }
    }

    /// Returns true if this streamer sends the rows of `stream`.
    pub(super) fn sends(&self, stream: &Rc<dyn Stream>) -> bool {
        Rc::ptr_eq(&self.stream, stream)
    }

    /// Makes the streamer look for new rows.
    pub fn poke(&self) {
        self.poked.notify_one();
    }

    /// Sends `connection` the position, and everything after it. Over a broker every instance receives every `REPLICATE`
    /// and every answer, so all requests before the answer share one (Synapse #16640).
    pub(super) fn announce_to(&self, connection: &Rc<Connection>) {
        let mut asking = self.asking.borrow_mut();
        let is_for_all = connection.role() == Role::Publisher;
        if !(is_for_all && asking.iter().any(|known| known.id() == connection.id())) {
            asking.push(Rc::clone(connection));
            self.poked.notify_one();
        }
    }

    /// Waits until all rows that this instance has written so far are in the outboxes.
    pub(super) async fn written_is_sent(&self) {
        let written = self.stream.written_upto(&self.writer);
        let _ = self.sent_upto.subscribe().wait_for(|sent| *sent >= written).await;
    }

    /// Sends rows and positions, for ever.
    pub(super) async fn run(self: Rc<Self>) {
        let mut backoff = Backoff::new(&self.env.seeds.child("streamer").child(self.stream.name()));
        let mut heartbeat = Instant::now() + HEARTBEAT_INTERVAL;
        loop {
            let wake_at = match self.send_news().await {
                Ok(quiet_until) => {
                    backoff.reset();
                    quiet_until.map_or(heartbeat, |at| at.min(heartbeat))
                }
                Err(error) => {
                    self.env.observer.event(InstanceEvent::Streaming { stream: self.stream.name(), error: &*error });
                    (Instant::now() + backoff.next_delay()).min(heartbeat)
                }
            };
            // After a poke and after the time-out the streamer does the same: it looks for new rows.
            let _ = tokio::time::timeout_at(wake_at, self.poked.notified()).await;
            if Instant::now() >= heartbeat {
                heartbeat = Instant::now() + HEARTBEAT_INTERVAL;
                let now = *self.sent_upto.borrow();
                self.broadcast_position(now, now);
            }
        }
    }

    /// Sends all new rows. Returns the time at which to look again without a poke, if there is one.
    async fn send_news(&self) -> Result<Option<Instant>, UpdateError> {
        loop {
            self.answer_requests();
            self.following.borrow_mut().retain(|connection| connection.is_open());
            let sent = *self.sent_upto.borrow();
            let current = self.stream.position(&self.writer);
            if sent >= current {
                return Ok(None);
            }
            if self.following.borrow().is_empty() {
                // A new connection will receive the position of that time, and its follower fetches everything up to it.
                self.sent_upto.send_replace(current);
                return Ok(None);
            }
            if sent >= self.stream.written_upto(&self.writer) {
                // No row of this instance in between: only other writers have moved the position.
                let due = self.announced_idle.get() + IDLE_ANNOUNCEMENT_INTERVAL;
                if Instant::now() < due {
                    return Ok(Some(due));
                }
                self.announced_idle.set(Instant::now());
                self.broadcast_position(sent, current);
                self.sent_upto.send_replace(current);
                continue;
            }
            if sent < self.stream.forgotten_upto() {
                // A row that was to be sent is gone. Followers fetch everything.
                self.broadcast_position(current, current);
                self.sent_upto.send_replace(current);
                continue;
            }
            if self.waits_for_room().await {
                // Meanwhile everything may have changed.
                continue;
            }
            let updates = self.stream.updates(&self.writer, sent, current).await?;
            self.broadcast(sent, &updates);
            self.sent_upto.send_replace(updates.upto);
        }
    }

    /// Waits until no outbox is crowded, so that a burst of rows overflows none whose peer reads. Returns false if none was.
    async fn waits_for_room(&self) -> bool {
        let crowded: Vec<_> = self.following.borrow().iter().filter(|peer| peer.is_crowded()).cloned().collect();
        if crowded.is_empty() {
            return false;
        }
        let have_room = async {
            for connection in &crowded {
                connection.has_room().await;
            }
        };
        if tokio::time::timeout(ROOM_TIMEOUT, have_room).await.is_err() {
            crowded.iter().for_each(|connection| connection.waited_in_vain());
        }
        true
    }

    /// Sends the position to the connections that asked for it, before any row after it.
    fn answer_requests(&self) {
        let now = *self.sent_upto.borrow();
        for connection in self.asking.borrow_mut().drain(..) {
            if !connection.is_open() {
                continue;
            }
            let mut following = self.following.borrow_mut();
            self.send_position(std::slice::from_ref(&connection), now, now);
            if !following.iter().any(|known| known.id() == connection.id()) {
                following.push(connection);
            }
        }
    }

    fn broadcast(&self, from: Token, updates: &Updates) {
        // All connections of an instance have the same framing.
        let Some(framing) = self.following.borrow().first().map(|connection| connection.framing()) else { return };
        let batch = encode(framing, self.stream.name(), &self.writer, &updates.rows);
        for connection in self.following.borrow().iter() {
            connection.send_lines(&batch.lines);
        }
        if batch.has_all_rows {
            let last = updates.rows.last().map_or(from, |(token, _)| *token);
            if last < updates.upto {
                self.broadcast_position(last, updates.upto);
            }
        } else {
            self.broadcast_position(updates.upto, updates.upto);
        }
    }

    fn broadcast_position(&self, prev: Token, new: Token) {
        self.send_position(&self.following.borrow(), prev, new);
    }

    fn send_position(&self, connections: &[Rc<Connection>], prev: Token, new: Token) {
        let stream = self.stream.name().clone();
        let writer = self.writer.clone();
        let position = Command::Position(Position { stream, writer, prev, new });
        for connection in connections {
            connection.send(&position).expect("configured names are short and have no line breaks");
        }
    }
}

/// Rows encoded as lines.
struct Batch {
    /// Parts of one allocation, which all connections share.
    lines: Vec<Bytes>,
    /// True if every row is among the lines. Rows are missing if one is too long for a line.
    has_all_rows: bool,
}

/// Encodes rows as `RDATA` lines. Of the rows that share a token only the last carries it, so that they arrive as one.
///
/// A row that is too long for a line ends the batch before that row's token, so no row of that token is sent (Synapse
/// #4748).
fn encode(framing: Framing, stream: &StreamName, writer: &InstanceName, rows: &[(Token, Row)]) -> Batch {
    let mut bytes = Vec::new();
    let mut ends = Vec::with_capacity(rows.len());
    let mut whole_tokens = 0;
    let mut has_all_rows = true;
    for (index, (token, row)) in rows.iter().enumerate() {
        let is_last_of_token = rows.get(index + 1).is_none_or(|(next, _)| next != token);
        let carried = is_last_of_token.then_some(*token);
        match framing.encode_row(stream, writer, carried, row, &mut bytes) {
            Ok(()) => ends.push(bytes.len()),
            Err(_too_long) => {
                ends.truncate(whole_tokens);
                has_all_rows = false;
                break;
            }
        }
        if is_last_of_token {
            whole_tokens = ends.len();
        }
    }
    let bytes = Bytes::from(bytes);
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let lines = starts.zip(&ends).map(|(start, end)| bytes.slice(start..*end)).collect();
    Batch { lines, has_all_rows }
}

#[cfg(test)]
mod tests;
