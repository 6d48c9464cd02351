//! The body of every suite: runs many seeds, checks that none fails, and prints the command that repeats one that does.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use squall::sim::plan::Scenario;
use squall::sim::soak::{self, Failures, SeedRange, Tally};
use squall_judge::invariants;
use squall_netsim::EngineName;

/// Fewest seeds whose checks are counted. In fewer, some families of faults may be off in all of them.
const SEEDS_MIN: u64 = 20;

/// The results of a range of seeds.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// The verdicts, counted.
    pub tally: Tally,
    /// The trace hash of each seed.
    pub hashes: BTreeMap<u64, String>,
}

/// The results of one range, once it has run. The lock is held while its seeds run.
type Entry = Arc<Mutex<Option<Arc<Results>>>>;

/// The results of each range that a test of this process has named, by scenario and range.
static RESULTS: Mutex<BTreeMap<(Scenario, String), Entry>> = Mutex::new(BTreeMap::new());

/// Runs `seeds` of `scenario`, or the seeds that the environment names. Checks that none fails, and that every invariant
/// checked something.
pub(crate) fn judge(scenario: Scenario, seeds: &str) {
    assert_all_exercised(&run(scenario, seeds).tally);
}

/// Checks that every invariant made more checks than there are seeds.
pub(crate) fn assert_all_exercised(tally: &Tally) {
    if tally.seeds < SEEDS_MIN {
        return;
    }
    for invariant in invariants::NAMES {
        let checks = tally.exercised.get(*invariant).copied().unwrap_or_default();
        assert!(checks > tally.seeds, "{invariant} made only {checks} checks in {} seeds", tally.seeds);
    }
}

/// Runs `seeds` of `scenario`, or the seeds that the environment names. Checks that none fails.
pub(crate) fn run(scenario: Scenario, seeds: &str) -> Arc<Results> {
    run_range(scenario, self::seeds(seeds))
}

/// Runs `seeds` of `scenario` and checks that none fails. Two tests that name the same range share one run of it.
pub(crate) fn run_range(scenario: Scenario, seeds: SeedRange) -> Arc<Results> {
    let mut all = RESULTS.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = Arc::clone(all.entry((scenario, seeds.to_string())).or_default());
    drop(all);
    let mut entry = entry.lock().unwrap_or_else(PoisonError::into_inner);
    let results = entry.get_or_insert_with(|| Arc::new(run_seeds(scenario, seeds)));
    let results = Arc::clone(results);
    let tally = &results.tally;
    if let Some((fingerprint, Failures { seeds, reproduction, .. })) = tally.fingerprints.first_key_value() {
        panic!("{} seeds failed; {seeds} of them with {fingerprint}. To repeat: {reproduction}", tally.failed.len());
    }
    results
}

fn run_seeds(scenario: Scenario, seeds: SeedRange) -> Results {
    let mut results = Results::default();
    soak::run(EngineName::default(), scenario, seeds, all_cores(), |verdict| {
        if let Some(fingerprint) = verdict.fingerprint() {
            eprintln!("seed {}: {} {fingerprint}\n{}", verdict.seed, verdict.verdict, verdict.reproduction());
        }
        results.tally.add(verdict);
        results.hashes.insert(verdict.seed, verdict.trace_hash.clone());
        ControlFlow::Continue(())
    });
    results
}

/// Returns the number of cores, which is the number of seeds that run at the same time.
pub(crate) fn all_cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Returns `seeds`, or the seeds that the environment names.
pub(crate) fn seeds(seeds: &str) -> SeedRange {
    seeds_from_environment().unwrap_or_else(|| range(seeds))
}

fn seeds_from_environment() -> Option<SeedRange> {
    if let Ok(seed) = std::env::var("SQUALL_SEED") {
        let seed: u64 = seed.parse().unwrap_or_else(|_| panic!("SQUALL_SEED={seed} is not a seed: write a number"));
        return Some(range(&format!("{seed}..{}", seed.saturating_add(1))));
    }
    std::env::var("SQUALL_SEEDS").ok().map(|seeds| range(&seeds))
}

/// Returns the range of seeds in a text of the form `A..B`.
pub(crate) fn range(text: &str) -> SeedRange {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}
