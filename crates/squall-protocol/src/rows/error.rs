//! The error of a row that cannot be parsed.

use serde_json::Value;
use thiserror::Error;

use crate::excerpt::excerpt;
use crate::names::StreamName;

/// A row that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RowError {
    /// This process does not know the stream: the peer is newer, or the name is mistyped.
    #[error("unknown stream {}", excerpt(.0.as_str()))]
    UnknownStream(StreamName),
    /// The row's JSON has another shape than the stream's rows.
    #[error("not a row of {stream}: {cause}: {row}")]
    Shape {
        /// The stream the row came on.
        stream: StreamName,
        /// The part that does not fit, which it may quote, cut to about 200 characters.
        cause: String,
        /// The row, cut to about 200 characters.
        row: String,
    },
}

impl RowError {
    pub(super) fn shape(stream: &StreamName, cause: serde_json::Error, row: &Value) -> Self {
        let (cause, row) = (excerpt(&cause.to_string()), excerpt(&row.to_string()));
        RowError::Shape { stream: stream.clone(), cause, row }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::rows::Row;

    #[test]
    fn an_error_about_a_row_is_short_however_long_the_row_is() {
        let long = "x".repeat(100_000);
        for (stream, row) in [
            (&*long, json!(["a"])),
            ("events", json!(long)),
            ("events", json!([long, []])),
            ("typing", json!([long, [1]])),
        ] {
            let error = Row::parse(&stream.into(), row).unwrap_err().to_string();
            assert!(error.len() < 600 && error.contains('…'), "{error}");
        }
    }
}
