//! Rows of `presence_federation`: users whose presence must be sent to a server (Synapse 1.163.2, `streams/_base.py` and
//! `handlers/presence.py`).
//!
//! The list is in the memory of the presence writer, which numbers from 1 at every start, and drops entries after five
//! minutes.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "presence_federation";

/// A user whose presence a server must be sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PresenceFederationRow {
    /// The server.
    pub destination: String,
    /// The user.
    pub user_id: String,
}

impl PresenceFederationRow {
    /// Parses `[destination, user_id]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (destination, user_id) = Deserialize::deserialize(row)?;
        Ok(PresenceFederationRow { destination, user_id })
    }

    /// Writes `[destination, user_id]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.destination, &self.user_id).serialize(to)
    }
}
