//! Counts over many verdicts.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::sim::faults::read_counts;
use crate::sim::verdict::{Conclusion, Verdict};

/// The parts of a verdict that a soak counts. They are read from the line that a process printed, so names are owned.
#[derive(Debug, Clone, Deserialize)]
pub struct Outcome {
    /// The seed of the plan.
    pub seed: u64,
    /// The way in which the run ended.
    pub verdict: Conclusion,
    /// The failure's fingerprint; none if the run passed.
    pub fingerprint: Option<String>,
    /// The command that repeats the run.
    pub reproduction: String,
    /// The end of the run's process in words, if the process ended before it printed a verdict.
    pub death: Option<String>,
    violation: Option<Violated>,
    pending: Vec<IgnoredAny>,
    rows_committed: u64,
    rows_applied: u64,
    #[serde(deserialize_with = "read_counts")]
    faults_planned: BTreeMap<String, u64>,
    #[serde(deserialize_with = "read_counts")]
    faults_by_family: BTreeMap<String, u64>,
    marks: BTreeMap<String, u64>,
    exercised: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Deserialize)]
struct Violated {
    invariants: Vec<String>,
}

impl Outcome {
    /// Returns true if no invariant was violated and everything converged.
    pub fn passed(&self) -> bool {
        self.verdict == Conclusion::Passed
    }

    /// Returns true if the run failed in the way of this name: an invariant that was violated, or a conclusion. A run in
    /// which something had not converged counts as stuck, even if an invariant was violated too.
    pub fn is(&self, failure: &str) -> bool {
        let violated = self.violation.as_ref();
        self.verdict.name() == failure
            || (failure == Conclusion::Stuck.name() && !self.pending.is_empty())
            || violated.is_some_and(|violated| violated.invariants.iter().any(|invariant| invariant == failure))
    }
}

impl From<&Verdict> for Outcome {
    fn from(verdict: &Verdict) -> Self {
        let json = verdict.report(&verdict.reproduction()).to_json();
        serde_json::from_str(&json).expect("a verdict's JSON has every field of an outcome")
    }
}

/// Counts over many verdicts.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Tally {
    /// Number of seeds that were run.
    pub seeds: u64,
    /// Number of seeds for each way in which a run ends.
    pub verdicts: BTreeMap<Conclusion, u64>,
    /// The seeds that did not pass.
    pub failed: Vec<u64>,
    /// The failures of each kind, by fingerprint.
    pub fingerprints: BTreeMap<String, Failures>,
    /// Rows committed to the database.
    pub rows_committed: u64,
    /// Rows applied, over all followers.
    pub rows_applied: u64,
    /// Faults of the plans, by family.
    pub faults_planned: BTreeMap<String, u64>,
    /// Faults that took effect, by family.
    pub faults_by_family: BTreeMap<String, u64>,
    /// Number of times that each rare situation was reached.
    pub marks: BTreeMap<String, u64>,
    /// Number of checks that each invariant made.
    pub exercised: BTreeMap<String, u64>,
}

/// The failures of one kind.
#[derive(Debug, Clone, Serialize)]
pub struct Failures {
    /// Number of seeds that failed in this way.
    pub seeds: u64,
    /// The smallest of them.
    pub first: u64,
    /// The command that repeats the smallest one.
    pub reproduction: String,
}

impl Tally {
    /// Counts a verdict.
    pub fn add(&mut self, outcome: impl Into<Outcome>) {
        let outcome = outcome.into();
        self.seeds += 1;
        *self.verdicts.entry(outcome.verdict).or_default() += 1;
        self.rows_committed += outcome.rows_committed;
        self.rows_applied += outcome.rows_applied;
        let counts = [
            (&mut self.faults_planned, outcome.faults_planned),
            (&mut self.faults_by_family, outcome.faults_by_family),
            (&mut self.marks, outcome.marks),
            (&mut self.exercised, outcome.exercised),
        ];
        for (sum, counts) in counts {
            for (name, count) in counts {
                *sum.entry(name).or_default() += count;
            }
        }
        let Some(fingerprint) = outcome.fingerprint else { return };
        self.failed.push(outcome.seed);
        let none = || Failures { seeds: 0, first: u64::MAX, reproduction: String::new() };
        let failures = self.fingerprints.entry(fingerprint).or_insert_with(none);
        failures.seeds += 1;
        // A resumed soak counts its seeds out of order.
        if outcome.seed < failures.first {
            failures.first = outcome.seed;
            failures.reproduction = outcome.reproduction;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::Scenario;

    fn passed(seed: u64) -> Verdict {
        let marks = BTreeMap::from([("set_up", 2)]);
        let verdict = Verdict::dead(Scenario::Storm, seed, Conclusion::Passed, String::new());
        Verdict { death: None, rows_committed: 5, marks, ..verdict }
    }

    fn hung(seed: u64) -> Verdict {
        Verdict::dead(Scenario::Storm, seed, Conclusion::Hung, "killed".into())
    }

    #[test]
    fn every_verdict_is_counted_and_every_kind_of_failure_has_its_smallest_seed() {
        let mut tally = Tally::default();
        for verdict in [passed(0), hung(7), hung(2), passed(3)] {
            tally.add(&verdict);
        }
        assert_eq!((tally.seeds, tally.rows_committed, tally.marks["set_up"]), (4, 10, 4));
        assert_eq!(tally.verdicts, BTreeMap::from([(Conclusion::Passed, 2), (Conclusion::Hung, 2)]));
        assert_eq!(tally.failed, [7, 2]);
        let failures = &tally.fingerprints["hung"];
        assert_eq!((failures.seeds, failures.first), (2, 2));
        assert_eq!(failures.reproduction, hung(2).reproduction());
    }

    #[test]
    fn a_run_in_which_something_has_not_converged_is_stuck_even_if_an_invariant_was_violated() {
        let mut verdict = Verdict { verdict: Conclusion::Violated, ..passed(1) };
        assert!(!Outcome::from(&verdict).is("stuck"));
        let follower = squall_judge::FollowerKey::new(&"worker".into(), &"events".into(), &"writer".into());
        verdict.pending.push(squall_judge::Pending { follower, what: squall_judge::PendingReason::Following });
        assert!(Outcome::from(&verdict).is("stuck"));
    }

    #[test]
    fn a_failure_goes_by_the_name_of_its_conclusion() {
        let outcome = Outcome::from(&hung(1));
        assert!(outcome.is("hung") && !outcome.is("stuck") && !outcome.passed());
    }
}
