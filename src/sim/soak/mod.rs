//! Runs many seeds, several at a time.
//!
//! [`run`] runs them on threads of this process. The test suites use it, because a seed that crashes may end their
//! process. `squall soak` runs seeds in processes of their own, see [`processes`], and keeps their verdicts in a
//! [`folder`].

pub mod folder;
pub mod processes;
mod seeds;
mod tally;
pub mod worker;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

pub use seeds::{SeedRange, SeedRangeError, Seeds, Shard, ShardError};
pub use tally::{Failures, Outcome, Tally};

use super::plan::{Plan, Scenario};
use super::runner;
use super::verdict::Verdict;
use squall_netsim::EngineName;

/// Runs every seed of `scenario` on `engine`. Passes the verdicts to `report`, in the order of the seeds, until it returns
/// [`ControlFlow::Break`]. `jobs` seeds run at the same time, each on a thread of its own; they share nothing.
pub fn run(
    engine: EngineName,
    scenario: Scenario,
    seeds: SeedRange,
    jobs: NonZeroUsize,
    report: impl FnMut(&Verdict) -> ControlFlow<()>,
) {
    run_plans(engine, seeds, jobs, |seed| Plan::generate(scenario, seed), report);
}

/// Runs the plan that `plan_of` returns for each seed, in the same way as [`run`].
pub fn run_plans(
    engine: EngineName,
    seeds: SeedRange,
    jobs: NonZeroUsize,
    plan_of: impl Fn(u64) -> Plan + Sync,
    mut report: impl FnMut(&Verdict) -> ControlFlow<()>,
) {
    let next = AtomicU64::new(seeds.first);
    let (done, verdicts) = mpsc::channel();
    std::thread::scope(|threads| {
        for _ in 0..jobs.get() {
            let (done, next, plan_of) = (done.clone(), &next, &plan_of);
            threads.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if done.send((seed, runner::judge_on(engine, &plan_of(seed)))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let mut in_order = InOrder::from(seeds.first);
        for (seed, verdict) in verdicts {
            in_order.insert(seed, verdict);
            for verdict in in_order.by_ref() {
                if report(&verdict).is_break() {
                    next.store(seeds.end, Ordering::Relaxed);
                    return;
                }
            }
        }
    });
}

/// Puts numbered items in order. It yields an item as soon as it has yielded all items before it.
#[derive(Debug)]
pub struct InOrder<T> {
    expected: u64,
    early: BTreeMap<u64, T>,
}

impl<T> InOrder<T> {
    /// Returns an empty sequence. Its first item is numbered `first`.
    pub fn from(first: u64) -> Self {
        InOrder { expected: first, early: BTreeMap::new() }
    }

    /// Adds the item numbered `number`.
    pub fn insert(&mut self, number: u64, item: T) {
        self.early.insert(number, item);
    }

    /// Returns the remaining items in order, in spite of missing ones.
    pub fn into_rest(self) -> impl Iterator<Item = T> {
        self.early.into_values()
    }
}

impl<T> Iterator for InOrder<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let item = self.early.remove(&self.expected)?;
        self.expected += 1;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_comes_early_waits_for_the_items_before_it() {
        let mut in_order = InOrder::from(3);
        in_order.insert(4, "four");
        in_order.insert(6, "six");
        assert_eq!(in_order.next(), None);
        in_order.insert(3, "three");
        assert_eq!(in_order.by_ref().collect::<Vec<_>>(), ["three", "four"]);
        assert_eq!(in_order.into_rest().collect::<Vec<_>>(), ["six"]);
    }
}
