//! Rows of `un_partial_stated_room`: rooms whose state is now known in full (Synapse 1.163.2,
//! `streams/partial_state.py`).
//!
//! See [`un_partial_stated_event`](super::un_partial_stated_event).

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "un_partial_stated_room";

/// A room whose state is now known in full.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnPartialStatedRoomRow {
    /// The room.
    pub room_id: String,
}

impl UnPartialStatedRoomRow {
    /// Parses `[room_id]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (room_id,) = Deserialize::deserialize(row)?;
        Ok(UnPartialStatedRoomRow { room_id })
    }

    /// Writes `[room_id]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.room_id,).serialize(to)
    }
}
