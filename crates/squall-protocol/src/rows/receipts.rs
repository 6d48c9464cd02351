//! Rows of `receipts`: the events up to which users have read.
//!
//! Only the newest receipt of a (room, type, user, thread) matters.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::json::Json;

/// The stream's name on the wire.
pub const NAME: &str = "receipts";

/// A receipt of a user for an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiptsRow {
    /// The room.
    pub room_id: String,
    /// `m.read`, `m.read.private` or a type of the client's own.
    pub kind: String,
    /// The user who has read.
    pub user_id: String,
    /// The last event that was read.
    pub event_id: String,
    /// The thread, if the receipt is about one.
    pub thread_id: Option<String>,
    /// Further data of the client, an object, such as the time.
    pub data: Json,
}

impl ReceiptsRow {
    /// Parses `[room_id, receipt_type, user_id, event_id, thread_id | null, {..}]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (room_id, kind, user_id, event_id, thread_id, data): (_, _, _, _, _, Map<String, Value>) =
            Deserialize::deserialize(row)?;
        Ok(ReceiptsRow { room_id, kind, user_id, event_id, thread_id, data: Json(data.into()) })
    }

    /// Writes `[room_id, receipt_type, user_id, event_id, thread_id | null, {..}]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.room_id, &self.kind, &self.user_id, &self.event_id, &self.thread_id, &self.data).serialize(to)
    }
}
