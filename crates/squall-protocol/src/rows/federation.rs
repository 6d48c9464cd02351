//! Rows of `federation`: what federation senders must send to other servers, besides events (Synapse 1.163.2,
//! `federation/send_queue.py`).
//!
//! The queue is in the memory of its writer, which numbers from 1 at every start. It drops what every sender has
//! acknowledged, and what is old.
//!
//! | kind | data |
//! |---|---|
//! | `pd` | `{"state": presence, "dests": [server, ...]}` |
//! | `k` | `{"key": [...], "edu": {..}}`: an EDU that replaces an earlier one of the same key and server |
//! | `e` | an EDU |
//!
//! Synapse reads a row of any kind. It passes over one of an unknown kind, and so must a sender here.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::json::Json;

/// The stream's name on the wire.
pub const NAME: &str = "federation";

/// An entry of the send queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FederationRow {
    /// Its kind: `pd`, `k`, `e`, or one of another version.
    pub kind: String,
    /// Its content, an object.
    pub data: Json,
}

impl FederationRow {
    /// Parses `[type, {..}]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (kind, data): (_, Map<String, Value>) = Deserialize::deserialize(row)?;
        Ok(FederationRow { kind, data: Json(data.into()) })
    }

    /// Writes `[type, {..}]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.kind, &self.data).serialize(to)
    }
}
