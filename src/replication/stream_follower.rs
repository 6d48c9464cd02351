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
use std::error;
use std::rc::Rc;

use thiserror::Error;
use tokio::sync::Notify;

use super::{Backoff, Connection, Consumers};
use crate::limits::{ITEMS_QUEUED_MAX, LimitHit, ROWS_BYTES_MAX};
use crate::observer::Env;
use crate::observer::InstanceEvent;
use crate::store::Checked;
use crate::streams::Stream;
use crate::tasks;
use squall_protocol::rows::{Row, Updates};
use squall_protocol::{Delivery, InstanceName, Token};

/// The end of a range that covers all rows that a writer holds in memory.
const EVERYTHING: Token = Token(i64::MAX);

/// Number of answers after which a writer that holds its rows in memory is believed, and not the position that was announced
/// in its name.
const ANSWERS_BELIEVED: u32 = 3;

/// Follows one writer's rows of one stream.
pub(super) struct StreamFollower {
    stream: Rc<dyn Stream>,
    writer: InstanceName,
    consumers: Consumers,
    env: Env,
    queue: RefCell<VecDeque<Item>>,
    /// Memory of the rows in the queue, in bytes.
    queued_bytes: Cell<usize>,
    /// Largest number of items in the queue.
    items_queued_max: usize,
    arrived: Notify,
    /// Id of the connection on which the writer's position arrived and was caught up with.
    connected_on: Cell<Option<u64>>,
}

/// A queued position or row, with the connection on which it arrived.
enum Item {
    Position {
        connection: Rc<Connection>,
        prev: Token,
        new: Token,
        pending: Pending,
    },
    /// Stands for everything that was queued up to `upto`, which is to be fetched.
    Discarded {
        connection: Rc<Connection>,
        upto: Token,
        pending: Pending,
    },
    Rows {
        connection: Rc<Connection>,
        token: Token,
        rows: Vec<Row>,
        /// Memory of the rows, in bytes.
        bytes: usize,
    },
}

impl Item {
    /// Returns the memory of its rows, in bytes.
    fn bytes(&self) -> usize {
        if let Item::Rows { bytes, .. } = self { *bytes } else { 0 }
    }

    /// Returns the connection on which it arrived.
    fn connection(self) -> Rc<Connection> {
        let (Item::Position { connection, .. } | Item::Discarded { connection, .. } | Item::Rows { connection, .. }) =
            self;
        connection
    }
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

/// An answer that cannot be used.
#[derive(Debug, Error)]
enum Unusable {
    /// The writer holds fewer rows than it announced, because it was restarted in between.
    #[error("the writer announced position {announced} but is at {upto}: it must have been restarted")]
    WriterIsBehind { upto: Token, announced: Token },
    /// The writer's answer is limited but makes no progress.
    #[error("the writer says that it has more rows after {from}, but its answer holds none of them")]
    NoProgress { from: Token },
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
            queued_bytes: Cell::new(0),
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

    /// Queues all rows of one token. They take this many `bytes` of memory.
    pub(super) fn rows(&self, connection: &Rc<Connection>, token: Token, rows: Vec<Row>, bytes: usize) {
        self.push(Item::Rows { connection: Rc::clone(connection), token, rows, bytes }, token);
    }

    fn push(&self, item: Item, upto: Token) {
        let mut queue = self.queue.borrow_mut();
        let bytes = self.queued_bytes.get() + item.bytes();
        if queue.len() >= self.items_queued_max || bytes > ROWS_BYTES_MAX {
            self.env.observer.limit_hit(LimitHit::FollowerQueueOverflowed);
            // Everything queued can be fetched from the source, where it takes none of this instance's memory.
            let connection = item.connection();
            queue.clear();
            let pending = Pending::on(&connection);
            queue.push_back(Item::Discarded { connection, upto, pending });
            self.queued_bytes.set(0);
        } else {
            queue.push_back(item);
            self.queued_bytes.set(bytes);
        }
        self.arrived.notify_one();
    }

    /// Handles queued positions and rows, for ever.
    pub(super) async fn run(self: Rc<Self>) {
        loop {
            let item = self.queue.borrow_mut().pop_front();
            self.queued_bytes.update(|bytes| bytes - item.as_ref().map_or(0, Item::bytes));
            match item {
                Some(Item::Position { connection, prev, new, pending }) => {
                    let handled = self.on_position(&connection, prev, new);
                    // An abandoned position needs no further work: rows of a closed connection are not applied.
                    let _ = self.env.tasks.timed(tasks::ON_POSITION, handled).await;
                    drop(pending);
                }
                Some(Item::Discarded { connection, upto, pending }) => {
                    let handled = self.on_discarded(&connection, upto);
                    let _ = self.env.tasks.timed(tasks::ON_POSITION, handled).await;
                    drop(pending);
                }
                Some(Item::Rows { connection, token, rows, .. }) => {
                    let handled = self.on_rows(&connection, token, &rows);
                    let _ = self.env.tasks.timed(tasks::ON_RDATA, handled).await;
                }
                None => self.arrived.notified().await,
            }
        }
    }

    async fn on_rows(&self, connection: &Connection, token: Token, rows: &[Row]) -> Result<(), Abandoned> {
        if self.connected_on.get() == Some(connection.id()) && self.believes(connection, token).await? {
            self.apply(token, rows);
        }
        Ok(())
    }

    /// Returns true if `token` is one that the writer can have: no other may move the position, past rows to come.
    async fn believes(&self, connection: &Connection, token: Token) -> Result<bool, Abandoned> {
        let mut backoff = None;
        loop {
            match self.stream.check(token).await {
                Ok(Checked::Allocated) => return Ok(true),
                Ok(Checked::NotAllocated) => {
                    self.disbelieved(token);
                    return Ok(false);
                }
                Err(error) => self.failed(connection, &*error),
            }
            self.back_off(&mut backoff, "check", connection).await;
            if !connection.is_open() {
                // Rows of this connection that wait behind the token must not be applied without it.
                self.connected_on.set(None);
                return Err(Abandoned);
            }
        }
    }

    async fn on_discarded(&self, connection: &Connection, upto: Token) -> Result<(), Abandoned> {
        if !self.on_position(connection, upto, upto).await? {
            // The rows cannot be fetched up to here. The next position brings them.
            self.connected_on.set(None);
        }
        Ok(())
    }

    /// Returns false if the position is not believed.
    async fn on_position(&self, connection: &Connection, prev: Token, new: Token) -> Result<bool, Abandoned> {
        if !self.believes(connection, new).await? {
            return Ok(false);
        }
        let is_first = self.connected_on.get() != Some(connection.id());
        self.connected_on.set(None);
        let current = self.stream.position(&self.writer);
        let lacks_rows = !(prev <= current && current <= new);
        // Nothing but a row moves a writer with its rows in memory. If the position has moved without one, the writer is asked.
        if self.stream.delivery() == Delivery::Memory && (is_first || current != new) {
            self.catch_up_in_memory(connection, new).await?;
        } else {
            if lacks_rows {
                self.catch_up(connection, current, new).await?;
            }
            self.stream.advance(&self.writer, new);
        }
        // The position may be past the announced one, if the writer announced an old position again.
        let position = self.stream.position(&self.writer);
        self.consumers.notify(|consumer| consumer.positioned(self.stream.name(), &self.writer, position));
        self.connected_on.set(Some(connection.id()));
        if connection.caught_up(self.stream.name()) {
            self.env.observer.set_up(&connection.peer());
        }
        Ok(true)
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
    /// A delayed position may be older than rows that overtook it, or come from an ended process. Something else may have sent
    /// it. So the answer may reach past `announced`, or not as far, and the position moves to where the answer ends.
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
    /// retries, one failed catch-up would leave the stream behind for ever. A writer that has its rows in memory and is
    /// behind `due` in answer after answer is right, because its position was announced before it was asked: `due` is not
    /// its position, or no longer.
    async fn fetch(&self, connection: &Connection, from: Token, upto: Token, due: Token) -> Result<Updates, Abandoned> {
        let mut backoff = None;
        let mut answers_behind = 0;
        loop {
            if !connection.is_open() {
                return Err(Abandoned);
            }
            let error = match self.stream.updates(&self.writer, from, upto).await {
                Ok(updates) => match usable(&updates, from, due) {
                    Err(Unusable::WriterIsBehind { .. }) if answers_behind + 1 == ANSWERS_BELIEVED => {
                        self.disbelieved(due);
                        return Ok(self.fetched(updates));
                    }
                    Err(error) => {
                        answers_behind += u32::from(matches!(error, Unusable::WriterIsBehind { .. }));
                        error.into()
                    }
                    Ok(()) => return Ok(self.fetched(updates)),
                },
                Err(error) => error,
            };
            self.failed(connection, &*error);
            self.back_off(&mut backoff, "catch_up", connection).await;
        }
    }

    /// Reports a token that the writer cannot have.
    fn disbelieved(&self, token: Token) {
        let (stream, writer) = (self.stream.name(), &self.writer);
        self.env.observer.event(InstanceEvent::NotAllocated { stream, writer, token });
    }

    /// Reports rows that were fetched.
    fn fetched(&self, updates: Updates) -> Updates {
        self.env.observer.fetched(self.stream.name(), &self.writer, updates.rows.len());
        updates
    }

    /// Waits before the next attempt at `purpose`. The first failure creates the back-off: almost all attempts succeed.
    async fn back_off(&self, backoff: &mut Option<Backoff>, purpose: &str, connection: &Connection) {
        let backoff = backoff.get_or_insert_with(|| {
            let purpose = format!("{purpose}/{}/{}/{}", self.stream.name(), self.writer, connection.id());
            Backoff::new(&self.env.seeds.child(purpose))
        });
        tokio::time::sleep(backoff.next_delay()).await;
    }

    /// Reports a failure to read what is missing.
    fn failed(&self, connection: &Connection, error: &dyn error::Error) {
        connection.catch_up_failed();
        self.env.observer.event(InstanceEvent::CatchUp { stream: self.stream.name(), writer: &self.writer, error });
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

/// Checks that `updates` reach `due` or, where they are limited, past `from`. Without progress, fetching the rest would never
/// end.
fn usable(updates: &Updates, from: Token, due: Token) -> Result<(), Unusable> {
    if updates.limited && updates.upto <= from {
        Err(Unusable::NoProgress { from })
    } else if updates.limited || updates.upto >= due {
        Ok(())
    } else {
        Err(Unusable::WriterIsBehind { upto: updates.upto, announced: due })
    }
}

#[cfg(test)]
mod tests;
