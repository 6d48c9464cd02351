//! Clients: devices of users that sync, one request after the other, with one instance or another.

use serde::{Deserialize, Serialize};

/// The longest that a client may let an instance wait for news: it bounds how long the calm lasts.
pub const CLIENT_TIMEOUT_MS_MAX: u64 = 30_000;
/// The longest that a client may pause.
pub const CLIENT_PAUSE_MS_MAX: u64 = 5_000;

/// A device that syncs. It begins with no token, and brings the one it was given last to whichever instance it asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientPlan {
    /// Whose device it is.
    pub user: u32,
    /// Which of the user's devices.
    pub device: u32,
    /// The hosts it syncs with.
    pub hosts: Vec<String>,
    /// How many in a thousand requests it makes to another host than the one before. It also moves when one fails.
    pub move_per_mille: u32,
    /// How many in a thousand answers are lost on the way: it asks again with the token it had.
    pub lost_per_mille: u32,
    /// How long an instance may wait for news before it answers, in milliseconds.
    pub timeout_ms: u64,
    /// How long it does nothing between an answer and the next request, in milliseconds.
    pub pause_ms: u64,
    /// When it begins, in simulated milliseconds since the start. It goes on until the run ends.
    pub from_ms: u64,
}
