//! Everything at once: every invariant, and every rare situation reached.

use squall::sim::plan::Scenario;

use crate::suite;

#[test]
fn a_swarm_keeps_every_promise_and_comes_to_every_rare_situation() {
    let tally = suite::run(Scenario::Swarm, "4000..4060");
    suite::assert_all_exercised(&tally);
    // At least twenty times in five hundred seeds.
    let rare = |(mark, count): (&String, &u64)| (count * 500 < 20 * tally.seeds).then(|| format!("{mark} {count}"));
    let rare: Vec<_> = tally.marks.iter().filter_map(rare).collect();
    assert!(tally.seeds < 60 || rare.is_empty(), "hardly ever reached in {} seeds: {rare:?}", tally.seeds);
}
