//! Draws bursts that are larger than any answer to a catch-up, while a follower is cut off.
//!
//! A connected follower gets a burst row by row. Only a follower that missed it asks for it, and gets it in parts.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::population::{LAST_BEFORE_END_MS, any_time, room, through, writers_up_ms};
use super::weights::weighted;
use crate::sim::plan::{Fault, Operation, OperationKind, Plan};
use squall_env::SeedTree;

/// The numbers of users who get a message at once: around the limit of 100, and twice as many.
const USERS: [u32; 4] = [99, 100, 101, 200];
/// The numbers of state rows: around the 150 for which one `state-all` row may stand.
const STATE_ROWS: [u32; 3] = [149, 150, 151];
/// The greatest number of tokens among which a room's state is divided.
const TOKENS_MAX: u32 = 3;

/// Draws every such burst of `plan`, whose faults are drawn already.
pub(super) fn draw(seeds: &SeedTree, plan: &Plan) -> Vec<Operation> {
    let cut_offs: Vec<(u64, u64)> = plan
        .faults
        .iter()
        .filter(|entry| cuts_off(&entry.fault))
        .map(|entry| (entry.at_ms, entry.fault.for_ms()))
        .collect();
    let mut operations = Vec::new();
    for ordinal in 0..weighted(seeds, plan, seeds.rng().random_range(1..=4)) {
        let mut rng = seeds.child(ordinal).rng();
        let mut at_ms = any_time(&mut rng, plan);
        if !cut_offs.is_empty() {
            let (from_ms, for_ms) = cut_offs[rng.random_range(0..cut_offs.len())];
            at_ms = from_ms + rng.random_range(0..=for_ms);
        }
        let kind = burst(&mut rng, plan);
        // A burst of state whose writer is down would be lost.
        at_ms = if kind.rows() > 0 { writers_up_ms(plan, at_ms) } else { at_ms };
        if at_ms < plan.storm_ms - LAST_BEFORE_END_MS {
            operations.push(Operation::new(at_ms, kind));
        }
    }
    operations
}

fn burst(rng: &mut ChaCha8Rng, plan: &Plan) -> OperationKind {
    if rng.random_ratio(1, 2) {
        let users = (0..USERS[rng.random_range(0..USERS.len())]).collect();
        return OperationKind::ToDevice { users, through: through(rng, plan) };
    }
    let rows = STATE_ROWS[rng.random_range(0..STATE_ROWS.len())];
    OperationKind::StateBurst { room: room(rng), rows, tokens: rng.random_range(1..=TOKENS_MAX) }
}

/// Returns true if a host hears nothing while `fault` lasts.
fn cuts_off(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Partition(..) | Fault::HalfOpen(..) | Fault::PowerCut(..) | Fault::Restart(..) | Fault::Freeze(..)
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sim::plan::Scenario;

    #[test]
    fn every_size_past_a_limit_occurs_and_most_bursts_come_while_a_host_hears_nothing() {
        let (mut users_seen, mut state_seen, mut all, mut cut_off) = (BTreeSet::new(), BTreeSet::new(), 0, 0);
        for plan in (0..200).map(|seed| Plan::generate(Scenario::Swarm, seed)) {
            let faults: Vec<_> = plan.faults.iter().filter(|entry| cuts_off(&entry.fault)).collect();
            for operation in &plan.operations {
                match &operation.kind {
                    OperationKind::ToDevice { users, .. } if users.len() >= 99 => {
                        let users: BTreeSet<&u32> = users.iter().collect();
                        users_seen.insert(users.len());
                    }
                    OperationKind::StateBurst { rows: rows @ 149..=151, .. } => {
                        state_seen.insert(*rows);
                        continue;
                    }
                    _ => continue,
                }
                if faults.is_empty() {
                    continue;
                }
                all += 1;
                let lasts = |from_ms: u64, for_ms: u64| (from_ms..=from_ms + for_ms).contains(&operation.at_ms);
                cut_off += u32::from(faults.iter().any(|entry| lasts(entry.at_ms, entry.fault.for_ms())));
            }
        }
        assert_eq!(users_seen, BTreeSet::from([99, 100, 101, 200]));
        assert_eq!(state_seen, STATE_ROWS.into());
        assert!(all >= 100 && cut_off * 10 >= all * 9, "{cut_off} of {all}");
    }
}
