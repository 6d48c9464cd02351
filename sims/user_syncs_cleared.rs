//! Whoever syncs is not offline, and whoever does not is, whatever happens to the network and the processes.

use squall::sim::plan::Scenario;

use crate::suite;

#[test]
fn nobody_goes_offline_while_they_sync_or_stays_online_when_they_do_not() {
    suite::judge(Scenario::Storm, "2000..2100");
}
