//! The tables of `account_data`: one for data of an account, one for data of an account in a room.

use rusqlite::{Connection, Row as SqlRow, Transaction};
use serde_json::Value;

use super::json_column::JsonColumn;
use super::query::{UpdatesQuery, with_token};
use super::source::Source;
use squall_protocol::rows::account_data::NAME;
use squall_protocol::rows::{AccountDataRow, Row, Updates};
use squall_protocol::{Delivery, InstanceName, Token};

/// The source of the rows.
pub const SOURCE: Source = Source {
    name: NAME,
    delivery: Delivery::Keyed,
    sequence: "account_data_sequence",
    tables: &[("account_data", "stream_id"), ("room_account_data", "stream_id")],
    schema: SCHEMA,
    updates,
    transaction: "account_data_updates",
};

const SCHEMA: &str = "
CREATE TABLE account_data (
    user_id TEXT NOT NULL,
    account_data_type TEXT NOT NULL,
    stream_id INTEGER NOT NULL,
    instance_name TEXT NOT NULL,
    content TEXT NOT NULL,
    UNIQUE (user_id, account_data_type)
);
CREATE UNIQUE INDEX account_data_by_writer ON account_data (instance_name, stream_id);
CREATE INDEX account_data_by_id ON account_data (stream_id);
CREATE TABLE room_account_data (
    user_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    account_data_type TEXT NOT NULL,
    stream_id INTEGER NOT NULL,
    instance_name TEXT NOT NULL,
    content TEXT NOT NULL,
    UNIQUE (user_id, room_id, account_data_type)
);
CREATE UNIQUE INDEX room_account_data_by_writer ON room_account_data (instance_name, stream_id);
CREATE INDEX room_account_data_by_id ON room_account_data (stream_id);
";

/// A piece of account data.
#[derive(Debug, Clone, PartialEq)]
pub struct Datum {
    /// The user it belongs to.
    pub user_id: String,
    /// The room it is about; `None` if it is about the whole account.
    pub room_id: Option<String>,
    /// Its type, such as `m.direct`.
    pub kind: String,
    /// Its content.
    pub content: Value,
}

/// Writes `datum` over the earlier value, and returns the token of the value that is then in the table.
///
/// Writes may commit in another order than that of their tokens. Then the value with the higher token stays, and this
/// write leaves nothing behind. A caller that waits for its write to become visible waits for the returned token.
pub fn set(tx: &Transaction<'_>, writer: &InstanceName, token: Token, datum: &Datum) -> rusqlite::Result<Token> {
    let Datum { user_id, room_id, kind, content } = datum;
    let writer = writer.as_str();
    let content = content.to_string();
    let written = match room_id {
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
    if written > 0 {
        return Ok(token);
    }
    let current = "SELECT stream_id FROM account_data WHERE ?2 IS NULL AND user_id = ?1 AND account_data_type = ?3
                   UNION ALL
                   SELECT stream_id FROM room_account_data WHERE user_id = ?1 AND room_id = ?2 AND account_data_type = ?3";
    tx.prepare_cached(current)?.query_row((user_id, room_id, kind), |row| row.get(0).map(Token))
}

/// Returns the rows of one writer in a range of tokens, at most `rows_max` of each table. No two rows share a token.
///
/// Both tables are cut back to the token up to which both are complete. With one limit over the two, rows were lost
/// (Synapse #7384).
pub fn updates(database: &Connection, query: UpdatesQuery<'_>) -> rusqlite::Result<Updates> {
    let read = |sql: &str, upto: Token| UpdatesQuery { upto, ..query }.run(database, sql, changed);
    let of_accounts = read(
        "SELECT stream_id, user_id, NULL, account_data_type FROM account_data
         WHERE instance_name = ? AND stream_id > ? AND stream_id <= ?
         ORDER BY stream_id LIMIT ?",
        query.upto,
    )?;
    let of_rooms = read(
        "SELECT stream_id, user_id, room_id, account_data_type FROM room_account_data
         WHERE instance_name = ? AND stream_id > ? AND stream_id <= ?
         ORDER BY stream_id LIMIT ?",
        of_accounts.upto,
    )?;
    let (upto, limited) = (of_rooms.upto, of_accounts.limited || of_rooms.limited);
    let complete = of_accounts.rows.into_iter().filter(|(token, _)| *token <= upto);
    let mut rows: Vec<(Token, Row)> = complete.chain(of_rooms.rows).collect();
    rows.sort_by_key(|(token, _)| *token);
    Ok(Updates { rows, upto, limited })
}

fn changed(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    Ok(Row::AccountData(AccountDataRow { user_id: row.get(1)?, room_id: row.get(2)?, kind: row.get(3)? }))
}

/// Returns a user's data in `(from, upto]`, for the account and for rooms.
pub fn between(tx: &Transaction<'_>, user_id: &str, from: Token, upto: Token) -> rusqlite::Result<Vec<(Token, Datum)>> {
    let mut query = tx.prepare_cached(
        "SELECT stream_id, NULL AS room_id, account_data_type, content FROM account_data
         WHERE user_id = ?1 AND stream_id > ?2 AND stream_id <= ?3
         UNION ALL
         SELECT stream_id, room_id, account_data_type, content FROM room_account_data
         WHERE user_id = ?1 AND stream_id > ?2 AND stream_id <= ?3
         ORDER BY stream_id",
    )?;
    let read = |row: &SqlRow<'_>| {
        let content: JsonColumn = row.get(3)?;
        Ok(Datum { user_id: user_id.to_owned(), room_id: row.get(1)?, kind: row.get(2)?, content: content.0 })
    };
    query.query_map((user_id, from.0, upto.0), |row| with_token(row, read))?.collect()
}

/// Returns a user's data for the account, or for one room: types and contents, each with its token.
pub fn for_user(
    tx: &Transaction<'_>,
    user_id: &str,
    room_id: Option<&str>,
) -> rusqlite::Result<Vec<(Token, String, Value)>> {
    let read = |row: &SqlRow<'_>| Ok((Token(row.get(0)?), row.get(1)?, row.get::<_, JsonColumn>(2)?.0));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory;

    #[test]
    fn a_late_write_returns_the_token_of_the_value_that_stays() {
        let mut connection = memory::empty();
        let tx = connection.transaction().unwrap();
        for room_id in [None, Some("!room".to_owned())] {
            let datum = Datum { user_id: "@user".into(), room_id, kind: "kind".into(), content: Value::Null };
            let set = |token| set(&tx, &"writer".into(), Token(token), &datum).unwrap();
            assert_eq!([set(5), set(3), set(7)], [Token(5), Token(5), Token(7)]);
        }
    }

    /// Returns a database with data of an account and of a room at the given tokens.
    fn written(of_account: impl Iterator<Item = i64>, of_room: impl Iterator<Item = i64>) -> Connection {
        let mut connection = memory::empty();
        let tx = connection.transaction().unwrap();
        let rooms = of_account.map(|token| (token, None)).chain(of_room.map(|token| (token, Some("!room".into()))));
        for (token, room_id) in rooms {
            let datum = Datum {
                user_id: "@user".into(),
                room_id,
                kind: format!("type{token}"),
                content: serde_json::Value::Null,
            };
            set(&tx, &"writer".into(), Token(token), &datum).unwrap();
        }
        tx.commit().unwrap();
        connection
    }

    /// Reads all rows piece by piece, and returns their tokens and the end of each piece.
    fn pieces(connection: &Connection, upto: i64) -> (Vec<i64>, Vec<i64>) {
        let (mut tokens, mut ends, mut from) = (Vec::new(), Vec::new(), Token(1));
        loop {
            let piece = {
                let query = UpdatesQuery { writer: &"writer".into(), from, upto: Token(upto), rows_max: 100 };
                updates(connection, query).unwrap()
            };
            assert!(piece.rows.iter().all(|(token, _)| from < *token && *token <= piece.upto));
            assert!(piece.upto > from);
            tokens.extend(piece.rows.iter().map(|(token, _)| token.0));
            ends.push(piece.upto.0);
            from = piece.upto;
            if !piece.limited {
                return (tokens, ends);
            }
        }
    }

    #[test]
    fn account_data_past_the_limit_of_either_table_is_not_lost() {
        for (of_account, of_room) in [(99, 99), (100, 20), (101, 20), (20, 100), (20, 101), (150, 250)] {
            // One after the other, and then the other after the one.
            let (split, end) = (2 + of_account, 2 + of_account + of_room);
            for (account, room) in [(2..split, split..end), (2 + of_room..end, 2..2 + of_room)] {
                let (tokens, _) = pieces(&written(account, room), end);
                assert_eq!(tokens, (2..end).collect::<Vec<_>>(), "{of_account} of accounts and {of_room} of rooms");
            }
        }
    }

    #[test]
    fn a_table_that_reached_its_limit_holds_the_other_back() {
        let connection = written((2..302).filter(|token| token % 2 == 0), (2..302).filter(|token| token % 2 == 1));
        let (tokens, ends) = pieces(&connection, 301);
        assert_eq!(tokens, (2..302).collect::<Vec<_>>());
        assert_eq!(ends, [200, 301]);
    }
}
