//! Writing the rows of one stream: tokens, a transaction, and what this instance itself keeps in memory.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use rusqlite::Transaction;
use rusqlite::types::Type;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::{Notify, oneshot};

use crate::env::Env;
use crate::env::observer::Trouble;
use crate::protocol::{InstanceName, StreamName, Token};
use crate::replication::Backoff;
use crate::store::{AllocateError, Allocation, Database, DatabaseError, IdGenerator, RequestId, transactions};
use crate::streams::{Keepers, Row};

/// Why it is not known that anything was persisted.
#[derive(Debug, Error)]
pub enum PersistError {
    /// No tokens could be had.
    #[error("cannot allocate tokens: {0}")]
    Allocate(#[from] AllocateError),
    /// The transaction failed.
    #[error("cannot persist: {0}")]
    Database(#[from] DatabaseError),
    /// The instance ended meanwhile; whether anything was persisted is not known.
    #[error("the instance ended before the rows were known to be persisted")]
    Ended,
}

/// What a transaction has written.
#[derive(Debug, Clone, PartialEq)]
pub struct Written<R> {
    /// The rows with their tokens, of every stream it wrote.
    pub rows: Vec<(Token, Row)>,
    /// What its caller wants to know.
    pub reply: R,
}

/// The request that a write belongs to, and when it came: the write takes effect once, however often it is asked for.
#[derive(Debug, Clone)]
pub struct Once {
    /// The request.
    pub request: RequestId,
    /// The time, in milliseconds since the epoch.
    pub now_ms: i64,
}

impl<R: Serialize + DeserializeOwned> Written<R> {
    /// What `write` writes, or, if it took effect before, no rows and the reply of then.
    ///
    /// # Panics
    /// If the reply cannot stand in JSON.
    pub fn once(
        tx: &Transaction<'_>,
        once: Option<&Once>,
        write: impl FnOnce() -> rusqlite::Result<Self>,
    ) -> rusqlite::Result<Self> {
        let Some(Once { request, now_ms }) = once else { return write() };
        if let Some(reply) = transactions::recorded(tx, request)? {
            let reply = serde_json::from_str(&reply)
                .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))?;
            return Ok(Written { rows: Vec::new(), reply });
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
    keepers: Keepers,
    env: Env,
    in_flight: Cell<usize>,
    idle: Notify,
    written: Notify,
}

impl StreamWriter {
    /// A writer of the stream whose tokens `ids` gives out. Its [`keep_position`](Self::keep_position) has to be
    /// spawned.
    pub fn new(ids: Rc<IdGenerator>, database: Database, keepers: Keepers, env: Env) -> Rc<Self> {
        Rc::new(StreamWriter {
            stream: ids.stream().clone(),
            ids,
            database,
            keepers,
            env,
            in_flight: Cell::new(0),
            idle: Notify::new(),
            written: Notify::new(),
        })
    }

    /// The instance that writes.
    pub fn instance(&self) -> &InstanceName {
        self.ids.instance()
    }

    /// Takes `count` tokens and runs `write` with them in one transaction called `name`.
    ///
    /// `write` may run several times, as every transaction's closure; it need not use all its tokens.
    pub async fn persist<R: Send + 'static>(
        self: &Rc<Self>,
        name: &'static str,
        count: usize,
        mut write: impl FnMut(&Transaction<'_>, &[Token]) -> rusqlite::Result<Written<R>> + Send + 'static,
    ) -> Result<R, PersistError> {
        let parts = vec![(Rc::clone(self), count)];
        persist_together(name, parts, move |tx, tokens| write(tx, &tokens[0])).await
    }

    /// Keeps the position in the database up with the writes, for ever. It may lag: whoever starts from it only
    /// fetches more.
    pub async fn keep_position(self: Rc<Self>) {
        let mut backoff = Backoff::new(&self.env.chance.of("keep_position").of(&self.stream));
        loop {
            self.written.notified().await;
            while let Err(error) = self.ids.persist_position().await {
                self.env.observer.trouble(Trouble::Streaming { stream: &self.stream, error: &error });
                tokio::time::sleep(backoff.next_delay()).await;
            }
            backoff.reset();
        }
    }

    /// Waits until no write is under way.
    pub async fn idle(&self) {
        while self.in_flight.get() > 0 {
            self.idle.notified().await;
        }
    }
}

/// Takes tokens of several streams that one instance writes, and runs `write` with them in one transaction called
/// `name`: `parts` says how many of each, and `write` is given them in that order.
///
/// It runs in a task of its own: a caller that goes away must not take the tokens with it while the transaction may
/// still commit (Synapse #19800).
///
/// # Panics
/// If `parts` is empty.
pub async fn persist_together<R: Send + 'static>(
    name: &'static str,
    parts: Vec<(Rc<StreamWriter>, usize)>,
    write: impl FnMut(&Transaction<'_>, &[Vec<Token>]) -> rusqlite::Result<Written<R>> + Send + 'static,
) -> Result<R, PersistError> {
    let env = parts[0].0.env.clone();
    let in_flight: Vec<InFlight> = parts.iter().map(|(writer, _)| InFlight::new(writer)).collect();
    let task = env.tasks.spawn("persist", async move {
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
    let mut allocations: Vec<Allocation> = Vec::with_capacity(parts.len());
    for (writer, count) in &parts {
        allocations.push(writer.ids.allocate(*count).await?);
    }
    let tokens: Vec<Vec<Token>> = allocations.iter().map(|allocation| allocation.ids().to_vec()).collect();
    // The tokens stay in flight, and the positions below them, for as long as the closure may still run; and here until
    // nothing that is kept in memory contradicts the rows.
    let allocations = Arc::new(allocations);
    let held = Arc::clone(&allocations);
    let (settling, settled) = oneshot::channel::<()>();
    let transaction = move |tx: &Transaction<'_>| {
        let _in_flight = (&held, &settling);
        write(tx, &tokens)
    };
    let (first, _) = &parts[0];
    let persisted = first.database.transaction(name, transaction).await;
    // When the connection was lost, the rows may still be on their way, and what is read before they are there is as old
    // as what was kept before.
    let _ = settled.await;
    match &persisted {
        Ok(written) => written.rows.iter().for_each(|(token, row)| first.keepers.take(*token, [row])),
        Err(_) => parts.iter().for_each(|(writer, _)| writer.keepers.doubt(writer.stream.as_str())),
    }
    drop(allocations);
    parts.iter().for_each(|(writer, _)| writer.written.notify_one());
    Ok(persisted?.reply)
}

/// Counts a write for as long as it runs.
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
