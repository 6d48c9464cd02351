//! The table of `pushers`: one row per user, app and push key.

use rusqlite::{Connection, Transaction};

use super::query::UpdatesQuery;
use super::source::Source;
use squall_protocol::rows::pushers::NAME;
use squall_protocol::rows::{PushersRow, Row, Updates};
use squall_protocol::{Delivery, InstanceName, Token};

/// The source of the rows.
pub const SOURCE: Source = Source {
    name: NAME,
    delivery: Delivery::Keyed,
    sequence: "pushers_sequence",
    tables: &[("pushers", "stream_id")],
    schema: SCHEMA,
    updates,
    transaction: "pushers_updates",
};

const SCHEMA: &str = "
CREATE TABLE pushers (
    stream_id INTEGER NOT NULL UNIQUE,
    instance_name TEXT NOT NULL,
    user_id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    pushkey TEXT NOT NULL,
    deleted BOOLEAN NOT NULL,
    UNIQUE (user_id, app_id, pushkey)
);
CREATE INDEX pushers_by_writer ON pushers (instance_name, stream_id);
";

/// Writes `pusher` over its earlier state.
pub fn insert(tx: &Transaction<'_>, writer: &InstanceName, token: Token, pusher: &PushersRow) -> rusqlite::Result<()> {
    let PushersRow { user_id, app_id, pushkey, deleted } = pusher;
    let sql = "INSERT INTO pushers (stream_id, instance_name, user_id, app_id, pushkey, deleted)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)
               ON CONFLICT (user_id, app_id, pushkey) DO UPDATE SET
                   stream_id = excluded.stream_id, instance_name = excluded.instance_name,
                   deleted = excluded.deleted";
    tx.prepare_cached(sql)?.execute((token.0, writer.as_str(), user_id, app_id, pushkey, deleted))?;
    Ok(())
}

/// Returns the rows of one writer in a range of tokens.
pub fn updates(database: &Connection, query: UpdatesQuery<'_>) -> rusqlite::Result<Updates> {
    let sql = "SELECT stream_id, user_id, app_id, pushkey, deleted
               FROM pushers
               WHERE instance_name = ? AND stream_id > ? AND stream_id <= ?
               ORDER BY stream_id LIMIT ?";
    query.run(database, sql, |row| {
        let pusher =
            PushersRow { user_id: row.get(1)?, app_id: row.get(2)?, pushkey: row.get(3)?, deleted: row.get(4)? };
        Ok(Row::Pushers(pusher))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory;

    #[test]
    fn only_the_newest_state_of_a_pusher_is_read() {
        let mut connection = memory::empty();
        let tx = connection.transaction().unwrap();
        let writer = InstanceName::from("master");
        let pusher = |deleted| PushersRow {
            user_id: "@user:squall.test".into(),
            app_id: "org.example".into(),
            pushkey: "key".into(),
            deleted,
        };
        insert(&tx, &writer, Token(1), &pusher(false)).unwrap();
        insert(&tx, &writer, Token(2), &pusher(true)).unwrap();
        let query = UpdatesQuery { writer: &writer, from: Token(0), upto: Token(9), rows_max: 100 };
        assert_eq!(updates(&tx, query).unwrap().rows, [(Token(2), Row::Pushers(pusher(true)))]);
    }
}
