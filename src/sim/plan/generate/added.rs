//! Draws the writer that is added while the deployment runs.

use rand::RngExt;

use crate::sim::plan::{AddedWriter, Plan};
use squall_env::SeedTree;

/// One plan of so many adds a writer, if it has one that can be added.
const ONE_IN: u32 = 5;
/// The longest pause between one restart and the next, in milliseconds.
const PAUSE_MS_MAX: u64 = 2_000;

/// Draws the writer, and a time in the first half of the storm.
pub(super) fn draw(seeds: &SeedTree, plan: &Plan) -> Option<AddedWriter> {
    let mut rng = seeds.rng();
    if !rng.random_ratio(1, ONE_IN) {
        return None;
    }
    let hosts: Vec<&str> = plan.topology.hosts().filter(|host| plan.topology.can_be_added(host)).collect();
    let at_ms = rng.random_range(0..=plan.storm_ms / 2);
    let pause_ms = rng.random_range(0..=PAUSE_MS_MAX);
    (!hosts.is_empty()).then(|| AddedWriter {
        host: hosts[rng.random_range(0..hosts.len())].to_owned(),
        at_ms,
        pause_ms,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sim::plan::Scenario;

    #[test]
    fn one_wide_plan_of_twenty_at_least_adds_a_writer_of_events_or_of_receipts() {
        let (mut added, mut kinds) = (0, BTreeSet::new());
        for plan in (0..400).map(|seed| Plan::generate(Scenario::Swarm, seed)) {
            let Some(AddedWriter { host, at_ms, .. }) = &plan.topology.added else { continue };
            added += 1;
            kinds.insert((plan.topology.writes_events(host), plan.topology.receipts_writers.contains(host)));
            assert!(*at_ms < plan.storm_ms);
        }
        assert!((20..=80).contains(&added), "{added}");
        assert_eq!(kinds.len(), 3, "{kinds:?}");
        assert!((0..50).all(|seed| Plan::generate(Scenario::Storm, seed).topology.added.is_none()));
    }
}
