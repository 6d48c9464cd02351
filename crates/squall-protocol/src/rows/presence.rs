//! Rows of `presence`: the online state of users.
//!
//! A row is a user's whole state, so only the newest row of each user matters.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The stream's name on the wire.
pub const NAME: &str = "presence";

/// A user's presence. Times are in milliseconds since the epoch, 0 if there is none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PresenceRow {
    /// The user.
    pub user_id: String,
    /// `online`, `unavailable`, `offline` or `busy`.
    pub state: String,
    /// The time of the user's last action.
    pub last_active_ms: i64,
    /// The time of the last update to remote servers.
    pub last_federation_update_ms: i64,
    /// The time of the user's last sync.
    pub last_user_sync_ms: i64,
    /// The user's status message.
    pub status_msg: Option<String>,
    /// True if the user is active now.
    pub currently_active: bool,
}

impl PresenceRow {
    /// Parses `[user_id, state, last_active_ts, last_federation_update_ts, last_user_sync_ts, status_msg | null,
    /// currently_active]`.
    pub fn parse<'de, D: Deserializer<'de>>(row: D) -> Result<Self, D::Error> {
        let (
            user_id,
            state,
            last_active_ms,
            last_federation_update_ms,
            last_user_sync_ms,
            status_msg,
            currently_active,
        ) = Deserialize::deserialize(row)?;
        Ok(PresenceRow {
            user_id,
            state,
            last_active_ms,
            last_federation_update_ms,
            last_user_sync_ms,
            status_msg,
            currently_active,
        })
    }

    /// Writes the row as [`parse`](Self::parse) reads it.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (
            &self.user_id,
            &self.state,
            self.last_active_ms,
            self.last_federation_update_ms,
            self.last_user_sync_ms,
            &self.status_msg,
            self.currently_active,
        )
            .serialize(to)
    }
}
