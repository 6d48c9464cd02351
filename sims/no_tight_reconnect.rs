//! No connection is retried before its back-off delay has passed, however long set-up keeps failing.

use squall::sim::plan::Scenario;

use crate::suite;

#[test]
fn no_instance_reconnects_in_a_tight_loop() {
    suite::judge(Scenario::Storm, "1000..1100");
}
