//! Whoever reads through an instance sees what its position has passed, and what it told to be done.

use squall::sim::plan::Scenario;

use crate::suite;

#[test]
fn nobody_reads_what_is_stale_in_a_storm() {
    suite::judge(Scenario::Storm, "2000..2060");
}

#[test]
fn nobody_reads_what_is_stale_in_a_swarm() {
    suite::judge(Scenario::Swarm, "2000..2030");
}
