//! However long connections keep failing, nobody tries again faster than the back-off allows.

use squall::sim::plan::Scenario;

use crate::suite;

#[test]
fn nobody_reconnects_in_a_tight_loop() {
    suite::judge(Scenario::Storm, "1000..1100");
}
