//! What every suite does: run many seeds, and say how to repeat one that fails.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use squall::judge::invariants;
use squall::sim::engine::EngineName;
use squall::sim::plan::Scenario;
use squall::sim::soak::{self, Failures, SeedRange, Tally};

/// Of fewer seeds than this nothing is asked.
const SEEDS_LEAST: u64 = 20;

/// Runs `seeds` of `scenario`, or those that the environment names, and checks that none failed and that every invariant
/// had something to check.
pub fn judge(scenario: Scenario, seeds: &str) {
    assert_all_exercised(&run(scenario, seeds));
}

/// Checks that every invariant had something to check in all the seeds together, and once in each on an average. Of a few
/// seeds that the environment names nothing is asked: some families of faults may be off in all of them.
pub fn assert_all_exercised(tally: &Tally) {
    if tally.seeds < SEEDS_LEAST {
        return;
    }
    for invariant in invariants::NAMES {
        let checks = tally.exercised.get(*invariant).copied().unwrap_or_default();
        assert!(
            checks > tally.seeds,
            "{invariant} checked {checks} things in {} seeds: it proves nothing",
            tally.seeds
        );
    }
}

/// Runs `seeds` of `scenario`, or those that the environment names, and checks that none failed.
pub fn run(scenario: Scenario, seeds: &str) -> Tally {
    let seeds = self::seeds(seeds);
    let jobs = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let mut tally = Tally::default();
    soak::run(EngineName::default(), scenario, seeds, jobs, |verdict| {
        if let Some(fingerprint) = verdict.fingerprint() {
            eprintln!("seed {}: {} {fingerprint}\n{}", verdict.seed, verdict.verdict, verdict.reproduction());
        }
        tally.add(verdict);
        ControlFlow::Continue(())
    });
    if let Some((fingerprint, Failures { seeds, reproduction, .. })) = tally.fingerprints.first_key_value() {
        panic!("{} seeds failed; {fingerprint} in {seeds} of them. Repeat: {reproduction}", tally.failed.len());
    }
    tally
}

/// `seeds`, or those that the environment names.
pub fn seeds(seeds: &str) -> SeedRange {
    seeds_from_environment().unwrap_or_else(|| range(seeds))
}

fn seeds_from_environment() -> Option<SeedRange> {
    if let Ok(seed) = std::env::var("SQUALL_SEED") {
        let seed: u64 = seed.parse().unwrap_or_else(|_| panic!("SQUALL_SEED={seed} is no seed: write a number"));
        return Some(range(&format!("{seed}..{}", seed.saturating_add(1))));
    }
    std::env::var("SQUALL_SEEDS").ok().map(|seeds| range(&seeds))
}

fn range(text: &str) -> SeedRange {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}
