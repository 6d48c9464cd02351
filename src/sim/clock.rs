//! The simulated wall clocks of hosts.

use std::cell::Cell;
use std::rc::Rc;

use squall_env::Clock;
use squall_netsim::time;

/// The start of every simulation: 2026-01-01 00:00:00 UTC, in milliseconds since the Unix epoch.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// The wall clock of one host, which all its processes share. It shows the time of this thread's simulation, and the steps
/// that it has made.
#[derive(Debug, Clone, Default)]
pub(super) struct SimClock {
    ahead_ms: Rc<Cell<i64>>,
}

impl SimClock {
    /// Moves the clock forwards by so many milliseconds, or backwards.
    pub(super) fn step(&self, by_ms: i64) {
        self.ahead_ms.set(self.ahead_ms.get().saturating_add(by_ms));
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        (EPOCH_MS + time::elapsed().as_millis() as u64).saturating_add_signed(self.ahead_ms.get())
    }
}
