//! A scenario of one's own: a storm in which one worker is always slow.

use squall::sim::plan::{Plan, Scenario};
use squall::sim::runner;

// ANCHOR: scenario
/// Returns a plan of the storm whose only fault is that `worker1` reads 100 bytes at a time, ten times a second.
fn slow_worker(seed: u64) -> Plan {
    let mut plan = Plan::generate(Scenario::Storm, seed);
    let fault = r#"{"slow_consumer": {"host": "worker1", "bytes": 100, "pause_ms": 100, "for_ms": 50000}}"#;
    let fault = serde_json::from_str(fault).expect("the fault is valid");
    plan.faults = vec![squall::sim::plan::FaultEntry { at_ms: 5_000, fault }];
    plan
}

#[test]
fn a_slow_worker_delays_no_other_instance() {
    for seed in 0..3 {
        let verdict = runner::judge(&slow_worker(seed));
        assert!(verdict.passed(), "{verdict:?}\n{}", slow_worker(seed).to_json());
        assert_eq!(verdict.faults, 1, "the fault took effect");
    }
}
// ANCHOR_END: scenario
