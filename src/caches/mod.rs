//! What an instance keeps of the database in its memory, and when it ceases to believe it.
//!
//! The promise: **a read that begins when the instance's position is P reflects every row up to P**, and one that begins
//! after this instance told the caller of a write that it is done reflects that write. It rests on three things:
//!
//! - a value is loaded from the database, which holds every row that any position is past;
//! - [`Caches`] is a [`Keeper`](crate::streams::Keeper): it is told of rows before the position moves past them (Synapse
//!   #14723), of those that this instance writes itself too, and drops everything when nobody knows what became of a
//!   transaction;
//! - a load that was overtaken by an invalidation is not kept, see `cache`.
//!
//! An instance's caches are made after it has read where the streams stand. So nothing in them is older than the
//! positions it begins with, and what comes after those comes as rows.
//!
//! A stream whose later rows overwrite earlier ones (account data, receipts) may move past a row that is gone without
//! telling of it. What was overwritten is then invalidated with the row that did it, when that one comes.

mod cache;
mod cached;
mod invalidation;
mod kept;
pub mod values;

use std::rc::Rc;

use rusqlite::Transaction;

pub use cache::{Cache, LoadError};
pub use cached::Cached;
pub use values::{AccountData, Receipts, RoomState, Versioned};

use crate::env::Observer;
use crate::store::{Database, account_data, current_state, events, receipts};
use crate::streams::events::EventRow;

/// How many rooms' states are kept at most, and how many rooms' receipts.
pub const ROOMS_MAX: usize = 10_000;
/// How many events are kept at most.
pub const EVENTS_MAX: usize = 10_000;
/// How many users' account data are kept at most, and how many of a user and a room.
pub const USERS_MAX: usize = 10_000;

/// A value as readers share it.
type Shared<T> = Rc<Versioned<T>>;

/// The caches of one instance.
pub struct Caches {
    database: Database,
    observer: Rc<dyn Observer>,
    state: Cache<String, Shared<RoomState>>,
    events: Cache<String, Shared<Option<EventRow>>>,
    receipts: Cache<String, Shared<Receipts>>,
    account_data: Cache<String, Shared<AccountData>>,
    /// By user and room.
    room_account_data: Cache<(String, String), Shared<AccountData>>,
}

impl Caches {
    /// Empty caches over `database`. To be registered as a keeper before a position moves.
    pub fn new(database: Database, observer: Rc<dyn Observer>) -> Rc<Self> {
        Rc::new(Caches {
            database,
            observer,
            state: Cache::new(ROOMS_MAX),
            events: Cache::new(EVENTS_MAX),
            receipts: Cache::new(ROOMS_MAX),
            account_data: Cache::new(USERS_MAX),
            room_account_data: Cache::new(USERS_MAX),
        })
    }

    /// The current state of a room.
    ///
    /// # Errors
    /// Of this and the others: what the database failed with.
    pub async fn current_state(&self, room_id: &str) -> Result<Shared<RoomState>, LoadError> {
        let (key, room_id) = (room_id.to_owned(), room_id.to_owned());
        let read = move |tx: &Transaction<'_>| Ok(current_state::of_room(tx, &room_id)?.into());
        self.state.get(&key, self.load("read_current_state", read)).await
    }

    /// An event; none if there is none of that id.
    pub async fn event(&self, event_id: &str) -> Result<Shared<Option<EventRow>>, LoadError> {
        let (key, event_id) = (event_id.to_owned(), event_id.to_owned());
        let read = move |tx: &Transaction<'_>| Ok(events::event(tx, &event_id)?.into());
        self.events.get(&key, self.load("read_event", read)).await
    }

    /// The receipts in a room.
    pub async fn receipts(&self, room_id: &str) -> Result<Shared<Receipts>, LoadError> {
        let (key, room_id) = (room_id.to_owned(), room_id.to_owned());
        let read = move |tx: &Transaction<'_>| Ok(receipts::of_room(tx, &room_id)?.into());
        self.receipts.get(&key, self.load("read_receipts", read)).await
    }

    /// What a user keeps for the whole account.
    pub async fn account_data(&self, user_id: &str) -> Result<Shared<AccountData>, LoadError> {
        let (key, user_id) = (user_id.to_owned(), user_id.to_owned());
        let read = move |tx: &Transaction<'_>| Ok(account_data::of_user(tx, &user_id, None)?.into());
        self.account_data.get(&key, self.load("read_account_data", read)).await
    }

    /// What a user keeps for one room.
    pub async fn room_account_data(&self, user_id: &str, room_id: &str) -> Result<Shared<AccountData>, LoadError> {
        let key = (user_id.to_owned(), room_id.to_owned());
        let (user_id, room_id) = key.clone();
        let read = move |tx: &Transaction<'_>| Ok(account_data::of_user(tx, &user_id, Some(&room_id))?.into());
        self.room_account_data.get(&key, self.load("read_room_account_data", read)).await
    }

    /// A load by `read`, in a transaction called `name`.
    fn load<T: Send + 'static>(
        &self,
        name: &'static str,
        read: impl FnMut(&Transaction<'_>) -> rusqlite::Result<Versioned<T>> + Send + 'static,
    ) -> impl AsyncFnOnce() -> Result<Shared<T>, crate::store::DatabaseError> {
        let database = self.database.clone();
        async move || Ok(Rc::new(database.transaction(name, read).await?))
    }
}

#[cfg(test)]
mod tests;
