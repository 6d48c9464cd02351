//! Rows of `to_device`: new messages for a device.
//!
//! A row names only the recipient. The messages are in the recipient's inbox until the device has acknowledged them. They are
//! never overwritten, so a reader of the inbox up to a token gets every message up to it, in order.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "to_device";

/// A recipient of new messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ToDeviceRow {
    /// A user, whose id begins with `@`, or a remote server.
    pub entity: String,
}

impl ToDeviceRow {
    /// Parses `[entity]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (entity,) = Deserialize::deserialize(row)?;
        Ok(ToDeviceRow { entity })
    }

    /// Writes `[entity]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.entity,).serialize(to)
    }
}
