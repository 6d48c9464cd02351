//! The ids of a stream with several writers: allocating them, and knowing up to where the stream is complete.
//!
//! The rules are in [`IdState`]; this wraps them in the database (the sequence, the recorded positions) and in RAII, so
//! that a future dropped at any await leaves nothing outstanding.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::database::{Database, DatabaseError};
use super::id_load;
use super::id_state::{FetchId, IdState, StartingPoint};
use super::position::VectorPosition;
use crate::protocol::{InstanceName, StreamName, Token};

#[cfg(test)]
mod crashes;
#[cfg(test)]
mod tests;

/// Which stream, whose ids, and where they are kept.
#[derive(Debug, Clone)]
pub struct IdGeneratorOptions {
    /// The stream, as `stream_positions` knows it.
    pub stream: StreamName,
    /// This instance.
    pub instance: InstanceName,
    /// The instances configured to write the stream.
    pub writers: Vec<InstanceName>,
    /// The sequence all of them take ids from.
    pub sequence: &'static str,
    /// The tables that hold the stream's rows, each with its id column.
    pub tables: &'static [(&'static str, &'static str)],
    /// Poked whenever the position this instance announces has moved. Streams of one streamer share it.
    pub poke: Arc<Notify>,
}

impl IdGeneratorOptions {
    /// Whether this instance writes the stream.
    pub fn is_writer(&self) -> bool {
        self.writers.contains(&self.instance)
    }
}

/// Why an instance cannot start on a stream.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A writer has announced ids that were never allocated: the sequence was set back, and would give ids again that
    /// readers believe to have seen (Synapse #16095, `IncorrectDatabaseSetup`).
    #[error("{writer} has announced {position} on {stream}, but the last id allocated is {last_allocated}")]
    PositionPastSequence {
        /// The stream.
        stream: StreamName,
        /// Whose position it is.
        writer: InstanceName,
        /// The recorded position.
        position: Token,
        /// The last value of the sequence.
        last_allocated: Token,
    },
}

/// Why no ids were allocated.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// This instance is not configured to write the stream.
    #[error("{instance} does not write {stream}")]
    NotAWriter {
        /// This instance.
        instance: InstanceName,
        /// The stream.
        stream: StreamName,
    },
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// The ids of one stream, as one instance sees and allocates them.
pub struct IdGenerator {
    database: Database,
    options: IdGeneratorOptions,
    ids: Arc<Ids>,
    /// The own position as last recorded, so that nothing is written when nothing moved (Synapse #18672).
    recorded: Cell<Token>,
}

/// Behind a lock, because an [`Allocation`] may be dropped on the database's own thread.
struct Ids {
    instance: InstanceName,
    state: Mutex<IdState>,
    poke: Arc<Notify>,
}

impl Ids {
    fn state(&self) -> MutexGuard<'_, IdState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and pokes if that moved the position we announce.
    fn change<R>(&self, change: impl FnOnce(&mut IdState) -> R) -> R {
        let mut state = self.state();
        let before = state.current_token_for_writer(&self.instance);
        let result = change(&mut state);
        let moved = state.current_token_for_writer(&self.instance) != before;
        drop(state);
        if moved {
            self.poke.notify_one();
        }
        result
    }
}

impl IdGenerator {
    /// Reads where the stream stands. A writer's `database` must be in a session of its own, begun before: that is what
    /// makes its predecessor's ids settled.
    pub async fn load(database: Database, options: IdGeneratorOptions) -> Result<Rc<Self>, LoadError> {
        let mut loaded = Self::load_all(database, vec![options]).await?;
        Ok(loaded.pop().expect("one generator for each of the options"))
    }

    /// The same for several streams, in one transaction. Gives the generators in the order of `options`.
    pub async fn load_all(database: Database, options: Vec<IdGeneratorOptions>) -> Result<Vec<Rc<Self>>, LoadError> {
        let reading = options.clone();
        let read = move |tx: &rusqlite::Transaction<'_>| {
            reading.iter().map(|options| id_load::starting_point(tx, options)).collect::<rusqlite::Result<Vec<_>>>()
        };
        let starts = database.transaction("load_id_generators", read).await?;
        let load = |(options, start): (IdGeneratorOptions, Result<StartingPoint, LoadError>)| {
            let (start, instance) = (start?, options.instance.clone());
            let recorded = start.positions.get(&instance).copied().unwrap_or_default();
            let state = IdState::new(instance.clone(), start);
            let ids = Ids { instance, state: Mutex::new(state), poke: options.poke.clone() };
            let (database, ids, recorded) = (database.clone(), Arc::new(ids), Cell::new(recorded));
            Ok(Rc::new(IdGenerator { database, options, ids, recorded }))
        };
        options.into_iter().zip(starts).map(load).collect()
    }

    /// Takes `n` ids from the sequence, in a transaction of its own.
    pub async fn allocate(&self, n: usize) -> Result<Allocation, AllocateError> {
        if !self.options.is_writer() {
            let IdGeneratorOptions { instance, stream, .. } = self.options.clone();
            return Err(AllocateError::NotAWriter { instance, stream });
        }
        let fetch = Fetch::begin(&self.ids);
        let sequence = self.options.sequence;
        let last = self.database.transaction("allocate_ids", move |tx| id_load::take_ids(tx, sequence, n)).await?;
        let ids = (1..=n as i64).map(|i| Token(last.0 - n as i64 + i)).collect();
        Ok(fetch.answered(ids))
    }

    /// `writer` has announced that it is complete up to `token` (a POSITION).
    pub fn advance(&self, writer: &InstanceName, token: Token) {
        self.ids.change(|state| state.advance(writer, token));
    }

    /// Rows of `writer` with `token` have arrived (an RDATA, or a row fetched to catch up): besides the position this
    /// proves that the id is committed, which a position alone does not.
    pub fn advance_by_row(&self, writer: &InstanceName, token: Token) {
        self.ids.change(|state| state.advance_by_row(writer, token));
    }

    /// Up to where every writer is complete.
    pub fn current_token(&self) -> Token {
        self.ids.state().current_token()
    }

    /// Up to where `writer` is complete; for this instance, the position it announces.
    pub fn current_token_for_writer(&self, writer: &InstanceName) -> Token {
        self.ids.state().current_token_for_writer(writer)
    }

    /// How far `writer` itself has told us of its rows.
    pub fn told_by(&self, writer: &InstanceName) -> Token {
        self.ids.state().told_by(writer)
    }

    /// The last of our own ids below which nothing of ours is outstanding.
    pub fn minimal_local_current_token(&self) -> Token {
        self.ids.state().minimal_local_current_token()
    }

    /// No row of ours has a higher id than this, unless its id is still outstanding.
    pub fn last_own_token(&self) -> Token {
        self.ids.state().last_own_token()
    }

    /// Up to where all writers are complete, and who is further.
    pub fn vector(&self) -> VectorPosition {
        self.ids.state().vector()
    }

    /// Whether this instance writes the stream.
    pub fn is_writer(&self) -> bool {
        self.options.is_writer()
    }

    /// The instances configured to write the stream.
    pub fn writers(&self) -> &[InstanceName] {
        &self.options.writers
    }

    /// This instance.
    pub fn instance(&self) -> &InstanceName {
        &self.options.instance
    }

    /// The stream whose ids these are.
    pub fn stream(&self) -> &StreamName {
        &self.options.stream
    }

    /// Completes when the position we announce has moved since the last time it did. For one waiter: with several
    /// streams on one [`poke`](IdGeneratorOptions::poke), it tells that one of them moved.
    pub fn changed(&self) -> Notified<'_> {
        self.ids.poke.notified()
    }

    /// Records our position for those who start later. To be called after each write, outside its transaction
    /// (Synapse #8456). Does nothing where nothing moved, or where this instance does not write.
    pub async fn persist_position(&self) -> Result<(), DatabaseError> {
        let position = self.current_token_for_writer(&self.options.instance);
        if !self.options.is_writer() || position <= self.recorded.get() {
            return Ok(());
        }
        let IdGeneratorOptions { instance, stream, .. } = self.options.clone();
        let record = move |tx: &rusqlite::Transaction<'_>| id_load::record_position(tx, &stream, &instance, position);
        self.database.transaction("persist_position", record).await?;
        self.recorded.set(position.max(self.recorded.get()));
        Ok(())
    }
}

/// A question to the sequence, given up when dropped.
struct Fetch {
    ids: Arc<Ids>,
    id: Option<FetchId>,
}

impl Fetch {
    fn begin(ids: &Arc<Ids>) -> Self {
        let id = ids.change(IdState::begin_fetch);
        Fetch { ids: ids.clone(), id: Some(id) }
    }

    fn answered(mut self, tokens: Vec<Token>) -> Allocation {
        if let Some(fetch) = self.id.take() {
            self.ids.change(|state| state.allocated(fetch, &tokens));
        }
        Allocation { owner: self.ids.clone(), ids: tokens }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        if let Some(fetch) = self.id.take() {
            self.ids.change(|state| state.abandon_fetch(fetch));
        }
    }
}

/// Ids to write rows with. Dropping it says that they are settled, and lets the positions pass them.
///
/// So it must live as long as the transaction that uses it may commit, which is longer than its caller waits. Move it
/// into the transaction's closure: that is dropped when the transaction is settled, and not before.
pub struct Allocation {
    owner: Arc<Ids>,
    ids: Vec<Token>,
}

impl Allocation {
    /// The ids, ascending and without gaps.
    pub fn ids(&self) -> &[Token] {
        &self.ids
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.owner.change(|state| state.finish(&self.ids));
    }
}
