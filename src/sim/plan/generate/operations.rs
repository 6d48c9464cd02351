//! Draws the operations of users.
//!
//! Rows are lost at limits and in gaps. So most rows come in bursts whose sizes lie around the limits, in several rooms at
//! once so that writers' batches interleave, and often while a follower is disconnected or just after.

use std::ops::{Range, RangeInclusive};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::population::{DATA, LAST_BEFORE_END_MS, ROOMS, USERS, any_host, any_time, room, through, writers_up_ms};
use super::weights::weighted;
use super::{past_limits, reads, world};
use crate::sim::plan::{Operation, OperationKind, Plan};
use squall_env::SeedTree;

/// The number of other servers that may be down.
const SERVERS: u32 = 4;
/// The users who read in several rooms at once. They are so many that each does it once, and no later receipt replaces an
/// earlier one.
const READERS: Range<u32> = 1_000..1_000_000;
/// The longest time for which an event stays an outlier.
const OUTLIER_MS_MAX: u64 = 10_000;
/// The sizes of state bursts, around the limits: 50 rows of a source, 100 of an update, 150 for `state-all`.
const STATE_ROWS: [u32; 10] = [1, 49, 50, 51, 99, 100, 101, 149, 150, 151];
/// The sizes of message bursts.
const EVENTS: [u32; 6] = [49, 50, 51, 99, 100, 101];
/// The time that counts as just after a fault.
const JUST_AFTER_MS: u64 = 1_000;

/// Draws the operations of `plan`, whose faults are drawn already, in order of time.
pub(super) fn draw(seeds: &SeedTree, plan: &Plan) -> Vec<Operation> {
    let mut operations = bursts(&seeds.child("bursts"), plan);
    if plan.scenario.is_wide() {
        operations.extend(past_limits::draw(&seeds.child("past limits"), plan));
    }
    let long_types = world::long_types(&seeds.child("long types"), plan);
    operations.extend(many(&seeds.child("sends"), plan, 120..=200, |rng| OperationKind::Send { room: room(rng) }));
    operations.extend(many(&seeds.child("account data"), plan, 40..=80, |rng| OperationKind::AccountData {
        user: rng.random_range(0..USERS),
        room: rng.random_ratio(1, 2).then(|| room(rng)),
        datum: rng.random_range(0..DATA),
        type_bytes: long_types.draw(rng),
    }));
    operations.extend(many(&seeds.child("account data bursts"), plan, 0..=4, |rng| {
        let of_account = EVENTS[rng.random_range(0..EVENTS.len())];
        let of_room = EVENTS[rng.random_range(0..EVENTS.len())];
        OperationKind::AccountDataBurst { user: rng.random_range(0..USERS), of_account, of_room }
    }));
    operations.extend(many(&seeds.child("receipts"), plan, 60..=120, |rng| OperationKind::Receipt {
        user: rng.random_range(0..USERS),
        room: room(rng),
        through: through(rng, plan),
    }));
    operations.extend(many(&seeds.child("receipts of rooms"), plan, 5..=15, |rng| {
        let first = room(rng);
        let rooms = (0..rng.random_range(2..=5)).map(|n| (first + n) % ROOMS).collect();
        OperationKind::Receipts { user: rng.random_range(READERS), rooms, host: any_host(rng, plan) }
    }));
    operations.extend(many(&seeds.child("to-device"), plan, 40..=80, |rng| {
        let first = rng.random_range(0..USERS);
        let users = (0..rng.random_range(1..=4)).map(|n| (first + n) % USERS).collect();
        OperationKind::ToDevice { users, through: through(rng, plan) }
    }));
    operations.extend(many(&seeds.child("typing"), plan, 120..=220, |rng| OperationKind::Typing {
        room: room(rng),
        user: rng.random_range(0..USERS),
        typing: rng.random_ratio(7, 10),
        timeout_ms: rng.random_range(1_000..=30_000),
    }));
    operations.extend(many(&seeds.child("servers up"), plan, 0..=12, |rng| OperationKind::ServerUp {
        server: rng.random_range(0..SERVERS),
        host: any_host(rng, plan),
    }));
    operations.extend(outliers(&seeds.child("outliers"), plan));
    operations.extend(reads::draw_read_backs(&seeds.child("read backs"), plan));
    operations.extend(reads::draw_own_read_backs(&seeds.child("own read backs"), plan));
    operations.extend(reads::draw(&seeds.child("reads"), plan, &operations));
    operations.sort_by_key(|operation| operation.at_ms);
    operations
}

/// Draws outliers, most of which become ordinary events later.
fn outliers(seeds: &SeedTree, plan: &Plan) -> Vec<Operation> {
    let mut operations = Vec::new();
    for event in 0..weighted(seeds, plan, seeds.rng().random_range(4..=10)) {
        let mut rng = seeds.child(event).rng();
        let room = room(&mut rng);
        let at_ms = any_time(&mut rng, plan);
        operations.push(Operation::new(at_ms, OperationKind::Outlier { room, event }));
        let later_ms = at_ms + rng.random_range(0..=OUTLIER_MS_MAX);
        if later_ms < plan.storm_ms - LAST_BEFORE_END_MS {
            operations.push(Operation::new(later_ms, OperationKind::ExOutlier { room, event }));
        }
    }
    operations
}

/// Draws a number of operations of one kind, each by its ordinal.
fn many(
    seeds: &SeedTree,
    plan: &Plan,
    count: RangeInclusive<u32>,
    kind: impl Fn(&mut ChaCha8Rng) -> OperationKind,
) -> Vec<Operation> {
    let count = weighted(seeds, plan, seeds.rng().random_range(count));
    let mut operations = Vec::new();
    for ordinal in 0..count {
        let mut rng = seeds.child(ordinal).rng();
        operations.push(Operation::new(any_time(&mut rng, plan), kind(&mut rng)));
    }
    operations
}

/// Draws bursts in several rooms at a time, until they have enough rows.
fn bursts(seeds: &SeedTree, plan: &Plan) -> Vec<Operation> {
    let rows_target = weighted(seeds, plan, seeds.rng().random_range(620..=950));
    let mut operations = Vec::new();
    let mut rows = 0;
    let mut rngs = (0..).map(|ordinal| seeds.child(ordinal).rng());
    while rows < rows_target
        && let Some(mut rng) = rngs.next()
    {
        let Some(at_ms) = burst_time(&mut rng, plan) else { continue };
        let first_room = room(&mut rng);
        let rooms = rng.random_range(1..=3);
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

/// Draws the time of a burst: in three of five cases while a fault lasts, or just after it; always one at which all events
/// writers are up. Returns none if there is no such time left in the storm.
fn burst_time(rng: &mut ChaCha8Rng, plan: &Plan) -> Option<u64> {
    let mut at_ms = any_time(rng, plan);
    if !plan.faults.is_empty() && rng.random_ratio(3, 5) {
        let entry = &plan.faults[rng.random_range(0..plan.faults.len())];
        at_ms = entry.at_ms + rng.random_range(0..=entry.fault.for_ms() + JUST_AFTER_MS);
    }
    Some(writers_up_ms(plan, at_ms)).filter(|at_ms| *at_ms < plan.storm_ms - LAST_BEFORE_END_MS)
}
