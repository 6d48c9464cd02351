//! Rows of `pushers`: the devices of users that get push notifications (Synapse 1.163.2, `streams/_base.py`).
//!
//! Only the newest row of a (user, app, push key) matters. A deleted pusher is a row too.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "pushers";

/// A pusher that was added, changed or deleted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PushersRow {
    /// The user.
    pub user_id: String,
    /// The app on the user's device.
    pub app_id: String,
    /// The app's key for the push gateway.
    pub pushkey: String,
    /// True if the pusher was deleted.
    pub deleted: bool,
}

impl PushersRow {
    /// Parses `[user_id, app_id, pushkey, deleted]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (user_id, app_id, pushkey, deleted) = Deserialize::deserialize(row)?;
        Ok(PushersRow { user_id, app_id, pushkey, deleted })
    }

    /// Writes `[user_id, app_id, pushkey, deleted]`.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&self.user_id, &self.app_id, &self.pushkey, self.deleted).serialize(to)
    }
}
