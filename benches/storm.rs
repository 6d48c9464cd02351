//! Measures the speed of the storm.
//!
//! A sample is a whole run, from the seed to the verdict. The seeds are always the same, so each sample does the same
//! work. divan prints every benchmark with its spread. At the end the medians are printed as rates, such as seeds a
//! minute, from which the size of a soak is computed.

mod figures;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use divan::Bencher;
use figures::measure;
use squall::sim::plan::{Plan, Scenario};
use squall::sim::runner::{self, Entropy, RunHooks};
use squall::sim::soak::{self, SeedRange};
use squall_netsim::EngineName;

/// The seeds of a soak. In so many, every family of faults is on in some and off in others.
const SEEDS: &str = "0..40";

fn main() {
    figures::main();
}

/// Runs ten simulated minutes of pings and heartbeats.
#[divan::bench(sample_count = 40, sample_size = 1)]
fn quiet(bencher: Bencher) {
    let plan = Plan::generate(Scenario::Quiet, 0);
    let describe = |rate| format!("quiet: {rate:.0} simulated seconds a second");
    measure(bencher, "quiet", plan.storm_ms / 1_000, describe, || {
        let verdict = runner::run(&plan, Entropy::Seed, RunHooks::default());
        assert!(verdict.passed(), "{}", verdict.reproduction());
    });
}

#[divan::bench(sample_count = 5, sample_size = 1, args = [1, 2])]
fn storm(bencher: Bencher, threads: usize) {
    soak(bencher, Scenario::Storm, threads);
}

#[divan::bench(sample_count = 5, sample_size = 1, args = [1, 2])]
fn swarm(bencher: Bencher, threads: usize) {
    soak(bencher, Scenario::Swarm, threads);
}

/// Draws plans. Each run begins with one.
#[divan::bench(sample_count = 40, sample_size = 1)]
fn generate(bencher: Bencher) {
    let describe = |rate| format!("generate: {rate:.0} plans a second");
    measure(bencher, "generate", 40, describe, || {
        for seed in 0..40 {
            std::hint::black_box(Plan::generate(Scenario::Swarm, seed));
        }
    });
}

/// Runs all seeds on `threads` threads.
fn soak(bencher: Bencher, scenario: Scenario, threads: usize) {
    let seeds: SeedRange = SEEDS.parse().expect("it is a range of seeds");
    let jobs = NonZeroUsize::new(threads).expect("there is at least one thread");
    let on = if threads == 1 { "one thread" } else { "two threads" };
    let describe = |rate| format!("{scenario}: {:.0} seeds a minute on {on}", rate * 60.0);
    measure(bencher, &format!("{scenario} on {on}"), seeds.len(), describe, || {
        soak::run(EngineName::default(), scenario, seeds, jobs, |verdict| {
            assert!(verdict.passed(), "{}", verdict.reproduction());
            ControlFlow::Continue(())
        });
    });
}
