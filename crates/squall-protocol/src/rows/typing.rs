//! Rows of `typing`: the users who are typing in each room.
//!
//! A row holds all users who are typing in a room, so only the newest row of each room matters.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "typing";

/// The users who are typing in one room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypingRow {
    /// The room.
    pub room_id: String,
    /// The users, in the order they began.
    pub user_ids: Vec<String>,
}

impl TypingRow {
    /// Parses `[room_id, [user_id, ...]]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (room_id, user_ids) = Deserialize::deserialize(row)?;
        Ok(TypingRow { room_id, user_ids })
    }

    /// Writes `[room_id, [user_id, ...]]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.room_id, &self.user_ids).serialize(to)
    }
}
