//! Many seeds, several at a time.
//!
//! [`run`] runs them on threads of this process: for the suites, whose process may well end with a seed that crashes
//! it. A soak that is to last a night runs them in processes of their own, see [`processes`], and keeps what it has
//! found in a [`folder`].

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

use super::engine::EngineName;
use super::plan::{Plan, Scenario};
use super::runner;
use super::verdict::Verdict;

/// Runs every seed of `scenario` on `engine` and hands the verdicts to `take`, in the order of the seeds, until it has had enough.
/// `jobs` seeds run at the same time, each on a thread of its own; nothing is shared between them.
pub fn run(
    engine: EngineName,
    scenario: Scenario,
    seeds: SeedRange,
    jobs: NonZeroUsize,
    take: impl FnMut(&Verdict) -> ControlFlow<()>,
) {
    run_plans(engine, seeds, jobs, |seed| Plan::generate(scenario, seed), take);
}

/// The same with the plan that `plan_of` gives for each seed.
pub fn run_plans(
    engine: EngineName,
    seeds: SeedRange,
    jobs: NonZeroUsize,
    plan_of: impl Fn(u64) -> Plan + Sync,
    mut take: impl FnMut(&Verdict) -> ControlFlow<()>,
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
                if take(&verdict).is_break() {
                    next.store(seeds.end, Ordering::Relaxed);
                    return;
                }
            }
        }
    });
}

/// Gives back in order what comes out of order, each thing as soon as all before it have been given back.
#[derive(Debug)]
pub struct InOrder<T> {
    expected: u64,
    early: BTreeMap<u64, T>,
}

impl<T> InOrder<T> {
    /// Nothing yet; the thing to begin with is numbered `first`.
    pub fn from(first: u64) -> Self {
        InOrder { expected: first, early: BTreeMap::new() }
    }

    /// Takes the thing numbered `number`.
    pub fn insert(&mut self, number: u64, thing: T) {
        self.early.insert(number, thing);
    }

    /// The rest in order, with gaps where something never came.
    pub fn into_rest(self) -> impl Iterator<Item = T> {
        self.early.into_values()
    }
}

impl<T> Iterator for InOrder<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let thing = self.early.remove(&self.expected)?;
        self.expected += 1;
        Some(thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_early_waits_for_what_is_before_it() {
        let mut in_order = InOrder::from(3);
        in_order.insert(4, "four");
        in_order.insert(6, "six");
        assert_eq!(in_order.next(), None);
        in_order.insert(3, "three");
        assert_eq!(in_order.by_ref().collect::<Vec<_>>(), ["three", "four"]);
        assert_eq!(in_order.into_rest().collect::<Vec<_>>(), ["six"]);
    }
}
