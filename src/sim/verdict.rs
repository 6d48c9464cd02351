//! The verdict on a run: how it ended, and what was counted on the way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, IntoStaticStr};

use super::plan::{Plan, Scenario};
use squall_judge::{Pending, SimTime, Violation};
use squall_netsim::EngineName;

/// The first part of the fingerprint of a run that did not converge.
pub const STUCK: &str = "stuck";

/// The verdict on a run. Serialises to one JSON object, of the same form for every engine.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// The seed of the plan.
    pub seed: u64,
    /// The scenario of the plan.
    pub scenario: String,
    /// The engine that ran it.
    pub engine: EngineName,
    /// The way in which the run ended.
    pub verdict: Conclusion,
    /// The first violation.
    pub violation: Option<Finding>,
    /// Everything that had not converged when the calm bound was over.
    pub pending: Vec<Pending>,
    /// The message of a panic.
    pub panic: Option<String>,
    /// The end of the run's process in words, if the process ended before it printed a verdict.
    pub death: Option<String>,
    /// A hash over all observations. The same plan gives the same hash in any process.
    pub trace_hash: String,
    /// Simulated time, in milliseconds.
    pub simulated_ms: u64,
    /// Real time, in milliseconds.
    pub wall_ms: u64,
    /// Simulated machines.
    pub hosts: usize,
    /// Faults of the plan, by family.
    pub faults_planned: BTreeMap<&'static str, usize>,
    /// Faults that took effect.
    pub faults: usize,
    /// Faults that had nothing to disturb, such as a connection to cut that was not open.
    pub faults_idle: usize,
    /// Faults that the engine cannot inject.
    pub faults_skipped: usize,
    /// Faults that took effect, by family.
    pub faults_by_family: BTreeMap<&'static str, usize>,
    /// Lines that the client ends of connections read.
    pub commands: u64,
    /// Rows committed to the database.
    pub rows_committed: u64,
    /// Rows applied, over all followers.
    pub rows_applied: u64,
    /// Number of times that each rare situation was reached.
    pub marks: BTreeMap<&'static str, u64>,
    /// Number of checks that each invariant made.
    pub exercised: BTreeMap<&'static str, u64>,
}

/// The ways in which a run ends.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Display, EnumIter, IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Conclusion {
    /// No invariant was violated, and everything converged.
    Passed,
    /// An invariant was violated.
    Violated,
    /// No invariant was violated, but something had not converged within the calm bound.
    Stuck,
    /// Squall itself has a bug: the run panicked.
    Panicked,
    /// The run's process printed no verdict within the time limit, and was killed.
    Hung,
    /// The run's process ended before it printed a verdict: an abort, a signal, a stack overflow.
    Crashed,
    /// The run's process exceeded the memory limit, and was killed.
    OutOfMemory,
}

impl Conclusion {
    /// Returns the conclusion's name, as in JSON.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// A violation, with the time at which it was found.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The invariant.
    pub invariant: &'static str,
    /// An identifier that all violations of the same kind share.
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
    /// Returns the first of `violations`.
    pub fn first_of(violations: &[(SimTime, Violation)]) -> Option<Finding> {
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

/// A verdict as it is printed for programs: with its fingerprint, and the command that repeats the run.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    #[serde(flatten)]
    verdict: &'a Verdict,
    /// The failure's fingerprint; none if the run passed.
    fingerprint: Option<String>,
    /// The command that repeats the run.
    reproduction: &'a str,
}

impl Report<'_> {
    /// Returns the report as one JSON object on one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a verdict is plain data")
    }
}

impl Verdict {
    /// Returns the verdict on a run of `plan` that ended in the way of `verdict`, with all counts of the run at zero.
    pub fn new(plan: &Plan, verdict: Conclusion) -> Self {
        let mut faults_planned = BTreeMap::new();
        for entry in &plan.faults {
            *faults_planned.entry(entry.fault.family().name()).or_default() += 1;
        }
        let hosts = plan.topology.hosts().count();
        Verdict { hosts, faults_planned, ..Verdict::unknown(plan.scenario, plan.seed, verdict) }
    }

    /// Returns the verdict on a run whose process ended before it printed one. `death` describes that end in words.
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
            faults_planned: BTreeMap::new(),
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

    /// Returns true if no invariant was violated and everything converged.
    pub fn passed(&self) -> bool {
        self.verdict == Conclusion::Passed
    }

    /// Returns the fingerprint of the run's failure, the same for all failures of one kind; none if the run passed.
    pub fn fingerprint(&self) -> Option<String> {
        match self.verdict {
            Conclusion::Passed => None,
            Conclusion::Panicked => Some(format!("panicked/{}", self.panic.as_deref().unwrap_or_default())),
            Conclusion::Violated => self.violation.as_ref().map(|finding| finding.fingerprint.clone()),
            Conclusion::Stuck => {
                let stream = self.pending.first().map_or("unknown", |pending| pending.follower.stream.as_str());
                Some(format!("{STUCK}/{stream}"))
            }
            // The details differ from machine to machine, and from one attempt to the next.
            Conclusion::Hung | Conclusion::Crashed | Conclusion::OutOfMemory => Some(self.verdict.name().to_owned()),
        }
    }

    /// Returns every fingerprint of the run's failure, sorted: of each violation, of each stream that had not converged,
    /// and of a panic.
    pub fn fingerprints(&self) -> Vec<String> {
        let violated = self.violation.iter().flat_map(|finding| finding.fingerprints.iter().cloned());
        let stuck = self.pending.iter().map(|pending| format!("{STUCK}/{}", pending.follower.stream));
        let mut fingerprints: Vec<String> = violated.chain(stuck).chain(self.fingerprint()).collect();
        fingerprints.sort_unstable();
        fingerprints.dedup();
        fingerprints
    }

    /// Returns the verdict as it is printed for programs. `reproduction` is the command that repeats the run.
    pub fn report<'a>(&'a self, reproduction: &'a str) -> Report<'a> {
        Report { verdict: self, fingerprint: self.fingerprint(), reproduction }
    }

    /// Returns the command that repeats this run. The run's plan must be the one that its seed gives.
    pub fn reproduction(&self) -> String {
        format!("{} --scenario {} --seed {}", cargo_run(self.engine), self.scenario, self.seed)
    }
}

/// Returns the command that builds Squall with this engine.
pub fn cargo(engine: EngineName) -> String {
    let features = if engine == EngineName::default() { String::new() } else { format!(" -F {engine}") };
    format!("cargo run --release{features}")
}

/// Returns the command that runs a plan on this engine, without the arguments that name the plan.
pub fn cargo_run(engine: EngineName) -> String {
    let argument = if engine == EngineName::default() { String::new() } else { format!(" --engine {engine}") };
    format!("{} -- run{argument}", cargo(engine))
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn a_conclusion_has_the_same_name_in_json_and_in_words() {
        for conclusion in Conclusion::iter() {
            assert_eq!(serde_json::to_value(conclusion).unwrap(), conclusion.name());
            assert_eq!(conclusion.to_string(), conclusion.name());
        }
    }

    #[test]
    fn only_the_engine_that_is_not_the_default_is_named() {
        let commands = EngineName::ALL.map(cargo_run);
        let turmoil = "cargo run --release -F turmoil -- run --engine turmoil";
        assert_eq!(commands, ["cargo run --release -- run", turmoil]);
    }

    #[test]
    fn a_process_that_ended_early_is_a_finding_with_a_command_that_repeats_it() {
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
