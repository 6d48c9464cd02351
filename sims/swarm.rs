//! Everything at once: every invariant, and every rare situation reached.

use squall::judge::invariants;
use squall::sim::plan::Scenario;

use crate::suite;

#[test]
fn a_swarm_keeps_every_promise_and_comes_to_every_rare_situation() {
    let tally = suite::run(Scenario::Swarm, "4000..4060");
    for invariant in invariants::NAMES {
        suite::assert_exercised(&tally, invariant);
    }
    // Of 500 seeds each has to be reached by twenty at least; here each must be reached at all.
    let unreached: Vec<_> = tally.marks.iter().filter(|(_, count)| **count == 0).map(|(mark, _)| mark).collect();
    assert!(tally.seeds < 60 || unreached.is_empty(), "never reached in {} seeds: {unreached:?}", tally.seeds);
}
