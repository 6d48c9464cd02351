//! Text columns that hold JSON.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use serde_json::Value;

/// The JSON in a text column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonColumn(pub Value);

impl FromSql for JsonColumn {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let json = serde_json::from_str(value.as_str()?);
        json.map(JsonColumn).map_err(|error| FromSqlError::Other(Box::new(error)))
    }
}
