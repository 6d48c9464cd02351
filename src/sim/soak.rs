//! Many seeds, several at a time.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use thiserror::Error;

use super::plan::{Plan, Scenario};
use super::runner::{self, Entropy, Onlookers};
use super::verdict::{Conclusion, Verdict};

/// Seeds from `first` up to but not including `end`; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeedRange {
    first: u64,
    end: u64,
}

/// What is wrong with a range of seeds.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SeedRangeError {
    /// It is not of the form `A..B`.
    #[error("{0:?} is no range of seeds: write A..B, such as 0..500")]
    Form(String),
    /// One of its ends is no seed.
    #[error("{0:?} is no seed: write a number from 0 to 18446744073709551615")]
    Seed(String),
    /// It has nothing in it.
    #[error("{0}..{1} has no seeds: the end must be larger than the beginning")]
    Empty(u64, u64),
}

impl SeedRange {
    /// How many seeds.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(self) -> u64 {
        self.end - self.first
    }
}

impl FromStr for SeedRange {
    type Err = SeedRangeError;

    fn from_str(text: &str) -> Result<Self, SeedRangeError> {
        let (first, end) = text.split_once("..").ok_or_else(|| SeedRangeError::Form(text.into()))?;
        let seed = |text: &str| text.parse().map_err(|_| SeedRangeError::Seed(text.into()));
        let (first, end) = (seed(first)?, seed(end)?);
        if first < end { Ok(SeedRange { first, end }) } else { Err(SeedRangeError::Empty(first, end)) }
    }
}

/// Runs every seed of `scenario` and hands the verdicts to `take`, in the order of the seeds, until it has had enough.
/// `jobs` seeds run at the same time, each on a thread of its own; nothing is shared between them.
pub fn run(
    scenario: Scenario,
    seeds: SeedRange,
    jobs: NonZeroUsize,
    mut take: impl FnMut(&Verdict) -> ControlFlow<()>,
) {
    let next = AtomicU64::new(seeds.first);
    let (done, verdicts) = mpsc::channel();
    std::thread::scope(|threads| {
        for _ in 0..jobs.get() {
            let (done, next) = (done.clone(), &next);
            threads.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if done.send((seed, run_seed(scenario, seed))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let mut early = BTreeMap::new();
        let mut expected = seeds.first;
        for (seed, verdict) in verdicts {
            early.insert(seed, verdict);
            while let Some(verdict) = early.remove(&expected) {
                expected += 1;
                if take(&verdict).is_break() {
                    next.store(seeds.end, Ordering::Relaxed);
                    return;
                }
            }
        }
    });
}

/// Runs one seed. A panic is a finding like any other and must not end the soak.
fn run_seed(scenario: Scenario, seed: u64) -> Verdict {
    let plan = Plan::generate(scenario, seed);
    let ran = catch_unwind(AssertUnwindSafe(|| runner::run(&plan, Entropy::Seed, Onlookers::default())));
    ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Verdict { panic: Some(text.to_owned()), ..Verdict::new(&plan, Conclusion::Panicked) }
    })
}

/// What many verdicts come to.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Seeds run.
    pub seeds: u64,
    /// Seeds with a violation.
    pub violated: u64,
    /// Seeds that did not converge.
    pub stuck: u64,
    /// Seeds in which Squall itself panicked.
    pub panicked: u64,
    /// The seeds that did not pass.
    pub failed: Vec<u64>,
    /// How often each kind of failure came up, and where first.
    pub fingerprints: BTreeMap<String, (u64, First)>,
    /// Rows that took effect in the database.
    pub rows_committed: u64,
    /// Rows applied, over all followers.
    pub rows_applied: u64,
    /// Faults that took effect, by family.
    pub faults_by_family: BTreeMap<&'static str, usize>,
    /// How often each rare situation came up.
    pub marks: BTreeMap<&'static str, u64>,
    /// How often each invariant was exercised.
    pub exercised: BTreeMap<&'static str, u64>,
}

/// Where a kind of failure came up first.
#[derive(Debug, Clone)]
pub struct First {
    /// The seed.
    pub seed: u64,
    /// The command that repeats it.
    pub reproduction: String,
}

impl Tally {
    /// Counts a verdict.
    pub fn add(&mut self, verdict: &Verdict) {
        self.seeds += 1;
        self.violated += u64::from(verdict.verdict == Conclusion::Violated);
        self.stuck += u64::from(verdict.verdict == Conclusion::Stuck);
        self.panicked += u64::from(verdict.verdict == Conclusion::Panicked);
        self.rows_committed += verdict.rows_committed;
        self.rows_applied += verdict.rows_applied;
        for (kind, count) in &verdict.faults_by_family {
            *self.faults_by_family.entry(kind).or_default() += count;
        }
        for (sum, counts) in [(&mut self.marks, &verdict.marks), (&mut self.exercised, &verdict.exercised)] {
            for (name, count) in counts {
                *sum.entry(name).or_default() += count;
            }
        }
        if let Some(fingerprint) = verdict.fingerprint() {
            self.failed.push(verdict.seed);
            let first = First { seed: verdict.seed, reproduction: verdict.reproduction() };
            self.fingerprints.entry(fingerprint).or_insert((0, first)).0 += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_seeds_is_two_numbers_the_first_of_them_smaller() {
        assert_eq!("3..7".parse(), Ok(SeedRange { first: 3, end: 7 }));
        assert_eq!("7".parse::<SeedRange>(), Err(SeedRangeError::Form("7".into())));
        assert_eq!("7..x".parse::<SeedRange>(), Err(SeedRangeError::Seed("x".into())));
        assert_eq!("-1..3".parse::<SeedRange>(), Err(SeedRangeError::Seed("-1".into())));
        assert_eq!("7..7".parse::<SeedRange>(), Err(SeedRangeError::Empty(7, 7)));
        assert_eq!("7..3".parse::<SeedRange>(), Err(SeedRangeError::Empty(7, 3)));
    }
}
