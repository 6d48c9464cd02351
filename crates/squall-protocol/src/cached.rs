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
