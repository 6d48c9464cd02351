//! Saying what must no longer be believed.

use rusqlite::Transaction;

use crate::protocol::{InstanceName, Token};
use crate::streams::CachesRow;

/// Says `rows`, each under its token.
pub fn invalidate(
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
        insert.execute((token.0, writer.as_str(), cache, keys, invalidated_ms))?;
    }
    Ok(())
}
