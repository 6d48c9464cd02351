//! Rows of `thread_subscriptions`: threads that users have begun or ceased to follow (Synapse 1.163.2,
//! `streams/_base.py`).
//!
//! A row does not tell which of the two, so only the newest row of a (user, room, thread) matters.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "thread_subscriptions";

/// A change of a user's subscription to a thread.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadSubscriptionsRow {
    /// The user.
    pub user_id: String,
    /// The room.
    pub room_id: String,
    /// The event that the thread begins with.
    pub event_id: String,
}

impl ThreadSubscriptionsRow {
    /// Parses `[user_id, room_id, event_id]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (user_id, room_id, event_id) = Deserialize::deserialize(row)?;
        Ok(ThreadSubscriptionsRow { user_id, room_id, event_id })
    }

    /// Writes `[user_id, room_id, event_id]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.user_id, &self.room_id, &self.event_id).serialize(to)
    }
}
