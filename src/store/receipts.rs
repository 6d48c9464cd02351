//! The table of `receipts`: one row per room, type, user and thread.

use rusqlite::{Connection, Row as SqlRow, Transaction};

use super::json_column::JsonColumn;
use super::query::{UpdatesQuery, rows_of_writers, with_token};
use super::source::Source;
use squall_protocol::rows::receipts::NAME;
use squall_protocol::rows::{Json, ReceiptsRow, Row, Updates};
use squall_protocol::{Delivery, InstanceName, Token, VectorPosition};

/// The source of the rows.
pub const SOURCE: Source = Source {
    name: NAME,
    delivery: Delivery::Keyed,
    sequence: "receipts_sequence",
    tables: &[("receipts_linearized", "stream_id")],
    schema: SCHEMA,
    updates,
    transaction: "receipts_updates",
};

const SCHEMA: &str = "
CREATE TABLE receipts_linearized (
    stream_id INTEGER NOT NULL UNIQUE,
    instance_name TEXT NOT NULL,
    room_id TEXT NOT NULL,
    receipt_type TEXT NOT NULL,
    user_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    thread_id TEXT,
    data TEXT NOT NULL
);
CREATE UNIQUE INDEX receipts_linearized_by_key
    ON receipts_linearized (room_id, receipt_type, user_id, COALESCE(thread_id, ''));
CREATE INDEX receipts_linearized_by_writer ON receipts_linearized (instance_name, stream_id);
";

/// Writes `receipt` over the user's earlier one for that room, type and thread, unless that one has a higher token.
/// Returns the token of the row that is then in the table.
pub fn insert(
    tx: &Transaction<'_>,
    writer: &InstanceName,
    token: Token,
    receipt: &ReceiptsRow,
) -> rusqlite::Result<Token> {
    let ReceiptsRow { room_id, kind, user_id, event_id, thread_id, data } = receipt;
    let written = tx
        .prepare_cached(
            "INSERT INTO receipts_linearized
             (stream_id, instance_name, room_id, receipt_type, user_id, event_id, thread_id, data)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (room_id, receipt_type, user_id, COALESCE(thread_id, '')) DO UPDATE SET
             stream_id = excluded.stream_id, instance_name = excluded.instance_name, event_id = excluded.event_id,
             data = excluded.data
         WHERE receipts_linearized.stream_id < excluded.stream_id",
        )?
        .execute((token.0, writer.as_str(), room_id, kind, user_id, event_id, thread_id, data.0.to_string()))?;
    if written > 0 {
        return Ok(token);
    }
    let current = "SELECT stream_id FROM receipts_linearized
                   WHERE room_id = ?1 AND receipt_type = ?2 AND user_id = ?3
                     AND COALESCE(thread_id, '') = COALESCE(?4, '')";
    tx.prepare_cached(current)?.query_row((room_id, kind, user_id, thread_id), |row| row.get(0).map(Token))
}

/// Returns the rows of one writer in a range of tokens.
pub fn updates(database: &Connection, query: UpdatesQuery<'_>) -> rusqlite::Result<Updates> {
    let sql = "SELECT stream_id, room_id, receipt_type, user_id, event_id, thread_id, data
               FROM receipts_linearized
               WHERE instance_name = ? AND stream_id > ? AND stream_id <= ?
               ORDER BY stream_id LIMIT ?";
    query.run(database, sql, |row| receipt(row, 1).map(Row::Receipts))
}

/// Returns the rows after `from` and not after `next`, of all writers.
pub fn between(
    tx: &Transaction<'_>,
    from: &VectorPosition,
    next: &VectorPosition,
) -> rusqlite::Result<Vec<(Token, ReceiptsRow)>> {
    let sql = "SELECT stream_id, instance_name, room_id, receipt_type, user_id, event_id, thread_id, data
               FROM receipts_linearized
               WHERE stream_id > ?1 AND stream_id <= ?2
               ORDER BY stream_id";
    rows_of_writers(tx, sql, from, next, |row| receipt(row, 2))
}

/// Returns the receipts in `room_id`, each with its token.
pub fn in_room(tx: &Transaction<'_>, room_id: &str) -> rusqlite::Result<Vec<(Token, ReceiptsRow)>> {
    let mut query = tx.prepare_cached(
        "SELECT stream_id, room_id, receipt_type, user_id, event_id, thread_id, data FROM receipts_linearized
         WHERE room_id = ?1 ORDER BY stream_id",
    )?;
    query.query_map([room_id], |row| with_token(row, |row| receipt(row, 1)))?.collect()
}

/// Reads a receipt from six columns, of which `first` is the room.
fn receipt(row: &SqlRow<'_>, first: usize) -> rusqlite::Result<ReceiptsRow> {
    Ok(ReceiptsRow {
        room_id: row.get(first)?,
        kind: row.get(first + 1)?,
        user_id: row.get(first + 2)?,
        event_id: row.get(first + 3)?,
        thread_id: row.get(first + 4)?,
        data: Json(row.get::<_, JsonColumn>(first + 5)?.0),
    })
}
