//! Writes the rows of one stream: tokens, a transaction, and the views that this instance keeps in memory.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use rusqlite::Transaction;
use rusqlite::types::Type;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::{Notify, oneshot};

use super::outstanding::{Held, Outstanding};
use crate::observer::Env;
use crate::observer::InstanceEvent;
use crate::replication::Backoff;
use crate::store::{AllocateError, Allocation, Database, DatabaseError, IdGenerator, RequestId, transactions};
use crate::streams::CacheViews;
use crate::tasks;
use squall_protocol::rows::Row;
use squall_protocol::{InstanceName, StreamName, Token};

/// The reason for which rows are not known to be persisted.
#[derive(Debug, Error)]
pub enum PersistError {
    /// No tokens could be allocated.
    #[error("cannot allocate tokens: {0}")]
    Allocate(#[from] AllocateError),
    /// The transaction failed.
    #[error("cannot persist: {0}")]
    Database(#[from] DatabaseError),
    /// The instance ended meanwhile. The rows may have been persisted or not.
    #[error("the instance ended before the rows were known to be persisted")]
    Ended,
}

/// The result of a transaction that writes rows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Written<R> {
    /// The rows of all streams, with their tokens.
    pub(super) rows: Vec<(Token, Row)>,
    /// The value for the caller.
    pub(super) reply: R,
    /// The tokens of earlier writes that stand in place of this one, or of parts of it. The caller gets the reply once they
    /// are shown here.
    pub(super) earlier: Vec<Token>,
}

impl<R> Written<R> {
    /// Returns the result of a transaction in which every write took effect.
    pub(super) fn new(rows: Vec<(Token, Row)>, reply: R) -> Self {
        Written { rows, reply, earlier: Vec::new() }
    }
}

impl Written<Token> {
    /// Returns the result of writes under `own` tokens, which ascend, for each of which the write of one of `standing` stands:
    /// itself, or an earlier one. The reply is the last of these.
    pub(super) fn standing(rows: Vec<(Token, Row)>, own: &[Token], standing: Vec<Token>) -> Self {
        let reply = standing.iter().copied().max().unwrap_or_default();
        let earlier = standing.into_iter().filter(|token| own.binary_search(token).is_err()).collect();
        Written { rows, reply, earlier }
    }
}

/// Identifies the request of a write, so that a repeated request takes effect only once.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// The id of the request, the same in each attempt.
    pub request: RequestId,
    /// Time at which the request arrived, in milliseconds since the epoch.
    pub now_ms: i64,
}

impl<R: Serialize + DeserializeOwned> Written<R> {
    /// Runs `write` and records its reply under `key`. If the request took effect before, returns no rows and the
    /// recorded reply instead. Without a key, only runs `write`.
    ///
    /// # Panics
    /// If the reply cannot be serialised as JSON.
    pub(super) fn once(
        tx: &Transaction<'_>,
        key: Option<&IdempotencyKey>,
        write: impl FnOnce() -> rusqlite::Result<Self>,
    ) -> rusqlite::Result<Self> {
        let Some(IdempotencyKey { request, now_ms }) = key else { return write() };
        if let Some(reply) = transactions::recorded(tx, request)? {
            let reply = serde_json::from_str(&reply)
                .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))?;
            return Ok(Written::new(Vec::new(), reply));
        }
        let written = write()?;
        let reply = serde_json::to_string(&written.reply).expect("a reply is plain data");
        transactions::record(tx, request, &reply, *now_ms)?;
        Ok(written)
    }
}

/// Writes the rows of one stream under this instance's tokens.
pub struct StreamWriter {
    stream: StreamName,
    ids: Rc<IdGenerator>,
    database: Database,
    cache_views: CacheViews,
    env: Env,
    outstanding: Rc<Outstanding>,
    in_flight: Cell<usize>,
    idle: Notify,
    written: Notify,
    /// Notified when tokens are settled.
    settled: Notify,
    /// The reason why the last write was refused, if the database is not the deployment's.
    refusal: RefCell<Option<String>>,
}

impl StreamWriter {
    /// Returns a writer of the stream whose tokens `ids` allocates. The caller must spawn its
    /// [`keep_position`](Self::keep_position).
    pub(super) fn new(ids: Rc<IdGenerator>, database: Database, cache_views: CacheViews, env: Env) -> Rc<Self> {
        let outstanding = Outstanding::new(ids.stream().clone(), ids.instance().clone(), env.clone());
        Rc::new(StreamWriter {
            stream: ids.stream().clone(),
            ids,
            database,
            cache_views,
            env,
            outstanding,
            in_flight: Cell::new(0),
            idle: Notify::new(),
            written: Notify::new(),
            settled: Notify::new(),
            refusal: RefCell::default(),
        })
    }

    /// Returns the name of the instance that writes.
    pub(super) fn instance(&self) -> &InstanceName {
        self.ids.instance()
    }

    /// Allocates `count` tokens and runs `write` with them in one transaction called `name`.
    ///
    /// `write` may run several times, like every transaction's closure. It need not use all its tokens.
    pub(super) async fn persist<R: Send + 'static>(
        self: &Rc<Self>,
        name: &'static str,
        count: usize,
        mut write: impl FnMut(&Transaction<'_>, &[Token]) -> rusqlite::Result<Written<R>> + Send + 'static,
    ) -> Result<R, PersistError> {
        let parts = vec![(Rc::clone(self), count)];
        persist_together(name, parts, move |tx, tokens| write(tx, &tokens[0])).await
    }

    /// Stores the position in the database after each write, for ever. The stored position may lag: an instance that
    /// starts from it only fetches more rows.
    pub(super) async fn keep_position(self: Rc<Self>) {
        let mut backoff = Backoff::new(&self.env.seeds.child("keep_position").child(&self.stream));
        loop {
            self.written.notified().await;
            while let Err(error) = self.ids.persist_position().await {
                self.env.observer.event(InstanceEvent::Streaming { stream: &self.stream, error: &error });
                tokio::time::sleep(backoff.next_delay()).await;
            }
            backoff.reset();
        }
    }

    /// Allocates `count` tokens, and reports a database that is not the deployment's.
    async fn allocate(&self, count: usize) -> Result<Allocation, AllocateError> {
        let allocated = self.ids.allocate(count).await;
        match &allocated {
            Ok(_) => *self.refusal.borrow_mut() = None,
            Err(error @ AllocateError::ForeignDatabase { .. }) => {
                // A doubt ends by itself.
                if self.ids.refusal().is_none() {
                    *self.refusal.borrow_mut() = Some(error.to_string());
                }
                self.env.observer.event(InstanceEvent::ForeignDatabase { stream: &self.stream, error });
            }
            // It says nothing about which database it is.
            Err(_) => {}
        }
        allocated
    }

    /// Returns the reason why the last write was refused, if the database is not the deployment's.
    pub(super) fn refusal(&self) -> Option<String> {
        self.refusal.borrow().clone().or_else(|| self.ids.refusal().map(|error| error.to_string()))
    }

    /// Waits until the write of `token` is shown on this instance, if it is one of this instance that is under way.
    async fn shown(&self, token: Token) {
        let mut settled = pin!(self.settled.notified());
        while self.ids.is_outstanding(token) {
            settled.as_mut().await;
            settled.set(self.settled.notified());
        }
    }

    /// Waits until no write is under way.
    pub(super) async fn idle(&self) {
        while self.in_flight.get() > 0 {
            self.idle.notified().await;
        }
    }
}

/// Allocates tokens of several streams that one instance writes, and runs `write` with them in one transaction called
/// `name`. `parts` holds each stream's writer and number of tokens, and `write` receives the tokens in that order.
///
/// The write runs in a task of its own: if its caller is cancelled, the tokens must stay allocated while the transaction
/// may still commit (Synapse #19800).
///
/// # Panics
/// If `parts` is empty.
pub(super) async fn persist_together<R: Send + 'static>(
    name: &'static str,
    parts: Vec<(Rc<StreamWriter>, usize)>,
    write: impl FnMut(&Transaction<'_>, &[Vec<Token>]) -> rusqlite::Result<Written<R>> + Send + 'static,
) -> Result<R, PersistError> {
    let env = parts[0].0.env.clone();
    let in_flight: Vec<InFlight> = parts.iter().map(|(writer, _)| InFlight::new(writer)).collect();
    let task = env.tasks.spawn(tasks::PERSIST, async move {
        let _in_flight = in_flight;
        persist_now(name, parts, write).await
    });
    task.await.unwrap_or(Err(PersistError::Ended))
}

async fn persist_now<R: Send + 'static>(
    name: &'static str,
    parts: Vec<(Rc<StreamWriter>, usize)>,
    mut write: impl FnMut(&Transaction<'_>, &[Vec<Token>]) -> rusqlite::Result<Written<R>> + Send + 'static,
) -> Result<R, PersistError> {
    let mut outstanding: Vec<Held> = Vec::with_capacity(parts.len());
    let mut allocations: Vec<Allocation> = Vec::with_capacity(parts.len());
    for (writer, count) in &parts {
        let held = writer.outstanding.begin(name);
        let allocation = writer.allocate(*count).await?;
        held.allocated(allocation.ids());
        allocations.push(allocation);
        outstanding.push(held);
    }
    let tokens: Vec<Vec<Token>> = allocations.iter().map(|allocation| allocation.ids().to_vec()).collect();
    // The tokens stay in flight, and hold the positions below them, for as long as the closure may still run, and on this
    // instance until the views in memory agree with the rows.
    let allocations = Arc::new(allocations);
    let held = Arc::clone(&allocations);
    let (settling, settled) = oneshot::channel::<()>();
    let transaction = move |tx: &Transaction<'_>| {
        let _in_flight = (&held, &settling);
        write(tx, &tokens)
    };
    let (first, _) = &parts[0];
    let persisted = first.database.transaction(name, transaction).await;
    // If the connection was lost, the transaction may still run, and a view read before it commits would be stale. So wait
    // until the closure was dropped, which closes the channel.
    let _ = settled.await;
    match &persisted {
        Ok(written) => {
            for (token, row) in &written.rows {
                first.cache_views.apply(*token, [row]);
            }
        }
        Err(_) => {
            for (writer, _) in &parts {
                writer.cache_views.invalidate_stream(writer.stream.as_str());
            }
        }
    }
    drop(allocations);
    drop(outstanding);
    for (writer, _) in &parts {
        writer.written.notify_one();
        writer.settled.notify_waiters();
    }
    let Written { reply, earlier, .. } = persisted?;
    for token in earlier {
        first.shown(token).await;
    }
    Ok(reply)
}

/// Counts a write as under way until this is dropped.
struct InFlight {
    writer: Rc<StreamWriter>,
}

impl InFlight {
    fn new(writer: &Rc<StreamWriter>) -> Self {
        writer.in_flight.set(writer.in_flight.get() + 1);
        InFlight { writer: Rc::clone(writer) }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.writer.in_flight.set(self.writer.in_flight.get() - 1);
        self.writer.idle.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
