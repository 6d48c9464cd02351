//! The error of a row that cannot be parsed.

use serde_json::Value;
use thiserror::Error;

use crate::names::StreamName;

/// The length of a row's text in an error, in characters.
const ROW_CHARS_MAX: usize = 200;

/// A row that cannot be parsed.
#[derive(Debug, Error)]
pub enum RowError {
    /// This process does not know the stream: the peer is newer, or the name is mistyped.
    #[error("unknown stream {0}")]
    UnknownStream(StreamName),
    /// The row's JSON has another shape than the stream's rows.
    #[error("not a row of {stream}: {cause}: {row}")]
    Shape {
        /// The stream the row came on.
        stream: StreamName,
        /// The part that does not fit.
        cause: serde_json::Error,
        /// The row, cut to a readable length.
        row: String,
    },
}

impl RowError {
    pub(super) fn shape(stream: &StreamName, cause: serde_json::Error, row: &Value) -> Self {
        RowError::Shape { stream: stream.clone(), cause, row: row.to_string().chars().take(ROW_CHARS_MAX).collect() }
    }
}
