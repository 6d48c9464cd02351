//! Rows of `caches`: cache entries to invalidate, where no row of another stream invalidates them.
//!
//! A row names a cache and a key, or a whole cache. The pseudo cache [`CURRENT_STATE`] stands for everything derived from
//! the current state of a room.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::json::Json;

/// The stream's name on the wire.
pub const NAME: &str = "caches";

/// The pseudo cache for everything derived from a room's current state. Its keys are a room and some of its members.
pub const CURRENT_STATE: &str = "cs_cache_fake";

/// Maximum number of members in one row of [`CURRENT_STATE`] (Synapse #4748: with all of them a row outgrew its line).
pub const MEMBERS_PER_ROW_MAX: usize = 50;

/// A cache entry, or a whole cache, to invalidate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CachesRow {
    /// The cache.
    pub cache: String,
    /// The key, an array; `None` stands for all keys.
    pub keys: Option<Json>,
    /// The time of the invalidation, in milliseconds since the epoch.
    pub invalidated_ms: Option<i64>,
}

impl CachesRow {
    /// Parses `[cache, keys | null, invalidation_ts | null]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (cache, keys, invalidated_ms): (_, Option<Vec<Value>>, _) = Deserialize::deserialize(row)?;
        Ok(CachesRow { cache, keys: keys.map(|keys| Json(keys.into())), invalidated_ms })
    }

    /// Writes `[cache, keys | null, invalidation_ts | null]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.cache, &self.keys, self.invalidated_ms).serialize(to)
    }
}
