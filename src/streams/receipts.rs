//! `receipts`: up to where users have read.
//!
//! Several instances write it, each the rooms that fall to it (Synapse #16432); all share one sequence of tokens. Only
//! the newest receipt of a (room, type, user, thread) matters.

use rusqlite::{Connection, params};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::row::Json;
use super::{Promise, Row, Source, Updates};
use crate::protocol::{InstanceName, Token};

/// The stream's name on the wire.
pub const NAME: &str = "receipts";

/// Where the rows lie.
pub const SOURCE: Source = Source {
    name: NAME,
    promise: Promise::Keyed,
    sequence: "receipts_sequence",
    tables: &[("receipts_linearized", "stream_id")],
    updates,
    transaction: "receipts_updates",
};

/// A user has read up to an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiptsRow {
    /// The room.
    pub room_id: String,
    /// `m.read`, `m.read.private` or a type of the client's own.
    pub kind: String,
    /// Who has read.
    pub user_id: String,
    /// Up to which event.
    pub event_id: String,
    /// In which thread, if the receipt is about one.
    pub thread_id: Option<String>,
    /// What else the client says, an object, such as when.
    pub data: Json,
}

impl ReceiptsRow {
    /// Understands `[room_id, receipt_type, user_id, event_id, thread_id | null, {..}]`.
    pub fn parse(row: &Value) -> Result<Self, serde_json::Error> {
        let (room_id, kind, user_id, event_id, thread_id, data): (_, _, _, _, _, Map<String, Value>) =
            Deserialize::deserialize(row)?;
        Ok(ReceiptsRow { room_id, kind, user_id, event_id, thread_id, data: Json(data.into()) })
    }

    /// `[room_id, receipt_type, user_id, event_id, thread_id | null, {..}]`.
    pub fn to_json(&self) -> Value {
        json!([self.room_id, self.kind, self.user_id, self.event_id, self.thread_id, self.data])
    }
}

/// The rows that `writer` committed with tokens in `(from, upto]`, at most `rows_max` of them. No two share a token.
fn updates(
    database: &Connection,
    writer: &InstanceName,
    from: Token,
    upto: Token,
    rows_max: usize,
) -> rusqlite::Result<Updates> {
    let sql = "SELECT stream_id, room_id, receipt_type, user_id, event_id, thread_id, data
               FROM receipts_linearized
               WHERE instance_name = ? AND stream_id > ? AND stream_id <= ?
               ORDER BY stream_id LIMIT ?";
    let mut statement = database.prepare_cached(sql)?;
    let rows = statement.query_map(params![writer.as_str(), from.0, upto.0, rows_max as i64], |row| {
        let receipt = ReceiptsRow {
            room_id: row.get(1)?,
            kind: row.get(2)?,
            user_id: row.get(3)?,
            event_id: row.get(4)?,
            thread_id: row.get(5)?,
            data: row.get(6)?,
        };
        Ok((Token(row.get(0)?), Row::Receipts(receipt)))
    })?;
    Ok(Updates::of_single_rows(rows.collect::<rusqlite::Result<_>>()?, upto, rows_max))
}
