//! `to_device`: somebody has messages for a device.
//!
//! A row names the recipient alone; the messages lie in the recipient's inbox until the device has acknowledged them.
//! They are never overwritten, so whoever reads an inbox up to a token has every message up to it, in order.

use rusqlite::{Connection, params};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Promise, Row, Source, Updates};
use crate::protocol::{InstanceName, Token};

/// The stream's name on the wire.
pub const NAME: &str = "to_device";

/// Where the rows lie.
pub const SOURCE: Source = Source {
    name: NAME,
    promise: Promise::Keyed,
    sequence: "device_inbox_sequence",
    tables: &[("device_inbox", "stream_id")],
    updates,
    transaction: "to_device_updates",
};

/// Somebody has new messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ToDeviceRow {
    /// A user, whose id begins with `@`, or a remote server.
    pub entity: String,
}

impl ToDeviceRow {
    /// Understands `[entity]`.
    pub fn parse(row: &Value) -> Result<Self, serde_json::Error> {
        let (entity,) = Deserialize::deserialize(row)?;
        Ok(ToDeviceRow { entity })
    }

    /// `[entity]`.
    pub fn to_json(&self) -> Value {
        json!([self.entity])
    }
}

/// The recipients of messages that `writer` committed with tokens in `(from, upto]`, each once, at the last of its
/// tokens.
///
/// Rows of one recipient fall together, so a limit by their number would not say up to which token they are complete: it
/// once lost messages (Synapse #15349). The limit is a span of `span` tokens, which begins with the first that has a
/// message.
fn updates(
    database: &Connection,
    writer: &InstanceName,
    from: Token,
    upto: Token,
    span: usize,
) -> rusqlite::Result<Updates> {
    let sql = "SELECT MIN(stream_id) FROM device_inbox WHERE instance_name = ? AND stream_id > ? AND stream_id <= ?";
    let range = params![writer.as_str(), from.0, upto.0];
    let first: Option<i64> = database.prepare_cached(sql)?.query_row(range, |row| row.get(0))?;
    let Some(first) = first else { return Ok(Updates::none(upto)) };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory;
    use crate::store::to_device::{Message, add};

    fn inboxes(messages: &[(i64, &str)]) -> Connection {
        let mut connection = memory::empty();
        let tx = connection.transaction().unwrap();
        for (token, user) in messages {
            let message = Message {
                user_id: (*user).into(),
                device_id: "DEVICE".into(),
                message_id: format!("message{token}"),
                content: Value::Null,
            };
            add(&tx, &"writer".into(), Token(*token), &[message]).unwrap();
        }
        tx.commit().unwrap();
        connection
    }

    fn asked(connection: &Connection, from: i64, upto: i64) -> (Vec<(i64, String)>, i64, bool) {
        let updates = updates(connection, &"writer".into(), Token(from), Token(upto), 100).unwrap();
        let entity = |row: &Row| match row {
            Row::ToDevice(row) => row.entity.clone(),
            other => panic!("{other:?}"),
        };
        (updates.rows.iter().map(|(token, row)| (token.0, entity(row))).collect(), updates.upto.0, updates.limited)
    }

    #[test]
    fn a_recipient_comes_once_at_its_last_token() {
        let connection = inboxes(&[(2, "@a"), (3, "@b"), (5, "@a")]);
        assert_eq!(asked(&connection, 1, 9), (vec![(3, "@b".into()), (5, "@a".into())], 9, false));
        assert_eq!(asked(&connection, 1, 4), (vec![(2, "@a".into()), (3, "@b".into())], 4, false));
    }

    #[test]
    fn the_limit_is_a_span_of_tokens_and_empty_stretches_cost_nothing() {
        let connection = inboxes(&[(50_000, "@a"), (50_099, "@b"), (50_100, "@c")]);
        assert_eq!(asked(&connection, 1, 90_000), (vec![(50_000, "@a".into()), (50_099, "@b".into())], 50_099, true));
        assert_eq!(asked(&connection, 50_099, 90_000), (vec![(50_100, "@c".into())], 50_199, true));
        assert_eq!(asked(&connection, 50_199, 90_000), (vec![], 90_000, false));
    }
}
