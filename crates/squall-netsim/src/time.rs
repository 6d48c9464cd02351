//! Simulated time, the same for all hosts.
//!
//! An engine may give every host a runtime of its own, whose `Instant`s cannot be compared with any other's. Times
//! that are compared between hosts come from here.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug, Clone, Copy)]
enum Now {
    /// The time since this instant, on the clock of the only runtime.
    Since(Instant),
    /// The time that the engine has set.
    At(Duration),
}

thread_local! {
    static NOW: Cell<Now> = const { Cell::new(Now::At(Duration::ZERO)) };
}

/// The time since this thread's simulation began.
pub fn elapsed() -> Duration {
    match NOW.get() {
        Now::Since(began) => began.elapsed(),
        Now::At(elapsed) => elapsed,
    }
}

/// Begins a simulation whose only runtime is the current one.
pub(super) fn begin() {
    NOW.set(Now::Since(Instant::now()));
}

/// Sets the time since the simulation began.
#[cfg(feature = "turmoil")]
pub(super) fn set(elapsed: Duration) {
    NOW.set(Now::At(elapsed));
}
