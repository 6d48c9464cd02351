//! Rows of `device_lists`: users whose devices or keys have changed (Synapse 1.163.2, `streams/_base.py`).
//!
//! Changes of devices and of signatures are two tables and one stream. A row does not name the device, so only the newest
//! row of each kind and user matters.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "device_lists";

/// A change of devices or keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceListsRow {
    /// The user whose devices or keys changed. Synapse also reads the name of a server.
    pub user_id: String,
    /// True if it is a change of the signatures that the user has made.
    pub is_signature: bool,
    /// True if the servers that must be told of the change are known, so that federation senders can go ahead.
    pub hosts_calculated: bool,
}

impl DeviceListsRow {
    /// Parses `[user_id, is_signature, hosts_calculated]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (user_id, is_signature, hosts_calculated) = Deserialize::deserialize(row)?;
        Ok(DeviceListsRow { user_id, is_signature, hosts_calculated })
    }

    /// Writes `[user_id, is_signature, hosts_calculated]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.user_id, self.is_signature, self.hosts_calculated).serialize(to)
    }
}
