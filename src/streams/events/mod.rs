//! `events`: what happened in rooms, and what became of their current state.
//!
//! Several instances write it, each the rooms that fall to it; all share one sequence of tokens.

mod updates;

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::{Value, json};

use super::{Promise, Source};

pub use updates::{STATE_ROWS_PER_ROOM_MAX, updates};

/// The stream's name on the wire.
pub const NAME: &str = "events";

/// Where the rows lie.
pub const SOURCE: Source = Source {
    name: NAME,
    promise: Promise::Log,
    sequence: "events_stream_seq",
    tables: &[
        ("events", "stream_ordering"),
        ("current_state_delta_stream", "stream_id"),
        ("ex_outlier_stream", "event_stream_ordering"),
    ],
    updates,
    transaction: "events_updates",
};

/// A row of the stream. The order of the variants is the order of rows on one token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventsRow {
    /// `ev`: an event was persisted.
    Event(EventRow),
    /// `state`: one entry of a room's current state changed.
    State(StateRow),
    /// `state-all`: so much of a room's state changed that all of it is to be read anew (Synapse #16510).
    StateAll(StateAllRow),
}

/// An event was persisted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventRow {
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
    /// Its membership, if it is a membership event.
    pub membership: Option<String>,
    /// Whether it was rejected.
    pub rejected: bool,
    /// Whether it stands outside the room's graph.
    pub outlier: bool,
}

/// One entry of a room's current state changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateRow {
    /// The room.
    pub room_id: String,
    /// The entry's event type.
    pub kind: String,
    /// The entry's state key.
    pub state_key: String,
    /// The event that is the entry now; none if it was removed.
    pub event_id: Option<String>,
}

/// All of a room's state is to be read anew.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateAllRow {
    /// The room.
    pub room_id: String,
}

impl EventsRow {
    /// Understands `[tag, [field, ...]]` with exactly the fields of the tag.
    pub fn parse(row: &Value) -> Result<Self, serde_json::Error> {
        let (tag, fields): (String, Value) = Deserialize::deserialize(row)?;
        match tag.as_str() {
            "ev" => {
                let (event_id, room_id, kind, state_key, redacts, relates_to, membership, rejected, outlier) =
                    Deserialize::deserialize(&fields)?;
                let row =
                    EventRow { event_id, room_id, kind, state_key, redacts, relates_to, membership, rejected, outlier };
                Ok(EventsRow::Event(row))
            }
            "state" => {
                let (room_id, kind, state_key, event_id) = Deserialize::deserialize(&fields)?;
                Ok(EventsRow::State(StateRow { room_id, kind, state_key, event_id }))
            }
            "state-all" => {
                let (room_id,) = Deserialize::deserialize(&fields)?;
                Ok(EventsRow::StateAll(StateAllRow { room_id }))
            }
            other => Err(serde_json::Error::custom(format!("unknown row type {other:?}"))),
        }
    }

    /// `[tag, [field, ...]]`.
    pub fn to_json(&self) -> Value {
        match self {
            EventsRow::Event(row) => json!([
                "ev",
                [
                    row.event_id,
                    row.room_id,
                    row.kind,
                    row.state_key,
                    row.redacts,
                    row.relates_to,
                    row.membership,
                    row.rejected,
                    row.outlier
                ]
            ]),
            EventsRow::State(row) => json!(["state", [row.room_id, row.kind, row.state_key, row.event_id]]),
            EventsRow::StateAll(row) => json!(["state-all", [row.room_id]]),
        }
    }
}
