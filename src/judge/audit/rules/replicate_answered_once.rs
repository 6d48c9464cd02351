//! A REPLICATE is answered, and once.
//!
//! Whoever says REPLICATE takes no rows of a writer before that writer's position has come, so a writer that does not
//! answer is not heard by it. And every answer is read by everybody: in Synapse a process that connects announces its
//! positions, hears its own REPLICATE come back and announces them again.
//!
//! No false alarm: who has fallen silent is only told after [`ANSWER_WITHIN_MS`]. There may be as many answers as
//! questions, also to those that were asked before anybody listened. A position that comes again after anything else was
//! heard of the same writer and stream is news; and some writers, Squall's among them, say theirs again unasked, every few
//! seconds. Of those nobody can tell what is an answer, so a second one is not found before [`UNASKED_WITHIN_MS`], in
//! which they give themselves away.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Rule;
use crate::judge::audit::{Finding, Findings, Heard, Origin, Violation};
use crate::judge::observation::Moment;
use crate::protocol::{Command, InstanceName, Position, Token};

/// How long an answer may take.
pub const ANSWER_WITHIN_MS: u64 = 30_000;

/// How often, at least, a writer says its positions that says them unasked.
pub const UNASKED_WITHIN_MS: u64 = 7_000;

/// What comes so long after what it repeats is not a second answer.
const TOGETHER_MS: u64 = 2_000;

/// Questions that come so long after each other have answers of their own.
const APART_MS: u64 = 5_000;

/// Judges the positions that come after a REPLICATE.
#[derive(Debug, Default)]
pub struct ReplicateAnsweredOnce {
    known: BTreeSet<Origin>,
    answers: BTreeMap<Origin, Answers>,
    asked: Option<Question>,
    /// How many REPLICATEs there were, when the last one came, and how many of them are answered by all who will.
    questions: u64,
    last_asked: Option<Moment>,
    settled: u64,
    /// Since when every question was heard.
    listening_since: Option<Moment>,
    /// Who says positions unasked.
    unasked: BTreeSet<InstanceName>,
    /// Second answers, if their writers do not.
    second: VecDeque<(Moment, InstanceName, Finding)>,
    judged: u64,
}

#[derive(Debug)]
struct Question {
    line: u64,
    at: Moment,
    unanswered: BTreeSet<Origin>,
}

/// What a writer answered.
#[derive(Debug, Default)]
struct Answers {
    /// To how many questions.
    given: u64,
    /// The last position, with its line and time, if that was the last that was heard of it.
    said: Option<(Token, u64, Option<Moment>)>,
}

impl ReplicateAnsweredOnce {
    fn asked(&mut self, heard: &Heard<'_>) {
        let are_together = self.last_asked.zip(heard.at).is_some_and(|(before, at)| at.ms_since(before) < APART_MS);
        if !are_together {
            self.settled = self.questions;
        }
        self.questions += 1;
        self.last_asked = heard.at;
        self.asked = heard.at.map(|at| Question { line: heard.line, at, unanswered: self.known.clone() });
    }

    fn answered(&mut self, origin: &Origin) {
        if let Some(question) = &mut self.asked
            && question.unanswered.remove(origin)
        {
            self.judged += 1;
        }
    }

    fn positioned(&mut self, heard: &Heard<'_>, position: &Position, findings: &mut Findings) {
        let origin = Origin::from(position);
        self.answered(&origin);
        self.known.insert(origin.clone());
        let answers = self.answers.entry(origin.clone()).or_default();
        if position.prev != position.new {
            answers.said = None;
            return;
        }
        self.judged += 1;
        let before = answers.said.replace((position.new, heard.line, heard.at));
        let given = answers.given.max(self.settled);
        answers.given = self.questions.min(given + 1);
        let Some((said, first_on, then)) = before else { return };
        if given < self.questions || said != position.new {
            return;
        }
        let violation = Violation::Twice { origin, position: said, first_on };
        let Some((at, then)) = heard.at.zip(then) else { return findings.add(heard.line, violation) };
        let writer = position.writer.clone();
        if at.ms_since(then) >= TOGETHER_MS {
            self.second.retain(|(_, of, _)| *of != writer);
            self.unasked.insert(writer);
        } else if !self.unasked.contains(&writer) && self.heard_all_since(at) {
            self.second.push_back((at, writer, Finding { line: heard.line, violation }));
        }
    }

    /// Whether no question can have been missed that is still being answered at `at`.
    fn heard_all_since(&self, at: Moment) -> bool {
        self.listening_since.is_none_or(|since| at.ms_since(since) >= APART_MS)
    }

    fn overdue(&mut self, now: Option<Moment>, findings: &mut Findings) {
        let Some(now) = now else { return };
        let certain = self.second.iter().take_while(|(at, ..)| now.ms_since(*at) >= UNASKED_WITHIN_MS).count();
        for (_, _, Finding { line, violation }) in self.second.drain(..certain) {
            findings.add(line, violation);
        }
        let is_overdue = |question: &mut Question| now.ms_since(question.at) > ANSWER_WITHIN_MS;
        let Some(Question { line, unanswered, .. }) = self.asked.take_if(is_overdue) else { return };
        for origin in unanswered {
            self.judged += 1;
            // Until it is heard again, nobody expects anything of it.
            self.known.remove(&origin);
            findings.add(line, Violation::Unanswered { origin, waited_ms: ANSWER_WITHIN_MS });
        }
    }
}

impl Rule for ReplicateAnsweredOnce {
    fn name(&self) -> &'static str {
        "replicate_answered_once"
    }

    fn hear(&mut self, heard: &Heard<'_>, findings: &mut Findings) {
        self.listening_since = self.listening_since.or(heard.at);
        self.overdue(heard.at, findings);
        match heard.said {
            Ok(Command::Replicate) => self.asked(heard),
            Ok(Command::Rdata(rdata)) => {
                let origin = Origin::from(rdata);
                if let Some(answers) = self.answers.get_mut(&origin) {
                    answers.said = None;
                }
                self.known.insert(origin);
            }
            Ok(Command::Position(position)) => self.positioned(heard, position, findings),
            _ => {}
        }
    }

    fn tick(&mut self, now: Option<Moment>, findings: &mut Findings) {
        self.overdue(now, findings);
    }

    fn missed(&mut self, now: Option<Moment>) {
        self.known.clear();
        self.answers.clear();
        self.asked = None;
        self.settled = self.questions;
        self.second.clear();
        self.listening_since = now;
    }

    fn end(&mut self, at: Option<Moment>, findings: &mut Findings) {
        self.overdue(at, findings);
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::audit::testing::found_at;

    const START: u64 = APART_MS;

    /// The lines of second answers among these payloads, the first of which came long before the others.
    fn second(payloads: &[(u64, &str)]) -> Vec<u64> {
        let later = payloads.iter().map(|(ms, text)| (START + ms, *text));
        let payloads: Vec<_> = [(0, "PING 1")].into_iter().chain(later).chain([(90_000, "PING 2")]).collect();
        let found = found_at(ReplicateAnsweredOnce::default(), &payloads);
        found.iter().filter(|finding| finding.violation.kind() == "twice").map(|finding| finding.line).collect()
    }

    #[test]
    fn a_position_that_is_said_again_is_found() {
        let payloads = [
            (0, "REPLICATE"),
            (1, "POSITION events a 5 5"),
            (2, "POSITION events b 5 5"),
            (3, "POSITION events a 5 5"),
            (9_000, "POSITION events c 5 5"),
        ];
        assert_eq!(second(&payloads), [5]);
    }

    #[test]
    fn each_question_has_an_answer_of_its_own_and_so_has_whatever_happens() {
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
        assert!(second(&payloads).is_empty());
    }

    #[test]
    fn questions_that_come_together_may_be_answered_together() {
        let payloads = [(0, "REPLICATE"), (1, "REPLICATE"), (2, "POSITION events a 5 5"), (3, "POSITION events a 5 5")];
        assert!(second(&payloads).is_empty());
        assert_eq!(second(&[&payloads[..], &[(4, "POSITION events a 5 5")]].concat()), [6]);
        // Others need not.
        let apart = [(0, "REPLICATE"), (9_000, "REPLICATE"), (9_001, payloads[2].1), (9_002, payloads[2].1)];
        assert_eq!(second(&apart), [5]);
    }

    #[test]
    fn who_says_its_positions_unasked_may_do_so_just_after_an_answer() {
        let mut payloads = vec![(0, "REPLICATE"), (1, "POSITION events a 5 5"), (900, "POSITION events a 5 5")];
        assert_eq!(second(&payloads), [4]);
        payloads.push((5_900, "POSITION events a 5 5"));
        assert!(second(&payloads).is_empty());
        payloads.extend([(6_000, "REPLICATE"), (6_001, "POSITION caches a 5 5"), (6_002, "POSITION caches a 5 5")]);
        assert!(second(&payloads).is_empty());
    }

    #[test]
    fn what_answers_questions_that_nobody_heard_is_not_found() {
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
        let found = found_at(ReplicateAnsweredOnce::default(), &payloads);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            (finding.line, finding.violation.fingerprint()),
            (3, "replicate_answered_once/events/unanswered".into())
        );
    }

    #[test]
    fn a_recording_that_ends_before_the_answer_proves_nothing() {
        let payloads = [(0, r#"RDATA events a 5 ["x"]"#), (1_000, "REPLICATE"), (5_000, "PING 1")];
        assert_eq!(found_at(ReplicateAnsweredOnce::default(), &payloads), []);
    }
}
