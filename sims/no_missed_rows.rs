//! Every committed row reaches every follower, in spite of faults of the network and of processes.

use squall::sim::plan::Scenario;

use crate::suite;

#[test]
fn no_row_is_missed_in_a_storm() {
    suite::judge(Scenario::Storm, "0..100");
}

#[test]
fn no_row_is_missed_in_a_swarm() {
    suite::judge(Scenario::Swarm, "0..40");
}
