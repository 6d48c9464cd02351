//! Drawing what users read.
//!
//! What is stale is stale for a moment: between a row and its invalidation, or once a load was overtaken by one. So reads
//! come in bursts, through a few instances at once, while something they read is being written and on its way. The
//! first of a burst fill the caches, the next ones race what comes, and the last ones see what was kept.

use std::ops::RangeInclusive;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::super::{Operation, OperationKind, Plan, Reading, Writing};
use super::operations::{DATA, USERS, any_time, room};
use crate::env::Chance;

/// How many bursts there are.
const BURSTS: RangeInclusive<u32> = 30..=50;
/// Through how many instances a burst reads.
const HOSTS: RangeInclusive<usize> = 1..=2;
/// How often each instance is read in a burst.
const READS: RangeInclusive<u32> = 2..=5;
/// How long before the write a burst may begin.
const BEFORE_MS: u64 = 20;
/// How long after the write it may last: a slow database and a slow network take about as long.
const AFTER_MS: [u64; 3] = [30, 150, 400];
/// How often somebody changes something and looks at it.
const READ_BACKS: RangeInclusive<u32> = 15..=30;

/// Reads around some of the writes among `operations`.
pub(super) fn draw(chance: &Chance, plan: &Plan, operations: &[Operation]) -> Vec<Operation> {
    let writes: Vec<(u64, Reading)> =
        operations.iter().filter_map(|operation| Some((operation.at_ms, changed(&operation.kind)?))).collect();
    if writes.is_empty() {
        return Vec::new();
    }
    let hosts: Vec<&str> = plan.topology.hosts().collect();
    let burst = |ordinal| {
        let mut rng = chance.of(ordinal).rng();
        let (at_ms, what) = &writes[rng.random_range(0..writes.len())];
        burst(&mut rng, *at_ms, what, &hosts)
    };
    let bursts: Vec<Operation> = (0..chance.rng().random_range(BURSTS)).flat_map(burst).collect();
    bursts.into_iter().filter(|read| read.at_ms <= plan.storm_ms).collect()
}

/// Users who change something and look at once what has become of it, through any instance.
pub(super) fn draw_read_backs(chance: &Chance, plan: &Plan) -> Vec<Operation> {
    let hosts: Vec<&str> = plan.topology.hosts().collect();
    let read_back = |ordinal| {
        let mut rng = chance.of(ordinal).rng();
        let at_ms = any_time(&mut rng, plan);
        let host = hosts[rng.random_range(0..hosts.len())].to_owned();
        let what = if rng.random_ratio(1, 2) {
            Writing::State { room: room(&mut rng) }
        } else {
            let room = rng.random_ratio(1, 2).then(|| room(&mut rng));
            Writing::AccountData { user: rng.random_range(0..USERS), room, datum: rng.random_range(0..DATA) }
        };
        Operation::new(at_ms, OperationKind::WriteThenRead { host, what })
    };
    (0..chance.rng().random_range(READ_BACKS)).map(read_back).collect()
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

/// What a write changes that can be read.
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
