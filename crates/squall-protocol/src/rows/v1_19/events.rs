//! Rows of `events` in Synapse 1.19 (1.19.1, `streams/events.py`): events have fewer fields; there is no `state-all`.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::rows::BackfillRow;
use crate::rows::events::StateRow;

pub use crate::rows::events::NAME;

/// A row of the stream. The order of the variants is the order of rows on one token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventsRow {
    /// `ev`: an event was persisted. It has the fields that rows of `backfill` have to this day.
    Event(BackfillRow),
    /// `state`: one entry of a room's current state changed.
    State(StateRow),
}

impl EventsRow {
    /// Parses `[tag, [field, ...]]` with exactly the fields of the tag.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (tag, fields): (String, Value) = Deserialize::deserialize(row)?;
        match &*tag {
            "ev" => BackfillRow::parse(fields).map(EventsRow::Event).map_err(D::Error::custom),
            "state" => {
                let (room_id, kind, state_key, event_id) = of_fields(fields)?;
                Ok(EventsRow::State(StateRow { room_id, kind, state_key, event_id }))
            }
            other => Err(D::Error::custom(format!("unknown row type {other:?}"))),
        }
    }

    /// Writes `[tag, [field, ...]]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            EventsRow::Event(BackfillRow { event_id, room_id, kind, state_key, redacts, relates_to }) => {
                ("ev", (event_id, room_id, kind, state_key, redacts, relates_to)).serialize(to)
            }
            EventsRow::State(StateRow { room_id, kind, state_key, event_id }) => {
                ("state", (room_id, kind, state_key, event_id)).serialize(to)
            }
        }
    }
}

/// Reads the fields behind a tag.
fn of_fields<T: DeserializeOwned, E: Error>(fields: Value) -> Result<T, E> {
    serde_json::from_value(fields).map_err(E::custom)
}
