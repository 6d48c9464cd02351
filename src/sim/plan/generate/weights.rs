//! Draws which kinds of operations a wide world has, and how many of each.
//!
//! In a plan with every kind, one kind hides the defects of another: a row of any stream wakes a task that a row of its own
//! stream has failed to wake. So each kind is off in some plans, rare in others, and frequent in the rest.

use rand::RngExt;

use crate::sim::plan::Plan;
use squall_env::SeedTree;

/// One kind of operation of so many is off.
const OFF_ONE_IN: u32 = 8;
/// The weights of the kinds that are on, in quarters of the number that a scenario of fixed size has.
const QUARTERS: [u32; 5] = [1, 2, 4, 4, 8];

/// Returns the number of operations of the kind that `seeds` draws, from the `count` that a scenario of fixed size has.
pub(super) fn weighted(seeds: &SeedTree, plan: &Plan, count: u32) -> u32 {
    if !plan.scenario.is_wide() {
        return count;
    }
    let mut rng = seeds.child("weight").rng();
    if rng.random_ratio(1, OFF_ONE_IN) {
        return 0;
    }
    (count * QUARTERS[rng.random_range(0..QUARTERS.len())]).div_ceil(4)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::sim::plan::{Plan, Scenario};

    /// Returns the number of operations of each kind, of all plans of one scenario.
    fn counts(scenario: Scenario) -> Vec<BTreeMap<&'static str, usize>> {
        let count = |plan: Plan| {
            let mut counts = BTreeMap::new();
            for operation in &plan.operations {
                *counts.entry(operation.kind.name()).or_insert(0) += 1;
            }
            counts
        };
        (0..300).map(|seed| count(Plan::generate(scenario, seed))).collect()
    }

    #[test]
    fn each_kind_is_off_in_some_worlds_and_more_frequent_than_ever_in_others() {
        let (fixed, wide) = (counts(Scenario::Storm), counts(Scenario::Swarm));
        let of = |counts: &[BTreeMap<&str, usize>], kind| -> Vec<usize> {
            counts.iter().map(|counts| counts.get(kind).copied().unwrap_or_default()).collect()
        };
        let drawn_once = ["a message", "receipts", "an outlier", "a read", "state", "a remote server"];
        // Two draws make each of these, so that both have to be off.
        let drawn_twice =
            ["a sync", "typing", "much state", "account data", "a receipt", "a message to devices", "presence"];
        for kind in drawn_once.into_iter().chain(drawn_twice) {
            let (fixed, wide) = (of(&fixed, kind), of(&wide, kind));
            let off = wide.iter().filter(|count| **count == 0).count();
            assert!(drawn_twice.contains(&kind) || off >= 5, "{kind} is off in {off} of 300");
            assert!(wide.iter().max() > fixed.iter().max(), "{kind}");
            assert!(wide.iter().min() < fixed.iter().min() || fixed.contains(&0), "{kind}");
        }
    }

    #[test]
    fn a_wide_world_has_about_as_much_work_as_one_of_fixed_size() {
        let work = |scenario| -> usize {
            let plans = (0..300).map(|seed| Plan::generate(scenario, seed));
            plans.map(|plan| plan.operations.len() * plan.topology.hosts().count()).sum()
        };
        // Before there were wide worlds, a swarm had nine hosts and as many operations as a storm.
        let (fixed, wide) = (work(Scenario::Storm) * 9 / 6, work(Scenario::Swarm));
        assert!((fixed * 6 / 10..fixed * 11 / 10).contains(&wide), "{wide} instead of {fixed}");
    }
}
