//! Draws the reads of users.
//!
//! A cache is stale only for a short time: between a row and its invalidation, or after a row has overtaken a load. So reads
//! come in bursts, from a few instances at once, while the value is being written and replicated. The first reads of a burst
//! fill the caches, the next ones race the row, and the last ones see the value that was kept.

use std::ops::RangeInclusive;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::population::{DATA, USERS, any_time, room};
use super::weights::weighted;
use crate::sim::plan::{Operation, OperationKind, Plan, Reading, Writing};
use squall_env::SeedTree;

/// The number of bursts.
const BURSTS: RangeInclusive<u32> = 30..=50;
/// The number of instances that a burst reads from.
const HOSTS: RangeInclusive<usize> = 1..=2;
/// The number of reads from each instance in a burst.
const READS: RangeInclusive<u32> = 2..=5;
/// The longest time by which a burst may precede its write.
const BEFORE_MS: u64 = 20;
/// The times for which a burst may outlast its write: a slow database and a slow network take about as long.
const AFTER_MS: [u64; 3] = [30, 150, 400];
/// The number of changes that are read back.
const READ_BACKS: RangeInclusive<u32> = 15..=30;
/// The number of writes of users who look for nothing else.
const OWN_READ_BACKS: RangeInclusive<u32> = 8..=16;
/// The first of the users who make them.
const FIRST_READER: u32 = 3_000_000;

/// Draws reads around some of the writes among `operations`.
pub(super) fn draw(seeds: &SeedTree, plan: &Plan, operations: &[Operation]) -> Vec<Operation> {
    let writes: Vec<(u64, Reading)> =
        operations.iter().filter_map(|operation| Some((operation.at_ms, changed(&operation.kind)?))).collect();
    if writes.is_empty() {
        return Vec::new();
    }
    let hosts: Vec<&str> = plan.topology.hosts().collect();
    let mut reads = Vec::new();
    for ordinal in 0..weighted(seeds, plan, seeds.rng().random_range(BURSTS)) {
        let mut rng = seeds.child(ordinal).rng();
        let (at_ms, what) = &writes[rng.random_range(0..writes.len())];
        reads.extend(burst(&mut rng, *at_ms, what, &hosts));
    }
    reads.retain(|read| read.at_ms <= plan.storm_ms);
    reads
}

/// Draws writes through any instance, each of a user or an event of its own, which is there at once.
pub(super) fn draw_own_read_backs(seeds: &SeedTree, plan: &Plan) -> Vec<Operation> {
    let hosts: Vec<&str> = plan.topology.hosts().collect();
    let mut operations = Vec::new();
    for ordinal in 0..weighted(seeds, plan, seeds.rng().random_range(OWN_READ_BACKS)) {
        let mut rng = seeds.child(ordinal).rng();
        let at_ms = any_time(&mut rng, plan);
        let host = hosts[rng.random_range(0..hosts.len())].to_owned();
        let (user, room) = (FIRST_READER + ordinal, room(&mut rng));
        let is_outlier = plan.scenario.is_wide() && seeds.child(ordinal).child("outlier").rng().random_ratio(1, 5);
        let what = match rng.random_range(0..4) {
            _ if is_outlier => Writing::FormerOutlier { room },
            0 => Writing::Receipt { user, room },
            1 => Writing::ToDevice { user },
            2 => Writing::Presence { user },
            _ => Writing::Typing { user, room },
        };
        let twice = is_twice(&seeds.child(ordinal), plan, &what);
        operations.push(Operation::new(at_ms, OperationKind::WriteThenRead { host, what, twice }));
    }
    operations
}

/// Draws changes that are read back at once, through any instance.
pub(super) fn draw_read_backs(seeds: &SeedTree, plan: &Plan) -> Vec<Operation> {
    let hosts: Vec<&str> = plan.topology.hosts().collect();
    let mut operations = Vec::new();
    for ordinal in 0..weighted(seeds, plan, seeds.rng().random_range(READ_BACKS)) {
        let mut rng = seeds.child(ordinal).rng();
        let at_ms = any_time(&mut rng, plan);
        let host = hosts[rng.random_range(0..hosts.len())].to_owned();
        let what = if rng.random_ratio(1, 2) {
            Writing::State { room: room(&mut rng) }
        } else {
            let room = rng.random_ratio(1, 2).then(|| room(&mut rng));
            Writing::AccountData { user: rng.random_range(0..USERS), room, datum: rng.random_range(0..DATA) }
        };
        let twice = is_twice(&seeds.child(ordinal), plan, &what);
        operations.push(Operation::new(at_ms, OperationKind::WriteThenRead { host, what, twice }));
    }
    operations
}

/// Draws if a change is made twice at once: one of three in a wide plan, among those of events and messages. These have an
/// id, by which the second one has no effect.
fn is_twice(seeds: &SeedTree, plan: &Plan, what: &Writing) -> bool {
    let has_id = matches!(what, Writing::State { .. } | Writing::FormerOutlier { .. } | Writing::ToDevice { .. });
    has_id && plan.scenario.is_wide() && seeds.child("twice").rng().random_ratio(1, 3)
}

fn burst(rng: &mut ChaCha8Rng, write_ms: u64, what: &Reading, hosts: &[&str]) -> Vec<Operation> {
    let after_ms = AFTER_MS[rng.random_range(0..AFTER_MS.len())];
    let mut reads = Vec::new();
    for _ in 0..rng.random_range(HOSTS) {
        let host = hosts[rng.random_range(0..hosts.len())];
        for _ in 0..rng.random_range(READS) {
            let at_ms = write_ms.saturating_sub(BEFORE_MS) + rng.random_range(0..=BEFORE_MS + after_ms);
            reads.push(Operation::new(at_ms, OperationKind::Read { host: host.to_owned(), what: what.clone() }));
        }
    }
    reads
}

/// Returns the value that a write changes, if it can be read.
fn changed(operation: &OperationKind) -> Option<Reading> {
    match operation {
        OperationKind::StateBurst { room, .. } => Some(Reading::State { room: *room }),
        OperationKind::Outlier { event, .. } | OperationKind::ExOutlier { event, .. } => {
            Some(Reading::Event { event: *event })
        }
        OperationKind::Receipt { room, .. } => Some(Reading::Receipts { room: *room }),
        OperationKind::AccountData { user, room, .. } => Some(Reading::AccountData { user: *user, room: *room }),
        OperationKind::WriteThenRead { what: Writing::State { room }, .. } => Some(Reading::State { room: *room }),
        OperationKind::WriteThenRead { what: Writing::AccountData { user, room, .. }, .. } => {
            Some(Reading::AccountData { user: *user, room: *room })
        }
        OperationKind::AccountDataBurst { user, .. } => Some(Reading::AccountData { user: *user, room: None }),
        _ => None,
    }
}
