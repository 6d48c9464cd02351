//! Everything at once: every invariant, and every rare situation reached; over TCP, and over Redis.

use squall::sim::plan::Scenario;
use squall::sim::soak::Tally;

use crate::suite;

/// What only a broker does.
const OF_BROKERS: &str = "output_limit";

/// Checks that each mark was reached at least twenty times in five hundred seeds, but for those that cannot be.
fn assert_all_reached(tally: &Tally, unreachable: &[&str]) {
    let rare = |(mark, count): (&String, &u64)| (count * 500 < 20 * tally.seeds).then(|| format!("{mark} {count}"));
    let marks = tally.marks.iter().filter(|(mark, _)| !unreachable.contains(&mark.as_str()));
    let rare: Vec<_> = marks.filter_map(rare).collect();
    assert!(tally.seeds < 40 || rare.is_empty(), "hardly ever reached in {} seeds: {rare:?}", tally.seeds);
}

#[test]
fn a_swarm_keeps_every_promise_and_comes_to_every_rare_situation() {
    let tally = suite::run(Scenario::Swarm, "4000..4060");
    suite::assert_all_exercised(&tally);
    assert_all_reached(&tally, &[OF_BROKERS]);
}

#[test]
fn a_swarm_over_redis_keeps_every_promise_and_comes_to_every_rare_situation() {
    let tally = suite::run(Scenario::RedisSwarm, "5000..5040");
    suite::assert_all_exercised(&tally);
    assert_all_reached(&tally, &[]);
}
