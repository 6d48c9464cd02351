//! The users, rooms, hosts and times that operations are drawn from.

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
/// The time that a writer may take until it persists events, after it is back.
const WRITER_START_MS: u64 = 500;

/// Draws a room.
pub(super) fn room(rng: &mut ChaCha8Rng) -> u32 {
    rng.random_range(0..ROOMS)
}

/// Draws the time of an operation.
pub(super) fn any_time(rng: &mut ChaCha8Rng, plan: &Plan) -> u64 {
    rng.random_range(FIRST_MS..plan.storm_ms - LAST_BEFORE_END_MS)
}

/// Returns the earliest time from `at_ms` on at which all events writers are up.
pub(super) fn writers_up_ms(plan: &Plan, at_ms: u64) -> u64 {
    let mut back_ms = None;
    for entry in &plan.faults {
        for outage in entry.fault.outages() {
            let down_ms = entry.at_ms + outage.from_ms..entry.at_ms + outage.until_ms + WRITER_START_MS;
            if plan.topology.writes_events(outage.host) && down_ms.contains(&at_ms) {
                back_ms = back_ms.max(Some(down_ms.end));
            }
        }
    }
    back_ms.map_or(at_ms, |back_ms| writers_up_ms(plan, back_ms))
}

/// Draws the host that a client sends its request to: in two of three cases any instance, which forwards it to the writer.
pub(super) fn through(rng: &mut ChaCha8Rng, plan: &Plan) -> Option<String> {
    let host = any_host(rng, plan);
    rng.random_ratio(2, 3).then_some(host)
}

/// Draws an instance.
pub(super) fn any_host(rng: &mut ChaCha8Rng, plan: &Plan) -> String {
    let hosts: Vec<&str> = plan.topology.hosts().collect();
    hosts[rng.random_range(0..hosts.len())].to_owned()
}
