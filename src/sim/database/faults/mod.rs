//! The faults of the database, as one host sees it.
//!
//! They outlive the host's processes: a process that starts while its database stalls meets the stall. The fate of a
//! transaction is decided when it is requested, by draws that depend only on the transaction and the kind of fault: one more
//! fault leaves the fates of all other transactions as they were. Only a stall is checked again, when the transaction is
//! about to take effect and when it is about to be answered.

use std::cell::{Cell, RefCell};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::Notify;

use super::fate::{Fate, Outcome, Purpose};
use squall_env::SeedTree;

/// A fault of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DatabaseFault {
    /// Transactions that write rows take effect late.
    SlowWriter {
        /// The delay, in milliseconds.
        delay_ms: RangeInclusive<u64>,
        /// Transactions out of a thousand that are rolled back for good after the delay.
        rollback_per_mille: u32,
    },
    /// Every transaction takes longer, before and after the instant at which it takes effect.
    Slow {
        /// The delay on each side, in milliseconds.
        extra_ms: RangeInclusive<u64>,
    },
    /// No transaction takes effect, and none is answered.
    Stalled,
    /// Transactions fail.
    Failing {
        /// The transactions that may fail.
        scope: Scope,
        /// Transactions out of a thousand that fail.
        per_mille: u32,
    },
    /// Every transaction of one name fails.
    Broken {
        /// The name.
        transaction: String,
    },
    /// Transactions commit, and their callers get the error that the connection was lost.
    LostAcknowledgement {
        /// Transactions out of a thousand that are hit.
        per_mille: u32,
    },
}

/// The transactions that may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of them.
    All,
    /// Those that read rows, for catch-up and streaming.
    Updates,
}

/// The faults that one host's database has at a time.
#[derive(Default)]
pub(crate) struct DatabaseFaults {
    active: RefCell<Vec<Rc<Active>>>,
    ended: Notify,
}

struct Active {
    fault: DatabaseFault,
    hits: Cell<u64>,
}

impl Active {
    /// Changes the fate of the transaction called `name`, if it meets the fault. Returns true if it does.
    fn hit(&self, fate: &mut Fate, name: &str, seeds: &SeedTree) -> bool {
        let purpose = Purpose::of(name);
        match &self.fault {
            DatabaseFault::SlowWriter { delay_ms, rollback_per_mille } if purpose == Purpose::Rows => {
                let mut rng = seeds.child("slow_writer").rng();
                fate.before += Duration::from_millis(rng.random_range(delay_ms.clone()));
                if rng.random_range(0..1_000) < *rollback_per_mille {
                    fate.worsen(Outcome::RolledBack);
                }
                true
            }
            DatabaseFault::SlowWriter { .. } | DatabaseFault::Stalled => false,
            DatabaseFault::Slow { extra_ms } => {
                let mut rng = seeds.child("slow").rng();
                fate.before += Duration::from_millis(rng.random_range(extra_ms.clone()));
                fate.after += Duration::from_millis(rng.random_range(extra_ms.clone()));
                true
            }
            DatabaseFault::Failing { scope, per_mille } => {
                let mut rng = seeds.child("failing").rng();
                let drawn = rng.random_range(0..1_000);
                let has_run = rng.random_ratio(1, 2);
                let fails = (*scope == Scope::All || purpose == Purpose::Updates) && drawn < *per_mille;
                if fails {
                    fate.worsen(if has_run { Outcome::RolledBack } else { Outcome::Refused });
                }
                fails
            }
            DatabaseFault::Broken { transaction } => {
                let is_broken = transaction == name;
                if is_broken {
                    fate.worsen(Outcome::RolledBack);
                }
                is_broken
            }
            DatabaseFault::LostAcknowledgement { per_mille } => {
                let mut rng = seeds.child("lost_acknowledgement").rng();
                let drawn = rng.random_range(0..1_000);
                let is_error_first = rng.random_ratio(1, 2);
                let is_lost = drawn < *per_mille;
                if is_lost {
                    fate.worsen(Outcome::Unacknowledged { is_error_first });
                }
                is_lost
            }
        }
    }

    fn count_hit(&self) {
        self.hits.set(self.hits.get() + 1);
    }
}

impl DatabaseFaults {
    /// Begins a fault. It is over when the guard is dropped.
    pub(crate) fn begin(self: &Rc<Self>, fault: DatabaseFault) -> DatabaseFaultGuard {
        let active = Rc::new(Active { fault, hits: Cell::new(0) });
        self.active.borrow_mut().push(Rc::clone(&active));
        DatabaseFaultGuard { faults: Rc::clone(self), active }
    }

    /// Applies the present faults to the fate of the transaction called `name`, whose draws come from `seeds`.
    pub(super) fn apply_to(&self, fate: &mut Fate, name: &str, seeds: &SeedTree) {
        for active in self.active.borrow().iter() {
            if active.hit(fate, name, seeds) {
                active.count_hit();
            }
        }
    }

    /// Waits until no fault stalls the database. Returns true if it had to wait.
    pub(super) async fn stall(&self) -> bool {
        let mut has_waited = false;
        loop {
            let ended = self.ended.notified();
            let stall = self.active.borrow().iter().find(|active| active.fault == DatabaseFault::Stalled).cloned();
            let Some(stall) = stall else { return has_waited };
            stall.count_hit();
            has_waited = true;
            ended.await;
        }
    }
}

/// A fault of the database that lasts until this is dropped.
pub(crate) struct DatabaseFaultGuard {
    faults: Rc<DatabaseFaults>,
    active: Rc<Active>,
}

impl DatabaseFaultGuard {
    /// Returns the number of transactions that the fault has hit so far. The fault took effect if it is not 0.
    pub(crate) fn hits(&self) -> u64 {
        self.active.hits.get()
    }
}

impl Drop for DatabaseFaultGuard {
    fn drop(&mut self) {
        self.faults.active.borrow_mut().retain(|active| !Rc::ptr_eq(active, &self.active));
        self.faults.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
