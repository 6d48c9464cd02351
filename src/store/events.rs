//! Writing the events stream.
//!
//! Three tables feed it: new events, changes of a room's current state, and events that stop being outliers. All rows of
//! one token are written in one transaction, so a reader sees a token whole or not at all.

use rusqlite::{OptionalExtension, Row, Transaction};

use super::current_state;
use crate::protocol::{InstanceName, Token};
use crate::streams::events::EventRow;

/// An event to be persisted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Unique over the whole deployment: persisting an event twice is an error.
    pub event_id: String,
    /// The room it is in.
    pub room_id: String,
    /// Its type, such as `m.room.message`.
    pub kind: String,
    /// Present if it is a state event.
    pub state_key: Option<String>,
    /// The event it redacts.
    pub redacts: Option<String>,
    /// The event it relates to.
    pub relates_to: Option<String>,
    /// The membership it sets, if it is a membership event.
    pub membership: Option<String>,
    /// Whether it failed authorisation.
    pub rejected: bool,
    /// Whether the state of its room is not known at it.
    pub outlier: bool,
}

impl NewEvent {
    /// A message: no state, no membership, related to nothing.
    pub fn message(event_id: impl Into<String>, room_id: impl Into<String>) -> Self {
        NewEvent {
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

/// A change of one entry of a room's current state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDelta {
    /// The room it is in.
    pub room_id: String,
    /// The type of the state entry.
    pub kind: String,
    /// The state key of the state entry.
    pub state_key: String,
    /// The event that is now the entry, or none if the entry is gone.
    pub event_id: Option<String>,
}

/// The token of an event, if it was persisted.
pub fn token_of(tx: &Transaction<'_>, event_id: &str) -> rusqlite::Result<Option<Token>> {
    tx.prepare_cached("SELECT stream_ordering FROM events WHERE event_id = ?1")?
        .query_row([event_id], |row| row.get(0).map(Token))
        .optional()
}

/// Writes `events` and `deltas` as rows of `writer`, each at its token.
pub fn persist(
    tx: &Transaction<'_>,
    writer: &InstanceName,
    events: &[(Token, NewEvent)],
    deltas: &[(Token, StateDelta)],
) -> rusqlite::Result<()> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO events (stream_ordering, instance_name, event_id, room_id, type, state_key, redacts, relates_to,
                             membership, rejected, outlier)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    for (token, event) in events {
        insert.execute((
            token.0,
            writer.as_str(),
            &event.event_id,
            &event.room_id,
            &event.kind,
            &event.state_key,
            &event.redacts,
            &event.relates_to,
            &event.membership,
            event.rejected,
            event.outlier,
        ))?;
    }
    let mut insert = tx.prepare_cached(
        "INSERT INTO current_state_delta_stream (stream_id, instance_name, room_id, type, state_key, event_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for (token, delta) in deltas {
        let StateDelta { room_id, kind, state_key, event_id } = delta;
        insert.execute((token.0, writer.as_str(), room_id, kind, state_key, event_id))?;
    }
    current_state::change(tx, deltas)
}

/// Makes the outlier `event_id` an ordinary event, and says so in the stream at `token`. Gives the event as it is then;
/// if there is no such outlier, nothing happens.
///
/// The event's row keeps its place in the stream: who reads that row again finds it changed.
pub fn mark_ex_outlier(
    tx: &Transaction<'_>,
    writer: &InstanceName,
    token: Token,
    event_id: &str,
) -> rusqlite::Result<Option<EventRow>> {
    let changed =
        tx.prepare_cached("UPDATE events SET outlier = FALSE WHERE event_id = ?1 AND outlier")?.execute([event_id])?;
    if changed == 0 {
        return Ok(None);
    }
    tx.prepare_cached(
        "INSERT INTO ex_outlier_stream (event_stream_ordering, event_id, instance_name) VALUES (?1, ?2, ?3)",
    )?
    .execute((token.0, event_id, writer.as_str()))?;
    Ok(event(tx, event_id)?.map(|(_, event)| event))
}

/// An event as it is now, and the last token that says something of it.
pub fn event(tx: &Transaction<'_>, event_id: &str) -> rusqlite::Result<Option<(Token, EventRow)>> {
    let read = |row: &Row<'_>| {
        let event = EventRow {
            event_id: event_id.to_owned(),
            room_id: row.get(1)?,
            kind: row.get(2)?,
            state_key: row.get(3)?,
            redacts: row.get(4)?,
            relates_to: row.get(5)?,
            membership: row.get(6)?,
            rejected: row.get(7)?,
            outlier: row.get(8)?,
        };
        Ok((Token(row.get(0)?), event))
    };
    tx.prepare_cached(
        "SELECT COALESCE((SELECT MAX(event_stream_ordering) FROM ex_outlier_stream WHERE event_id = ?1),
                         stream_ordering),
                room_id, type, state_key, redacts, relates_to, membership, rejected, outlier
         FROM events WHERE event_id = ?1",
    )?
    .query_row([event_id], read)
    .optional()
}
