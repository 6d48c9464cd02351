//! Sending the rows that this instance writes, one streamer for each stream.
//!
//! A streamer is poked when its stream moved, reads the new rows and puts them into the outbox of every connection
//! that asked. It announces positions in the same task, so that a position and the rows around it are always sent in
//! order. A streamer that cannot read its rows tries again and holds up no other.
//!
//! **A position never hides a row.** A follower fetches what it lacks unless `prev <= its position <= new`. So
//! `POSITION prev new` with `prev < new` is sent only where the stream has just said that there is no row between;
//! whenever that is not certain, `POSITION now now` makes everybody fetch who is behind.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Backoff, Link, Side};
use crate::env::Env;
use crate::env::observer::Trouble;
use crate::protocol::{self, Command, Framing, InstanceName, Position, Rdata, Token};
use crate::streams::{Row, Stream, UpdateError, Updates};

/// How often each stream's position is announced even if nothing happens.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How soon after the last one a position that moved only by other writers' rows is announced (Synapse #8499).
pub const IDLE_ANNOUNCEMENT_INTERVAL: Duration = Duration::from_secs(1);

/// Sends one stream's rows.
pub struct Streamer {
    stream: Rc<dyn Stream>,
    /// This instance, the writer of the rows.
    writer: InstanceName,
    env: Env,
    poked: Notify,
    /// Connections that asked for the position and have not been told yet.
    asking: RefCell<Vec<Rc<Link>>>,
    /// Connections that know the position and get everything after it.
    following: RefCell<Vec<Rc<Link>>>,
    /// How far the rows have been sent.
    sent_upto: Cell<Token>,
    announced_idle: Cell<Instant>,
}

impl Streamer {
    /// A streamer of `writer`'s rows of `stream`. Its [`run`](Self::run) has to be spawned.
    pub fn new(stream: Rc<dyn Stream>, writer: InstanceName, env: Env) -> Self {
        let sent_upto = stream.position(&writer);
        Streamer {
            stream,
            writer,
            env,
            poked: Notify::new(),
            asking: RefCell::default(),
            following: RefCell::default(),
            sent_upto: Cell::new(sent_upto),
            announced_idle: Cell::new(Instant::now()),
        }
    }

    /// The stream whose rows it sends.
    pub fn stream(&self) -> &protocol::StreamName {
        self.stream.name()
    }

    /// The stream may have moved.
    pub fn poke(&self) {
        self.poked.notify_one();
    }

    /// Tells `link` the position, and everything that comes after it. With a broker everybody hears everybody ask, and
    /// those who ask before the answer get one (Synapse #16640).
    pub fn announce_to(&self, link: &Rc<Link>) {
        let mut asking = self.asking.borrow_mut();
        let is_for_all = link.side() == Side::Publisher;
        if !(is_for_all && asking.iter().any(|known| known.id() == link.id())) {
            asking.push(Rc::clone(link));
            self.poked.notify_one();
        }
    }

    /// Sends rows and positions, for ever.
    pub async fn run(self: Rc<Self>) {
        let mut backoff = Backoff::new(&self.env.chance.of("streamer").of(self.stream.name()));
        let mut heartbeat = Instant::now() + HEARTBEAT_INTERVAL;
        loop {
            let wake_at = match self.send_news().await {
                Ok(quiet_until) => {
                    backoff.reset();
                    quiet_until.map_or(heartbeat, |at| at.min(heartbeat))
                }
                Err(error) => {
                    self.env.observer.trouble(Trouble::Streaming { stream: self.stream.name(), error: &*error });
                    (Instant::now() + backoff.next_delay()).min(heartbeat)
                }
            };
            // A poke and a time-out lead to the same look at the stream.
            let _ = tokio::time::timeout_at(wake_at, self.poked.notified()).await;
            if Instant::now() >= heartbeat {
                heartbeat = Instant::now() + HEARTBEAT_INTERVAL;
                let now = self.sent_upto.get();
                self.broadcast_position(now, now);
            }
        }
    }

    /// Sends everything there is. Returns when to look again even without a poke.
    async fn send_news(&self) -> Result<Option<Instant>, UpdateError> {
        loop {
            self.answer_who_asked();
            self.following.borrow_mut().retain(|link| link.is_open());
            let (sent, current) = (self.sent_upto.get(), self.stream.position(&self.writer));
            if sent >= current {
                return Ok(None);
            }
            if self.following.borrow().is_empty() {
                // Whoever comes will be told the position as it is then, and fetch everything up to it.
                self.sent_upto.set(current);
                return Ok(None);
            }
            if sent >= self.stream.written_upto(&self.writer) {
                // Nothing of ours in between: only others have moved.
                let due = self.announced_idle.get() + IDLE_ANNOUNCEMENT_INTERVAL;
                if Instant::now() < due {
                    return Ok(Some(due));
                }
                self.announced_idle.set(Instant::now());
                self.broadcast_position(sent, current);
                self.sent_upto.set(current);
                continue;
            }
            let updates = self.stream.updates(&self.writer, sent, current).await?;
            self.broadcast(sent, &updates);
            self.sent_upto.set(updates.upto);
        }
    }

    /// Tells the position to those who asked, before any row that comes after it.
    fn answer_who_asked(&self) {
        let now = self.sent_upto.get();
        for link in self.asking.borrow_mut().drain(..) {
            if !link.is_open() {
                continue;
            }
            let mut following = self.following.borrow_mut();
            self.send_position(std::slice::from_ref(&link), now, now);
            if !following.iter().any(|known| known.id() == link.id()) {
                following.push(link);
            }
        }
    }

    fn broadcast(&self, from: Token, updates: &Updates) {
        // All connections of an instance are of one kind.
        let Some(framing) = self.following.borrow().first().map(|link| link.framing()) else { return };
        let batch = encode(framing, self.stream.name(), &self.writer, &updates.rows);
        for line in batch.lines {
            for link in self.following.borrow().iter() {
                link.send_line(line.clone());
            }
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

    fn send_position(&self, links: &[Rc<Link>], prev: Token, new: Token) {
        let (stream, writer) = (self.stream.name().clone(), self.writer.clone());
        let position = Command::Position(Position { stream, writer, prev, new });
        for link in links {
            link.send(&position).expect("configured names are short and have no line breaks");
        }
    }
}

/// Rows as lines.
struct Batch {
    lines: Vec<Bytes>,
    /// Whether every row is among the lines. Some are not if one is too long for a line.
    has_all_rows: bool,
}

/// Renders rows as `RDATA` lines: of the rows that share a token only the last carries it, so that they arrive as one.
///
/// A row that is too long for a line ends the batch before its token, of which no row is sent (Synapse #4748).
fn encode(framing: Framing, stream: &protocol::StreamName, writer: &InstanceName, rows: &[(Token, Row)]) -> Batch {
    let mut lines = Vec::with_capacity(rows.len());
    let mut whole_tokens = 0;
    for (index, (token, row)) in rows.iter().enumerate() {
        let is_last_of_token = rows.get(index + 1).is_none_or(|(next, _)| next != token);
        let command = Command::Rdata(Rdata {
            stream: stream.clone(),
            writer: writer.clone(),
            token: is_last_of_token.then_some(*token),
            row: row.to_json(),
        });
        match framing.encode(&command) {
            Ok(line) => lines.push(line),
            Err(_too_long) => {
                lines.truncate(whole_tokens);
                return Batch { lines, has_all_rows: false };
            }
        }
        if is_last_of_token {
            whole_tokens = lines.len();
        }
    }
    Batch { lines, has_all_rows: true }
}

#[cfg(test)]
mod tests;
