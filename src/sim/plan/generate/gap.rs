//! Draws a quiet gap between two halves of a storm.
//!
//! Much in the stack expires, is forgotten or wraps after minutes without work. A storm that never pauses never sees the
//! time after that. A gap costs little: only pings, heartbeats and waiting clients go on in it.

use std::ops::RangeInclusive;

use rand::RngExt;

use crate::sim::plan::{OperationKind, Plan};
use squall_env::SeedTree;

/// One plan of so many has a gap.
const ONE_IN: u32 = 12;
/// The length of a gap, in milliseconds: longer than the ten minutes after which a typing writer forgets a quiet room.
const GAP_MS: RangeInclusive<u64> = 630_000..=1_500_000;
/// The pause of a client in a plan with a gap, in milliseconds. A client that asks five times a second is not quiet.
const PAUSE_MS: u64 = 4_000;

/// Puts a quiet gap into the middle of the storm of `plan`, or leaves the plan as it is. The second half
/// comes after the gap. Faults that began in the first half end when they would have ended. Syncs that lasted over the
/// middle last over the gap in every second plan.
pub(super) fn insert(seeds: &SeedTree, plan: &mut Plan) {
    let mut rng = seeds.rng();
    if !rng.random_ratio(1, ONE_IN) {
        return;
    }
    let gap_ms = rng.random_range(GAP_MS);
    let has_syncs = rng.random_ratio(1, 2);
    let middle_ms = plan.storm_ms / 2;
    for operation in &mut plan.operations {
        if operation.at_ms >= middle_ms {
            operation.at_ms += gap_ms;
        } else if has_syncs
            && let OperationKind::Sync { for_ms, .. } = &mut operation.kind
            && operation.at_ms + *for_ms >= middle_ms
        {
            *for_ms += gap_ms;
        }
    }
    for entry in plan.faults.iter_mut().filter(|entry| entry.at_ms >= middle_ms) {
        entry.at_ms += gap_ms;
    }
    for client in &mut plan.clients {
        client.pause_ms = client.pause_ms.max(PAUSE_MS);
    }
    plan.storm_ms += gap_ms;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::Scenario;

    #[test]
    fn about_one_wide_plan_of_twelve_has_nothing_to_do_for_more_than_ten_minutes_between_two_halves() {
        let (mut gaps, mut with_syncs) = (0, 0);
        for plan in (0..600).map(|seed| Plan::generate(Scenario::Swarm, seed)) {
            let times: Vec<u64> = plan.operations.iter().map(|operation| operation.at_ms).collect();
            let gap = times.windows(2).position(|pair| pair[1] - pair[0] > 600_000);
            assert_eq!(gap.is_some(), plan.storm_ms > 120_000, "seed {}", plan.seed);
            let Some(gap) = gap else { continue };
            gaps += 1;
            let (before_ms, after_ms) = (times[gap], times[gap + 1]);
            assert!(plan.faults.iter().all(|entry| !(before_ms + 60_000..after_ms - 60_000).contains(&entry.at_ms)));
            assert!(plan.clients.iter().all(|client| client.pause_ms >= PAUSE_MS));
            assert!(gap > times.len() / 5 && gap < times.len() * 4 / 5, "both halves have operations");
            with_syncs += u32::from(plan.operations[..=gap].iter().any(|operation| {
                let OperationKind::Sync { for_ms, .. } = operation.kind else { return false };
                (after_ms..=plan.storm_ms).contains(&(operation.at_ms + for_ms))
            }));
            assert!(Plan::load(&plan.to_json()).is_ok(), "seed {}", plan.seed);
        }
        assert!((30..=75).contains(&gaps), "{gaps}");
        assert!((gaps / 5..=gaps * 4 / 5).contains(&with_syncs), "{with_syncs} of {gaps}");
    }

    #[test]
    fn a_plan_of_another_scenario_has_no_gap() {
        let is_long = |seed| Plan::generate(Scenario::Storm, seed).storm_ms > 60_000;
        assert!(!(0..100).any(is_long));
    }
}
