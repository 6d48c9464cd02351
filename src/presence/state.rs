//! The presence of one user.

use std::fmt;

use serde::{Deserialize, Serialize};

use squall_protocol::rows::PresenceRow;

/// The state of a device's or a user's presence. Of the states of several devices the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PresenceState {
    /// Not connected.
    Offline,
    /// Connected, but idle.
    Unavailable,
    /// Connected, and active not long ago.
    Online,
    /// Connected, and not to be disturbed.
    Busy,
}

impl PresenceState {
    /// Returns the state's name in rows and in the client API.
    pub fn as_str(self) -> &'static str {
        match self {
            PresenceState::Online => "online",
            PresenceState::Unavailable => "unavailable",
            PresenceState::Offline => "offline",
            PresenceState::Busy => "busy",
        }
    }

    /// Returns the state called `name`; none if there is no such state.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "busy" => Some(PresenceState::Busy),
            "online" => Some(PresenceState::Online),
            "unavailable" => Some(PresenceState::Unavailable),
            "offline" => Some(PresenceState::Offline),
            _ => None,
        }
    }
}

impl fmt::Display for PresenceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The presence of one user. Times are milliseconds since the epoch, 0 for never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserPresence {
    /// The user.
    pub user_id: String,
    /// The state.
    pub state: PresenceState,
    /// Time of the user's last activity.
    pub last_active_ms: i64,
    /// Time of the last update to other servers. Squall does not federate and keeps the value as it was.
    pub last_federation_update_ms: i64,
    /// Time at which a sync of the user last began, ended or was known to be under way.
    pub last_user_sync_ms: i64,
    /// The status message that the user set.
    pub status_msg: Option<String>,
    /// True while the user counts as active right now; see [`super::timers`].
    pub currently_active: bool,
}

impl UserPresence {
    /// Returns the presence of a user about whom nothing is known: offline.
    pub fn unknown(user_id: &str) -> Self {
        UserPresence {
            user_id: user_id.to_owned(),
            state: PresenceState::Offline,
            last_active_ms: 0,
            last_federation_update_ms: 0,
            last_user_sync_ms: 0,
            status_msg: None,
            currently_active: false,
        }
    }

    /// Returns true if the user is offline.
    pub fn is_offline(&self) -> bool {
        self.state == PresenceState::Offline
    }
}

impl From<PresenceRow> for UserPresence {
    fn from(row: PresenceRow) -> Self {
        UserPresence {
            // A state that this version does not know is at least not `offline`.
            state: PresenceState::named(&row.state).unwrap_or(PresenceState::Online),
            user_id: row.user_id,
            last_active_ms: row.last_active_ms,
            last_federation_update_ms: row.last_federation_update_ms,
            last_user_sync_ms: row.last_user_sync_ms,
            status_msg: row.status_msg,
            currently_active: row.currently_active,
        }
    }
}

impl From<UserPresence> for PresenceRow {
    fn from(presence: UserPresence) -> Self {
        PresenceRow {
            user_id: presence.user_id,
            state: presence.state.as_str().to_owned(),
            last_active_ms: presence.last_active_ms,
            last_federation_update_ms: presence.last_federation_update_ms,
            last_user_sync_ms: presence.last_user_sync_ms,
            status_msg: presence.status_msg,
            currently_active: presence.currently_active,
        }
    }
}
