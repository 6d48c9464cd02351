//! `presence`: whether users are there.
//!
//! One instance decides it and writes it to the database; a row is a user's whole state, so that only the newest of each
//! user matters.

use rusqlite::{Connection, params};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Promise, Row, Source, Updates};
use crate::protocol::{InstanceName, Token};

/// The stream's name on the wire.
pub const NAME: &str = "presence";

/// Where the rows lie.
pub const SOURCE: Source = Source {
    name: NAME,
    promise: Promise::Keyed,
    sequence: "presence_stream_sequence",
    tables: &[("presence_stream", "stream_id")],
    updates,
    transaction: "presence_updates",
};

/// A user's presence. Times are in milliseconds since the epoch; 0 where there is none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PresenceRow {
    /// The user.
    pub user_id: String,
    /// `online`, `unavailable`, `offline` or `busy`.
    pub state: String,
    /// When the user last did something.
    pub last_active_ms: i64,
    /// When remote servers were last told.
    pub last_federation_update_ms: i64,
    /// When the user last synced.
    pub last_user_sync_ms: i64,
    /// What the user says about it.
    pub status_msg: Option<String>,
    /// Whether the user did something just now.
    pub currently_active: bool,
}

impl PresenceRow {
    /// Understands `[user_id, state, last_active_ts, last_federation_update_ts, last_user_sync_ts, status_msg | null,
    /// currently_active]`.
    pub fn parse(row: &Value) -> Result<Self, serde_json::Error> {
        let (
            user_id,
            state,
            last_active_ms,
            last_federation_update_ms,
            last_user_sync_ms,
            status_msg,
            currently_active,
        ) = Deserialize::deserialize(row)?;
        Ok(PresenceRow {
            user_id,
            state,
            last_active_ms,
            last_federation_update_ms,
            last_user_sync_ms,
            status_msg,
            currently_active,
        })
    }

    /// The row as it is understood.
    pub fn to_json(&self) -> Value {
        json!([
            self.user_id,
            self.state,
            self.last_active_ms,
            self.last_federation_update_ms,
            self.last_user_sync_ms,
            self.status_msg,
            self.currently_active
        ])
    }
}

/// The rows that `writer` committed with tokens in `(from, upto]`, at most `rows_max` of them. No two share a token.
fn updates(
    database: &Connection,
    writer: &InstanceName,
    from: Token,
    upto: Token,
    rows_max: usize,
) -> rusqlite::Result<Updates> {
    let sql = "SELECT stream_id, user_id, state, last_active_ts, last_federation_update_ts, last_user_sync_ts,
                      status_msg, currently_active
               FROM presence_stream
               WHERE instance_name = ? AND stream_id > ? AND stream_id <= ?
               ORDER BY stream_id LIMIT ?";
    let mut statement = database.prepare_cached(sql)?;
    let rows = statement.query_map(params![writer.as_str(), from.0, upto.0, rows_max as i64], |row| {
        let presence = PresenceRow {
            user_id: row.get(1)?,
            state: row.get(2)?,
            last_active_ms: row.get(3)?,
            last_federation_update_ms: row.get(4)?,
            last_user_sync_ms: row.get(5)?,
            status_msg: row.get(6)?,
            currently_active: row.get(7)?,
        };
        Ok((Token(row.get(0)?), Row::Presence(presence)))
    })?;
    Ok(Updates::of_single_rows(rows.collect::<rusqlite::Result<_>>()?, upto, rows_max))
}
