//! What is wrong with the database, as one host sees it.
//!
//! It outlives the host's processes: a process that is started while its database stalls meets the stall. What a
//! transaction meets is decided when it is asked for, by draws that depend on nothing but the transaction and the kind of
//! trouble: one more fault leaves the fates of all other transactions as they were. Only a stall is looked at again when
//! the transaction is about to take effect or to be answered.

use std::cell::{Cell, RefCell};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::Notify;

use super::Fate;
use crate::env::Chance;

/// One kind of trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Transactions that write rows take effect late.
    SlowWriter {
        /// How late, in milliseconds.
        delay_ms: RangeInclusive<u64>,
        /// How many of a thousand are rolled back for good at that time.
        rollback_per_mille: u32,
    },
    /// Every transaction takes longer on either side of the instant at which it takes effect.
    Slow {
        /// How much longer on each side, in milliseconds.
        extra_ms: RangeInclusive<u64>,
    },
    /// Nothing takes effect, and nothing is answered.
    Stalled,
    /// Transactions fail.
    Failing {
        /// Which of them.
        scope: Scope,
        /// How many of a thousand.
        per_mille: u32,
    },
    /// The transaction of one name fails, always.
    Broken {
        /// Its name.
        transaction: String,
    },
    /// Transactions commit, and their callers are told that the connection was lost.
    LostAcknowledgement {
        /// How many of a thousand.
        per_mille: u32,
    },
}

/// Which transactions fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// Those that read rows, for catch-up and streaming.
    Updates,
}

/// What a transaction is for, which its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It reads rows that followers must see.
    Updates,
    /// It keeps the books of ids, positions and sessions, or reads something else.
    Bookkeeping,
    /// It writes what users asked for.
    Rows,
}

/// Transactions that write no rows of any stream, besides those whose names begin with one of [`READS`].
const BOOKKEEPING: [&str; 5] = ["begin_session", "allocate_ids", "persist_position", "last_allocated", "sync"];
/// What reads begin with: of what there is at a start, and of what caches then keep.
const READS: [&str; 2] = ["load_", "read_"];

impl Purpose {
    /// The purpose of the transaction called `name`.
    pub fn of(name: &str) -> Self {
        if name.ends_with("_updates") {
            Purpose::Updates
        } else if BOOKKEEPING.contains(&name) || READS.iter().any(|read| name.starts_with(read)) {
            Purpose::Bookkeeping
        } else {
            Purpose::Rows
        }
    }
}

/// How a transaction ends. The worse of two wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// It commits, and its caller hears of it.
    Committed,
    /// It commits, and its caller hears of an error, after that or even before.
    Unacknowledged { is_told_before: bool },
    /// It runs and is rolled back.
    RolledBack,
    /// It never runs.
    Refused,
}

/// All the trouble that one host has with the database at a time.
#[derive(Default)]
pub struct DatabaseFaults {
    active: RefCell<Vec<Rc<Active>>>,
    ended: Notify,
}

struct Active {
    trouble: Trouble,
    hits: Cell<u64>,
}

impl Active {
    fn hit(&self) {
        self.hits.set(self.hits.get() + 1);
    }
}

impl DatabaseFaults {
    /// `trouble` begins. It is over when the guard is dropped.
    pub fn begin(self: &Rc<Self>, trouble: Trouble) -> DatabaseFault {
        let active = Rc::new(Active { trouble, hits: Cell::new(0) });
        self.active.borrow_mut().push(Rc::clone(&active));
        DatabaseFault { faults: Rc::clone(self), active }
    }

    /// What the trouble of now makes of the transaction called `name`, whose draws come from `chance`.
    pub(super) fn bear_on(&self, fate: &mut Fate, name: &str, chance: &Chance) {
        let purpose = Purpose::of(name);
        for active in self.active.borrow().iter() {
            let is_hit = match &active.trouble {
                Trouble::SlowWriter { delay_ms, rollback_per_mille } if purpose == Purpose::Rows => {
                    let mut rng = chance.of("slow_writer").rng();
                    fate.before += Duration::from_millis(rng.random_range(delay_ms.clone()));
                    if rng.random_range(0..1_000) < *rollback_per_mille {
                        fate.worsen(Outcome::RolledBack);
                    }
                    true
                }
                Trouble::SlowWriter { .. } | Trouble::Stalled => false,
                Trouble::Slow { extra_ms } => {
                    let mut rng = chance.of("slow").rng();
                    fate.before += Duration::from_millis(rng.random_range(extra_ms.clone()));
                    fate.after += Duration::from_millis(rng.random_range(extra_ms.clone()));
                    true
                }
                Trouble::Failing { scope, per_mille } => {
                    let mut rng = chance.of("failing").rng();
                    let (drawn, has_run) = (rng.random_range(0..1_000), rng.random_ratio(1, 2));
                    let fails = (*scope == Scope::All || purpose == Purpose::Updates) && drawn < *per_mille;
                    if fails {
                        fate.worsen(if has_run { Outcome::RolledBack } else { Outcome::Refused });
                    }
                    fails
                }
                Trouble::Broken { transaction } => {
                    let is_broken = transaction == name;
                    if is_broken {
                        fate.worsen(Outcome::RolledBack);
                    }
                    is_broken
                }
                Trouble::LostAcknowledgement { per_mille } => {
                    let mut rng = chance.of("lost_acknowledgement").rng();
                    let (drawn, is_told_before) = (rng.random_range(0..1_000), rng.random_ratio(1, 2));
                    let is_lost = drawn < *per_mille;
                    if is_lost {
                        fate.worsen(Outcome::Unacknowledged { is_told_before });
                    }
                    is_lost
                }
            };
            if is_hit {
                active.hit();
            }
        }
    }

    /// Waits until nothing stalls. Tells whether it had to wait.
    pub(super) async fn stall(&self) -> bool {
        let mut has_waited = false;
        loop {
            let ended = self.ended.notified();
            let stall = self.active.borrow().iter().find(|active| active.trouble == Trouble::Stalled).cloned();
            let Some(stall) = stall else { return has_waited };
            stall.hit();
            has_waited = true;
            ended.await;
        }
    }
}

/// Trouble that lasts until this is dropped.
pub struct DatabaseFault {
    faults: Rc<DatabaseFaults>,
    active: Rc<Active>,
}

impl DatabaseFault {
    /// How many transactions it has met so far: whether the fault took effect.
    pub fn hits(&self) -> u64 {
        self.active.hits.get()
    }
}

impl Drop for DatabaseFault {
    fn drop(&mut self) {
        self.faults.active.borrow_mut().retain(|active| !Rc::ptr_eq(active, &self.active));
        self.faults.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
