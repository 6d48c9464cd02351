//! Account data.

use rusqlite::{Row, Transaction};
use serde_json::Value;

use crate::protocol::{InstanceName, Token};
use crate::streams::Json;

/// Something a user keeps on the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Datum {
    /// Whose it is.
    pub user_id: String,
    /// The room it is about; none if about the whole account.
    pub room_id: Option<String>,
    /// Its type.
    pub kind: String,
    /// What it says.
    pub content: Value,
}

/// Writes `datum` over what was there before.
///
/// Writes may commit in another order than their tokens have. Then the higher token's stands, and this one leaves
/// nothing behind.
pub fn set(tx: &Transaction<'_>, writer: &InstanceName, token: Token, datum: &Datum) -> rusqlite::Result<()> {
    let Datum { user_id, room_id, kind, content } = datum;
    let (writer, content) = (writer.as_str(), content.to_string());
    match room_id {
        None => tx
            .prepare_cached(
                "INSERT INTO account_data (user_id, account_data_type, stream_id, instance_name, content)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (user_id, account_data_type) DO UPDATE SET
                     stream_id = excluded.stream_id, instance_name = excluded.instance_name, content = excluded.content
                 WHERE account_data.stream_id < excluded.stream_id",
            )?
            .execute((user_id, kind, token.0, writer, content))?,
        Some(room_id) => tx
            .prepare_cached(
                "INSERT INTO room_account_data (user_id, room_id, account_data_type, stream_id, instance_name, content)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (user_id, room_id, account_data_type) DO UPDATE SET
                     stream_id = excluded.stream_id, instance_name = excluded.instance_name, content = excluded.content
                 WHERE room_account_data.stream_id < excluded.stream_id",
            )?
            .execute((user_id, room_id, kind, token.0, writer, content))?,
    };
    Ok(())
}

/// What a user keeps, for the account or for one room: types and contents, each with its token.
pub fn of_user(
    tx: &Transaction<'_>,
    user_id: &str,
    room_id: Option<&str>,
) -> rusqlite::Result<Vec<(Token, String, Value)>> {
    let read = |row: &Row<'_>| Ok((Token(row.get(0)?), row.get(1)?, row.get::<_, Json>(2)?.0));
    match room_id {
        None => tx
            .prepare_cached(
                "SELECT stream_id, account_data_type, content FROM account_data WHERE user_id = ?1 ORDER BY stream_id",
            )?
            .query_map([user_id], read)?
            .collect(),
        Some(room_id) => tx
            .prepare_cached(
                "SELECT stream_id, account_data_type, content FROM room_account_data
                 WHERE user_id = ?1 AND room_id = ?2 ORDER BY stream_id",
            )?
            .query_map([user_id, room_id], read)?
            .collect(),
    }
}
