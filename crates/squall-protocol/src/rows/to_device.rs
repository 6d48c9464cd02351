//! Rows of `to_device`: new messages for a device.
//!
//! A row names only the recipient. The messages are in the recipient's inbox until the device has acknowledged them. They are
//! never overwritten, so a reader of the inbox up to a token gets every message up to it, in order.

use serde::Deserialize;
use serde_json::{Value, json};

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
    pub fn parse(row: &Value) -> Result<Self, serde_json::Error> {
        let (entity,) = Deserialize::deserialize(row)?;
        Ok(ToDeviceRow { entity })
    }

    /// Returns `[entity]`.
    pub fn to_json(&self) -> Value {
        json!([self.entity])
    }
}
