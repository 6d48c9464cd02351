//! The simulated wall clock.

use squall_env::Clock;
use squall_netsim::time;

/// The start of every simulation: 2026-01-01 00:00:00 UTC, in milliseconds since the Unix epoch.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// A clock that shows the time of this thread's simulation.
#[derive(Debug, Clone, Copy)]
pub(super) struct SimClock;

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        EPOCH_MS + time::elapsed().as_millis() as u64
    }
}
