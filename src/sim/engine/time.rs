//! Simulated time, the same for all hosts.
//!
//! An engine may give every host a runtime of its own, whose `Instant`s cannot be compared with any other's. Whatever is
//! told of several hosts takes its time from here.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug, Clone, Copy)]
enum Now {
    /// One runtime's clock tells.
    Since(Instant),
    /// The engine says so.
    At(Duration),
}

thread_local! {
    static NOW: Cell<Now> = const { Cell::new(Now::At(Duration::ZERO)) };
}

/// How long this thread's simulation has been going on.
pub fn elapsed() -> Duration {
    match NOW.get() {
        Now::Since(began) => began.elapsed(),
        Now::At(elapsed) => elapsed,
    }
}

/// A simulation begins whose only runtime is the one this is called in.
pub(super) fn begin() {
    NOW.set(Now::Since(Instant::now()));
}

/// It is `elapsed` after the beginning.
pub(super) fn set(elapsed: Duration) {
    NOW.set(Now::At(elapsed));
}
