//! Rows of `device_lists` in Synapse 1.19 (1.19.1, `streams/_base.py`): without flags. Changes of signatures are a
//! stream of their own, until Synapse #14833.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "device_lists";

/// A change of devices.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceListsRow {
    /// The user whose devices changed, whose id begins with `@`; or a remote server that must be told of a change.
    pub entity: String,
}

impl DeviceListsRow {
    /// Parses `[entity]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (entity,) = Deserialize::deserialize(row)?;
        Ok(DeviceListsRow { entity })
    }

    /// Writes `[entity]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.entity,).serialize(to)
    }
}
