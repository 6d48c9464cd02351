//! The table of `presence`: one row per user.

use rusqlite::{Connection, Row as SqlRow, Transaction};

use super::database::{Database, DatabaseError};
use super::query::{UpdatesQuery, with_token};
use super::source::Source;
use squall_protocol::rows::presence::NAME;
use squall_protocol::rows::{PresenceRow, Row, Updates};
use squall_protocol::{Delivery, InstanceName, Token};

/// The source of the rows.
pub const SOURCE: Source = Source {
    name: NAME,
    delivery: Delivery::Keyed,
    sequence: "presence_stream_sequence",
    tables: &[("presence_stream", "stream_id")],
    schema: SCHEMA,
    updates,
    transaction: "presence_updates",
};

const SCHEMA: &str = "
CREATE TABLE presence_stream (
    stream_id INTEGER NOT NULL UNIQUE,
    instance_name TEXT NOT NULL,
    user_id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    last_active_ts INTEGER NOT NULL,
    last_federation_update_ts INTEGER NOT NULL,
    last_user_sync_ts INTEGER NOT NULL,
    status_msg TEXT,
    currently_active BOOLEAN NOT NULL
);
CREATE INDEX presence_stream_by_writer ON presence_stream (instance_name, stream_id);
";

/// Writes `presence` over its user's row, unless that one has a higher token.
pub fn set(tx: &Transaction<'_>, writer: &InstanceName, token: Token, presence: &PresenceRow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO presence_stream (stream_id, instance_name, user_id, state, last_active_ts,
                                      last_federation_update_ts, last_user_sync_ts, status_msg, currently_active)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (user_id) DO UPDATE SET
             stream_id = excluded.stream_id, instance_name = excluded.instance_name, state = excluded.state,
             last_active_ts = excluded.last_active_ts, last_federation_update_ts = excluded.last_federation_update_ts,
             last_user_sync_ts = excluded.last_user_sync_ts, status_msg = excluded.status_msg,
             currently_active = excluded.currently_active
         WHERE presence_stream.stream_id < excluded.stream_id",
    )?
    .execute((
        token.0,
        writer.as_str(),
        &presence.user_id,
        &presence.state,
        presence.last_active_ms,
        presence.last_federation_update_ms,
        presence.last_user_sync_ms,
        &presence.status_msg,
        presence.currently_active,
    ))?;
    Ok(())
}

/// Returns the rows of one writer in a range of tokens.
pub fn updates(database: &Connection, query: UpdatesQuery<'_>) -> rusqlite::Result<Updates> {
    let sql = "SELECT stream_id, user_id, state, last_active_ts, last_federation_update_ts, last_user_sync_ts,
                      status_msg, currently_active
               FROM presence_stream
               WHERE instance_name = ? AND stream_id > ? AND stream_id <= ?
               ORDER BY stream_id LIMIT ?";
    query.run(database, sql, |row| presence(row).map(Row::Presence))
}

/// Returns the rows in `(from, upto]`, of all writers.
pub fn between(tx: &Transaction<'_>, from: Token, upto: Token) -> rusqlite::Result<Vec<(Token, PresenceRow)>> {
    let mut query = tx.prepare_cached(
        "SELECT stream_id, user_id, state, last_active_ts, last_federation_update_ts, last_user_sync_ts, status_msg,
                currently_active
         FROM presence_stream
         WHERE stream_id > ?1 AND stream_id <= ?2
         ORDER BY stream_id",
    )?;
    query.query_map((from.0, upto.0), |row| with_token(row, presence))?.collect()
}

/// Returns the rows of all users, in the order of their tokens.
pub async fn load(database: &Database) -> Result<Vec<(Token, PresenceRow)>, DatabaseError> {
    let load = |tx: &Transaction<'_>| {
        let mut statement = tx.prepare_cached(
            "SELECT stream_id, user_id, state, last_active_ts, last_federation_update_ts, last_user_sync_ts,
                    status_msg, currently_active
             FROM presence_stream ORDER BY stream_id",
        )?;
        statement.query_map((), |row| with_token(row, presence))?.collect()
    };
    database.transaction("load_presence", load).await
}

fn presence(row: &SqlRow<'_>) -> rusqlite::Result<PresenceRow> {
    Ok(PresenceRow {
        user_id: row.get(1)?,
        state: row.get(2)?,
        last_active_ms: row.get(3)?,
        last_federation_update_ms: row.get(4)?,
        last_user_sync_ms: row.get(5)?,
        status_msg: row.get(6)?,
        currently_active: row.get(7)?,
    })
}
