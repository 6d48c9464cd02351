//! Whoever was told that something is done sees it, and nobody sees older state than their position.

use squall::sim::plan::Scenario;

use crate::suite;

#[test]
fn no_cache_is_older_than_the_position_or_than_what_was_told_to_be_done() {
    suite::judge("caches_fresh_after_wait", Scenario::Storm, "3000..3060");
}
