//! Follows one writer's rows of one stream.
//!
//! One task handles everything about one (stream, writer), in the order of arrival. So a catch-up is complete before the
//! rows behind it are applied (Synapse #7226). Every (stream, writer) has a follower of its own, so a writer whose rows
//! cannot be fetched delays no other writer's rows.
//!
//! `RDATA` does not name the token before it. So rows are applied only after the writer's `POSITION` has arrived on the
//! same connection: until then rows may be missing before them (Synapse #7427, which keys this by stream alone and
//! still loses messages when a stream has several writers).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use thiserror::Error;
use tokio::sync::Notify;

use super::{Backoff, Connection, Consumers};
use crate::limits::{ITEMS_QUEUED_MAX, LimitHit};
use crate::observer::Env;
use crate::observer::InstanceEvent;
use crate::streams::{Stream, UpdateError};
use crate::tasks;
use squall_protocol::rows::{Row, Updates};
use squall_protocol::{Delivery, InstanceName, StreamName, Token};

/// The end of a range that covers all rows that a writer holds in memory.
const EVERYTHING: Token = Token(i64::MAX);

/// Names a follower: the stream, and the writer whose rows are followed.
pub(super) type FollowerKey = (StreamName, InstanceName);

/// Follows one writer's rows of one stream.
pub(super) struct StreamFollower {
    stream: Rc<dyn Stream>,
    writer: InstanceName,
    consumers: Consumers,
    env: Env,
    queue: RefCell<VecDeque<Item>>,
    /// Largest number of items in the queue.
    items_queued_max: usize,
    arrived: Notify,
    /// Id of the connection on which the writer's position arrived and was caught up with.
    connected_on: Cell<Option<u64>>,
}

/// A queued position or row, with the connection on which it arrived.
enum Item {
    Position { connection: Rc<Connection>, prev: Token, new: Token, pending: Pending },
    Rows { connection: Rc<Connection>, token: Token, rows: Vec<Row> },
}

/// Counts a position as pending on its connection until this is dropped.
struct Pending(Rc<Connection>);

impl Pending {
    fn on(connection: &Rc<Connection>) -> Self {
        connection.position_pending();
        Pending(Rc::clone(connection))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.position_handled();
    }
}

/// The result for a position whose connection was closed: the next connection brings another position.
struct Abandoned;

/// The writer holds fewer rows than it announced, because it was restarted in between.
#[derive(Debug, Error)]
#[error("the writer announced position {announced} but is at {upto}: it must have been restarted")]
struct WriterIsBehind {
    upto: Token,
    announced: Token,
}

/// The writer's answer is limited but makes no progress.
#[derive(Debug, Error)]
#[error("the writer says that it has more rows after {from}, but its answer holds none of them")]
struct NoProgress {
    from: Token,
}

impl StreamFollower {
    /// Returns a follower of `writer`'s rows of `stream`, and notifies `consumers` of its first position. The caller
    /// must spawn its [`run`](Self::run).
    pub(super) fn new(stream: Rc<dyn Stream>, writer: InstanceName, consumers: Consumers, env: Env) -> Self {
        let position = stream.position(&writer);
        consumers.notify(|consumer| consumer.following(stream.name(), &writer, position));
        StreamFollower {
            stream,
            writer,
            consumers,
            env,
            queue: RefCell::default(),
            items_queued_max: ITEMS_QUEUED_MAX,
            arrived: Notify::new(),
            connected_on: Cell::new(None),
        }
    }

    /// Returns the follower with a queue of at most `items_queued_max` rows and positions.
    pub(super) fn with_queue(self, items_queued_max: usize) -> Self {
        StreamFollower { items_queued_max, ..self }
    }

    /// Queues a `POSITION`: the writer is at `new` and has no rows in `(prev, new]`.
    pub(super) fn position(&self, connection: &Rc<Connection>, prev: Token, new: Token) {
        self.push(
            Item::Position { connection: Rc::clone(connection), prev, new, pending: Pending::on(connection) },
            new,
        );
    }

    /// Queues all rows of one token.
    pub(super) fn rows(&self, connection: &Rc<Connection>, token: Token, rows: Vec<Row>) {
        self.push(Item::Rows { connection: Rc::clone(connection), token, rows }, token);
    }

    fn push(&self, item: Item, upto: Token) {
        let mut queue = self.queue.borrow_mut();
        if queue.len() >= self.items_queued_max {
            self.env.observer.limit_hit(LimitHit::FollowerQueueOverflowed);
            // Everything queued can be fetched from the source, where it takes none of this instance's memory.
            let (Item::Position { connection, .. } | Item::Rows { connection, .. }) = item;
            queue.clear();
            let pending = Pending::on(&connection);
            queue.push_back(Item::Position { connection, prev: upto, new: upto, pending });
        } else {
            queue.push_back(item);
        }
        self.arrived.notify_one();
    }

    /// Handles queued positions and rows, for ever.
    pub(super) async fn run(self: Rc<Self>) {
        loop {
            let item = self.queue.borrow_mut().pop_front();
            match item {
                Some(Item::Position { connection, prev, new, pending }) => {
                    let handled = self.on_position(&connection, prev, new);
                    // An abandoned position needs no further work: rows of a closed connection are not applied.
                    let _ = self.env.tasks.timed(tasks::ON_POSITION, handled).await;
                    drop(pending);
                }
                Some(Item::Rows { connection, token, rows }) => {
                    self.env.tasks.timed(tasks::ON_RDATA, async { self.on_rows(&connection, token, &rows) }).await;
                }
                None => self.arrived.notified().await,
            }
        }
    }

    fn on_rows(&self, connection: &Connection, token: Token, rows: &[Row]) {
        if self.connected_on.get() == Some(connection.id()) {
            self.apply(token, rows);
        }
    }

    async fn on_position(&self, connection: &Connection, prev: Token, new: Token) -> Result<(), Abandoned> {
        let is_first = self.connected_on.get() != Some(connection.id());
        self.connected_on.set(None);
        let current = self.stream.position(&self.writer);
        let lacks_rows = !(prev <= current && current <= new);
        if self.stream.delivery() == Delivery::Memory && (is_first || lacks_rows) {
            self.catch_up_in_memory(connection, new).await?;
        } else if lacks_rows {
            self.catch_up(connection, current, new).await?;
        }
        self.stream.advance(&self.writer, new);
        // The position may be past the announced one, if the writer announced an old position again.
        let position = self.stream.position(&self.writer);
        self.consumers.notify(|consumer| consumer.positioned(self.stream.name(), &self.writer, position));
        self.connected_on.set(Some(connection.id()));
        if connection.caught_up(self.stream.name()) {
            self.env.observer.set_up(&connection.peer());
        }
        Ok(())
    }

    /// Fetches and applies everything in `(from, upto]`.
    async fn catch_up(&self, connection: &Connection, mut from: Token, upto: Token) -> Result<(), Abandoned> {
        while from < upto {
            let updates = self.fetch(connection, from, upto, upto).await?;
            from = updates.upto;
            self.apply_all(updates.rows);
        }
        Ok(())
    }

    /// Fetches everything from a writer that holds its rows in memory.
    ///
    /// The rows replace those held here. Rows that only an ended process had must not stay. Nor must a row whose successor
    /// the writer has forgotten since, as it forgets rooms without typing users: an answer from the position held here
    /// would not have it. No reader sees the state in between.
    ///
    /// A delayed position may be older than rows that overtook it, or come from an ended process. So the answer may reach
    /// past `announced`, and the position moves to where the answer ends.
    async fn catch_up_in_memory(&self, connection: &Connection, announced: Token) -> Result<(), Abandoned> {
        let mut upto = Token(0);
        let mut rows = Vec::new();
        // A writer at 0 has no rows to fetch. Only Synapse's writers announce 0.
        let mut is_all = announced == Token(0);
        while !is_all {
            let updates = self.fetch(connection, upto, EVERYTHING, announced).await?;
            let answered_upto = match updates.upto {
                // Synapse answers with the requested end.
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
        self.stream.reset(&self.writer);
        self.consumers.notify(|consumer| consumer.reset(self.stream.name(), &self.writer));
        self.apply_all(rows);
        self.stream.advance(&self.writer, upto);
        Ok(())
    }

    /// Fetches `(from, upto]` from the source, and retries until an answer is limited or reaches `due`. Without the
    /// retries, one failed catch-up would leave the stream behind for ever.
    async fn fetch(&self, connection: &Connection, from: Token, upto: Token, due: Token) -> Result<Updates, Abandoned> {
        let purpose = format!("catch_up/{}/{}/{}", self.stream.name(), self.writer, connection.id());
        let mut backoff = Backoff::new(&self.env.seeds.child(purpose));
        loop {
            if !connection.is_open() {
                return Err(Abandoned);
            }
            let updates = self.stream.updates(&self.writer, from, upto).await;
            match updates.and_then(|updates| usable(updates, from, due)) {
                Ok(updates) => {
                    self.env.observer.fetched(self.stream.name(), &self.writer, updates.rows.len());
                    return Ok(updates);
                }
                Err(error) => {
                    connection.catch_up_failed();
                    let stream = self.stream.name();
                    let writer = &self.writer;
                    self.env.observer.event(InstanceEvent::CatchUp { stream, writer, error: &*error });
                }
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Applies rows that ascend by token, each under its own token (Synapse #7286).
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

    /// Applies the rows of one token, then moves the position, then notifies the consumers. Rows at or below the
    /// position were applied before and are ignored (Synapse #7648).
    fn apply(&self, token: Token, rows: &[Row]) {
        if token <= self.stream.position(&self.writer) {
            return;
        }
        self.stream.apply(&self.writer, token, rows);
        self.stream.advance_by_row(&self.writer, token);
        self.consumers.notify(|consumer| consumer.applied(self.stream.name(), &self.writer, token, rows));
    }
}

/// Returns `updates` if they reach `due` or, where they are limited, past `from`. Without progress, fetching the rest
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
