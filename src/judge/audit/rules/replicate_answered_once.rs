//! A REPLICATE is answered, and once.
//!
//! Whoever says REPLICATE takes no rows of a writer before that writer's position has come, so a writer that does not
//! answer is not heard by it. And every answer is read by everybody: in Synapse a process that connects announces its
//! positions, hears its own REPLICATE come back and announces them again.
//!
//! No false alarm: one answer may be to several questions. A position that comes again after anything else was heard of
//! the same writer and stream is news, and who has fallen silent is only told after [`ANSWER_WITHIN_MS`].

use std::collections::{BTreeMap, BTreeSet};

use super::Rule;
use crate::judge::audit::{Findings, Heard, Origin, Violation};
use crate::judge::observation::Moment;
use crate::protocol::{Command, Token};

/// How long an answer may take.
pub const ANSWER_WITHIN_MS: u64 = 30_000;

/// Judges the positions that come after a REPLICATE.
#[derive(Debug, Default)]
pub struct ReplicateAnsweredOnce {
    known: BTreeSet<Origin>,
    /// The last answer of each writer, if that was the last that was heard of it: the position, and its line.
    answers: BTreeMap<Origin, (Token, u64)>,
    asked: Option<Question>,
    judged: u64,
}

#[derive(Debug)]
struct Question {
    line: u64,
    at: Moment,
    unanswered: BTreeSet<Origin>,
}

impl ReplicateAnsweredOnce {
    fn asked(&mut self, heard: &Heard<'_>) {
        self.answers.clear();
        self.asked = heard.at.map(|at| Question { line: heard.line, at, unanswered: self.known.clone() });
    }

    fn answered(&mut self, origin: &Origin) {
        if let Some(question) = &mut self.asked
            && question.unanswered.remove(origin)
        {
            self.judged += 1;
        }
    }

    fn overdue(&mut self, now: Option<Moment>, findings: &mut Findings) {
        let is_overdue = |question: &mut Question| now.is_some_and(|now| now.ms_since(question.at) > ANSWER_WITHIN_MS);
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
        self.overdue(heard.at, findings);
        match heard.said {
            Ok(Command::Replicate) => self.asked(heard),
            Ok(Command::Rdata(rdata)) => {
                let origin = Origin::from(rdata);
                self.answers.remove(&origin);
                self.known.insert(origin);
            }
            Ok(Command::Position(position)) => {
                let origin = Origin::from(position);
                self.answered(&origin);
                self.known.insert(origin.clone());
                if position.prev != position.new {
                    self.answers.remove(&origin);
                    return;
                }
                self.judged += 1;
                match self.answers.get(&origin) {
                    Some((said, first_on)) if *said == position.new => {
                        let (position, first_on) = (position.new, *first_on);
                        findings.add(heard.line, Violation::Twice { origin, position, first_on });
                    }
                    _ => {
                        self.answers.insert(origin, (position.new, heard.line));
                    }
                }
            }
            _ => {}
        }
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
    use crate::judge::audit::testing::{found, found_at};

    #[test]
    fn a_position_that_is_said_again_is_found() {
        let payloads = ["REPLICATE", "POSITION events a 5 5", "POSITION events b 5 5", "POSITION events a 5 5"];
        assert_eq!(found(ReplicateAnsweredOnce::default(), &payloads), [(4, "twice")]);
    }

    #[test]
    fn each_question_has_an_answer_of_its_own_and_so_has_whatever_happens() {
        let payloads = [
            "REPLICATE",
            "POSITION events a 5 5",
            "REPLICATE",
            "POSITION events a 5 5",
            "POSITION events a 5 6",
            "POSITION events a 6 6",
            r#"RDATA events a 7 ["x"]"#,
            "POSITION events a 7 7",
        ];
        assert_eq!(found(ReplicateAnsweredOnce::default(), &payloads), []);
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
