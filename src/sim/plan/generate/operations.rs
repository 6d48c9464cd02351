//! Drawing what users do.
//!
//! Rows are lost at limits and in gaps. So most rows come in bursts whose sizes lie around the limits, at several rooms
//! at once so that writers' batches interleave, and often while somebody is disconnected or just after.

use std::ops::RangeInclusive;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::super::{FaultEntry, Operation, OperationKind, Plan};
use super::reads;
use crate::env::Chance;

/// How many rooms there are; enough that every writer gets some.
const ROOMS: u32 = 12;
/// How many users there are.
pub(super) const USERS: u32 = 8;
/// How many other servers there are that may be down.
const SERVERS: u32 = 4;
/// How many account data each user has for each room, and for the account.
pub(super) const DATA: u32 = 4;
/// The lengths of types that are too long for a line, or nearly.
const LONG_TYPE_BYTES: RangeInclusive<u32> = 16_000..=18_000;
/// How long an event stays an outlier at most.
const OUTLIER_MS_MAX: u64 = 10_000;
/// When the first operation may come: by then every instance has started.
const FIRST_MS: u64 = 1_500;
/// How long before the end of the storm the last operation may come.
const LAST_BEFORE_END_MS: u64 = 3_000;
/// Sizes of state bursts, around the limits: 50 rows of a source, 100 of an update, 150 for `state-all`.
const STATE_ROWS: [u32; 10] = [1, 49, 50, 51, 99, 100, 101, 149, 150, 151];
/// Sizes of message bursts.
const EVENTS: [u32; 6] = [49, 50, 51, 99, 100, 101];
/// How long after a fault is healed still counts as just after.
const JUST_AFTER_MS: u64 = 1_000;
/// How long after a writer is back it may take until it persists events.
const WRITER_START_MS: u64 = 500;

/// Everything users do in `plan`, whose faults are drawn already; in order of time.
pub(super) fn draw(chance: &Chance, plan: &Plan) -> Vec<Operation> {
    let mut operations = bursts(&chance.of("bursts"), plan);
    operations.extend(many(&chance.of("sends"), plan, 120..=200, |rng| OperationKind::Send { room: room(rng) }));
    operations.extend(many(&chance.of("account data"), plan, 40..=80, |rng| OperationKind::AccountData {
        user: rng.random_range(0..USERS),
        room: rng.random_ratio(1, 2).then(|| room(rng)),
        datum: rng.random_range(0..DATA),
        type_bytes: if rng.random_ratio(1, 10) { rng.random_range(LONG_TYPE_BYTES) } else { 0 },
    }));
    operations.extend(many(&chance.of("account data bursts"), plan, 0..=4, |rng| {
        let mut count = || EVENTS[rng.random_range(0..EVENTS.len())];
        let (of_account, of_room) = (count(), count());
        OperationKind::AccountDataBurst { user: rng.random_range(0..USERS), of_account, of_room }
    }));
    operations.extend(many(&chance.of("receipts"), plan, 60..=120, |rng| OperationKind::Receipt {
        user: rng.random_range(0..USERS),
        room: room(rng),
        through: through(rng, plan),
    }));
    operations.extend(many(&chance.of("to-device"), plan, 40..=80, |rng| {
        let first = rng.random_range(0..USERS);
        let users = (0..rng.random_range(1..=4)).map(|n| (first + n) % USERS).collect();
        OperationKind::ToDevice { users, through: through(rng, plan) }
    }));
    operations.extend(many(&chance.of("typing"), plan, 120..=220, |rng| OperationKind::Typing {
        room: room(rng),
        user: rng.random_range(0..USERS),
        typing: rng.random_ratio(7, 10),
        timeout_ms: rng.random_range(1_000..=30_000),
    }));
    operations.extend(many(&chance.of("servers up"), plan, 0..=12, |rng| OperationKind::ServerUp {
        server: rng.random_range(0..SERVERS),
        host: any_host(rng, plan),
    }));
    operations.extend(outliers(&chance.of("outliers"), plan));
    operations.extend(reads::draw_read_backs(&chance.of("read backs"), plan));
    operations.extend(reads::draw(&chance.of("reads"), plan, &operations));
    operations.sort_by_key(|operation| operation.at_ms);
    operations
}

/// Outliers, most of which cease to be ones.
fn outliers(chance: &Chance, plan: &Plan) -> Vec<Operation> {
    let mut operations = Vec::new();
    for event in 0..chance.rng().random_range(4..=10) {
        let mut rng = chance.of(event).rng();
        let (room, at_ms) = (room(&mut rng), any_time(&mut rng, plan));
        operations.push(Operation::new(at_ms, OperationKind::Outlier { room, event }));
        let later_ms = at_ms + rng.random_range(0..=OUTLIER_MS_MAX);
        if later_ms < plan.storm_ms - LAST_BEFORE_END_MS {
            operations.push(Operation::new(later_ms, OperationKind::ExOutlier { room, event }));
        }
    }
    operations
}

/// When all events writers are up, from `at_ms` on; not before `at_ms`.
pub(super) fn writers_up_ms(plan: &Plan, at_ms: u64) -> u64 {
    let outages = plan.faults.iter().flat_map(|FaultEntry { at_ms, fault }| {
        fault.outages().into_iter().map(move |(host, from_ms, until_ms)| (host, at_ms + from_ms..at_ms + until_ms))
    });
    let of_writers = outages.filter(|(host, _)| plan.topology.writes_events(host));
    let back_ms = of_writers.filter_map(|(_, down_ms)| {
        let down_ms = down_ms.start..down_ms.end + WRITER_START_MS;
        down_ms.contains(&at_ms).then_some(down_ms.end)
    });
    back_ms.max().map_or(at_ms, |back_ms| writers_up_ms(plan, back_ms))
}

fn many(
    chance: &Chance,
    plan: &Plan,
    count: RangeInclusive<u32>,
    kind: impl Fn(&mut ChaCha8Rng) -> OperationKind,
) -> Vec<Operation> {
    let count = chance.rng().random_range(count);
    let operation = |ordinal| {
        let mut rng = chance.of(ordinal).rng();
        Operation::new(any_time(&mut rng, plan), kind(&mut rng))
    };
    (0..count).map(operation).collect()
}

/// Bursts at several rooms at a time, until they have enough rows.
fn bursts(chance: &Chance, plan: &Plan) -> Vec<Operation> {
    let rows_target = chance.rng().random_range(620..=950);
    let (mut operations, mut rows) = (Vec::new(), 0);
    let mut rngs = (0..).map(|ordinal| chance.of(ordinal).rng());
    while rows < rows_target
        && let Some(mut rng) = rngs.next()
    {
        let Some(at_ms) = burst_time(&mut rng, plan) else { continue };
        let (first_room, rooms) = (room(&mut rng), rng.random_range(1..=3));
        for n in 0..rooms {
            let kind = burst(&mut rng, (first_room + n) % ROOMS);
            rows += kind.rows();
            operations.push(Operation::new(at_ms, kind));
        }
    }
    operations
}

fn burst(rng: &mut ChaCha8Rng, room: u32) -> OperationKind {
    if rng.random_ratio(2, 5) {
        return OperationKind::SendBurst { room, events: EVENTS[rng.random_range(0..EVENTS.len())] };
    }
    let rows = STATE_ROWS[rng.random_range(0..STATE_ROWS.len())];
    let tokens = match rng.random_range(0..10) {
        0..5 => 1,
        5..8 => rng.random_range(2..=5),
        8 => rows / 2,
        _ => rows,
    };
    OperationKind::StateBurst { room, rows, tokens: tokens.clamp(1, rows) }
}

/// In two of three cases any instance, which has to ask the writer.
fn through(rng: &mut ChaCha8Rng, plan: &Plan) -> Option<String> {
    let host = any_host(rng, plan);
    rng.random_ratio(2, 3).then_some(host)
}

fn any_host(rng: &mut ChaCha8Rng, plan: &Plan) -> String {
    let hosts: Vec<&str> = plan.topology.hosts().collect();
    hosts[rng.random_range(0..hosts.len())].to_owned()
}

pub(super) fn room(rng: &mut ChaCha8Rng) -> u32 {
    rng.random_range(0..ROOMS)
}

pub(super) fn any_time(rng: &mut ChaCha8Rng, plan: &Plan) -> u64 {
    rng.random_range(FIRST_MS..plan.storm_ms - LAST_BEFORE_END_MS)
}

/// In three of five cases a time at which a fault keeps somebody from following, or just after; always one at which
/// the writers can do it. None if there is none left before the end.
fn burst_time(rng: &mut ChaCha8Rng, plan: &Plan) -> Option<u64> {
    let mut at_ms = any_time(rng, plan);
    if !plan.faults.is_empty() && rng.random_ratio(3, 5) {
        let entry = &plan.faults[rng.random_range(0..plan.faults.len())];
        at_ms = entry.at_ms + rng.random_range(0..=entry.fault.for_ms() + JUST_AFTER_MS);
    }
    Some(writers_up_ms(plan, at_ms)).filter(|at_ms| *at_ms < plan.storm_ms - LAST_BEFORE_END_MS)
}
