//! Rows: what one line of replication says about one stream.

use serde_json::Value;
use thiserror::Error;

use super::events::{self, EventsRow};
use super::typing::{self, TypingRow};
use crate::protocol::StreamName;

/// A row of any stream this process knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Row {
    /// A row of `events`.
    Events(EventsRow),
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
        let shape = |row: &Value, cause| RowError::Shape {
            stream: stream.clone(),
            cause,
            row: row.to_string().chars().take(200).collect(),
        };
        match stream.as_str() {
            events::NAME => EventsRow::parse(&row).map(Row::Events).map_err(|cause| shape(&row, cause)),
            typing::NAME => TypingRow::parse(&row).map(Row::Typing).map_err(|cause| shape(&row, cause)),
            _ => Err(RowError::UnknownStream(stream.clone())),
        }
    }

    /// The row as it stands on the wire.
    pub fn to_json(&self) -> Value {
        match self {
            Row::Events(row) => row.to_json(),
            Row::Typing(row) => row.to_json(),
        }
    }
}
