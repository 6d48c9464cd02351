//! Rows of `un_partial_stated_event`: events whose state is now known in full (Synapse 1.163.2,
//! `streams/partial_state.py`).
//!
//! A server that has just joined a room goes on with part of its state until it has fetched the rest.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "un_partial_stated_event";

/// An event whose state is now known in full.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnPartialStatedEventRow {
    /// The event.
    pub event_id: String,
    /// True if it was accepted before and is rejected now, or the reverse.
    pub rejection_status_changed: bool,
}

impl UnPartialStatedEventRow {
    /// Parses `[event_id, rejection_status_changed]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (event_id, rejection_status_changed) = Deserialize::deserialize(row)?;
        Ok(UnPartialStatedEventRow { event_id, rejection_status_changed })
    }

    /// Writes `[event_id, rejection_status_changed]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.event_id, self.rejection_status_changed).serialize(to)
    }
}
