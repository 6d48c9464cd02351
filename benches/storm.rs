//! How fast the storm is.
//!
//! What is measured are whole runs, from the seed to the verdict: that is what somebody waits for. The seeds are always
//! the same ones, so each sample does the same work. divan prints every benchmark with its spread; at the end the
//! medians are said once more, as rates, because seeds a minute is what a night's soak is reckoned in.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use divan::Bencher;
use divan::counter::ItemsCount;
use squall::sim::engine::EngineName;
use squall::sim::plan::{Plan, Scenario};
use squall::sim::runner::{self, Entropy, Onlookers};
use squall::sim::soak::{self, SeedRange};

/// The seeds of a soak: enough that every family of faults is on in some and off in others.
const SEEDS: &str = "0..40";

/// What was measured, in words.
static FIGURES: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn main() {
    divan::main();
    for figure in FIGURES.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        println!("{figure}");
    }
}

/// Ten simulated minutes of pings and heartbeats.
#[divan::bench(sample_count = 40, sample_size = 1)]
fn quiet(bencher: Bencher) {
    let plan = Plan::generate(Scenario::Quiet, 0);
    let tell = |rate| format!("quiet: {rate:.0} simulated seconds a second");
    measure(bencher, plan.storm_ms / 1_000, tell, || {
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
    measure(bencher, 40, tell, || (0..40).for_each(|seed| drop(Plan::generate(Scenario::Swarm, seed))));
}

/// Runs all the seeds, on `threads` threads.
fn soak(bencher: Bencher, scenario: Scenario, threads: usize) {
    let seeds: SeedRange = SEEDS.parse().expect("it is a range of seeds");
    let jobs = NonZeroUsize::new(threads).expect("there is at least one thread");
    let on = if threads == 1 { "one thread" } else { "two threads" };
    let tell = |rate| format!("{scenario}: {:.0} seeds a minute on {on}", rate * 60.0);
    measure(bencher, seeds.len(), tell, || {
        soak::run(EngineName::default(), scenario, seeds, jobs, |verdict| {
            assert!(verdict.passed(), "{}", verdict.reproduction());
            ControlFlow::Continue(())
        });
    });
}

/// Samples `work`, which does `items` things, and tells the median rate, in things a second.
fn measure(bencher: Bencher, items: u64, tell: impl Fn(f64) -> String, work: impl Fn()) {
    // divan keeps its own measurements to itself.
    let mut took = Vec::new();
    bencher.counter(ItemsCount::new(items)).bench_local(|| {
        let began = now();
        work();
        took.push(began.elapsed());
    });
    took.sort();
    if let Some(median) = took.get(took.len() / 2) {
        let figure = tell(items as f64 / median.as_secs_f64());
        FIGURES.lock().unwrap_or_else(PoisonError::into_inner).push(figure);
    }
}

#[expect(clippy::disallowed_methods, reason = "real time is what a benchmark is about")]
fn now() -> Instant {
    Instant::now()
}
