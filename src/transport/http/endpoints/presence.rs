//! `POST presence_set_state/<user>` and `POST bump_presence_active_time/<user>`: set a user's presence, and record that a
//! user was active. Both return `{}`.

use serde::{Deserialize, Serialize};

/// The body of a request to set a presence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetBody {
    /// The device that sets it; none if it is unknown.
    pub device_id: Option<String>,
    /// True if a row is to be written even if nothing changes.
    #[serde(default)]
    pub force_notify: bool,
    /// True if the request comes from a sync, which changes neither the status message nor a busy device.
    #[serde(default)]
    pub is_sync: bool,
    /// The new presence.
    pub state: State,
}

/// A presence as a request carries it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// `online`, `unavailable`, `offline` or `busy`.
    pub presence: String,
    /// The user's status message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_msg: Option<String>,
}

/// The body of a request to record activity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BumpBody {
    /// The device on which the user was active.
    pub device_id: Option<String>,
}
