//! A position begins where the last row or position of its writer ended.
//!
//! `RDATA` does not name the token before it. A follower can only notice an unsent row by the writer's next position: its
//! first token is beyond the last token received. A writer drops the rows that it could not send while its connection was
//! cut, and continues after them. A writer may not even notice that its outgoing connection is broken.
//!
//! No false alarm: writers of one stream share its tokens, so a token that any writer sent is accounted for, and so is a
//! token that a writer may have sent before its first payload here. A token may still be on its way, so nothing is found
//! before it can come no more (`settled`). A restarted writer of a stream in memory begins with its own run of tokens, and
//! skips none of those in between. A token that remains was sent by no instance: its row is missing, or its transaction
//! failed. The traffic cannot show which. Each writer of a stream may skip the same tokens; a token is reported once.
//!
//! Class: load. A follower notices such a position and fetches the rows, late and by a query of its own. It is a habit of
//! a process that has just connected (`Connections`): Synapse drops what it writes while it stops or starts, and its first
//! position makes every follower fetch that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;

use crate::audit::bounds::Bound;
use crate::audit::class::Class;
use crate::audit::connections::Shown;
use crate::audit::finding::{Findings, RuleViolation};
use crate::audit::origin::Origin;
use crate::audit::payload::{ParsedPayload, RowHead};
use crate::audit::rule::Rule;
use crate::audit::settled::PassedAt;
use crate::due::run_of;
use crate::observation::SimTime;
use crate::violation::{LISTED_MAX, list_first};
use squall_protocol::{Command, InstanceName, Position, StreamName, Token};

/// Number of tokens of a stream that are remembered.
const TOKENS_MAX: usize = 10_000;

/// Number of positions that wait to be judged. More than so many within a second are not judged.
const UNSETTLED_MAX: usize = 10_000;

/// A violation of this rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error, IntoStaticStr, VariantNames)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum Violation {
    /// A position begins beyond the last row or position of its writer, and no instance sent the tokens in between.
    #[error(
        "{origin}: jumped from {from} to {prev}, but no instance sent {}; followers now fetch the rows, unless their \
         transactions failed",
        list_first(tokens, *count)
    )]
    Skipped {
        #[serde(flatten)]
        origin: Origin,
        from: Token,
        prev: Token,
        /// The first of the tokens.
        tokens: Vec<Token>,
        /// The number of all of them.
        count: u64,
        /// True if the writer has just connected.
        just_connected: bool,
    },
}

impl RuleViolation for Violation {
    fn class(&self) -> Class {
        match self {
            Violation::Skipped { just_connected: true, .. } => Class::Habit,
            Violation::Skipped { .. } => Class::Load,
        }
    }

    fn origin(&self) -> Option<&Origin> {
        let Violation::Skipped { origin, .. } = self;
        Some(origin)
    }
}

/// Checks the beginning of every position.
#[derive(Debug, Default)]
pub(super) struct PositionsMeet {
    /// The last token of each writer.
    positions: BTreeMap<Origin, Token>,
    sent: BTreeMap<StreamName, Sent>,
    unsettled: VecDeque<Gap>,
    /// Number of payloads so far.
    payloads: u64,
    judged: u64,
    /// Number of positions that were not judged, because too many waited.
    unjudged: u64,
}

/// The tokens of a stream under which any instance sent rows.
#[derive(Debug, Default)]
struct Sent {
    tokens: BTreeSet<Token>,
    /// The token up to which sent tokens are forgotten.
    forgotten_upto: Option<Token>,
}

/// A position that begins beyond the last token of its writer. The tokens in between may still come.
#[derive(Debug)]
struct Gap {
    since: PassedAt,
    line: u64,
    origin: Origin,
    from: Token,
    prev: Token,
    /// True if the position is an answer to the last REPLICATEs.
    is_answer: bool,
    /// True if the writer has just connected.
    just_connected: bool,
}

impl Sent {
    fn forget(&mut self, upto: Token) {
        self.forgotten_upto = self.forgotten_upto.max(Some(upto));
    }

    fn add(&mut self, token: Token) {
        self.tokens.insert(token);
        while self.tokens.len() > TOKENS_MAX {
            self.forgotten_upto = self.tokens.pop_first().max(self.forgotten_upto);
        }
    }

    /// Notes that the tokens in `(from, upto]` that no instance sent are reported, and need not be again.
    fn told(&mut self, from: Token, upto: Token) {
        if upto.0.abs_diff(from.0) > TOKENS_MAX as u64 {
            return self.forget(upto);
        }
        for token in from.0 + 1..=upto.0 {
            self.add(Token(token));
        }
    }

    /// Returns the number of tokens in `(from, upto]` that no instance sent, and the first of them.
    fn missing(&self, from: Token, upto: Token) -> (u64, Vec<Token>) {
        let from = self.forgotten_upto.map_or(from, |forgotten| forgotten.max(from));
        if from >= upto {
            return (0, Vec::new());
        }
        let range = self.tokens.range(from.next()..=upto);
        let count = upto.0.abs_diff(from.0) - range.clone().count() as u64;
        let listed = count.min(LISTED_MAX as u64) as usize;
        let unsent = (from.0 + 1..=upto.0).map(Token).filter(|token| !self.tokens.contains(token));
        (count, unsent.take(listed).collect())
    }
}

impl PositionsMeet {
    /// Moves the position of `origin` to `token`, and returns the position before.
    ///
    /// A writer may have sent more rows before its first payload here, so those are not missing.
    fn advance(&mut self, origin: Origin, token: Token) -> Option<Token> {
        let stream = origin.stream.clone();
        let before = self.positions.insert(origin, token);
        if before.is_none() {
            self.sent.entry(stream).or_default().forget(token);
        }
        before
    }

    /// Marks the gaps of a process that has just connected.
    fn mark_connected(&mut self, writer: &InstanceName) {
        let answers = self.unsettled.iter_mut().filter(|gap| gap.origin.writer == *writer && gap.is_answer);
        for gap in answers {
            gap.just_connected = true;
        }
    }

    /// Reports the gaps whose missing tokens can come no more; all gaps if the traffic `is_over`.
    fn settle(&mut self, now: Option<SimTime>, is_over: bool, findings: &mut Findings<Violation>) {
        let payloads = self.payloads;
        let settled = self.unsettled.iter().take_while(|gap| is_over || gap.since.is_settled(now, payloads)).count();
        for Gap { line, origin, from, prev, just_connected, .. } in self.unsettled.drain(..settled) {
            self.judged += 1;
            let sent = self.sent.entry(origin.stream.clone()).or_default();
            let (count, tokens) = sent.missing(from, prev);
            if count > 0 {
                sent.told(from, prev);
                findings.add(line, Violation::Skipped { origin, from, prev, tokens, count, just_connected });
            }
        }
    }
}

impl Rule for PositionsMeet {
    type Violation = Violation;

    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Violation>) {
        self.settle(payload.at, false, findings);
        self.payloads += 1;
        if let Some(RowHead { origin, token: Some(token) }) = payload.row() {
            let before = self.positions.get(&origin).copied().unwrap_or(token);
            self.advance(origin.clone(), token.max(before));
            self.sent.entry(origin.stream).or_default().add(token);
        }
        if let Ok(Command::Position(position)) = payload.command {
            let origin = Origin::from(position);
            let Position { prev, new, .. } = *position;
            let before = self.advance(origin.clone(), new);
            if origin.is_in_memory() && before.is_some_and(|before| new < before) {
                // From here on the same tokens mean other rows.
                self.sent.remove(&origin.stream);
            }
            let is_another_run = |before: Token| origin.is_in_memory() && run_of(prev) != run_of(before);
            match before.filter(|before| *before < prev && !is_another_run(*before)) {
                Some(_) if self.unsettled.len() >= UNSETTLED_MAX => self.unjudged += 1,
                Some(from) => {
                    let line = payload.line;
                    let since = PassedAt { at: payload.at, payloads: self.payloads };
                    let is_answer = payload.shown != Shown::Nothing;
                    let gap = Gap { since, line, origin, from, prev, is_answer, just_connected: false };
                    self.unsettled.push_back(gap);
                }
                None => self.judged += u64::from(before.is_some()),
            }
            if payload.just_connected {
                self.mark_connected(&position.writer);
            }
        }
        self.settle(payload.at, false, findings);
    }

    fn tick(&mut self, now: Option<SimTime>, findings: &mut Findings<Violation>) {
        self.settle(now, false, findings);
    }

    fn missed(&mut self, _now: Option<SimTime>) {
        self.positions.clear();
        self.sent.clear();
        self.unsettled.clear();
    }

    fn end(&mut self, at: Option<SimTime>, findings: &mut Findings<Violation>) {
        self.settle(at, true, findings);
    }

    fn judged(&self) -> u64 {
        self.judged
    }

    fn bounds(&self) -> Vec<Bound> {
        vec![Bound { things: "positions at once", max: UNSETTLED_MAX, unjudged: self.unjudged }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::settled::SETTLED_AFTER;
    use crate::audit::testing::{Traffic, found, found_at};

    #[test]
    fn a_position_beyond_the_sent_rows_is_found() {
        let payloads = [
            "POSITION receipts a 4 4",
            "POSITION receipts b 4 4",
            r#"RDATA receipts a 5 ["x"]"#,
            "POSITION receipts a 8 9",
            r#"RDATA receipts b 7 ["x"]"#,
        ];
        let payloads: Vec<_> = (0..).zip(payloads).collect();
        let found = found_at(PositionsMeet::default(), &payloads);
        let [finding] = &found[..] else { panic!("{found:?}") };
        let Violation::Skipped { from: Token(5), prev: Token(8), tokens, count: 2, .. } = &finding.violation else {
            panic!("{finding:?}");
        };
        assert_eq!((finding.line, &**tokens), (4, &[Token(6), Token(8)][..]));
    }

    #[test]
    fn positions_that_are_too_many_at_once_are_not_judged() {
        let mut traffic = Traffic::default();
        let mut rule = PositionsMeet::default();
        let mut findings = Findings::default();
        for number in 0..UNSETTLED_MAX as u64 + 10 {
            let position = format!("POSITION receipts a {} {}", 2 * number, 2 * number + 1);
            traffic.check(&mut rule, number, Some(SimTime(0)), &position, &mut findings);
        }
        assert_eq!((rule.unsettled.len(), rule.bounds()[0].unjudged), (UNSETTLED_MAX, 9));
    }

    /// Returns the lines and classes of the findings in these payloads.
    fn classes(payloads: &[&str]) -> Vec<(u64, Class)> {
        let payloads: Vec<_> = (0..).zip(payloads.iter().copied()).collect();
        let found = found_at(PositionsMeet::default(), &payloads);
        found.iter().map(|finding| (finding.line, finding.violation.class())).collect()
    }

    #[test]
    fn only_a_process_that_has_just_connected_skips_by_habit() {
        let before = ["POSITION receipts a 4 4", "POSITION receipts b 4 4"];
        let a6 = "POSITION receipts a 6 6";
        let b6 = "POSITION receipts b 6 6";
        let classes = |after: &[&str]| classes(&[&before, after].concat());
        assert_eq!(classes(&["REPLICATE", a6, a6]), [(4, Class::Habit)]);
        assert_eq!(classes(&["REPLICATE", a6, b6, b6]), [(4, Class::Load)], "another process connected");
        assert_eq!(classes(&[a6, a6]), [(3, Class::Load)], "none connected");
        let moved = "POSITION receipts a 6 7";
        assert_eq!(classes(&["REPLICATE", b6, b6, moved]), [(4, Class::Habit)]);
        assert_eq!(
            classes(&[moved, "REPLICATE", "POSITION receipts a 7 7", "POSITION receipts a 7 7"]),
            [(3, Class::Load)]
        );
    }

    #[test]
    fn a_token_that_several_writers_skip_is_reported_once() {
        let payloads = [
            "POSITION caches a 4 4",
            "POSITION caches b 4 4",
            "POSITION caches a 6 6",
            "POSITION caches b 6 6",
            "POSITION caches b 8 8",
        ];
        assert_eq!(found(PositionsMeet::default(), &payloads), [(3, "skipped"), (5, "skipped")]);
    }

    #[test]
    fn tokens_of_other_writers_are_accounted_for() {
        let payloads = [
            "POSITION caches a 4 4",
            r#"RDATA caches b 5 ["x"]"#,
            "POSITION caches a 6 6",
            r#"RDATA caches c 6 ["x"]"#,
            "POSITION caches d 90 90",
        ];
        assert_eq!(found(PositionsMeet::default(), &payloads), []);
    }

    #[test]
    fn rows_of_an_earlier_process_account_for_nothing() {
        let payloads = [
            r#"RDATA typing a 1 ["!r",[]]"#,
            r#"RDATA typing a 2 ["!r",[]]"#,
            "POSITION typing a 0 0",
            r#"RDATA typing a 1 ["!r",[]]"#,
            "POSITION typing a 2 2",
        ];
        assert_eq!(found(PositionsMeet::default(), &payloads), [(5, "skipped")]);
    }

    #[test]
    fn rows_that_a_writer_may_have_sent_before_its_first_payload_are_accounted_for() {
        let row = r#"RDATA events b 9 ["x"]"#;
        for first in ["POSITION events b 9 9", row] {
            let found_of = |last| found(PositionsMeet::default(), &["POSITION events a 5 5", first, last]);
            assert_eq!(found_of("POSITION events a 9 9"), []);
            assert_eq!(found_of("POSITION events a 10 10"), [(3, "skipped")]);
        }
    }

    #[test]
    fn a_restarted_writer_in_memory_skips_nothing() {
        let first = Token::beginning_of(1).0;
        let second = Token::beginning_of(2).0;
        let found_in = |stream: &str, prev: i64| {
            let payloads = [
                format!(r#"RDATA {stream} a {} ["!r",[]]"#, first + 26),
                format!("POSITION {stream} a {prev} {prev}"),
                format!(r#"RDATA {stream} a {} ["!r",[]]"#, prev + 1),
                format!("POSITION {stream} a {0} {0}", prev + 1),
            ];
            found(PositionsMeet::default(), &payloads.each_ref().map(String::as_str))
        };
        assert_eq!(found_in("typing", second), []);
        assert_eq!(found_in("typing", first + 28), [(2, "skipped")], "the same run");
        assert_eq!(found_in("receipts", second), [(2, "skipped")], "a stream in the database has one run");
        let skipped_before = [
            format!(r#"RDATA typing a {} ["!r",[]]"#, first + 26),
            format!("POSITION typing a {0} {0}", first + 28),
            format!("POSITION typing a {second} {second}"),
        ];
        let payloads = skipped_before.each_ref().map(String::as_str);
        assert_eq!(found(PositionsMeet::default(), &payloads), [(2, "skipped")]);
    }

    #[test]
    fn a_gap_is_found_while_the_traffic_goes_on() {
        let mut payloads = vec!["POSITION receipts a 4 4", "POSITION receipts a 6 6"];
        payloads.extend([r#"RDATA receipts a 7 ["x"]"#; 2 * SETTLED_AFTER as usize]);
        let found_by = |ms_apart: Option<u64>| {
            let mut traffic = Traffic::default();
            let mut rule = PositionsMeet::default();
            let mut findings = Findings::default();
            for (ordinal, text) in (0..).zip(&payloads) {
                let at = ms_apart.map(|ms| SimTime(ordinal * ms));
                traffic.check(&mut rule, 1, at, text, &mut findings);
                if !findings.0.is_empty() {
                    return ordinal;
                }
            }
            panic!("not found");
        };
        // Without times; with many payloads in a second; with few.
        assert_eq!(found_by(None), 101);
        assert_eq!(found_by(Some(8)), 126);
        assert_eq!(found_by(Some(1_000)), 6);
    }

    #[test]
    fn a_forgotten_token_is_not_missing() {
        let mut sent = Sent::default();
        for token in 1..=TOKENS_MAX as i64 + 5 {
            sent.add(Token(token));
        }
        assert_eq!(sent.missing(Token(0), Token(TOKENS_MAX as i64 + 6)), (1, vec![Token(TOKENS_MAX as i64 + 6)]));
    }
}
