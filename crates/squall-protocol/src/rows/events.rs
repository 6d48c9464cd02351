//! Rows of `events`: new events, and changes of rooms' current state.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "events";

/// A row of the stream. The order of the variants is the order of rows on one token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventsRow {
    /// `ev`: an event was persisted.
    Event(EventRow),
    /// `state`: one entry of a room's current state changed.
    State(StateRow),
    /// `state-all`: so much of a room's state changed that all of it must be read again (Synapse #16510).
    StateAll(StateAllRow),
}

/// A persisted event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventRow {
    /// Its id, unique over the whole deployment: persisting an event twice is an error.
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
    /// True if it failed authorisation.
    pub rejected: bool,
    /// True if the state of the room at it is not known, so that it is outside the room's timeline.
    pub outlier: bool,
}

/// A change of one entry of a room's current state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateRow {
    /// The room.
    pub room_id: String,
    /// The entry's event type.
    pub kind: String,
    /// The entry's state key.
    pub state_key: String,
    /// The event that is now the entry; `None` if it was removed.
    pub event_id: Option<String>,
}

/// A room whose state must be read again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateAllRow {
    /// The room.
    pub room_id: String,
}

impl EventRow {
    /// Returns a message: no state event, no membership event, related to no other event.
    pub fn message(event_id: impl Into<String>, room_id: impl Into<String>) -> Self {
        EventRow {
            event_id: event_id.into(),
            room_id: room_id.into(),
            kind: "m.room.message".into(),
            state_key: None,
            redacts: None,
            relates_to: None,
            membership: None,
            rejected: false,
            outlier: false,
        }
    }
}

impl EventsRow {
    /// Parses `[tag, [field, ...]]` with exactly the fields of the tag.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        row.deserialize_tuple(2, TaggedFields)
    }

    /// Writes `[tag, [field, ...]]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            EventsRow::Event(EventRow {
                event_id,
                room_id,
                kind,
                state_key,
                redacts,
                relates_to,
                membership,
                rejected,
                outlier,
            }) => {
                let fields = (event_id, room_id, kind, state_key, redacts, relates_to, membership, rejected, outlier);
                ("ev", fields).serialize(to)
            }
            EventsRow::State(StateRow { room_id, kind, state_key, event_id }) => {
                ("state", (room_id, kind, state_key, event_id)).serialize(to)
            }
            EventsRow::StateAll(StateAllRow { room_id }) => ("state-all", (room_id,)).serialize(to),
        }
    }
}

/// The tag of a row: the kind of the fields behind it.
#[derive(Deserialize)]
struct Tag<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads a tag and the fields that it names.
struct TaggedFields;

impl<'de> Visitor<'de> for TaggedFields {
    type Value = EventsRow;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tuple of size 2")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut row: A) -> Result<EventsRow, A::Error> {
        let Tag(tag) = row.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let no_fields = || A::Error::invalid_length(1, &self);
        match &*tag {
            "ev" => {
                let (event_id, room_id, kind, state_key, redacts, relates_to, membership, rejected, outlier) =
                    row.next_element()?.ok_or_else(no_fields)?;
                let row =
                    EventRow { event_id, room_id, kind, state_key, redacts, relates_to, membership, rejected, outlier };
                Ok(EventsRow::Event(row))
            }
            "state" => {
                let (room_id, kind, state_key, event_id) = row.next_element()?.ok_or_else(no_fields)?;
                Ok(EventsRow::State(StateRow { room_id, kind, state_key, event_id }))
            }
            "state-all" => {
                let (room_id,) = row.next_element()?.ok_or_else(no_fields)?;
                Ok(EventsRow::StateAll(StateAllRow { room_id }))
            }
            other => Err(A::Error::custom(format!("unknown row type {other:?}"))),
        }
    }
}
