//! `caches`: what must no longer be believed, where no row of another stream says so.
//!
//! Over TCP the master and every instance that writes a stream write it; all share one sequence of tokens. A row names a
//! cache and a key, or a whole cache. The pseudo cache [`CURRENT_STATE`] stands for everything derived from the current
//! state of a room.

use rusqlite::{Connection, params};
use serde::Deserialize;
use serde_json::{Value, json};

use super::row::Json;
use super::{Promise, Row, Source, Updates};
use crate::protocol::{InstanceName, Token};

/// The stream's name on the wire.
pub const NAME: &str = "caches";

/// The cache whose keys are a room and some of its members: everything derived from the room's current state.
pub const CURRENT_STATE: &str = "cs_cache_fake";

/// How many members one row of [`CURRENT_STATE`] names (Synapse #4748: with all of them a row outgrew its line).
pub const MEMBERS_PER_ROW_MAX: usize = 50;

/// Where the rows lie.
pub const SOURCE: Source = Source {
    name: NAME,
    promise: Promise::Log,
    sequence: "cache_invalidation_stream_seq",
    tables: &[("cache_invalidation_stream_by_instance", "stream_id")],
    updates,
    transaction: "caches_updates",
};

/// Something must no longer be believed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CachesRow {
    /// The cache.
    pub cache: String,
    /// The key, an array; none stands for all keys.
    pub keys: Option<Json>,
    /// When it was said, in milliseconds since the epoch.
    pub invalidated_ms: Option<i64>,
}

impl CachesRow {
    /// Understands `[cache, keys | null, invalidation_ts | null]`.
    pub fn parse(row: &Value) -> Result<Self, serde_json::Error> {
        let (cache, keys, invalidated_ms): (_, Option<Vec<Value>>, _) = Deserialize::deserialize(row)?;
        Ok(CachesRow { cache, keys: keys.map(|keys| Json(keys.into())), invalidated_ms })
    }

    /// `[cache, keys | null, invalidation_ts | null]`.
    pub fn to_json(&self) -> Value {
        json!([self.cache, self.keys, self.invalidated_ms])
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
    let sql = "SELECT stream_id, cache_func, keys, invalidation_ts
               FROM cache_invalidation_stream_by_instance
               WHERE instance_name = ? AND stream_id > ? AND stream_id <= ?
               ORDER BY stream_id LIMIT ?";
    let mut statement = database.prepare_cached(sql)?;
    let rows = statement.query_map(params![writer.as_str(), from.0, upto.0, rows_max as i64], |row| {
        let invalidation = CachesRow { cache: row.get(1)?, keys: row.get(2)?, invalidated_ms: row.get(3)? };
        Ok((Token(row.get(0)?), Row::Caches(invalidation)))
    })?;
    Ok(Updates::of_single_rows(rows.collect::<rusqlite::Result<_>>()?, upto, rows_max))
}
