//! `account_data`: what users keep on the server for themselves, for their account or for one room.
//!
//! Two tables share one sequence of tokens. A row says what changed and not what it says now: before Synapse 1.7 the
//! content was in the row, and rows outgrew their lines (Synapse #6333). The type is the user's own and may still be too
//! long for one.

use rusqlite::{Connection, params};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Promise, Row, Source, Updates};
use crate::protocol::{InstanceName, Token};

/// The stream's name on the wire.
pub const NAME: &str = "account_data";

/// Where the rows lie.
pub const SOURCE: Source = Source {
    name: NAME,
    promise: Promise::Keyed,
    sequence: "account_data_sequence",
    tables: &[("account_data", "stream_id"), ("room_account_data", "stream_id")],
    updates,
    transaction: "account_data_updates",
};

/// Something a user keeps was changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountDataRow {
    /// Whose it is.
    pub user_id: String,
    /// The room it is about; none if about the whole account.
    pub room_id: Option<String>,
    /// Its type, such as `m.direct`.
    pub kind: String,
}

impl AccountDataRow {
    /// Understands `[user_id, room_id | null, type]`.
    pub fn parse(row: &Value) -> Result<Self, serde_json::Error> {
        let (user_id, room_id, kind) = Deserialize::deserialize(row)?;
        Ok(AccountDataRow { user_id, room_id, kind })
    }

    /// `[user_id, room_id | null, type]`.
    pub fn to_json(&self) -> Value {
        json!([self.user_id, self.room_id, self.kind])
    }
}

/// The rows that `writer` committed with tokens in `(from, upto]`, at most `rows_max` of each table. No two share a
/// token.
///
/// Both tables are cut back to the point up to which both are complete: with one limit over the two, rows were lost
/// (Synapse #7384).
fn updates(
    database: &Connection,
    writer: &InstanceName,
    from: Token,
    upto: Token,
    rows_max: usize,
) -> rusqlite::Result<Updates> {
    let read = |sql: &str, upto: Token| -> rusqlite::Result<Updates> {
        let mut statement = database.prepare_cached(sql)?;
        let rows = statement.query_map(params![writer.as_str(), from.0, upto.0, rows_max as i64], |row| {
            let changed = AccountDataRow { user_id: row.get(1)?, room_id: row.get(2)?, kind: row.get(3)? };
            Ok((Token(row.get(0)?), Row::AccountData(changed)))
        })?;
        Ok(Updates::of_single_rows(rows.collect::<rusqlite::Result<_>>()?, upto, rows_max))
    };
    let of_accounts = read(
        "SELECT stream_id, user_id, NULL, account_data_type FROM account_data
         WHERE instance_name = ? AND stream_id > ? AND stream_id <= ?
         ORDER BY stream_id LIMIT ?",
        upto,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::account_data::{Datum, set};
    use crate::store::memory;

    /// Data of the account at these tokens, and of a room at those.
    fn written(of_account: impl Iterator<Item = i64>, of_room: impl Iterator<Item = i64>) -> Connection {
        let mut connection = memory::empty();
        let tx = connection.transaction().unwrap();
        let rooms = of_account.map(|token| (token, None)).chain(of_room.map(|token| (token, Some("!room".into()))));
        for (token, room_id) in rooms {
            let datum = Datum { user_id: "@user".into(), room_id, kind: format!("type{token}"), content: Value::Null };
            set(&tx, &"writer".into(), Token(token), &datum).unwrap();
        }
        tx.commit().unwrap();
        connection
    }

    /// All the rows' tokens, asked for piece by piece, and the end of each piece.
    fn pieces(connection: &Connection, upto: i64) -> (Vec<i64>, Vec<i64>) {
        let (mut tokens, mut ends, mut from) = (Vec::new(), Vec::new(), Token(1));
        loop {
            let piece = updates(connection, &"writer".into(), from, Token(upto), 100).unwrap();
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
