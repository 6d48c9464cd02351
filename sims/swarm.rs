//! Worlds of all shapes, over TCP and over Redis: every invariant holds, and every rare situation is reached.

use squall::sim::plan::Scenario;
use squall::sim::soak::Tally;

use crate::suite;

/// The marks that only a broker reaches.
const BROKER_MARKS: [&str; 2] = ["output_limit", "replies_awaited"];
/// Fewest seeds whose marks are counted.
const SEEDS_MIN: u64 = 40;

/// Checks that each mark was reached at least twenty times in five hundred seeds, except `unreachable` ones.
fn assert_all_reached(tally: &Tally, unreachable: &[&str]) {
    if tally.seeds < SEEDS_MIN {
        return;
    }
    let mut rare = Vec::new();
    for (mark, count) in &tally.marks {
        if !unreachable.contains(&mark.as_str()) && count * 500 < 20 * tally.seeds {
            rare.push(format!("{mark} {count}"));
        }
    }
    assert!(rare.is_empty(), "reached too rarely in {} seeds: {rare:?}", tally.seeds);
}

#[test]
fn a_swarm_keeps_every_invariant_and_reaches_every_rare_situation() {
    let results = suite::run(Scenario::Swarm, "4000..4060");
    suite::assert_all_exercised(&results.tally);
    assert_all_reached(&results.tally, &BROKER_MARKS);
}

#[test]
fn a_swarm_over_redis_keeps_every_invariant_and_reaches_every_rare_situation() {
    let results = suite::run(Scenario::RedisSwarm, "5000..5040");
    suite::assert_all_exercised(&results.tally);
    assert_all_reached(&results.tally, &[]);
}
