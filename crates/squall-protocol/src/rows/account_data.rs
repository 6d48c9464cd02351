//! Rows of `account_data`: data that users store on the server, for their account or for one room.
//!
//! A row names the changed data and does not hold its content. Before Synapse 1.7 the content was in the row, and rows
//! outgrew their lines (Synapse #6333). Clients choose the type, which may still be too long for a line.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "account_data";

/// A change of account data.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountDataRow {
    /// The user it belongs to.
    pub user_id: String,
    /// The room it is about; `None` if it is about the whole account.
    pub room_id: Option<String>,
    /// Its type, such as `m.direct`.
    pub kind: String,
}

impl AccountDataRow {
    /// Parses `[user_id, room_id | null, type]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (user_id, room_id, kind) = Deserialize::deserialize(row)?;
        Ok(AccountDataRow { user_id, room_id, kind })
    }

    /// Writes `[user_id, room_id | null, type]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.user_id, &self.room_id, &self.kind).serialize(to)
    }
}
