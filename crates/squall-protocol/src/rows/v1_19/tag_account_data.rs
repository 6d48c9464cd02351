//! Rows of `tag_account_data`: the tags that users give to rooms (Synapse 1.19.1, `streams/_base.py`). They are rows of
//! `account_data` since Synapse #14826.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::rows::Json;

/// The stream's name on the wire.
pub const NAME: &str = "tag_account_data";

/// The tags of a user for a room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagAccountDataRow {
    /// The user.
    pub user_id: String,
    /// The room.
    pub room_id: String,
    /// The tags. Synapse sends the text of an object, and reads JSON of any shape.
    pub data: Json,
}

impl TagAccountDataRow {
    /// Parses `[user_id, room_id, tags]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (user_id, room_id, data) = Deserialize::deserialize(row)?;
        Ok(TagAccountDataRow { user_id, room_id, data })
    }

    /// Writes `[user_id, room_id, tags]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.user_id, &self.room_id, &self.data).serialize(to)
    }
}
