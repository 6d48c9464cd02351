//! The table of `caches`: cache entries to invalidate.

use rusqlite::{Connection, Row as SqlRow, Transaction};

use super::json_column::JsonColumn;
use super::query::UpdatesQuery;
use super::source::Source;
use squall_protocol::rows::caches::NAME;
use squall_protocol::rows::{CachesRow, Json, Row, Updates};
use squall_protocol::{Delivery, InstanceName, Token};

/// The source of the rows.
pub const SOURCE: Source = Source {
    name: NAME,
    delivery: Delivery::Log,
    sequence: "cache_invalidation_stream_seq",
    tables: &[("cache_invalidation_stream_by_instance", "stream_id")],
    schema: SCHEMA,
    updates,
    transaction: "caches_updates",
};

const SCHEMA: &str = "
CREATE TABLE cache_invalidation_stream_by_instance (
    stream_id INTEGER PRIMARY KEY,
    instance_name TEXT NOT NULL,
    cache_func TEXT NOT NULL,
    keys TEXT,
    invalidation_ts INTEGER
);
CREATE INDEX cache_invalidation_stream_by_writer ON cache_invalidation_stream_by_instance (instance_name, stream_id);
";

/// Inserts `rows` as rows of `writer`, each at its token.
pub fn insert(
    tx: &Transaction<'_>,
    writer: &InstanceName,
    rows: impl IntoIterator<Item = (Token, CachesRow)>,
) -> rusqlite::Result<()> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO cache_invalidation_stream_by_instance
             (stream_id, instance_name, cache_func, keys, invalidation_ts)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for (token, CachesRow { cache, keys, invalidated_ms }) in rows {
        let keys = keys.map(|keys| keys.0.to_string());
        insert.execute((token.0, writer.as_str(), cache, keys, invalidated_ms))?;
    }
    Ok(())
}

/// Returns the rows of one writer in a range of tokens.
pub fn updates(database: &Connection, query: UpdatesQuery<'_>) -> rusqlite::Result<Updates> {
    let sql = "SELECT stream_id, cache_func, keys, invalidation_ts
               FROM cache_invalidation_stream_by_instance
               WHERE instance_name = ? AND stream_id > ? AND stream_id <= ?
               ORDER BY stream_id LIMIT ?";
    query.run(database, sql, |row| invalidation(row).map(Row::Caches))
}

fn invalidation(row: &SqlRow<'_>) -> rusqlite::Result<CachesRow> {
    Ok(CachesRow {
        cache: row.get(1)?,
        keys: row.get::<_, Option<JsonColumn>>(2)?.map(|keys| Json(keys.0)),
        invalidated_ms: row.get(3)?,
    })
}
