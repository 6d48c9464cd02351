//! Rows of `sticky_events`: events that every client is given for some time, however long the timeline grows meanwhile
//! (Synapse 1.163.2, as `tests/data/vectors_1.163.2.json` records it).
//!
//! The writers of `events` write them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "sticky_events";

/// A sticky event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StickyEventsRow {
    /// The room.
    pub room_id: String,
    /// The event.
    pub event_id: String,
}

impl StickyEventsRow {
    /// Parses `[room_id, event_id]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (room_id, event_id) = Deserialize::deserialize(row)?;
        Ok(StickyEventsRow { room_id, event_id })
    }

    /// Writes `[room_id, event_id]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.room_id, &self.event_id).serialize(to)
    }
}
