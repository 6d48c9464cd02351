//! The values that instances cache and clients can read.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The key of a cached value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Cached {
    /// The current state of a room.
    State {
        /// The room.
        room_id: String,
    },
    /// An event.
    Event {
        /// The event.
        event_id: String,
    },
    /// The receipts of a room.
    Receipts {
        /// The room.
        room_id: String,
    },
    /// The data of a user for the whole account.
    AccountData {
        /// The user.
        user_id: String,
    },
    /// The data of a user for one room.
    RoomAccountData {
        /// The user.
        user_id: String,
        /// The room.
        room_id: String,
    },
}

impl Cached {
    /// Returns the stream whose rows change the value.
    pub fn stream(&self) -> &'static str {
        match self {
            Cached::State { .. } | Cached::Event { .. } => super::rows::events::NAME,
            Cached::Receipts { .. } => super::rows::receipts::NAME,
            Cached::AccountData { .. } | Cached::RoomAccountData { .. } => super::rows::account_data::NAME,
        }
    }
}

impl fmt::Display for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cached::State { room_id } => write!(f, "the state of {room_id}"),
            Cached::Event { event_id } => write!(f, "the event {event_id}"),
            Cached::Receipts { room_id } => write!(f, "the receipts of {room_id}"),
            Cached::AccountData { user_id } => write!(f, "the account data of {user_id}"),
            Cached::RoomAccountData { user_id, room_id } => write!(f, "the account data of {user_id} for {room_id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_what_it_holds_and_the_stream_whose_rows_change_it() {
        let (room_id, user_id) = ("!room:hs".to_owned(), "@user:hs".to_owned());
        let cases = [
            (Cached::State { room_id: room_id.clone() }, "the state of !room:hs", "events"),
            (Cached::Event { event_id: "$event".into() }, "the event $event", "events"),
            (Cached::Receipts { room_id: room_id.clone() }, "the receipts of !room:hs", "receipts"),
            (Cached::AccountData { user_id: user_id.clone() }, "the account data of @user:hs", "account_data"),
            (Cached::RoomAccountData { user_id, room_id }, "the account data of @user:hs for !room:hs", "account_data"),
        ];
        for (value, name, stream) in cases {
            assert_eq!((value.to_string().as_str(), value.stream()), (name, stream));
        }
    }
}
