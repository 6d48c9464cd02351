//! The tables of `events`: new events, changes of a room's current state, and events that stop being outliers.
//!
//! Three tables share the ids of the stream, as in Synapse: `events`, `current_state_delta_stream` and
//! `ex_outlier_stream`. All rows of one token are written in one transaction, so a reader sees a token whole or not at all.

mod updates;

use rusqlite::{OptionalExtension, Transaction};

use super::current_state;
use super::query::{rows_of_writers, with_token};
use super::source::Source;
use squall_protocol::rows::events::{EventRow, NAME, StateRow};
use squall_protocol::{Delivery, InstanceName, Token, VectorPosition};

use updates::event_row;
pub use updates::updates;

/// The source of the rows.
pub const SOURCE: Source = Source {
    name: NAME,
    delivery: Delivery::Log,
    sequence: "events_stream_seq",
    tables: &[
        ("events", "stream_ordering"),
        ("current_state_delta_stream", "stream_id"),
        ("ex_outlier_stream", "event_stream_ordering"),
    ],
    schema: SCHEMA,
    updates,
    transaction: "events_updates",
};

const SCHEMA: &str = "
CREATE TABLE events (
    stream_ordering INTEGER PRIMARY KEY,
    instance_name TEXT NOT NULL,
    event_id TEXT NOT NULL UNIQUE,
    room_id TEXT NOT NULL,
    type TEXT NOT NULL,
    state_key TEXT,
    redacts TEXT,
    relates_to TEXT,
    membership TEXT,
    rejected BOOLEAN NOT NULL,
    outlier BOOLEAN NOT NULL
);
CREATE INDEX events_by_writer ON events (instance_name, stream_ordering);
CREATE TABLE current_state_delta_stream (
    stream_id INTEGER NOT NULL,
    instance_name TEXT NOT NULL,
    room_id TEXT NOT NULL,
    type TEXT NOT NULL,
    state_key TEXT NOT NULL,
    event_id TEXT
);
CREATE INDEX current_state_delta_stream_by_id ON current_state_delta_stream (stream_id);
CREATE INDEX current_state_delta_stream_by_writer ON current_state_delta_stream (instance_name, stream_id);
CREATE TABLE ex_outlier_stream (
    event_stream_ordering INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL,
    instance_name TEXT NOT NULL
);
CREATE INDEX ex_outlier_stream_by_event ON ex_outlier_stream (event_id);
CREATE INDEX ex_outlier_stream_by_writer ON ex_outlier_stream (instance_name, event_stream_ordering);
";

/// An event of a room's timeline, as a client receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomEvent {
    /// The event.
    pub event_id: String,
    /// Its room.
    pub room_id: String,
}

/// Returns the token of the last row of an event, if it was persisted. An event that is no outlier any more has two rows.
pub fn token_of(tx: &Transaction<'_>, event_id: &str) -> rusqlite::Result<Option<Token>> {
    let last = "SELECT MAX(stream_ordering, COALESCE((SELECT MAX(event_stream_ordering) FROM ex_outlier_stream
                                                      WHERE ex_outlier_stream.event_id = events.event_id), 0))
                FROM events WHERE event_id = ?1";
    tx.prepare_cached(last)?.query_row([event_id], |row| row.get(0).map(Token)).optional()
}

/// Inserts `events` and `deltas` as rows of `writer`, each at its token, and changes the current state by `deltas`.
pub fn persist(
    tx: &Transaction<'_>,
    writer: &InstanceName,
    events: &[(Token, EventRow)],
    deltas: &[(Token, StateRow)],
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
        let StateRow { room_id, kind, state_key, event_id } = delta;
        insert.execute((token.0, writer.as_str(), room_id, kind, state_key, event_id))?;
    }
    current_state::change(tx, deltas)
}

/// Makes the outlier `event_id` an ordinary event, with a row at `token`, and returns the event as it is then. Does
/// nothing if there is no such outlier.
///
/// The event's first row keeps its place in the stream: a later query for that row returns it as changed.
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

/// Returns the events of rooms' timelines after `from` and not after `next`, of all writers. An outlier belongs to no
/// timeline. One that is an ordinary event now entered it at the token of its second row.
pub fn between(
    tx: &Transaction<'_>,
    from: &VectorPosition,
    next: &VectorPosition,
) -> rusqlite::Result<Vec<(Token, RoomEvent)>> {
    let sql = "SELECT stream_ordering, instance_name, event_id, room_id FROM events
               WHERE stream_ordering > ?1 AND stream_ordering <= ?2 AND NOT outlier
                 AND NOT EXISTS (SELECT 1 FROM ex_outlier_stream WHERE ex_outlier_stream.event_id = events.event_id)
               UNION ALL
               SELECT event_stream_ordering, ex_outlier_stream.instance_name, events.event_id, room_id
               FROM ex_outlier_stream JOIN events USING (event_id)
               WHERE event_stream_ordering > ?1 AND event_stream_ordering <= ?2
               ORDER BY 1";
    rows_of_writers(tx, sql, from, next, |row| Ok(RoomEvent { event_id: row.get(2)?, room_id: row.get(3)? }))
}

/// Returns an event as it is now, with the token of the last row about it.
pub fn event(tx: &Transaction<'_>, event_id: &str) -> rusqlite::Result<Option<(Token, EventRow)>> {
    tx.prepare_cached(
        "SELECT COALESCE((SELECT MAX(event_stream_ordering) FROM ex_outlier_stream WHERE event_id = ?1),
                         stream_ordering),
                event_id, room_id, type, state_key, redacts, relates_to, membership, rejected, outlier
         FROM events WHERE event_id = ?1",
    )?
    .query_row([event_id], |row| with_token(row, event_row))
    .optional()
}
