//! How a run ended.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::engine::EngineName;
use super::plan::{Plan, Scenario};
use crate::judge::{Moment, Pending, Violation};

/// How the fingerprints of what did not converge begin.
pub const STUCK: &str = "stuck";

/// What came of a run. Serialises to one JSON object, the same for every engine.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// The seed of the plan.
    pub seed: u64,
    /// The scenario of the plan.
    pub scenario: String,
    /// The engine that ran it.
    pub engine: EngineName,
    /// How it ended.
    pub verdict: Conclusion,
    /// The first violation.
    pub violation: Option<Finding>,
    /// What had not converged when the calm bound was over.
    pub pending: Vec<Pending>,
    /// What a panic said.
    pub panic: Option<String>,
    /// How its process came to its end, if the run took the whole process with it.
    pub death: Option<String>,
    /// A hash over everything that was observed. The same plan gives the same hash in any process.
    pub trace_hash: String,
    /// Simulated time, in milliseconds.
    pub simulated_ms: u64,
    /// Real time, in milliseconds.
    pub wall_ms: u64,
    /// Simulated machines.
    pub hosts: usize,
    /// Faults that took effect.
    pub faults: usize,
    /// Faults that found nothing to disturb (a connection to cut that was not open).
    pub faults_idle: usize,
    /// Faults that the engine cannot inject.
    pub faults_skipped: usize,
    /// Faults that took effect, by family.
    pub faults_by_family: BTreeMap<&'static str, usize>,
    /// Lines read by client ends.
    pub commands: u64,
    /// Rows that took effect in the database.
    pub rows_committed: u64,
    /// Rows applied, over all followers.
    pub rows_applied: u64,
    /// How often each rare situation came up.
    pub marks: BTreeMap<&'static str, u64>,
    /// How often each invariant was exercised.
    pub exercised: BTreeMap<&'static str, u64>,
}

/// The ways a run can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// No invariant was violated, and everything converged.
    Passed,
    /// An invariant was violated.
    Violated,
    /// No invariant was violated, but something had not converged within the calm bound.
    Stuck,
    /// Squall itself has a bug: the run panicked.
    Panicked,
    /// Its process said nothing for longer than anybody waits, and was killed.
    Hung,
    /// Its process ended before there was a verdict: an abort, a signal, a stack overflow.
    Crashed,
    /// Its process held more memory than it may, and was killed.
    OutOfMemory,
}

impl Conclusion {
    /// Every conclusion.
    pub const ALL: [Conclusion; 7] = [
        Conclusion::Passed,
        Conclusion::Violated,
        Conclusion::Stuck,
        Conclusion::Panicked,
        Conclusion::Hung,
        Conclusion::Crashed,
        Conclusion::OutOfMemory,
    ];

    /// The conclusion's name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Conclusion::Passed => "passed",
            Conclusion::Violated => "violated",
            Conclusion::Stuck => STUCK,
            Conclusion::Panicked => "panicked",
            Conclusion::Hung => "hung",
            Conclusion::Crashed => "crashed",
            Conclusion::OutOfMemory => "out_of_memory",
        }
    }
}

/// A violation, with when it was found.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The invariant.
    pub invariant: &'static str,
    /// The same for every violation of the same kind.
    pub fingerprint: String,
    /// Simulated time, in milliseconds.
    pub at_ms: u64,
    /// The evidence.
    pub detail: serde_json::Value,
    /// The evidence as a sentence.
    pub message: String,
    /// All invariants that were violated in the run, this one included.
    pub invariants: Vec<&'static str>,
    /// The fingerprints of all violations of the run, this one included.
    pub fingerprints: Vec<String>,
}

impl Finding {
    /// The first of `violations`; none if there are none.
    pub fn first_of(violations: &[(Moment, Violation)]) -> Option<Finding> {
        let (at, violation) = violations.first()?;
        let mut invariants: Vec<_> = violations.iter().map(|(_, violation)| violation.invariant()).collect();
        invariants.sort_unstable();
        invariants.dedup();
        let mut fingerprints: Vec<_> = violations.iter().map(|(_, violation)| violation.fingerprint()).collect();
        fingerprints.sort_unstable();
        fingerprints.dedup();
        Some(Finding {
            invariant: violation.invariant(),
            fingerprint: violation.fingerprint(),
            at_ms: at.0,
            detail: serde_json::to_value(violation).expect("a violation is plain data"),
            message: violation.to_string(),
            invariants,
            fingerprints,
        })
    }
}

/// A verdict as programs are told it: with what follows from it.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    #[serde(flatten)]
    verdict: &'a Verdict,
    /// What distinguishes this run's failure from others; none if it passed.
    fingerprint: Option<String>,
    /// The command that repeats the run.
    reproduction: &'a str,
}

impl Report<'_> {
    /// The report as one JSON object on one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a verdict is plain data")
    }
}

impl Verdict {
    /// The verdict on a run of `plan` that ended as `verdict` says, with nothing else known of it yet.
    pub fn new(plan: &Plan, verdict: Conclusion) -> Self {
        Verdict { hosts: plan.topology.hosts().count(), ..Verdict::unknown(plan.scenario, plan.seed, verdict) }
    }

    /// The verdict on a run whose process died of it: `verdict` says how, `death` in words.
    pub fn dead(scenario: Scenario, seed: u64, verdict: Conclusion, death: String) -> Self {
        Verdict { death: Some(death), ..Verdict::unknown(scenario, seed, verdict) }
    }

    fn unknown(scenario: Scenario, seed: u64, verdict: Conclusion) -> Self {
        Verdict {
            seed,
            scenario: scenario.to_string(),
            engine: EngineName::default(),
            verdict,
            violation: None,
            pending: Vec::new(),
            panic: None,
            death: None,
            trace_hash: String::new(),
            simulated_ms: 0,
            wall_ms: 0,
            hosts: 0,
            faults: 0,
            faults_idle: 0,
            faults_skipped: 0,
            faults_by_family: BTreeMap::new(),
            commands: 0,
            rows_committed: 0,
            rows_applied: 0,
            marks: BTreeMap::new(),
            exercised: BTreeMap::new(),
        }
    }

    /// Whether the run went as it must.
    pub fn passed(&self) -> bool {
        self.verdict == Conclusion::Passed
    }

    /// What distinguishes this run's failure from others; none if it passed.
    pub fn fingerprint(&self) -> Option<String> {
        match self.verdict {
            Conclusion::Passed => None,
            Conclusion::Panicked => Some(format!("panicked/{}", self.panic.as_deref().unwrap_or_default())),
            Conclusion::Violated => self.violation.as_ref().map(|finding| finding.fingerprint.clone()),
            Conclusion::Stuck => {
                let stream = self.pending.first().map_or("unknown", |pending| pending.feed.stream.as_str());
                Some(format!("{STUCK}/{stream}"))
            }
            // How it died differs from machine to machine, and from one try to the next.
            Conclusion::Hung | Conclusion::Crashed | Conclusion::OutOfMemory => Some(self.verdict.name().to_owned()),
        }
    }

    /// Everything that a run's failure can be known by: the fingerprint of each violation, of what had not converged on
    /// each stream, and of a panic. In order; none if it passed.
    pub fn fingerprints(&self) -> Vec<String> {
        let violated = self.violation.iter().flat_map(|finding| finding.fingerprints.iter().cloned());
        let stuck = self.pending.iter().map(|pending| format!("{STUCK}/{}", pending.feed.stream));
        let mut fingerprints: Vec<String> = violated.chain(stuck).chain(self.fingerprint()).collect();
        fingerprints.sort_unstable();
        fingerprints.dedup();
        fingerprints
    }

    /// What programs are told of it; `reproduction` is the command that repeats it.
    pub fn report<'a>(&'a self, reproduction: &'a str) -> Report<'a> {
        Report { verdict: self, fingerprint: self.fingerprint(), reproduction }
    }

    /// The command that repeats this run, if its plan is the one that the seed gives.
    pub fn reproduction(&self) -> String {
        let engine = self.engine.argument();
        format!("cargo run --release -- run{engine} --scenario {} --seed {}", self.scenario, self.seed)
    }
}

impl fmt::Display for Conclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conclusion_has_the_same_name_in_json_and_in_words() {
        for conclusion in Conclusion::ALL {
            assert_eq!(serde_json::to_value(conclusion).unwrap(), conclusion.name());
        }
    }

    #[test]
    fn a_death_is_a_finding_with_a_line_that_repeats_it() {
        for conclusion in [Conclusion::Hung, Conclusion::Crashed, Conclusion::OutOfMemory] {
            let verdict = Verdict::dead(Scenario::Swarm, 17, conclusion, "how".into());
            assert!(!verdict.passed());
            assert_eq!(verdict.fingerprint().as_deref(), Some(conclusion.name()));
            let reproduction = verdict.reproduction();
            assert_eq!(reproduction, "cargo run --release -- run --scenario swarm --seed 17");
            let report: serde_json::Value =
                serde_json::from_str(&verdict.report(&reproduction).to_json()).expect("it is JSON");
            assert_eq!((&report["verdict"], &report["death"]), (&conclusion.name().into(), &"how".into()));
            assert_eq!(report["reproduction"], reproduction);
        }
    }
}
