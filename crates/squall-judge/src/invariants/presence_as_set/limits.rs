//! The times that presence depends on, in milliseconds.

/// Time after which a device that does not sync goes offline.
const OFFLINE_MS: u64 = 30_000;
/// Longest time between the end of a sync and its announcement.
const END_MS: u64 = 20_000;
/// Longest time between the expiry of a process and its check.
const EXPIRY_CHECK_MS: u64 = 5_000;
/// Time after the storm until packets that were held back have arrived and every connection is made again.
const SETTLED_MS: u64 = 120_000;

/// The times that presence depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Time after which a device that does not sync goes offline.
    pub offline_ms: u64,
    /// Time without activity after which an online device is idle.
    pub idle_ms: u64,
    /// Time after which a busy device that does not sync goes offline.
    pub busy_ms: u64,
    /// Longest time for which the presence writer may think that a process serves a sync that has ended.
    pub thought_ms: u64,
    /// Time after the storm until packets that were held back have arrived and every connection is made again.
    pub settled_ms: u64,
}

impl Limits {
    /// Returns the limits of a deployment.
    pub(super) fn new(idle_ms: u64, busy_ms: u64, process_expiry_ms: u64) -> Self {
        let thought_ms = END_MS.max(process_expiry_ms + EXPIRY_CHECK_MS);
        Limits { offline_ms: OFFLINE_MS, idle_ms, busy_ms, thought_ms, settled_ms: SETTLED_MS }
    }
}
