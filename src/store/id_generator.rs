//! The ids of a stream with several writers: allocating them, and tracking the token up to which the stream is complete.
//!
//! The rules are in [`IdState`]. This module adds the database (the sequence, the recorded positions) and releases ids on
//! drop, so that a future dropped at any await leaves nothing outstanding.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::database::{Database, DatabaseError};
use super::doubt::{Doubt, Heard};
use super::id_load::{self, IdGeneratorOptions, LoadError};
use super::id_state::{FetchId, IdState, StartingPoint};
use super::sequences;
use squall_protocol::{InstanceName, StreamName, Token, VectorPosition};

#[cfg(test)]
mod crashes;
#[cfg(test)]
mod tests;

/// A failed allocation of ids.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// This instance is not configured to write the stream.
    #[error("{instance} is not configured as a writer of {stream}")]
    NotAWriter {
        /// This instance.
        instance: InstanceName,
        /// The stream.
        stream: StreamName,
    },
    /// The database has allocated less than the deployment: it is another database, or was set back. Rows under its ids
    /// would reach no follower, because followers have passed them.
    #[error(
        "the database has allocated {id} on {stream}, and {heard} was announced: it is not the database of this \
         deployment, or an old copy of it. Nothing is written. Use the database that all instances use, or set the \
         sequence {sequence} to {heard} or higher"
    )]
    ForeignDatabase {
        /// The stream.
        stream: StreamName,
        /// The sequence that ids are taken from.
        sequence: &'static str,
        /// The id that the database allocated last.
        id: Token,
        /// The higher token that was announced.
        heard: Token,
    },
    /// The instance follows another deployment, whose database it does not have.
    #[error("shares_database is false: this instance has another database than the writers of {0}, and writes nothing")]
    NotShared(StreamName),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// The name of the transaction that checks a token.
pub(crate) const CHECK: &str = "check_token";

/// The result of checking a token that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// The database has allocated it.
    Allocated,
    /// The database has not allocated it. No instance of the deployment can have announced it.
    NotAllocated,
}

/// The ids of one stream, as one instance sees and allocates them.
pub struct IdGenerator {
    database: Database,
    options: IdGeneratorOptions,
    /// The writers whose positions the database had at the start, and which are not configured.
    unclaimed: Vec<InstanceName>,
    ids: Arc<Ids>,
    /// The highest id that the database is known to have allocated.
    last_allocated: Cell<Token>,
    doubt: Doubt,
    /// The own position as last recorded, so that an unchanged position is not written again (Synapse #18672).
    recorded: Cell<Token>,
}

/// The state, behind a lock, because an [`Allocation`] may be dropped on the thread of the database.
struct Ids {
    instance: InstanceName,
    state: Mutex<IdState>,
    poke: Arc<Notify>,
}

impl Ids {
    fn state(&self) -> MutexGuard<'_, IdState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and notifies the streamer if that moved the position that this instance announces.
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
    /// Reads the positions of the stream. A writer's `database` must be in a session, begun before: the session settles the
    /// ids of its predecessor.
    pub async fn load(database: Database, options: IdGeneratorOptions) -> Result<Rc<Self>, LoadError> {
        let mut loaded = Self::load_all(database, vec![options]).await?;
        Ok(loaded.pop().expect("one generator for each of the options"))
    }

    /// Reads the positions of several streams in one transaction. Returns the generators in the order of `options`.
    pub async fn load_all(database: Database, options: Vec<IdGeneratorOptions>) -> Result<Vec<Rc<Self>>, LoadError> {
        let reading = options.clone();
        let read = move |tx: &rusqlite::Transaction<'_>| {
            reading.iter().map(|options| id_load::starting_point(tx, options)).collect::<rusqlite::Result<Vec<_>>>()
        };
        let starts = database.transaction("load_id_generators", read).await?;
        let load = |(options, start): (IdGeneratorOptions, Result<StartingPoint, LoadError>)| {
            let mut start = start?;
            let unclaimed = std::mem::take(&mut start.unclaimed);
            let instance = options.instance.clone();
            let recorded = start.positions.get(&instance).copied().unwrap_or_default();
            let last_allocated = Cell::new(start.max_allocated);
            let state = IdState::new(instance.clone(), start);
            let ids = Ids { instance, state: Mutex::new(state), poke: options.poke.clone() };
            let database = database.clone();
            let (ids, recorded) = (Arc::new(ids), Cell::new(recorded));
            let doubt = Doubt::default();
            Ok(Rc::new(IdGenerator { database, options, unclaimed, ids, last_allocated, doubt, recorded }))
        };
        options.into_iter().zip(starts).map(load).collect()
    }

    /// Takes `n` ids from the sequence, in a separate transaction.
    ///
    /// # Errors
    /// This instance does not write the stream, the database failed, or it is not the deployment's.
    pub async fn allocate(&self, n: usize) -> Result<Allocation, AllocateError> {
        if !self.options.is_writer() {
            let IdGeneratorOptions { instance, stream, .. } = self.options.clone();
            return Err(AllocateError::NotAWriter { instance, stream });
        }
        let IdGeneratorOptions { sequence, shares_database, .. } = self.options;
        if !shares_database {
            return Err(AllocateError::NotShared(self.options.stream.clone()));
        }
        self.doubt.settle().await.map_err(|heard| self.foreign(heard))?;
        let fetch = Fetch::begin(&self.ids);
        let last = self.database.transaction("allocate_ids", move |tx| sequences::take_ids(tx, sequence, n)).await?;
        let ids: Vec<_> = (1..=n as i64).map(|i| Token(last.0 - n as i64 + i)).collect();
        let id = ids.first().copied().unwrap_or(last);
        let stream = self.options.stream.clone();
        fetch.complete(ids).map_err(|heard| AllocateError::ForeignDatabase { stream, sequence, id, heard })
    }

    /// Advances `writer` to `token`, because it has announced that it is complete up to there (a POSITION).
    pub fn advance(&self, writer: &InstanceName, token: Token) {
        self.ids.change(|state| state.advance(writer, token));
    }

    /// Advances `writer` to `token`, because rows of that token have arrived (an RDATA, or a row fetched to catch up). Unlike
    /// an announced position, a row proves that its id is committed.
    pub fn advance_by_row(&self, writer: &InstanceName, token: Token) {
        self.ids.change(|state| state.advance_by_row(writer, token));
    }

    /// Checks `token`, which was heard. Every token is an id that the database has allocated. Where this instance has
    /// another database, `shares_database` is false, and nothing is checked.
    ///
    /// # Errors
    /// The database failed.
    pub async fn check(&self, token: Token) -> Result<Checked, DatabaseError> {
        let known = self.last_allocated.get().max(self.ids.state().max_allocated());
        if token <= known || !self.options.shares_database {
            return Ok(Checked::Allocated);
        }
        let sequence = self.options.sequence;
        let last = self.database.transaction(CHECK, move |tx| sequences::last_taken(tx, sequence)).await?;
        self.last_allocated.set(last.max(known));
        if token <= last {
            return Ok(Checked::Allocated);
        }
        self.doubt.arise(token, last);
        Ok(Checked::NotAllocated)
    }

    /// Returns the reason why writes are refused, while tokens are heard that the database has not allocated.
    pub fn refusal(&self) -> Option<AllocateError> {
        self.doubt.renewed().map(|heard| self.foreign(heard))
    }

    fn foreign(&self, Heard { token, last_allocated, .. }: Heard) -> AllocateError {
        let IdGeneratorOptions { stream, sequence, .. } = self.options.clone();
        AllocateError::ForeignDatabase { stream, sequence, id: last_allocated, heard: token }
    }

    /// Returns the token up to which every writer is complete.
    pub fn current_token(&self) -> Token {
        self.ids.state().current_token()
    }

    /// Returns the token up to which `writer` is complete; for this instance, the position it announces.
    pub fn current_token_for_writer(&self, writer: &InstanceName) -> Token {
        self.ids.state().current_token_for_writer(writer)
    }

    /// Returns the position of `writer` as received from it, by its announcements and rows.
    pub fn received_position(&self, writer: &InstanceName) -> Token {
        self.ids.state().received_position(writer)
    }

    /// Returns the last of the own ids below which no own id is outstanding.
    pub fn minimal_local_current_token(&self) -> Token {
        self.ids.state().minimal_local_current_token()
    }

    /// Returns true if the own id `token` is allocated and not settled yet.
    pub fn is_outstanding(&self, token: Token) -> bool {
        self.ids.state().is_outstanding(token)
    }

    /// Returns the highest own id that is settled. No own row has a higher id, unless that id is still outstanding.
    pub fn last_own_token(&self) -> Token {
        self.ids.state().last_own_token()
    }

    /// Returns the token up to which all writers are complete, and the writers that are further.
    pub fn vector(&self) -> VectorPosition {
        self.ids.state().vector()
    }

    /// Returns true if this instance writes the stream.
    pub fn is_writer(&self) -> bool {
        self.options.is_writer()
    }

    /// Returns the instances configured to write the stream.
    pub fn writers(&self) -> &[InstanceName] {
        &self.options.writers
    }

    /// Returns the writers whose positions the database had at the start, and which are not configured.
    pub fn unclaimed(&self) -> &[InstanceName] {
        &self.unclaimed
    }

    /// Returns this instance.
    pub fn instance(&self) -> &InstanceName {
        &self.options.instance
    }

    /// Returns the stream.
    pub fn stream(&self) -> &StreamName {
        &self.options.stream
    }

    /// Completes when the announced position has moved since the last completion. For one waiter only. If several streams
    /// share one [`poke`](IdGeneratorOptions::poke), it completes when any of them moved.
    pub fn changed(&self) -> Notified<'_> {
        self.ids.poke.notified()
    }

    /// Records the own position for instances that start later. To be called after each write, outside its transaction
    /// (Synapse #8456). Does nothing if the position has not moved, or if this instance does not write the stream.
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

/// A request for ids from the sequence, abandoned on drop.
struct Fetch {
    ids: Arc<Ids>,
    id: Option<FetchId>,
}

impl Fetch {
    fn begin(ids: &Arc<Ids>) -> Self {
        let id = ids.change(IdState::begin_fetch);
        Fetch { ids: ids.clone(), id: Some(id) }
    }

    /// Returns the allocation of `tokens`, or the higher token that was known before.
    fn complete(mut self, tokens: Vec<Token>) -> Result<Allocation, Token> {
        if let Some(fetch) = self.id.take() {
            self.ids.change(|state| state.allocated(fetch, &tokens))?;
        }
        Ok(Allocation { owner: self.ids.clone(), ids: tokens })
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        if let Some(fetch) = self.id.take() {
            self.ids.change(|state| state.abandon_fetch(fetch));
        }
    }
}

/// Ids to write rows with. Dropping it marks them as settled, and positions may then pass them.
///
/// So it must live as long as the transaction that uses it may commit, which is longer than its caller waits. Move it
/// into the transaction's closure, which is dropped when the transaction is settled, and not before.
pub struct Allocation {
    owner: Arc<Ids>,
    ids: Vec<Token>,
}

impl Allocation {
    /// Returns the ids, ascending and without gaps.
    pub fn ids(&self) -> &[Token] {
        &self.ids
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.owner.change(|state| state.finish(&self.ids));
    }
}
