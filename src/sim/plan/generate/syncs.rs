//! Drawing who syncs.
//!
//! Some syncs last nearly the whole storm, for what is said once about a steady sync is forgotten in time (Synapse
//! #16771), and half of those go on in the calm. Most are short, with pauses on both sides of the time after which the
//! end of a sync is told, and often of users who sync on several hosts and with several devices.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::super::{Operation, OperationKind, Plan};
use crate::env::Chance;
use crate::instance::config::PresenceConfig;

/// How many users sync.
const USERS: u32 = 10;
/// How many devices a user has that are known.
const DEVICES: u32 = 2;
/// When the first sync may begin: by then every instance has started.
const FIRST_MS: u64 = 1_500;
/// Until when the steady ones have begun.
const STEADY_BEGUN_MS: u64 = 10_000;
/// How long before the end of the storm the last one may begin.
const LAST_BEFORE_END_MS: u64 = 3_000;
/// Longer than any run.
const FOR_EVER_MS: u64 = 3_600_000;

/// How long what is said about syncing users is relied on: the shorter, the sooner a storm finds what comes of it.
pub(super) fn presence(chance: &Chance) -> PresenceConfig {
    let process_expiry_ms = match chance.rng().random_range(0..10) {
        0..5 => 20_000,
        5..8 => 60_000,
        _ => 300_000,
    };
    PresenceConfig { refresh_ms: process_expiry_ms / 5, process_expiry_ms }
}

/// Every sync of `plan`.
pub(super) fn draw(chance: &Chance, plan: &Plan) -> Vec<Operation> {
    let mut syncs = many(&chance.of("steady"), 4..=8, |rng| {
        let at_ms = rng.random_range(FIRST_MS..STEADY_BEGUN_MS);
        let until_ms = plan.storm_ms - rng.random_range(0..LAST_BEFORE_END_MS);
        let for_ms = if rng.random_ratio(1, 2) { FOR_EVER_MS } else { until_ms - at_ms };
        sync(rng, plan, at_ms, for_ms)
    });
    syncs.extend(many(&chance.of("passing"), 20..=40, |rng| {
        let at_ms = rng.random_range(FIRST_MS..plan.storm_ms - LAST_BEFORE_END_MS);
        let for_ms = match rng.random_range(0..10) {
            0..4 => rng.random_range(50..=2_000),
            4..7 => rng.random_range(2_000..=9_000),
            _ => rng.random_range(9_000..=30_000),
        };
        sync(rng, plan, at_ms, for_ms.min(plan.storm_ms - at_ms))
    }));
    syncs
}

fn many(
    chance: &Chance,
    count: std::ops::RangeInclusive<u32>,
    one: impl Fn(&mut ChaCha8Rng) -> Operation,
) -> Vec<Operation> {
    let count = chance.rng().random_range(count);
    (0..count).map(|ordinal| one(&mut chance.of(ordinal).rng())).collect()
}

/// Mostly on a worker, as most are in a deployment that has any.
fn sync(rng: &mut ChaCha8Rng, plan: &Plan, at_ms: u64, for_ms: u64) -> Operation {
    let on_worker = rng.random_ratio(3, 4);
    let hosts: Vec<&str> = plan
        .topology
        .hosts()
        .filter(|host| !on_worker || plan.topology.workers.iter().any(|name| name == host))
        .collect();
    let host = hosts[rng.random_range(0..hosts.len())].to_owned();
    let device = rng.random_ratio(3, 4).then(|| rng.random_range(0..DEVICES));
    Operation::new(at_ms, OperationKind::Sync { user: rng.random_range(0..USERS), device, host, for_ms })
}
