//! Clients: devices of users that sync, one request after the other, with one instance or another.

use serde::{Deserialize, Serialize};

/// The number of devices that each user has, numbered from 0.
pub const DEVICES: u32 = 2;

/// The longest `timeout_ms` of a client. It is part of the calm bound.
pub const CLIENT_TIMEOUT_MS_MAX: u64 = 30_000;
/// The longest `pause_ms` of a client. It is part of the calm bound.
pub const CLIENT_PAUSE_MS_MAX: u64 = 5_000;

/// A device that syncs. It begins without a token, and sends its latest token to every instance that it asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientPlan {
    /// The user.
    pub user: u32,
    /// The device of the user.
    pub device: u32,
    /// The hosts that it syncs with.
    pub hosts: Vec<String>,
    /// Requests out of a thousand that go to another host than the one before. A failed request makes it move too.
    pub move_per_mille: u32,
    /// Responses out of a thousand that are lost on the way: the client repeats the request with the token it had.
    pub lost_per_mille: u32,
    /// The time that an instance may wait for news before it responds, in milliseconds.
    pub timeout_ms: u64,
    /// The pause between a response and the next request, in milliseconds.
    pub pause_ms: u64,
    /// The time of the first request, in simulated milliseconds since the start. The client syncs until the run ends.
    pub from_ms: u64,
}
