//! Receipts.

use rusqlite::Transaction;

use crate::protocol::{InstanceName, Token};
use crate::streams::ReceiptsRow;

/// Writes `receipt` over the one its user gave before for that room, type and thread, unless that has a higher token.
/// Returns the token of the one that stands.
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
        .execute((token.0, writer.as_str(), room_id, kind, user_id, event_id, thread_id, data))?;
    if written > 0 {
        return Ok(token);
    }
    let stands = "SELECT stream_id FROM receipts_linearized
                  WHERE room_id = ?1 AND receipt_type = ?2 AND user_id = ?3
                    AND COALESCE(thread_id, '') = COALESCE(?4, '')";
    tx.prepare_cached(stands)?.query_row((room_id, kind, user_id, thread_id), |row| row.get(0).map(Token))
}

/// The receipts in `room_id`, each with its token.
pub fn of_room(tx: &Transaction<'_>, room_id: &str) -> rusqlite::Result<Vec<(Token, ReceiptsRow)>> {
    let mut query = tx.prepare_cached(
        "SELECT stream_id, receipt_type, user_id, event_id, thread_id, data FROM receipts_linearized
         WHERE room_id = ?1 ORDER BY stream_id",
    )?;
    let receipts = query.query_map([room_id], |row| {
        let receipt = ReceiptsRow {
            room_id: room_id.to_owned(),
            kind: row.get(1)?,
            user_id: row.get(2)?,
            event_id: row.get(3)?,
            thread_id: row.get(4)?,
            data: row.get(5)?,
        };
        Ok((Token(row.get(0)?), receipt))
    })?;
    receipts.collect()
}
