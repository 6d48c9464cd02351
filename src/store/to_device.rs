//! The table of `to_device`: the inboxes of devices.

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde_json::Value;

use super::json_column::JsonColumn;
use super::query::UpdatesQuery;
use super::source::Source;
use squall_protocol::rows::to_device::NAME;
use squall_protocol::rows::{Row, ToDeviceRow, Updates};
use squall_protocol::{Delivery, InstanceName, Token};

/// The source of the rows.
pub const SOURCE: Source = Source {
    name: NAME,
    delivery: Delivery::Keyed,
    sequence: "device_inbox_sequence",
    tables: &[("device_inbox", "stream_id")],
    schema: SCHEMA,
    updates,
    transaction: "to_device_updates",
};

const SCHEMA: &str = "
CREATE TABLE device_inbox (
    stream_id INTEGER NOT NULL,
    instance_name TEXT NOT NULL,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    message_id TEXT NOT NULL,
    message_json TEXT NOT NULL
);
CREATE INDEX device_inbox_by_writer ON device_inbox (instance_name, stream_id);
CREATE INDEX device_inbox_by_id ON device_inbox (stream_id);
CREATE INDEX device_inbox_by_device ON device_inbox (user_id, device_id, stream_id);
CREATE TABLE device_federation_inbox (
    origin TEXT NOT NULL,
    message_id TEXT NOT NULL,
    stream_id INTEGER NOT NULL,
    received_ts INTEGER NOT NULL,
    PRIMARY KEY (origin, message_id)
);
CREATE INDEX device_federation_inbox_by_age ON device_federation_inbox (received_ts);
";

/// A message to one device.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The user who owns the device.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// The id that the sender gave it.
    pub message_id: String,
    /// The content.
    pub content: Value,
}

/// Time for which the id of a message is remembered, in milliseconds: a week, as in Synapse.
const REMEMBERED_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// Number of old ids that are deleted with each new one: more than one, so that they do not accumulate.
const DELETED_AT_ONCE: i64 = 20;

/// Remembers that a message of the server `origin` has arrived, and is written at `token`. Returns the token of its first
/// arrival instead if it has arrived before: its server sends it again in another transaction if it did not hear that it had
/// arrived (Synapse #17117, #17127, #17362).
pub fn arrived(
    tx: &Transaction<'_>,
    origin: &str,
    message_id: &str,
    token: Token,
    now_ms: i64,
) -> rusqlite::Result<Option<Token>> {
    let first: Option<i64> = tx
        .prepare_cached("SELECT stream_id FROM device_federation_inbox WHERE origin = ?1 AND message_id = ?2")?
        .query_row((origin, message_id), |row| row.get(0))
        .optional()?;
    if let Some(first) = first {
        return Ok(Some(Token(first)));
    }
    tx.prepare_cached(
        "INSERT INTO device_federation_inbox (origin, message_id, stream_id, received_ts) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute((origin, message_id, token.0, now_ms))?;
    tx.prepare_cached(
        "DELETE FROM device_federation_inbox WHERE (origin, message_id) IN (
             SELECT origin, message_id FROM device_federation_inbox
             WHERE received_ts < ?1 ORDER BY received_ts LIMIT ?2)",
    )?
    .execute((now_ms - REMEMBERED_MS, DELETED_AT_ONCE))?;
    Ok(None)
}

/// Inserts `messages` into their recipients' inboxes, all at one token.
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

/// Returns the recipients of one writer's messages in a range of tokens, each once, at the last of its tokens.
///
/// Several messages of one recipient are one row, so a limit by the number of rows would not say up to which token they
/// are complete; such a limit lost messages (Synapse #15349). Here the limit is a span of `rows_max` tokens, which
/// begins with the first token that has a message.
pub fn updates(database: &Connection, query: UpdatesQuery<'_>) -> rusqlite::Result<Updates> {
    let UpdatesQuery { writer, from, upto, rows_max: span } = query;
    let sql = "SELECT MIN(stream_id) FROM device_inbox WHERE instance_name = ? AND stream_id > ? AND stream_id <= ?";
    let range = params![writer.as_str(), from.0, upto.0];
    let first: Option<i64> = database.prepare_cached(sql)?.query_row(range, |row| row.get(0))?;
    let Some(first) = first else { return Ok(Updates::empty(upto)) };
    let end = Token((first - 1).saturating_add(span as i64)).min(upto);
    let sql = "SELECT MAX(stream_id) AS last, user_id FROM device_inbox
               WHERE instance_name = ? AND stream_id > ? AND stream_id <= ?
               GROUP BY user_id ORDER BY last, user_id";
    let mut statement = database.prepare_cached(sql)?;
    let rows = statement.query_map(params![writer.as_str(), from.0, end.0], |row| {
        Ok((Token(row.get(0)?), Row::ToDevice(ToDeviceRow { entity: row.get(1)? })))
    })?;
    Ok(Updates { rows: rows.collect::<rusqlite::Result<_>>()?, upto: end, limited: end < upto })
}

/// Returns the messages to a device in `(from, upto]`, in the order of their tokens.
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
            content: row.get::<_, JsonColumn>(2)?.0,
        };
        Ok((Token(row.get(0)?), message))
    })?;
    messages.collect()
}

/// Deletes the messages up to `upto`, which the device has acknowledged.
pub fn forget(tx: &Transaction<'_>, user_id: &str, device_id: &str, upto: Token) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM device_inbox WHERE user_id = ?1 AND device_id = ?2 AND stream_id <= ?3")?
        .execute((user_id, device_id, upto.0))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory;

    fn inboxes(messages: &[(i64, &str)]) -> Connection {
        let mut connection = memory::empty();
        let tx = connection.transaction().unwrap();
        for (token, user) in messages {
            let message = Message {
                user_id: (*user).into(),
                device_id: "DEVICE".into(),
                message_id: format!("message{token}"),
                content: serde_json::Value::Null,
            };
            add(&tx, &"writer".into(), Token(*token), &[message]).unwrap();
        }
        tx.commit().unwrap();
        connection
    }

    fn recipients(connection: &Connection, from: i64, upto: i64) -> (Vec<(i64, String)>, i64, bool) {
        let query = UpdatesQuery { writer: &"writer".into(), from: Token(from), upto: Token(upto), rows_max: 100 };
        let updates = updates(connection, query).unwrap();
        let entity = |row: &Row| match row {
            Row::ToDevice(row) => row.entity.clone(),
            other => panic!("{other:?}"),
        };
        (updates.rows.iter().map(|(token, row)| (token.0, entity(row))).collect(), updates.upto.0, updates.limited)
    }

    #[test]
    fn a_message_of_a_server_arrives_once_a_week() {
        let mut connection = memory::empty();
        let tx = connection.transaction().unwrap();
        let arrived = |origin, id, token, now_ms| arrived(&tx, origin, id, Token(token), now_ms).unwrap();
        assert_eq!(arrived("a.test", "m1", 2, 7), None);
        assert_eq!(arrived("a.test", "m1", 3, 8), Some(Token(2)));
        assert_eq!(arrived("b.test", "m1", 4, 8), None);
        assert_eq!(arrived("a.test", "m2", 5, 7 + REMEMBERED_MS), None);
        assert_eq!(arrived("a.test", "m1", 6, 7 + REMEMBERED_MS), Some(Token(2)));
        assert_eq!(arrived("a.test", "m3", 7, 8 + REMEMBERED_MS), None);
        assert_eq!(arrived("a.test", "m1", 8, 8 + REMEMBERED_MS), None, "it was forgotten");
    }

    #[test]
    fn a_recipient_comes_once_at_its_last_token() {
        let connection = inboxes(&[(2, "@a"), (3, "@b"), (5, "@a")]);
        assert_eq!(recipients(&connection, 1, 9), (vec![(3, "@b".into()), (5, "@a".into())], 9, false));
        assert_eq!(recipients(&connection, 1, 4), (vec![(2, "@a".into()), (3, "@b".into())], 4, false));
    }

    #[test]
    fn the_limit_is_a_span_of_tokens_and_empty_stretches_cost_nothing() {
        let connection = inboxes(&[(50_000, "@a"), (50_099, "@b"), (50_100, "@c")]);
        assert_eq!(
            recipients(&connection, 1, 90_000),
            (vec![(50_000, "@a".into()), (50_099, "@b".into())], 50_099, true)
        );
        assert_eq!(recipients(&connection, 50_099, 90_000), (vec![(50_100, "@c".into())], 50_199, true));
        assert_eq!(recipients(&connection, 50_199, 90_000), (vec![], 90_000, false));
    }
}
