//! Draws the syncs that keep users online.
//!
//! Some syncs last almost the whole storm, because a steady sync that is announced only once expires (Synapse #16771), and
//! half of those go on in the calm. Most are short, with pauses around the delay after which the end of a sync is announced.
//! Often a user syncs on several hosts and with several devices. In a wide plan a device often has another sync beside a
//! long one, as a client with two tabs or a client that is moved to another worker does. In some wide plans one host serves a
//! crowd: an instance announces few users at a time, so only in a crowd does a user wait long for the next announcement.

use std::ops::RangeInclusive;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::population::any_host;
use super::weights::weighted;
use crate::presence::PresenceConfig;
use crate::sim::plan::{DEVICES, Operation, OperationKind, Plan};
use squall_env::SeedTree;

/// The number of users that sync.
pub(super) const USERS: u32 = 10;
/// The time of the earliest sync: every instance has started by then.
const FIRST_MS: u64 = 1_500;
/// The time by which all steady syncs have begun.
const STEADY_BEGUN_MS: u64 = 10_000;
/// The time between the last sync that begins and the end of the storm.
const LAST_BEFORE_END_MS: u64 = 3_000;
/// A time that is longer than any run.
const FOR_EVER_MS: u64 = 3_600_000;
/// One wide plan of so many has a crowd.
const CROWD_ONE_IN: u32 = 6;
/// The number of users in a crowd.
const CROWD: RangeInclusive<u32> = 12..=40;
/// The first of them. They do nothing but sync.
const FIRST_OF_CROWD: u32 = 4_000_000;

/// Draws the time-outs of presence. The shorter they are, the sooner a storm finds their defects.
pub(super) fn presence(seeds: &SeedTree) -> PresenceConfig {
    let process_expiry_ms = match seeds.rng().random_range(0..10) {
        0..5 => 20_000,
        5..8 => 60_000,
        _ => 300_000,
    };
    PresenceConfig { refresh_ms: process_expiry_ms / 5, process_expiry_ms, ..PresenceConfig::default() }
}

/// Draws every sync of `plan`.
pub(super) fn draw(seeds: &SeedTree, plan: &Plan) -> Vec<Operation> {
    let mut syncs = many(&seeds.child("steady"), plan, 4..=8, |rng| {
        let at_ms = rng.random_range(FIRST_MS..STEADY_BEGUN_MS);
        let until_ms = plan.storm_ms - rng.random_range(0..LAST_BEFORE_END_MS);
        let for_ms = if rng.random_ratio(1, 2) { FOR_EVER_MS } else { until_ms - at_ms };
        sync(rng, plan, at_ms, for_ms)
    });
    syncs.extend(many(&seeds.child("passing"), plan, 20..=40, |rng| {
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

/// Draws the long syncs of a crowd on one host, or none.
pub(super) fn crowd(seeds: &SeedTree, plan: &Plan) -> Vec<Operation> {
    let mut rng = seeds.rng();
    if !rng.random_ratio(1, CROWD_ONE_IN) {
        return Vec::new();
    }
    let host = any_host(&mut rng, plan);
    let count = rng.random_range(CROWD);
    let sync = |ordinal| {
        let mut rng = seeds.child(ordinal).rng();
        let (user, device) = (FIRST_OF_CROWD + ordinal, Some(rng.random_range(0..DEVICES)));
        let at_ms = rng.random_range(FIRST_MS..STEADY_BEGUN_MS);
        let for_ms = if rng.random_ratio(1, 2) { FOR_EVER_MS } else { plan.storm_ms - LAST_BEFORE_END_MS - at_ms };
        Operation::new(at_ms, OperationKind::Sync { user, device, host: host.clone(), for_ms })
    };
    (0..count).map(sync).collect()
}

/// Draws short syncs beside long ones of `plan`, of the same devices, in one of two cases on the same host.
pub(super) fn companions(seeds: &SeedTree, plan: &Plan) -> Vec<Operation> {
    let hosts: Vec<&str> = plan.topology.hosts().collect();
    let companion = |(ordinal, operation): (usize, &Operation)| {
        let OperationKind::Sync { user, device, host, for_ms } = &operation.kind else { return None };
        let mut rng = seeds.child(ordinal).rng();
        if for_ms * 2 < plan.storm_ms || rng.random_ratio(1, 2) {
            return None;
        }
        let at_ms = rng.random_range(operation.at_ms..plan.storm_ms);
        let for_ms = rng.random_range(50..=9_000).min(plan.storm_ms - at_ms);
        let host = if rng.random_ratio(1, 2) { host } else { hosts[rng.random_range(0..hosts.len())] }.to_owned();
        Some(Operation::new(at_ms, OperationKind::Sync { user: *user, device: *device, host, for_ms }))
    };
    plan.operations.iter().enumerate().filter_map(companion).collect()
}

fn many(
    seeds: &SeedTree,
    plan: &Plan,
    count: RangeInclusive<u32>,
    draw_one: impl Fn(&mut ChaCha8Rng) -> Operation,
) -> Vec<Operation> {
    let count = weighted(seeds, plan, seeds.rng().random_range(count));
    (0..count).map(|ordinal| draw_one(&mut seeds.child(ordinal).rng())).collect()
}

/// Draws one sync, in three of four cases on a worker, as in a real deployment, if there is one.
fn sync(rng: &mut ChaCha8Rng, plan: &Plan, at_ms: u64, for_ms: u64) -> Operation {
    let on_worker = rng.random_ratio(3, 4) && !plan.topology.workers.is_empty();
    let hosts: Vec<&str> = plan
        .topology
        .hosts()
        .filter(|host| !on_worker || plan.topology.workers.iter().any(|name| name == host))
        .collect();
    let host = hosts[rng.random_range(0..hosts.len())].to_owned();
    let device = rng.random_ratio(3, 4).then(|| rng.random_range(0..DEVICES));
    Operation::new(at_ms, OperationKind::Sync { user: rng.random_range(0..USERS), device, host, for_ms })
}
