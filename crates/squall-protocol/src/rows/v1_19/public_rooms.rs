//! Rows of `public_rooms`: changes of the room directory (Synapse 1.19.1, `streams/_base.py`). The stream is gone.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "public_rooms";

/// A room that was listed in a directory, or taken out of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicRoomsRow {
    /// The room.
    pub room_id: String,
    /// `public` or `private`.
    pub visibility: String,
    /// The application service whose directory it is.
    pub appservice_id: Option<String>,
    /// The network of that service.
    pub network_id: Option<String>,
}

impl PublicRoomsRow {
    /// Parses `[room_id, visibility, appservice_id | null, network_id | null]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (room_id, visibility, appservice_id, network_id) = Deserialize::deserialize(row)?;
        Ok(PublicRoomsRow { room_id, visibility, appservice_id, network_id })
    }

    /// Writes `[room_id, visibility, appservice_id | null, network_id | null]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.room_id, &self.visibility, &self.appservice_id, &self.network_id).serialize(to)
    }
}
