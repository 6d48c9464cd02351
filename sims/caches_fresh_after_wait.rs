//! A read through an instance returns no value that is older than the instance's position, nor older than the caller's
//! own write.
//!
//! No other suite runs its seeds.

use squall::sim::plan::Scenario;

use crate::suite;

#[test]
fn no_read_is_stale_in_a_storm() {
    suite::judge(Scenario::Storm, "3000..3060");
}

#[test]
fn no_read_is_stale_in_a_swarm() {
    suite::judge(Scenario::Swarm, "3000..3030");
}
