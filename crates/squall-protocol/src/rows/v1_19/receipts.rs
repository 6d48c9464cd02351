//! Rows of `receipts` in Synapse 1.19 (1.19.1, `streams/_base.py`): without a thread.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::rows::Json;

/// The stream's name on the wire.
pub const NAME: &str = "receipts";

/// A receipt of a user for an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiptsRow {
    /// The room.
    pub room_id: String,
    /// `m.read` or another type.
    pub kind: String,
    /// The user who has read.
    pub user_id: String,
    /// The last event that was read.
    pub event_id: String,
    /// Further data of the client, an object, such as the time.
    pub data: Json,
}

impl ReceiptsRow {
    /// Parses `[room_id, receipt_type, user_id, event_id, {..}]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (room_id, kind, user_id, event_id, data): (_, _, _, _, Map<String, Value>) = Deserialize::deserialize(row)?;
        Ok(ReceiptsRow { room_id, kind, user_id, event_id, data: Json(data.into()) })
    }

    /// Writes `[room_id, receipt_type, user_id, event_id, {..}]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.room_id, &self.kind, &self.user_id, &self.event_id, &self.data).serialize(to)
    }
}
