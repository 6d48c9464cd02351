//! Simulated wall-clock time.

use std::cell::Cell;

use tokio::time::Instant;

use crate::env::Clock;

/// When every simulation begins: 2026-01-01 00:00:00 UTC, in milliseconds since the Unix epoch.
const EPOCH_MS: u64 = 1_767_225_600_000;

thread_local! {
    static STARTED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A clock that goes with the simulation's paused time.
#[derive(Debug, Clone, Copy)]
pub struct SimClock;

impl SimClock {
    /// Sets the clock of this thread's simulation to its beginning.
    pub fn start() {
        STARTED.set(Some(Instant::now()));
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        EPOCH_MS + STARTED.get().map_or(0, |started| started.elapsed().as_millis() as u64)
    }
}
