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
/// nothing behind. Returns the token of what stands: whoever wants to see that their write is done has to see that one.
pub fn set(tx: &Transaction<'_>, writer: &InstanceName, token: Token, datum: &Datum) -> rusqlite::Result<Token> {
    let Datum { user_id, room_id, kind, content } = datum;
    let (writer, content) = (writer.as_str(), content.to_string());
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
    let stands = "SELECT stream_id FROM account_data WHERE ?2 IS NULL AND user_id = ?1 AND account_data_type = ?3
                  UNION ALL
                  SELECT stream_id FROM room_account_data WHERE user_id = ?1 AND room_id = ?2 AND account_data_type = ?3";
    tx.prepare_cached(stands)?.query_row((user_id, room_id, kind), |row| row.get(0).map(Token))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory;

    #[test]
    fn a_write_that_comes_too_late_is_told_which_one_stands() {
        let mut connection = memory::empty();
        let tx = connection.transaction().unwrap();
        for room_id in [None, Some("!room".to_owned())] {
            let datum = Datum { user_id: "@user".into(), room_id, kind: "kind".into(), content: Value::Null };
            let set = |token| set(&tx, &"writer".into(), Token(token), &datum).unwrap();
            assert_eq!([set(5), set(3), set(7)], [Token(5), Token(5), Token(7)]);
        }
    }
}
