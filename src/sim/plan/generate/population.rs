//! The users, rooms and times that operations are drawn from.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::sim::plan::Plan;

/// The number of rooms: enough that every writer gets some.
pub(super) const ROOMS: u32 = 12;
/// The number of users.
pub(super) const USERS: u32 = 8;
/// The number of account data that each user has for each room, and for the account.
pub(super) const DATA: u32 = 4;
/// The time of the earliest operation: every instance has started by then.
const FIRST_MS: u64 = 1_500;
/// The time between the last operation and the end of the storm.
pub(super) const LAST_BEFORE_END_MS: u64 = 3_000;

/// Draws a room.
pub(super) fn room(rng: &mut ChaCha8Rng) -> u32 {
    rng.random_range(0..ROOMS)
}

/// Draws the time of an operation.
pub(super) fn any_time(rng: &mut ChaCha8Rng, plan: &Plan) -> u64 {
    rng.random_range(FIRST_MS..plan.storm_ms - LAST_BEFORE_END_MS)
}
