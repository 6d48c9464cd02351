//! The presence of one user.

use std::fmt;

use crate::streams::PresenceRow;

/// Whether a user can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PresenceState {
    /// Connected, and active not long ago.
    Online,
    /// Connected, but idle.
    Unavailable,
    /// Not connected.
    Offline,
}

impl PresenceState {
    /// The state's name in rows and in the client API.
    pub fn as_str(self) -> &'static str {
        match self {
            PresenceState::Online => "online",
            PresenceState::Unavailable => "unavailable",
            PresenceState::Offline => "offline",
        }
    }

    /// The state of this name. Synapse's `busy` is a way of being online; other names are none.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "online" | "busy" => Some(PresenceState::Online),
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
    /// Whose.
    pub user_id: String,
    /// Whether they can be reached.
    pub state: PresenceState,
    /// When they last did something.
    pub last_active_ms: i64,
    /// When other servers were last told. Squall does not federate; it is kept as it was found.
    pub last_federation_update_ms: i64,
    /// When a sync of theirs last began, ended or was known to go on.
    pub last_user_sync_ms: i64,
    /// What they say about themselves.
    pub status_msg: Option<String>,
    /// Whether they were active so lately that the exact time does not matter.
    pub currently_active: bool,
}

impl UserPresence {
    /// The presence of a user of whom nothing was ever heard.
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

    /// Whether the user can be reached at all.
    pub fn is_offline(&self) -> bool {
        self.state == PresenceState::Offline
    }
}

impl From<PresenceRow> for UserPresence {
    fn from(row: PresenceRow) -> Self {
        UserPresence {
            // Whoever is in a state that is not known here is at least known not to be offline.
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
