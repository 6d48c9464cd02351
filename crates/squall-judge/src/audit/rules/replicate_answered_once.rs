//! A REPLICATE is answered, and once.
//!
//! An instance that sends REPLICATE applies no rows of a writer before that writer's position has come, so a writer that
//! does not answer is cut off from it. And every instance reads every answer: in Synapse a process that connects announces
//! its positions, receives its own REPLICATE and announces them again.
//!
//! No false alarm: a writer has failed to answer only after [`ANSWER_WITHIN_MS`]. There may be as many answers as
//! REPLICATEs, also to those sent before the recording began. A position that comes again after any other row or position
//! of the same writer and stream is not a repetition. Some writers, Squall's among them, announce their positions every few
//! seconds without a REPLICATE. Their answers look like heartbeats, so a second answer is reported only after
//! [`HEARTBEAT_WITHIN_MS`], in which such a writer sends its next heartbeat.
//!
//! Class: no answer is a loss, because rows of that writer are not applied. A second answer is load, because every instance
//! reads it. It is a habit if the process has just connected (`Connections`) and answers no more than twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;

use crate::audit::bounds::Bound;
use crate::audit::class::Class;
use crate::audit::connections::{AWAITED_MS, Shown};
use crate::audit::finding::{Finding, Findings, RuleViolation};
use crate::audit::origin::Origin;
use crate::audit::payload::ParsedPayload;
use crate::audit::rule::Rule;
use crate::observation::SimTime;
use squall_protocol::{Command, InstanceName, Position, Token};

/// Time that an answer may take, in milliseconds.
pub const ANSWER_WITHIN_MS: u64 = 30_000;

/// Longest time between two heartbeats of a writer that sends any, in milliseconds.
pub const HEARTBEAT_WITHIN_MS: u64 = 7_000;

/// Time after which a repeated position is a heartbeat and not a second answer, in milliseconds.
const TOGETHER_MS: u64 = 2_000;

/// Number of repeated positions that wait to be judged.
const REPEATED_MAX: usize = 10_000;

/// A violation of this rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error, IntoStaticStr, VariantNames)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum Violation {
    /// A writer sent the same position again, although it had answered every REPLICATE and nothing had changed.
    #[error("{origin}: position {position} was sent again, though nothing had changed since line {first_on}")]
    Twice {
        #[serde(flatten)]
        origin: Origin,
        position: Token,
        first_on: u64,
        /// True if the process has just connected, and has answered no more than twice.
        just_connected: bool,
    },
    /// A known writer did not answer a REPLICATE.
    #[error("{origin}: no position came within {waited_ms} ms of the REPLICATE")]
    Unanswered {
        #[serde(flatten)]
        origin: Origin,
        waited_ms: u64,
    },
}

impl RuleViolation for Violation {
    fn class(&self) -> Class {
        match self {
            Violation::Twice { just_connected: true, .. } => Class::Habit,
            Violation::Twice { .. } => Class::Load,
            Violation::Unanswered { .. } => Class::Loss,
        }
    }

    fn origin(&self) -> Option<&Origin> {
        match self {
            Violation::Twice { origin, .. } | Violation::Unanswered { origin, .. } => Some(origin),
        }
    }
}

/// Checks the positions that come after a REPLICATE.
#[derive(Debug, Default)]
pub(super) struct ReplicateAnsweredOnce {
    known: BTreeSet<Origin>,
    answers: BTreeMap<Origin, Answers>,
    /// The last REPLICATE, until its answers are due.
    pending: Option<Replicate>,
    /// Number of REPLICATEs so far.
    replicates: u64,
    /// Time of the last REPLICATE.
    last_replicate: Option<SimTime>,
    /// Number of REPLICATEs to which no more answers come.
    settled: u64,
    /// Writers that send heartbeats.
    with_heartbeats: BTreeSet<InstanceName>,
    /// Repeated positions of writers that have sent no heartbeat yet.
    repeated: VecDeque<(SimTime, InstanceName, Finding<Violation>)>,
    judged: u64,
    /// Number of repeated positions that were not judged, because too many waited.
    unjudged: u64,
}

/// A REPLICATE, and the writers that have not answered it yet.
#[derive(Debug)]
struct Replicate {
    line: u64,
    at: SimTime,
    unanswered: BTreeSet<Origin>,
}

/// The answers of a writer.
#[derive(Debug, Default)]
struct Answers {
    /// Number of REPLICATEs that it has answered.
    given: u64,
    /// The last position, with its line and time, if no row or other position came after it.
    last: Option<(Token, u64, Option<SimTime>)>,
}

impl ReplicateAnsweredOnce {
    fn replicate_came(&mut self, payload: &ParsedPayload<'_>) {
        let interval = self.last_replicate.zip(payload.at).map(|(before, at)| at.ms_since(before));
        if interval.is_none_or(|ms| ms >= AWAITED_MS) {
            self.settled = self.replicates;
        }
        self.replicates += 1;
        self.last_replicate = payload.at;
        self.pending = payload.at.map(|at| Replicate { line: payload.line, at, unanswered: self.known.clone() });
    }

    fn position_came(&mut self, payload: &ParsedPayload<'_>, position: &Position, findings: &mut Findings<Violation>) {
        let origin = Origin::from(position);
        if let Some(replicate) = &mut self.pending
            && replicate.unanswered.remove(&origin)
        {
            self.judged += 1;
        }
        self.known.insert(origin.clone());
        let answers = self.answers.entry(origin.clone()).or_default();
        if position.prev != position.new {
            answers.last = None;
            return;
        }
        self.judged += 1;
        let before = answers.last.replace((position.new, payload.line, payload.at));
        let given = answers.given.max(self.settled);
        answers.given = self.replicates.min(given + 1);
        let Some((last, first_on, then)) = before else { return };
        if given < self.replicates || last != position.new {
            return;
        }
        let just_connected = matches!(payload.shown, Shown::Connected { .. });
        let violation = Violation::Twice { origin, position: last, first_on, just_connected };
        let Some((at, then)) = payload.at.zip(then) else { return findings.add(payload.line, violation) };
        let writer = position.writer.clone();
        if at.ms_since(then) >= TOGETHER_MS {
            self.repeated.retain(|(_, of, _)| *of != writer);
            self.with_heartbeats.insert(writer);
        } else if !self.with_heartbeats.contains(&writer) && has_every_replicate(payload, at) {
            if self.repeated.len() < REPEATED_MAX {
                self.repeated.push_back((at, writer, Finding { line: payload.line, violation }));
            } else {
                self.unjudged += 1;
            }
        }
    }

    /// Reports repeated positions and missing answers that have become certain.
    fn report_certain(&mut self, now: Option<SimTime>, findings: &mut Findings<Violation>) {
        let Some(now) = now else { return };
        let certain = self.repeated.iter().take_while(|(at, ..)| now.ms_since(*at) >= HEARTBEAT_WITHIN_MS).count();
        for (_, _, Finding { line, violation }) in self.repeated.drain(..certain) {
            findings.add(line, violation);
        }
        let is_overdue = |replicate: &mut Replicate| now.ms_since(replicate.at) > ANSWER_WITHIN_MS;
        let Some(Replicate { line, unanswered, .. }) = self.pending.take_if(is_overdue) else { return };
        for origin in unanswered {
            self.judged += 1;
            // No answer is expected of it before its next row or position.
            self.known.remove(&origin);
            findings.add(line, Violation::Unanswered { origin, waited_ms: ANSWER_WITHIN_MS });
        }
    }
}

/// Returns true if every REPLICATE was received that may still be answered at `at`, when the payload came.
fn has_every_replicate(payload: &ParsedPayload<'_>, at: SimTime) -> bool {
    payload.receiving_since.is_none_or(|since| at.ms_since(since) >= AWAITED_MS)
}

impl Rule for ReplicateAnsweredOnce {
    type Violation = Violation;

    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Violation>) {
        self.report_certain(payload.at, findings);
        match payload.command {
            Ok(Command::Replicate) => self.replicate_came(payload),
            Ok(Command::Rdata(rdata)) => {
                let origin = Origin::from(rdata);
                if let Some(answers) = self.answers.get_mut(&origin) {
                    answers.last = None;
                }
                self.known.insert(origin);
            }
            Ok(Command::Position(position)) => self.position_came(payload, position, findings),
            _ => {}
        }
    }

    fn tick(&mut self, now: Option<SimTime>, findings: &mut Findings<Violation>) {
        self.report_certain(now, findings);
    }

    fn missed(&mut self, _now: Option<SimTime>) {
        self.known.clear();
        self.answers.clear();
        self.pending = None;
        self.settled = self.replicates;
        self.repeated.clear();
    }

    fn end(&mut self, at: Option<SimTime>, findings: &mut Findings<Violation>) {
        self.report_certain(at, findings);
    }

    fn judged(&self) -> u64 {
        self.judged
    }

    fn bounds(&self) -> Vec<Bound> {
        vec![Bound { things: "repeated positions at once", max: REPEATED_MAX, unjudged: self.unjudged }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::finding::Kind;
    use crate::audit::testing::{Traffic, found_at, kinds};

    const START: u64 = AWAITED_MS;

    /// Returns the lines of repeated positions among these payloads. A payload comes long before them.
    fn repeated(payloads: &[(u64, &str)]) -> Vec<u64> {
        let later = payloads.iter().map(|(ms, text)| (START + ms, *text));
        let payloads: Vec<_> = [(0, "PING 1")].into_iter().chain(later).chain([(90_000, "PING 2")]).collect();
        let found = found_at(ReplicateAnsweredOnce::default(), &payloads);
        found.iter().filter(|finding| finding.violation.kind() == "twice").map(|finding| finding.line).collect()
    }

    #[test]
    fn a_position_that_is_sent_again_is_found() {
        let payloads = [
            (0, "REPLICATE"),
            (1, "POSITION events a 5 5"),
            (2, "POSITION events b 5 5"),
            (3, "POSITION events a 5 5"),
            (9_000, "POSITION events c 5 5"),
        ];
        assert_eq!(repeated(&payloads), [5]);
    }

    #[test]
    fn repeated_positions_that_are_too_many_at_once_are_not_judged() {
        let mut traffic = Traffic::default();
        let mut rule = ReplicateAnsweredOnce::default();
        let mut findings = Findings::default();
        traffic.check(&mut rule, 1, Some(SimTime(0)), "PING 1", &mut findings);
        for line in 0..=REPEATED_MAX as u64 + 10 {
            traffic.check(&mut rule, line, Some(SimTime(START)), "POSITION events a 5 5", &mut findings);
        }
        assert_eq!((rule.repeated.len(), rule.bounds()[0].unjudged), (REPEATED_MAX, 10));
    }

    #[test]
    fn a_second_answer_is_a_habit_of_the_process_that_has_just_connected() {
        let answers = |writers: &[&str]| -> Vec<(u64, Class)> {
            let lines = writers.iter().map(|writer| format!("POSITION events {writer} 5 5"));
            let lines: Vec<_> = lines.collect();
            let mut payloads = vec![(0, "PING 1"), (START, "REPLICATE")];
            payloads.extend((START + 1..).zip(lines.iter().map(String::as_str)));
            payloads.push((90_000, "PING 2"));
            let found = found_at(ReplicateAnsweredOnce::default(), &payloads);
            found.iter().map(|finding| (finding.line, finding.violation.class())).collect()
        };
        assert_eq!(answers(&["a", "b", "a"]), [(5, Class::Habit)]);
        assert_eq!(answers(&["a", "a", "a", "b", "b"]), [(4, Class::Habit), (5, Class::Load), (7, Class::Load)]);
    }

    #[test]
    fn each_replicate_and_each_change_has_its_own_position() {
        let payloads = [
            (0, "REPLICATE"),
            (1, "POSITION events a 5 5"),
            (2, "REPLICATE"),
            (3, "POSITION events a 5 5"),
            (4, "POSITION events a 5 6"),
            (5, "POSITION events a 6 6"),
            (6, r#"RDATA events a 7 ["x"]"#),
            (7, "POSITION events a 7 7"),
        ];
        assert!(repeated(&payloads).is_empty());
    }

    #[test]
    fn replicates_that_come_together_may_be_answered_together() {
        let payloads = [(0, "REPLICATE"), (1, "REPLICATE"), (2, "POSITION events a 5 5"), (3, "POSITION events a 5 5")];
        assert!(repeated(&payloads).is_empty());
        assert_eq!(repeated(&[&payloads[..], &[(4, "POSITION events a 5 5")]].concat()), [6]);
        // REPLICATEs that come apart have one answer each.
        let apart = [(0, "REPLICATE"), (9_000, "REPLICATE"), (9_001, payloads[2].1), (9_002, payloads[2].1)];
        assert_eq!(repeated(&apart), [5]);
    }

    #[test]
    fn a_heartbeat_may_come_just_after_an_answer() {
        let mut payloads = vec![(0, "REPLICATE"), (1, "POSITION events a 5 5"), (900, "POSITION events a 5 5")];
        assert_eq!(repeated(&payloads), [4]);
        payloads.push((5_900, "POSITION events a 5 5"));
        assert!(repeated(&payloads).is_empty());
        payloads.extend([(6_000, "REPLICATE"), (6_001, "POSITION caches a 5 5"), (6_002, "POSITION caches a 5 5")]);
        assert!(repeated(&payloads).is_empty());
    }

    #[test]
    fn an_answer_to_a_replicate_before_the_recording_is_not_found() {
        let payloads = [(0, "POSITION events a 5 5"), (1, "POSITION events a 5 5"), (9_000, "PING 1")];
        assert_eq!(found_at(ReplicateAnsweredOnce::default(), &payloads), []);
    }

    #[test]
    fn a_writer_that_does_not_answer_is_found_once() {
        let payloads = [
            (0, r#"RDATA events a 5 ["x"]"#),
            (0, r#"RDATA events b 6 ["x"]"#),
            (1_000, "REPLICATE"),
            (2_000, "POSITION events b 6 6"),
            (31_000, "PING 1"),
            (31_001, "PING 1"),
            (40_000, "REPLICATE"),
            (41_000, "POSITION events b 6 6"),
            (80_000, "PING 1"),
        ];
        assert_eq!(kinds(&found_at(ReplicateAnsweredOnce::default(), &payloads)), [(3, "unanswered")]);
    }

    #[test]
    fn a_recording_that_ends_before_the_answer_proves_nothing() {
        let payloads = [(0, r#"RDATA events a 5 ["x"]"#), (1_000, "REPLICATE"), (5_000, "PING 1")];
        assert_eq!(found_at(ReplicateAnsweredOnce::default(), &payloads), []);
    }
}
