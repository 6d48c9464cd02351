//! Messages to devices.

use rusqlite::Transaction;
use serde_json::Value;

use crate::protocol::{InstanceName, Token};

/// A message to one device.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Whose device.
    pub user_id: String,
    /// Which of the user's devices.
    pub device_id: String,
    /// What its sender calls it.
    pub message_id: String,
    /// What it says.
    pub content: Value,
}

/// Puts `messages` into their recipients' inboxes, all under one token.
pub fn add(tx: &Transaction<'_>, writer: &InstanceName, token: Token, messages: &[Message]) -> rusqlite::Result<()> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO device_inbox (stream_id, instance_name, user_id, device_id, message_id, message_json)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for Message { user_id, device_id, message_id, content } in messages {
        insert.execute((token.0, writer.as_str(), user_id, device_id, message_id, content.to_string()))?;
    }
    Ok(())
}

/// The messages to a device with tokens in `(from, upto]`, in order.
pub fn inbox(
    tx: &Transaction<'_>,
    user_id: &str,
    device_id: &str,
    from: Token,
    upto: Token,
) -> rusqlite::Result<Vec<(Token, Message)>> {
    let mut query = tx.prepare_cached(
        "SELECT stream_id, message_id, message_json FROM device_inbox
         WHERE user_id = ?1 AND device_id = ?2 AND stream_id > ?3 AND stream_id <= ?4
         ORDER BY stream_id, message_id",
    )?;
    let messages = query.query_map((user_id, device_id, from.0, upto.0), |row| {
        let message = Message {
            user_id: user_id.to_owned(),
            device_id: device_id.to_owned(),
            message_id: row.get(1)?,
            content: row.get::<_, crate::streams::Json>(2)?.0,
        };
        Ok((Token(row.get(0)?), message))
    })?;
    messages.collect()
}

/// Removes the messages that a device has acknowledged: those up to `upto`.
pub fn forget(tx: &Transaction<'_>, user_id: &str, device_id: &str, upto: Token) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM device_inbox WHERE user_id = ?1 AND device_id = ?2 AND stream_id <= ?3")?
        .execute((user_id, device_id, upto.0))?;
    Ok(())
}
