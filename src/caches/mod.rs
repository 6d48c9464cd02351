//! The values of the database that an instance caches, and their invalidation.
//!
//! The guarantee: **a read that begins when the instance's position is P reflects every row up to P**, and a read that
//! begins after this instance has acknowledged a write reflects that write. It rests on three rules:
//!
//! - A value is loaded from the database, which holds every row that any position has passed.
//! - [`Caches`] is a [`CacheView`](crate::streams::CacheView). It receives rows before the position moves past them
//!   (Synapse #14723), including the rows that this instance writes. It drops everything that a transaction with an
//!   unknown result could change.
//! - A load that was overtaken by an invalidation is not cached, see `cache`.
//!
//! An instance creates its caches after it has read the positions of the streams. So no cached value is older than those
//! positions, and every later change arrives as a row.
//!
//! A stream whose later rows replace earlier ones (account data, receipts) may move past a replaced row without sending
//! it. The cached value is then invalidated by the row that replaced it, when that one arrives.

mod cache;
mod invalidation;
mod lru_map;
mod values;

use std::rc::Rc;

use rusqlite::Transaction;

pub use cache::{Cache, LoadError};
pub use values::{AccountData, Receipts, RoomState, Versioned};

use crate::observer::Observer;
use crate::store::{Database, account_data, current_state, events, receipts};
use squall_protocol::rows::events::EventRow;

/// A cached value, shared by its readers.
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
    /// Creates empty caches over `database`, each of at most `cached_max` values. They must be registered as a view before a
    /// position moves.
    pub fn new(database: Database, cached_max: usize, observer: Rc<dyn Observer>) -> Rc<Self> {
        Rc::new(Caches {
            state: Cache::new(cached_max).reporting_to(&observer),
            events: Cache::new(cached_max).reporting_to(&observer),
            receipts: Cache::new(cached_max).reporting_to(&observer),
            account_data: Cache::new(cached_max).reporting_to(&observer),
            room_account_data: Cache::new(cached_max).reporting_to(&observer),
            database,
            observer,
        })
    }

    /// Returns the current state of a room.
    ///
    /// # Errors
    /// The database failed.
    pub async fn current_state(&self, room_id: &str) -> Result<Shared<RoomState>, LoadError> {
        let key = room_id.to_owned();
        let room_id = key.clone();
        let read = move |tx: &Transaction<'_>| Ok(current_state::in_room(tx, &room_id)?.into());
        self.state.get(&key, self.load("read_current_state", read)).await
    }

    /// Returns an event, or `None` if no event has that id.
    ///
    /// # Errors
    /// The database failed.
    pub async fn event(&self, event_id: &str) -> Result<Shared<Option<EventRow>>, LoadError> {
        let key = event_id.to_owned();
        let event_id = key.clone();
        let read = move |tx: &Transaction<'_>| Ok(events::event(tx, &event_id)?.into());
        self.events.get(&key, self.load("read_event", read)).await
    }

    /// Returns the receipts in a room.
    ///
    /// # Errors
    /// The database failed.
    pub async fn receipts(&self, room_id: &str) -> Result<Shared<Receipts>, LoadError> {
        let key = room_id.to_owned();
        let room_id = key.clone();
        let read = move |tx: &Transaction<'_>| Ok(receipts::in_room(tx, &room_id)?.into());
        self.receipts.get(&key, self.load("read_receipts", read)).await
    }

    /// Returns a user's data for the whole account.
    ///
    /// # Errors
    /// The database failed.
    pub async fn account_data(&self, user_id: &str) -> Result<Shared<AccountData>, LoadError> {
        let key = user_id.to_owned();
        let user_id = key.clone();
        let read = move |tx: &Transaction<'_>| Ok(account_data::for_user(tx, &user_id, None)?.into());
        self.account_data.get(&key, self.load("read_account_data", read)).await
    }

    /// Returns a user's data for one room.
    ///
    /// # Errors
    /// The database failed.
    pub async fn room_account_data(&self, user_id: &str, room_id: &str) -> Result<Shared<AccountData>, LoadError> {
        let key = (user_id.to_owned(), room_id.to_owned());
        let (user_id, room_id) = key.clone();
        let read = move |tx: &Transaction<'_>| Ok(account_data::for_user(tx, &user_id, Some(&room_id))?.into());
        self.room_account_data.get(&key, self.load("read_room_account_data", read)).await
    }

    /// Returns a load that runs `read` in a transaction called `name`.
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
