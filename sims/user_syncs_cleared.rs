//! A user who syncs is online, and a user whose sync has ended goes offline, in spite of faults of the network and of
//! processes.

use squall::sim::plan::Scenario;

use crate::suite;

#[test]
fn users_are_online_exactly_while_they_sync() {
    suite::judge(Scenario::Storm, "2000..2100");
}
