//! Writing presence.

use rusqlite::Transaction;

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
