//! How fast the storm is.
//!
//! What is measured are whole runs, from the seed to the verdict: that is what somebody waits for. The seeds are always
//! the same ones, so each sample does the same work. divan prints every benchmark with its spread; at the end the
//! medians are said once more, as rates, because seeds a minute is what a night's soak is reckoned in.

mod figures;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use divan::Bencher;
use figures::measure;
use squall::sim::engine::EngineName;
use squall::sim::plan::{Plan, Scenario};
use squall::sim::runner::{self, Entropy, Onlookers};
use squall::sim::soak::{self, SeedRange};

/// The seeds of a soak: enough that every family of faults is on in some and off in others.
const SEEDS: &str = "0..40";

fn main() {
    figures::main();
}

/// Ten simulated minutes of pings and heartbeats.
#[divan::bench(sample_count = 40, sample_size = 1)]
fn quiet(bencher: Bencher) {
    let plan = Plan::generate(Scenario::Quiet, 0);
    let tell = |rate| format!("quiet: {rate:.0} simulated seconds a second");
    measure(bencher, "quiet", plan.storm_ms / 1_000, tell, || {
        let verdict = runner::run(&plan, Entropy::Seed, Onlookers::default());
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

/// Drawing plans; each run begins with one.
#[divan::bench(sample_count = 40, sample_size = 1)]
fn generate(bencher: Bencher) {
    let tell = |rate| format!("generate: {rate:.0} plans a second");
    measure(bencher, "generate", 40, tell, || (0..40).for_each(|seed| drop(Plan::generate(Scenario::Swarm, seed))));
}

/// Runs all the seeds, on `threads` threads.
fn soak(bencher: Bencher, scenario: Scenario, threads: usize) {
    let seeds: SeedRange = SEEDS.parse().expect("it is a range of seeds");
    let jobs = NonZeroUsize::new(threads).expect("there is at least one thread");
    let on = if threads == 1 { "one thread" } else { "two threads" };
    let tell = |rate| format!("{scenario}: {:.0} seeds a minute on {on}", rate * 60.0);
    measure(bencher, &format!("{scenario} on {on}"), seeds.len(), tell, || {
        soak::run(EngineName::default(), scenario, seeds, jobs, |verdict| {
            assert!(verdict.passed(), "{}", verdict.reproduction());
            ControlFlow::Continue(())
        });
    });
}
