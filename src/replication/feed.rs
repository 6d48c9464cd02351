//! The rows of one writer of one stream, as they come in.
//!
//! Everything that concerns one (stream, writer) is handled here in the order in which it came, by one task, so that a
//! catch-up is over before the rows behind it are looked at (Synapse #7226). Everything else has a feed of its own, so
//! that one writer's trouble holds up nobody.
//!
//! `RDATA` does not say what came before it. So rows count only once the writer's `POSITION` came on the same
//! connection: until then something may be missing before them (Synapse #7427; keyed by stream alone, it still loses
//! messages when there are several writers).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use thiserror::Error;
use tokio::sync::Notify;

use super::{Backoff, Consumers, Link};
use crate::env::Env;
use crate::env::observer::Trouble;
use crate::protocol::{InstanceName, Token};
use crate::streams::{Promise, Row, Stream, UpdateError, Updates};

/// Asks the writer of a stream in memory for all that it has.
const EVERYTHING: Token = Token(i64::MAX);

/// With more than this waiting, what waits is given up for one catch-up from the source.
pub const ITEMS_QUEUED_MAX: usize = 10_000;

/// The rows of one writer of one stream.
pub struct Feed {
    stream: Rc<dyn Stream>,
    writer: InstanceName,
    consumers: Consumers,
    env: Env,
    queue: RefCell<VecDeque<Item>>,
    arrived: Notify,
    /// The connection on which the writer's position came and was caught up with.
    connected_on: Cell<Option<u64>>,
}

/// What comes in, each on its connection.
enum Item {
    Position { link: Rc<Link>, prev: Token, new: Token, pending: Pending },
    Rows { link: Rc<Link>, token: Token, rows: Vec<Row> },
}

/// A position that its connection knows to be waiting, until this is dropped.
struct Pending(Rc<Link>);

impl Pending {
    fn on(link: &Rc<Link>) -> Self {
        link.position_came();
        Pending(Rc::clone(link))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.position_done();
    }
}

/// The connection on which a position came is closed: the next one brings another.
struct Abandoned;

/// The writer has less than it announced: it was restarted in between.
#[derive(Debug, Error)]
#[error("the writer is at {upto}, behind {announced} that it announced: it must have been restarted")]
struct WriterIsBehind {
    upto: Token,
    announced: Token,
}

/// The writer says that it has more, and does not bring it.
#[derive(Debug, Error)]
#[error("the writer says that there is more after {from}, but its answer brings nothing of it")]
struct NoProgress {
    from: Token,
}

impl Feed {
    /// A feed into `stream`. Its [`run`](Self::run) has to be spawned.
    pub fn new(stream: Rc<dyn Stream>, writer: InstanceName, consumers: Consumers, env: Env) -> Self {
        let position = stream.position(&writer);
        consumers.tell(|consumer| consumer.following(stream.name(), &writer, position));
        Feed {
            stream,
            writer,
            consumers,
            env,
            queue: RefCell::default(),
            arrived: Notify::new(),
            connected_on: Cell::new(None),
        }
    }

    /// The writer says that it has no rows in `(prev, new]`, and is at `new`.
    pub fn position(&self, link: &Rc<Link>, prev: Token, new: Token) {
        self.push(Item::Position { link: Rc::clone(link), prev, new, pending: Pending::on(link) }, new);
    }

    /// All rows of one token.
    pub fn rows(&self, link: &Rc<Link>, token: Token, rows: Vec<Row>) {
        self.push(Item::Rows { link: Rc::clone(link), token, rows }, token);
    }

    fn push(&self, item: Item, upto: Token) {
        let mut queue = self.queue.borrow_mut();
        if queue.len() >= ITEMS_QUEUED_MAX {
            // All of it can be had from the source, where it takes no memory while it waits.
            let (Item::Position { link, .. } | Item::Rows { link, .. }) = item;
            queue.clear();
            let pending = Pending::on(&link);
            queue.push_back(Item::Position { link, prev: upto, new: upto, pending });
        } else {
            queue.push_back(item);
        }
        self.arrived.notify_one();
    }

    /// Handles what comes in, for ever.
    pub async fn run(self: Rc<Self>) {
        loop {
            let item = self.queue.borrow_mut().pop_front();
            match item {
                Some(Item::Position { link, prev, new, pending }) => {
                    let handled = self.on_position(&link, prev, new);
                    // An abandoned position needs nothing done: rows of a closed connection no longer count.
                    let _ = self.env.tasks.timed("on_position", handled).await;
                    drop(pending);
                }
                Some(Item::Rows { link, token, rows }) => {
                    self.env.tasks.timed("on_rdata", async { self.on_rows(&link, token, &rows) }).await;
                }
                None => self.arrived.notified().await,
            }
        }
    }

    fn on_rows(&self, link: &Link, token: Token, rows: &[Row]) {
        if self.connected_on.get() == Some(link.id()) {
            self.apply(token, rows);
        }
    }

    async fn on_position(&self, link: &Link, prev: Token, new: Token) -> Result<(), Abandoned> {
        let is_first = self.connected_on.get() != Some(link.id());
        self.connected_on.set(None);
        let current = self.stream.position(&self.writer);
        let lacks_rows = !(prev <= current && current <= new);
        if self.stream.promise() == Promise::Memory && (is_first || lacks_rows) {
            let from = if is_first || new < current { Token(0) } else { current };
            self.catch_up_in_memory(link, from, new).await?;
        } else if lacks_rows {
            self.catch_up(link, current, new).await?;
        }
        self.stream.advance(&self.writer, new);
        // It may be further than was announced, if the writer announced an old position again.
        let position = self.stream.position(&self.writer);
        self.consumers.tell(|consumer| consumer.positioned(self.stream.name(), &self.writer, position));
        self.connected_on.set(Some(link.id()));
        if link.caught_up(self.stream.name()) {
            self.env.observer.set_up(&link.peer());
        }
        Ok(())
    }

    /// Fetches and applies everything in `(from, upto]`.
    async fn catch_up(&self, link: &Link, mut from: Token, upto: Token) -> Result<(), Abandoned> {
        while from < upto {
            let updates = self.fetch(link, from, upto, upto).await?;
            from = updates.upto;
            self.apply_all(updates.rows);
        }
        Ok(())
    }

    /// Fetches everything after `from` of a writer that keeps it in memory. If that is all there is, or another process
    /// answers than the one that `from` is of, it replaces what was here: rows that only a dead process had are not to stay.
    /// Nobody sees the state in between.
    ///
    /// A position that was long on its way may be behind rows that overtook it, or a dead process's. So the answer may
    /// reach further than `announced`, and where it ends is the position.
    async fn catch_up_in_memory(&self, link: &Link, from: Token, announced: Token) -> Result<(), Abandoned> {
        let (mut upto, mut rows) = (from, Vec::new());
        // A writer that has changed nothing yet, as only Synapse says, need not be asked.
        let mut is_all = announced == Token(0);
        while !is_all {
            let updates = self.fetch(link, upto, EVERYTHING, announced).await?;
            let answered_upto = match updates.upto {
                // Synapse says what was asked for.
                EVERYTHING => updates.rows.last().map_or(announced, |(last, _)| announced.max(*last)),
                upto => upto,
            };
            if answered_upto.run() != upto.run() {
                // The writer was restarted since the last answer.
                rows.clear();
            }
            (upto, is_all) = (answered_upto, !updates.limited);
            rows.extend(updates.rows);
        }
        if from == Token(0) || upto.run() != from.run() {
            self.stream.reset(&self.writer);
            self.consumers.tell(|consumer| consumer.reset(self.stream.name(), &self.writer));
        }
        self.apply_all(rows);
        self.stream.advance(&self.writer, upto);
        Ok(())
    }

    /// Asks the source for `(from, upto]` until it answers, at least up to `due`: a stream whose catch-up failed once must
    /// not stay behind for ever.
    async fn fetch(&self, link: &Link, from: Token, upto: Token, due: Token) -> Result<Updates, Abandoned> {
        let purpose = format!("catch_up/{}/{}/{}", self.stream.name(), self.writer, link.id());
        let mut backoff = Backoff::new(&self.env.chance.of(purpose));
        loop {
            if !link.is_open() {
                return Err(Abandoned);
            }
            let updates = self.stream.updates(&self.writer, from, upto).await;
            match updates.and_then(|updates| usable(updates, from, due)) {
                Ok(updates) => {
                    self.env.observer.fetched(self.stream.name(), &self.writer, updates.rows.len());
                    return Ok(updates);
                }
                Err(error) => {
                    link.troubled();
                    let (stream, writer) = (self.stream.name(), &self.writer);
                    self.env.observer.trouble(Trouble::CatchUp { stream, writer, error: &*error });
                }
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Applies rows that ascend by token, each with its own (Synapse #7286).
    fn apply_all(&self, rows: Vec<(Token, Row)>) {
        let mut rows = rows.into_iter().peekable();
        while let Some((token, first)) = rows.next() {
            let mut of_token = vec![first];
            while let Some((_, row)) = rows.next_if(|(next, _)| *next == token) {
                of_token.push(row);
            }
            self.apply(token, &of_token);
        }
    }

    /// Takes rows in, then moves the position, then tells whoever waits. Rows at or below the position are old news
    /// (Synapse #7648).
    fn apply(&self, token: Token, rows: &[Row]) {
        if token <= self.stream.position(&self.writer) {
            return;
        }
        self.stream.take(&self.writer, token, rows);
        self.stream.advance_by_row(&self.writer, token);
        self.consumers.tell(|consumer| consumer.applied(self.stream.name(), &self.writer, token, rows));
    }
}

/// An answer must reach as far as is due or, if it is limited, further than before: asking again at once for the same range
/// would never end.
fn usable(updates: Updates, from: Token, due: Token) -> Result<Updates, UpdateError> {
    if updates.limited && updates.upto <= from {
        Err(Box::new(NoProgress { from }))
    } else if updates.limited || updates.upto >= due {
        Ok(updates)
    } else {
        Err(Box::new(WriterIsBehind { upto: updates.upto, announced: due }))
    }
}

#[cfg(test)]
mod tests;
