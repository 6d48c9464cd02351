//! The configuration of presence.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::timers::SYNC_ONLINE_TIMEOUT_MS;

/// Shortest time between the end of a user's last sync and its announcement to the presence writer.
pub const STOP_DELAY: Duration = Duration::from_secs(10);
/// Interval between checks for users whose last sync has ended.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// The time limits of presence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PresenceConfig {
    /// Interval in which a process announces each of its syncing users again, in milliseconds.
    pub refresh_ms: u64,
    /// Time of silence after which the presence writer takes a process for dead, in milliseconds.
    pub process_expiry_ms: u64,
    /// Time without activity after which an online device is idle, in milliseconds.
    pub idle_ms: u64,
    /// Time after which a busy device that does not sync is offline, in milliseconds.
    pub busy_ms: u64,
}

/// The times after which a device's state changes by itself, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Time after which a device that does not sync is offline.
    pub(super) offline_ms: i64,
    /// Time without activity after which an online device is idle.
    pub(super) idle_ms: i64,
    /// Time after which a busy device that does not sync is offline.
    pub(super) busy_ms: i64,
}

/// The longest time that is counted: a hundred years.
const MAX_MS: i64 = 100 * 365 * 86_400_000;

impl Default for PresenceConfig {
    fn default() -> Self {
        PresenceConfig { refresh_ms: 60_000, process_expiry_ms: 300_000, idle_ms: 300_000, busy_ms: 3_600_000 }
    }
}

impl PresenceConfig {
    /// Returns the interval in which a process announces each of its syncing users again.
    pub fn refresh(&self) -> Duration {
        Duration::from_millis(self.refresh_ms)
    }

    /// Returns the time of silence after which the presence writer takes a process for dead.
    pub fn process_expiry(&self) -> Duration {
        Duration::from_millis(self.process_expiry_ms)
    }

    /// Returns the times after which a device's state changes by itself.
    pub(super) fn limits(&self) -> Limits {
        let ms = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX).min(MAX_MS);
        Limits { offline_ms: SYNC_ONLINE_TIMEOUT_MS, idle_ms: ms(self.idle_ms), busy_ms: ms(self.busy_ms) }
    }
}
