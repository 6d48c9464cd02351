//! Which rows say of which cached values that they are no longer to be believed.

use super::{Cache, Caches};
use crate::protocol::Token;
use crate::streams::events::{EventRow, StateAllRow, StateRow};
use crate::streams::{
    self, AccountDataRow, CachesRow, EventsRow, Json, Keeper, ReceiptsRow, Row, caches::CURRENT_STATE,
};

/// The caches by the names that rows of `caches` use, which are Synapse's, with what their keys begin with.
mod name {
    /// The current state of a room: the room.
    pub const STATE: &str = "get_partial_current_state_ids";
    /// An event: the event.
    pub const EVENT: &str = "get_event";
    /// The receipts in a room: the room.
    pub const RECEIPTS: &str = "_get_linearized_receipts_for_room";
    /// What a user keeps for the account: the user.
    pub const ACCOUNT_DATA: &str = "get_global_account_data_for_user";
    /// What a user keeps for a room: the user and the room.
    pub const ROOM_ACCOUNT_DATA: &str = "get_account_data_for_room";
}

impl Keeper for Caches {
    fn take(&self, _token: Token, row: &Row) {
        match row {
            // Also where an event ceased to be an outlier.
            Row::Events(EventsRow::Event(EventRow { event_id, .. })) => self.events.invalidate(event_id),
            Row::Events(EventsRow::State(StateRow { room_id, .. }) | EventsRow::StateAll(StateAllRow { room_id })) => {
                self.state.invalidate(room_id)
            }
            Row::Receipts(ReceiptsRow { room_id, .. }) => self.receipts.invalidate(room_id),
            Row::AccountData(AccountDataRow { user_id, room_id: None, .. }) => self.account_data.invalidate(user_id),
            Row::AccountData(AccountDataRow { user_id, room_id: Some(room_id), .. }) => {
                self.room_account_data.invalidate(&(user_id.clone(), room_id.clone()));
            }
            Row::Caches(row) => self.take_invalidation(row),
            Row::Presence(_) | Row::ToDevice(_) | Row::Typing(_) => {}
        }
    }

    fn doubt(&self, stream: &str) {
        let of_events = || {
            self.state.invalidate_all();
            self.events.invalidate_all();
        };
        let of_account_data = || {
            self.account_data.invalidate_all();
            self.room_account_data.invalidate_all();
        };
        match stream {
            streams::events::NAME => of_events(),
            streams::receipts::NAME => self.receipts.invalidate_all(),
            streams::account_data::NAME => of_account_data(),
            streams::caches::NAME => {
                of_events();
                self.receipts.invalidate_all();
                of_account_data();
            }
            _ => {}
        }
    }
}

impl Caches {
    /// A cache that is not here is another version's. A key in a shape that is not understood stands for all keys.
    fn take_invalidation(&self, CachesRow { cache, keys, .. }: &CachesRow) {
        let part = |index| keys.as_ref().and_then(|Json(keys)| keys.get(index)?.as_str()).map(str::to_owned);
        match cache.as_str() {
            CURRENT_STATE | name::STATE => of_one_or_all(&self.state, part(0)),
            name::EVENT => of_one_or_all(&self.events, part(0)),
            name::RECEIPTS => of_one_or_all(&self.receipts, part(0)),
            name::ACCOUNT_DATA => of_one_or_all(&self.account_data, part(0)),
            name::ROOM_ACCOUNT_DATA => match (part(0), part(1)) {
                (Some(user_id), Some(room_id)) => self.room_account_data.invalidate(&(user_id, room_id)),
                (Some(user_id), None) => self.room_account_data.invalidate_where(|(user, _)| *user == user_id),
                _ => self.room_account_data.invalidate_all(),
            },
            unknown => self.observer.unknown_cache(unknown),
        }
    }
}

fn of_one_or_all<V: Clone>(cache: &Cache<String, V>, key: Option<String>) {
    match key {
        Some(key) => cache.invalidate(&key),
        None => cache.invalidate_all(),
    }
}
