//! Writing presence, and reading it back.

use rusqlite::Transaction;

use super::{Database, DatabaseError};
use crate::protocol::{InstanceName, Token};
use crate::streams::PresenceRow;

/// Writes `presence` over its user's, unless that has a higher token.
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

/// The state of every user of whom there is any, with its token.
pub async fn load(database: &Database) -> Result<Vec<(Token, PresenceRow)>, DatabaseError> {
    let load = |tx: &Transaction<'_>| {
        let mut statement = tx.prepare_cached(
            "SELECT stream_id, user_id, state, last_active_ts, last_federation_update_ts, last_user_sync_ts,
                    status_msg, currently_active
             FROM presence_stream ORDER BY stream_id",
        )?;
        let rows = statement.query_map((), |row| {
            let presence = PresenceRow {
                user_id: row.get(1)?,
                state: row.get(2)?,
                last_active_ms: row.get(3)?,
                last_federation_update_ms: row.get(4)?,
                last_user_sync_ms: row.get(5)?,
                status_msg: row.get(6)?,
                currently_active: row.get(7)?,
            };
            Ok((Token(row.get(0)?), presence))
        })?;
        rows.collect()
    };
    database.transaction("load_presence", load).await
}
