//! A run that is over holds no memory, and one that lasts longer holds no more.

use squall::sim::plan::{Plan, Scenario};
use squall::sim::runner;
use strum::VariantArray;

use crate::memory_of_thread::Watch;
use crate::suite;

/// The seeds whose runs fill the caches of the process, such as those of thread-locals.
const WARM_UP: std::ops::Range<u64> = 7000..7010;
/// The most bytes that a run may leave. Runs leave none; the allowance is for a thread-local that still grows.
const HELD_MAX: isize = 1_000;
/// The length of a storm, in milliseconds: memory that one run leaks does not depend on it much.
const STORM_MS: u64 = 5_000;

/// Returns the beginning of the storm of `seed`.
fn short_plan(scenario: Scenario, seed: u64) -> Plan {
    let mut plan = Plan::generate(scenario, seed);
    plan.storm_ms = STORM_MS;
    plan.operations.retain(|operation| operation.at_ms < STORM_MS);
    plan.faults.retain(|fault| fault.at_ms < STORM_MS);
    plan
}

#[test]
fn what_a_run_held_is_freed_when_it_is_over() {
    for scenario in Scenario::VARIANTS {
        for seed in WARM_UP {
            runner::judge(&short_plan(*scenario, seed));
        }
        for seed in suite::seeds("7010..7014").seeds() {
            let watch = Watch::begin();
            assert!(runner::judge(&short_plan(*scenario, seed)).passed(), "{scenario} {seed}");
            assert!(watch.held() < HELD_MAX, "{scenario} {seed}: the run has left {} bytes", watch.held());
        }
    }
}

#[test]
fn a_longer_run_without_faults_holds_no_more() {
    let most = |minutes: u64| {
        let plan = Plan { storm_ms: minutes * 60_000, ..Plan::generate(Scenario::Quiet, 0) };
        let watch = Watch::begin();
        assert!(runner::judge(&plan).passed());
        watch.peak()
    };
    let (short, long) = (most(5), most(60));
    assert!(long < short + short / 10, "an hour takes {long} bytes, and five minutes take {short}");
}
