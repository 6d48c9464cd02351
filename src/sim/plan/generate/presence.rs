//! Draws the requests of clients that set the presence of a device.
//!
//! Most defects of presence need two requests of one user, with different states, from different devices, shortly after each
//! other. So requests come in groups of one user. Some of a group come at the same time.

use std::ops::RangeInclusive;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::population::{any_time, through};
use super::syncs::USERS;
use super::weights::weighted;
use crate::presence::{PresenceConfig, PresenceState};
use crate::sim::plan::{DEVICES, Operation, OperationKind, Plan};
use squall_env::SeedTree;

/// The number of groups.
const GROUPS: RangeInclusive<u32> = 10..=20;
/// The longest pauses between two requests of a group, in milliseconds.
const PAUSES_MS: [u64; 4] = [0, 50, 1_000, 10_000];
/// The number of status messages.
const STATUSES: u32 = 3;
/// The states, each as often as it is drawn.
const STATES: [PresenceState; 8] = [
    PresenceState::Online,
    PresenceState::Online,
    PresenceState::Unavailable,
    PresenceState::Unavailable,
    PresenceState::Unavailable,
    PresenceState::Busy,
    PresenceState::Busy,
    PresenceState::Offline,
];

/// Draws the times after which an online device is idle, and after which a busy one is offline. Both end in the run, so that
/// their timers are judged.
pub(super) fn draw_times(seeds: &SeedTree, presence: &mut PresenceConfig) {
    let mut rng = seeds.rng();
    presence.idle_ms = [8_000, 20_000, 300_000][rng.random_range(0..3)];
    presence.busy_ms = rng.random_range(31_000..=45_000);
}

/// Draws every request of `plan` to set a presence.
pub(super) fn draw(seeds: &SeedTree, plan: &Plan) -> Vec<Operation> {
    let mut operations = Vec::new();
    for ordinal in 0..weighted(seeds, plan, seeds.rng().random_range(GROUPS)) {
        let mut rng = seeds.child(ordinal).rng();
        let user = rng.random_range(0..USERS);
        let mut at_ms = any_time(&mut rng, plan);
        for _ in 0..rng.random_range(1..=3) {
            operations.push(Operation::new(at_ms, request(&mut rng, plan, user)));
            let pause_ms_max = PAUSES_MS[rng.random_range(0..PAUSES_MS.len())];
            at_ms += rng.random_range(0..=pause_ms_max);
        }
    }
    operations.retain(|operation| operation.at_ms <= plan.storm_ms);
    operations
}

fn request(rng: &mut ChaCha8Rng, plan: &Plan, user: u32) -> OperationKind {
    let device = rng.random_ratio(3, 4).then(|| rng.random_range(0..DEVICES));
    let state = STATES[rng.random_range(0..STATES.len())];
    let status = rng.random_ratio(1, 3).then(|| rng.random_range(0..STATUSES));
    let is_sync = rng.random_ratio(1, 4) && state != PresenceState::Offline;
    OperationKind::SetPresence { user, device, state, status, is_sync, through: through(rng, plan) }
}
