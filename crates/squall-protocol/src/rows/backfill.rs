//! Rows of `backfill`: events from before a server joined, fetched from other servers later (Synapse 1.163.2,
//! `streams/_base.py`).
//!
//! The database numbers them downwards from -1, so that they are older than every event of the timeline. On the wire
//! their tokens are positive and ascend.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "backfill";

/// An event that was fetched from another server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackfillRow {
    /// The event.
    pub event_id: String,
    /// Its room.
    pub room_id: String,
    /// Its type, such as `m.room.message`.
    pub kind: String,
    /// Its state key, if it is a state event.
    pub state_key: Option<String>,
    /// The event it redacts.
    pub redacts: Option<String>,
    /// The event it relates to.
    pub relates_to: Option<String>,
}

impl BackfillRow {
    /// Parses `[event_id, room_id, type, state_key | null, redacts | null, relates_to | null]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (event_id, room_id, kind, state_key, redacts, relates_to) = Deserialize::deserialize(row)?;
        Ok(BackfillRow { event_id, room_id, kind, state_key, redacts, relates_to })
    }

    /// Writes `[event_id, room_id, type, state_key | null, redacts | null, relates_to | null]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.event_id, &self.room_id, &self.kind, &self.state_key, &self.redacts, &self.relates_to).serialize(to)
    }
}
