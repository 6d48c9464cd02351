//! Rows: what one line of replication says about one stream.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::{AccountDataRow, CachesRow, EventsRow, PresenceRow, ReceiptsRow, ToDeviceRow, TypingRow};
use super::{account_data, caches, events, presence, receipts, to_device, typing};
use crate::protocol::StreamName;

/// A row of any stream this process knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Row {
    /// A row of `account_data`.
    AccountData(AccountDataRow),
    /// A row of `caches`.
    Caches(CachesRow),
    /// A row of `events`.
    Events(EventsRow),
    /// A row of `presence`.
    Presence(PresenceRow),
    /// A row of `receipts`.
    Receipts(ReceiptsRow),
    /// A row of `to_device`.
    ToDevice(ToDeviceRow),
    /// A row of `typing`.
    Typing(TypingRow),
}

/// A row that is not of the shape its stream prescribes.
#[derive(Debug, Error)]
pub enum RowError {
    /// The stream is none this process knows (a newer peer, or a mistyped name).
    #[error("unknown stream {0}")]
    UnknownStream(StreamName),
    /// The row's JSON has another shape than the stream's rows.
    #[error("not a row of {stream}: {cause}: {row}")]
    Shape {
        /// The stream the row came on.
        stream: StreamName,
        /// What does not fit.
        cause: serde_json::Error,
        /// The row, cut to a readable length.
        row: String,
    },
}

impl Row {
    /// Understands a row of `stream` as it stands in `RDATA` or in an answer to `get_repl_stream_updates`.
    pub fn parse(stream: &StreamName, row: Value) -> Result<Row, RowError> {
        let understood = match stream.as_str() {
            account_data::NAME => AccountDataRow::parse(&row).map(Row::AccountData),
            caches::NAME => CachesRow::parse(&row).map(Row::Caches),
            events::NAME => EventsRow::parse(&row).map(Row::Events),
            presence::NAME => PresenceRow::parse(&row).map(Row::Presence),
            receipts::NAME => ReceiptsRow::parse(&row).map(Row::Receipts),
            to_device::NAME => ToDeviceRow::parse(&row).map(Row::ToDevice),
            typing::NAME => TypingRow::parse(&row).map(Row::Typing),
            _ => return Err(RowError::UnknownStream(stream.clone())),
        };
        understood.map_err(|cause| RowError::Shape {
            stream: stream.clone(),
            cause,
            row: row.to_string().chars().take(200).collect(),
        })
    }

    /// The row as it stands on the wire.
    pub fn to_json(&self) -> Value {
        match self {
            Row::AccountData(row) => row.to_json(),
            Row::Caches(row) => row.to_json(),
            Row::Events(row) => row.to_json(),
            Row::Presence(row) => row.to_json(),
            Row::Receipts(row) => row.to_json(),
            Row::ToDevice(row) => row.to_json(),
            Row::Typing(row) => row.to_json(),
        }
    }

    /// The stream whose row it is.
    pub fn stream(&self) -> &'static str {
        match self {
            Row::AccountData(_) => account_data::NAME,
            Row::Caches(_) => caches::NAME,
            Row::Events(_) => events::NAME,
            Row::Presence(_) => presence::NAME,
            Row::Receipts(_) => receipts::NAME,
            Row::ToDevice(_) => to_device::NAME,
            Row::Typing(_) => typing::NAME,
        }
    }

    /// What a later row with the same key says in this one's place; none for streams of which every row counts.
    pub fn key(&self) -> Option<String> {
        let key = |parts: &[&str]| Some(parts.join(" "));
        match self {
            Row::AccountData(AccountDataRow { user_id, room_id, kind }) => {
                key(&[user_id, room_id.as_deref().unwrap_or_default(), kind])
            }
            Row::Presence(row) => key(&[&row.user_id]),
            Row::Receipts(ReceiptsRow { room_id, kind, user_id, thread_id, .. }) => {
                key(&[room_id, kind, user_id, thread_id.as_deref().unwrap_or_default()])
            }
            Row::ToDevice(row) => key(&[&row.entity]),
            Row::Typing(row) => key(&[&row.room_id]),
            Row::Caches(_) | Row::Events(_) => None,
        }
    }
}

/// JSON of any shape inside a row, with an order of no meaning so that rows have one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(pub Value);

impl Ord for Json {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.to_string().cmp(&other.0.to_string())
    }
}

impl PartialOrd for Json {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Json {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.to_string().hash(hasher);
    }
}

/// A column of text that holds JSON.
impl FromSql for Json {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let json = serde_json::from_str(value.as_str()?);
        json.map(Json).map_err(|error| FromSqlError::Other(Box::new(error)))
    }
}

impl ToSql for Json {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.to_string().into())
    }
}
