//! Simulated time, the same for all hosts.
//!
//! An engine may give every host a runtime of its own, whose `Instant`s cannot be compared with any other's. Times
//! that are compared between hosts come from here.

use std::cell::Cell;
use std::ops::{Add, Sub};
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

/// A time since this thread's simulation began. Compared far more often than read, so it is one number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time {
    nanos: u64,
}

impl Time {
    /// The present.
    pub(crate) fn now() -> Self {
        Time { nanos: nanos(elapsed()) }
    }

    /// The time since the simulation began.
    pub(crate) fn since_start(self) -> Duration {
        Duration::from_nanos(self.nanos)
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, later: Duration) -> Time {
        Time { nanos: self.nanos + nanos(later) }
    }
}

impl Sub for Time {
    type Output = Duration;

    fn sub(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }
}

fn nanos(duration: Duration) -> u64 {
    duration.as_secs() * 1_000_000_000 + u64::from(duration.subsec_nanos())
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
