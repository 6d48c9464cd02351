//! The fate of one transaction: how long it takes, and how it ends.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// The latency and the reliability of the database for one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DatabaseTiming {
    /// The time from the request to the instant at which it takes effect, in microseconds. tokio's timers round up to a
    /// millisecond.
    pub before_us: RangeInclusive<u64>,
    /// The time from that instant until the caller gets the result, in microseconds.
    pub after_us: RangeInclusive<u64>,
    /// Transactions out of a thousand that fail to serialize: they are rolled back after their closure ran, and run again
    /// at the same instant.
    pub rollback_per_mille: u32,
}

impl Default for DatabaseTiming {
    fn default() -> Self {
        DatabaseTiming { before_us: 500..=5_000, after_us: 500..=5_000, rollback_per_mille: 20 }
    }
}

impl DatabaseTiming {
    /// Draws the fate of a transaction that meets no fault.
    pub(super) fn draw(&self, rng: &mut impl Rng) -> Fate {
        Fate {
            before: Duration::from_micros(rng.random_range(self.before_us.clone())),
            after: Duration::from_micros(rng.random_range(self.after_us.clone())),
            fails_to_serialize: rng.random_range(0..1_000) < self.rollback_per_mille,
            outcome: Outcome::Committed,
        }
    }
}

/// The fate of one transaction.
#[derive(Debug)]
pub(super) struct Fate {
    /// The time from the request to the instant at which it takes effect.
    pub before: Duration,
    /// The time from that instant until the caller gets the result.
    pub after: Duration,
    /// True if it is rolled back once and run again.
    pub fails_to_serialize: bool,
    /// The way it ends.
    pub outcome: Outcome,
}

impl Fate {
    /// Sets the outcome to `outcome`, unless it is worse already.
    pub(super) fn worsen(&mut self, outcome: Outcome) {
        self.outcome = self.outcome.max(outcome);
    }
}

/// The way a transaction ends, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// A commit, and the caller gets the result.
    Committed,
    /// A commit, and the caller gets an error.
    Unacknowledged {
        /// True if the caller gets the error before the commit.
        is_error_first: bool,
    },
    /// A rollback after the transaction ran, and the caller gets an error.
    RolledBack,
    /// An error before the transaction ran.
    Refused,
}

/// The purpose of a transaction, which follows from its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Reads of rows for followers.
    Updates,
    /// The books of ids, positions and sessions, and other reads.
    Bookkeeping,
    /// Writes of rows for users.
    Rows,
}

/// The transactions that write no rows of any stream, besides those whose names begin with one of [`READS`].
const BOOKKEEPING: [&str; 5] = ["begin_session", "allocate_ids", "persist_position", "last_allocated", "sync"];
/// The prefixes of reads: of the initial state, and of the values that caches keep.
const READS: [&str; 2] = ["load_", "read_"];

impl Purpose {
    /// Returns the purpose of the transaction called `name`.
    pub(super) fn of(name: &str) -> Self {
        if name.ends_with("_updates") {
            Purpose::Updates
        } else if BOOKKEEPING.contains(&name) || READS.iter().any(|read| name.starts_with(read)) {
            Purpose::Bookkeeping
        } else {
            Purpose::Rows
        }
    }
}
