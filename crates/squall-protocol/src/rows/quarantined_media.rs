//! Rows of `quarantined_media`: media that were put into quarantine or taken out of it (Synapse 1.163.2,
//! as `tests/data/vectors_1.163.2.json` records it).
//!
//! The main process alone writes them, whichever writers are configured (Synapse #20080).

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "quarantined_media";

/// A medium that was put into quarantine or taken out of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuarantinedMediaRow {
    /// The server it comes from; `None` if it is of this one.
    pub origin: Option<String>,
    /// Its id on that server.
    pub media_id: String,
    /// True if it was put into quarantine.
    pub quarantined: bool,
}

impl QuarantinedMediaRow {
    /// Parses `[origin | null, media_id, quarantined]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (origin, media_id, quarantined) = Deserialize::deserialize(row)?;
        Ok(QuarantinedMediaRow { origin, media_id, quarantined })
    }

    /// Writes `[origin | null, media_id, quarantined]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.origin, &self.media_id, self.quarantined).serialize(to)
    }
}
