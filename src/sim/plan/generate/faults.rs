//! Draws the times of faults.
//!
//! Each family draws its number of faults for the plan, then each of its faults by ordinal. After a fault the family leaves
//! the same hosts alone for a while: without such stability windows no connection would be set up, and the storm would test
//! only the first second of a connection.

use std::collections::BTreeMap;

use rand::RngExt;

use crate::sim::deployment::Deployment;
use crate::sim::faults::{Draw, Family, FaultEntry, STABLE_MS};
use squall_env::SeedTree;

/// The time of the earliest fault: every instance has started by then.
const FIRST_MS: u64 = 2_000;
/// The length of the storm that the families' numbers of faults are for.
const MINUTE_MS: u64 = 60_000;
/// The time between the last fault and the end of the storm.
const LAST_BEFORE_END_MS: u64 = 2_000;

/// Draws the faults of `families`, in order of time.
pub(super) fn draw(seeds: &SeedTree, families: &[Family], deployment: &Deployment, storm_ms: u64) -> Vec<FaultEntry> {
    let mut faults = Vec::new();
    for family in families {
        faults.extend(draw_family(&seeds.child(family.first_name()), *family, deployment, storm_ms));
    }
    faults.sort_by_key(|entry| entry.at_ms);
    faults
}

fn draw_family(seeds: &SeedTree, family: Family, deployment: &Deployment, storm_ms: u64) -> Vec<FaultEntry> {
    let per_minute = seeds.rng().random_range(family.per_plan());
    let count = (u64::from(per_minute) * storm_ms).div_ceil(MINUTE_MS) as u32;
    let mut faults = Vec::new();
    for ordinal in 0..count {
        let mut rng = seeds.child(ordinal).rng();
        let at_ms = rng.random_range(FIRST_MS..storm_ms - LAST_BEFORE_END_MS);
        let fault = family.draw(&mut Draw { rng: &mut rng, deployment, at_ms, storm_ms });
        faults.extend(fault.map(|fault| FaultEntry { at_ms, fault }));
    }
    faults.sort_by_key(|entry| entry.at_ms);

    let mut stable_at: BTreeMap<String, u64> = BTreeMap::new();
    faults.retain(|entry| {
        let hosts = entry.fault.hosts().join(" ");
        let is_stable = stable_at.get(&hosts).is_none_or(|at_ms| *at_ms <= entry.at_ms);
        if is_stable {
            stable_at.insert(hosts, entry.at_ms + entry.fault.for_ms() + STABLE_MS);
        }
        is_stable
    });
    faults
}
