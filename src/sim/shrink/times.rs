//! Moves the operations and faults of a plan to earlier, closer and rounder times.

use std::collections::BTreeSet;

use crate::sim::plan::Plan;

/// Returns the plan with a storm that ends at `at_ms` or before.
pub(super) fn ending_at(plan: &Plan, at_ms: u64) -> Plan {
    let mut plan = plan.clone();
    plan.storm_ms = plan.storm_ms.min(at_ms);
    plan.operations.retain(|operation| operation.at_ms <= at_ms);
    plan.faults.retain(|entry| entry.at_ms <= at_ms);
    plan.clients.retain(|client| client.from_ms <= at_ms);
    plan
}

/// Returns the times of all operations and faults, and of the end of the storm, in ascending order.
fn all(plan: &Plan) -> Vec<u64> {
    let operations = plan.operations.iter().map(|operation| operation.at_ms);
    let faults = plan.faults.iter().map(|entry| entry.at_ms);
    let all: BTreeSet<u64> = operations.chain(faults).chain([plan.storm_ms]).collect();
    all.into_iter().collect()
}

/// Returns the number of different times in the plan.
pub(super) fn count(plan: &Plan) -> usize {
    all(plan).len()
}

/// Returns the time span between the `nth` time and the one before it.
pub(super) fn gap(plan: &Plan, nth: usize) -> Option<u64> {
    let all = all(plan);
    let before = nth.checked_sub(1).map_or(0, |before| all[before]);
    all.get(nth).map(|at_ms| at_ms - before)
}

/// Returns the plan with a time span of `gap_ms` before the `nth` time. Everything from there on is as much earlier.
pub(super) fn with_gap(plan: &Plan, nth: usize, gap_ms: u64) -> Option<Plan> {
    let at_ms = *all(plan).get(nth)?;
    let earlier_ms = gap(plan, nth)?.checked_sub(gap_ms)?;
    Some(moved(plan, |time_ms| if time_ms >= at_ms { time_ms - earlier_ms } else { time_ms }))
}

/// Returns the plan with the `nth` time rounded to a multiple of `unit_ms`; none if that changes the order of times.
pub(super) fn rounded(plan: &Plan, nth: usize, unit_ms: u64) -> Option<Plan> {
    let all = all(plan);
    let at_ms = *all.get(nth)?;
    let to_ms = at_ms.checked_add(unit_ms / 2)? / unit_ms * unit_ms;
    let is_after = nth.checked_sub(1).is_none_or(|before| all[before] < to_ms);
    let is_before = all.get(nth + 1).is_none_or(|next| to_ms < *next);
    (is_after && is_before).then(|| moved(plan, |time_ms| if time_ms == at_ms { to_ms } else { time_ms }))
}

fn moved(plan: &Plan, to: impl Fn(u64) -> u64) -> Plan {
    let mut plan = plan.clone();
    plan.storm_ms = to(plan.storm_ms);
    for operation in &mut plan.operations {
        operation.at_ms = to(operation.at_ms);
    }
    for entry in &mut plan.faults {
        entry.at_ms = to(entry.at_ms);
    }
    plan
}
