//! The mapping from replicated rows to the cache entries they invalidate.

use super::{Cache, Caches};
use crate::streams::CacheView;
use squall_protocol::Token;
use squall_protocol::rows::caches::CURRENT_STATE;
use squall_protocol::rows::events::{EventRow, StateAllRow, StateRow};
use squall_protocol::rows::{self, AccountDataRow, CachesRow, EventsRow, Json, ReceiptsRow, Row};

/// The names of caches in rows of `caches`, which are Synapse's. Each doc comment has the first parts of the keys.
mod name {
    /// The current state of a room: the room.
    pub(super) const STATE: &str = "get_partial_current_state_ids";
    /// An event: the event.
    pub(super) const EVENT: &str = "get_event";
    /// The receipts in a room: the room.
    pub(super) const RECEIPTS: &str = "_get_linearized_receipts_for_room";
    /// The data of an account: the user.
    pub(super) const ACCOUNT_DATA: &str = "get_global_account_data_for_user";
    /// The data of an account for a room: the user and the room.
    pub(super) const ROOM_ACCOUNT_DATA: &str = "get_account_data_for_room";
}

impl CacheView for Caches {
    fn apply(&self, _token: Token, row: &Row) {
        match row {
            // Also if the event stops being an outlier.
            Row::Events(EventsRow::Event(EventRow { event_id, .. })) => self.events.invalidate(event_id),
            Row::Events(EventsRow::State(StateRow { room_id, .. }) | EventsRow::StateAll(StateAllRow { room_id })) => {
                self.state.invalidate(room_id)
            }
            Row::Receipts(ReceiptsRow { room_id, .. }) => self.receipts.invalidate(room_id),
            Row::AccountData(AccountDataRow { user_id, room_id: None, .. }) => self.account_data.invalidate(user_id),
            Row::AccountData(AccountDataRow { user_id, room_id: Some(room_id), .. }) => {
                self.room_account_data.invalidate(&(user_id.clone(), room_id.clone()));
            }
            Row::Caches(row) => self.apply_invalidation(row),
            // No cache depends on the other streams.
            _ => {}
        }
    }

    fn invalidate_stream(&self, stream: &str) {
        match stream {
            rows::events::NAME => self.invalidate_events(),
            rows::receipts::NAME => self.receipts.invalidate_all(),
            rows::account_data::NAME => self.invalidate_account_data(),
            rows::caches::NAME => {
                self.invalidate_events();
                self.receipts.invalidate_all();
                self.invalidate_account_data();
            }
            _ => {}
        }
    }
}

impl Caches {
    fn invalidate_events(&self) {
        self.state.invalidate_all();
        self.events.invalidate_all();
    }

    fn invalidate_account_data(&self) {
        self.account_data.invalidate_all();
        self.room_account_data.invalidate_all();
    }

    /// Applies a row of `caches`. A cache that is not known here belongs to another version. A key of unknown shape stands for
    /// all keys.
    fn apply_invalidation(&self, CachesRow { cache, keys, .. }: &CachesRow) {
        let part = |index| keys.as_ref().and_then(|Json(keys)| keys.get(index)?.as_str()).map(str::to_owned);
        match cache.as_str() {
            CURRENT_STATE | name::STATE => invalidate_one_or_all(&self.state, part(0)),
            name::EVENT => invalidate_one_or_all(&self.events, part(0)),
            name::RECEIPTS => invalidate_one_or_all(&self.receipts, part(0)),
            name::ACCOUNT_DATA => invalidate_one_or_all(&self.account_data, part(0)),
            name::ROOM_ACCOUNT_DATA => match (part(0), part(1)) {
                (Some(user_id), Some(room_id)) => self.room_account_data.invalidate(&(user_id, room_id)),
                (Some(user_id), None) => self.room_account_data.invalidate_where(|(user, _)| *user == user_id),
                _ => self.room_account_data.invalidate_all(),
            },
            unknown => self.observer.unknown_cache(unknown),
        }
    }
}

fn invalidate_one_or_all<V: Clone>(cache: &Cache<String, V>, key: Option<String>) {
    match key {
        Some(key) => cache.invalidate(&key),
        None => cache.invalidate_all(),
    }
}
