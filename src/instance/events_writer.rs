//! Persisting events: what makes the events stream grow.

use std::cell::Cell;
use std::rc::Rc;

use thiserror::Error;
use tokio::sync::Notify;

use crate::env::Env;
use crate::env::observer::Trouble;
use crate::protocol::{InstanceName, StreamName, Token};
use crate::replication::Backoff;
use crate::store::{AllocateError, Database, DatabaseError, IdGenerator, NewEvent, StateDelta, events};

/// What is persisted under one token: an event, the changes of current state that it brings, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The event.
    pub event: Option<NewEvent>,
    /// The entries of current state that change.
    pub state: Vec<StateDelta>,
}

/// Why nothing was persisted.
#[derive(Debug, Error)]
pub enum PersistError {
    /// No tokens could be had.
    #[error("cannot allocate tokens: {0}")]
    Allocate(#[from] AllocateError),
    /// The transaction failed.
    #[error("cannot persist events: {0}")]
    Database(#[from] DatabaseError),
    /// The instance ended meanwhile; whether anything was persisted is not known.
    #[error("the instance ended before the events were known to be persisted")]
    Ended,
}

/// Persists events under this instance's tokens.
pub struct EventsWriter {
    instance: InstanceName,
    stream: StreamName,
    ids: Rc<IdGenerator>,
    database: Database,
    env: Env,
    in_flight: Cell<usize>,
    idle: Notify,
    written: Notify,
}

impl EventsWriter {
    /// A writer for `instance`. Its [`keep_position`](Self::keep_position) has to be spawned.
    pub fn new(instance: InstanceName, ids: Rc<IdGenerator>, database: Database, env: Env) -> Rc<Self> {
        Rc::new(EventsWriter {
            instance,
            stream: crate::streams::events::NAME.into(),
            ids,
            database,
            env,
            in_flight: Cell::new(0),
            idle: Notify::new(),
            written: Notify::new(),
        })
    }

    /// Persists `writes` in one transaction, each under a token of its own, and returns the last one.
    ///
    /// It runs in a task of its own: a caller that goes away must not take the tokens with it while the transaction
    /// may still commit (Synapse #19800).
    pub async fn persist(self: &Rc<Self>, writes: Vec<Write>) -> Result<Token, PersistError> {
        let in_flight = InFlight::new(self);
        let task = self.env.tasks.spawn("persist_events", async move {
            let writer = Rc::clone(&in_flight.writer);
            writer.persist_now(writes).await
        });
        task.await.unwrap_or(Err(PersistError::Ended))
    }

    async fn persist_now(&self, writes: Vec<Write>) -> Result<Token, PersistError> {
        let allocation = self.ids.allocate(writes.len()).await?;
        let (mut events, mut deltas) = (Vec::new(), Vec::new());
        for (token, write) in allocation.ids().iter().zip(writes) {
            events.extend(write.event.map(|event| (*token, event)));
            deltas.extend(write.state.into_iter().map(|delta| (*token, delta)));
        }
        let last = *allocation.ids().last().expect("at least one token is allocated");
        let writer = self.instance.clone();
        let persist = move |tx: &rusqlite::Transaction<'_>| {
            // The tokens stay in flight, and the position below them, for as long as this closure may still run.
            let _in_flight = &allocation;
            events::persist(tx, &writer, &events, &deltas)
        };
        self.database.transaction("persist_events", persist).await?;
        self.written.notify_one();
        Ok(last)
    }

    /// Keeps the position in the database up with the writes, for ever. It may lag: whoever starts from it only
    /// fetches more.
    pub async fn keep_position(self: Rc<Self>) {
        let mut backoff = Backoff::new(&self.env.chance.of("keep_position"));
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

/// Counts a write for as long as it runs.
struct InFlight {
    writer: Rc<EventsWriter>,
}

impl InFlight {
    fn new(writer: &Rc<EventsWriter>) -> Self {
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
