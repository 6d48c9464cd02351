//! No row is passed over.
//!
//! A row that is published on a breaking connection to the broker is lost, and `RDATA` does not name the token before it.
//! If the writer goes on with its next row, without a position in between, every follower passes over the lost row. Only
//! the numbers show it: the writers of a stream share its tokens, and no instance sent one of them.
//!
//! No false alarm: only those streams are judged of which every row is kept and sent, each under its own token; in other
//! streams a row may replace an older one. A token may still be on its way from another writer, so nothing is found before
//! every writer has passed it, and [`SETTLED_MS`] more without a writer that was not known. A writer that announces by a
//! position that there is nothing in between passes over nothing. A token that remains is a lost row, or its transaction
//! failed. The traffic cannot show which.
//!
//! Class: loss. No follower ever fetches the row.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;

use crate::audit::bounds::NAMES_LISTED_MAX;
use crate::audit::class::Class;
use crate::audit::finding::{Findings, RuleViolation};
use crate::audit::payload::ParsedPayload;
use crate::audit::rule::Rule;
use crate::observation::SimTime;
use crate::violation::{LISTED_MAX, list, list_first};
use squall_protocol::{Command, InstanceName, StreamName, Token};

/// Streams of which every row is kept and sent. `caches` is left out: it takes its tokens within transactions that are
/// retried.
const COMPLETE: [&str; 1] = ["events"];

/// Time for which a token that every known writer has passed may still come from a new writer, in milliseconds.
pub const SETTLED_MS: u64 = 5_000;

/// Number of tokens of a stream that are remembered.
const TOKENS_MAX: usize = 10_000;

/// A violation of this rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error, IntoStaticStr, VariantNames)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum Violation {
    /// Rows came, and no instance sent the tokens before them.
    #[error(
        "{stream}: no instance sent {}, although {} sent rows with higher tokens; those rows are lost, unless their \
         transactions failed",
        list_first(tokens, *count),
        list(writers)
    )]
    PassedOver {
        stream: StreamName,
        /// The first of the writers.
        writers: Vec<InstanceName>,
        /// The first of the tokens.
        tokens: Vec<Token>,
        /// The number of all of them.
        count: u64,
    },
}

impl RuleViolation for Violation {
    fn class(&self) -> Class {
        Class::Loss
    }

    fn stream(&self) -> Option<&StreamName> {
        let Violation::PassedOver { stream, .. } = self;
        Some(stream)
    }
}

/// Checks rows that do not follow immediately on the last token of their writer.
#[derive(Debug, Default)]
pub(super) struct RowsComplete {
    streams: BTreeMap<StreamName, Progress>,
    judged: u64,
}

/// The progress of a stream's writers.
#[derive(Debug, Default)]
struct Progress {
    /// The last token of each writer.
    positions: BTreeMap<InstanceName, Token>,
    /// The token up to which everything is settled, or was sent before the first payload.
    settled_upto: Option<Token>,
    /// Tokens beyond that which were sent.
    sent: BTreeSet<Token>,
    /// Tokens beyond that which were not sent yet, with the writers whose rows passed over them.
    passed: BTreeMap<Token, BTreeSet<InstanceName>>,
    /// Tokens that every writer has passed.
    missing: VecDeque<Missing>,
}

/// A token that every writer has passed and none has sent.
#[derive(Debug)]
struct Missing {
    /// The line that shows it.
    line: u64,
    at: Option<SimTime>,
    token: Token,
    /// The writers whose rows passed over it.
    writers: BTreeSet<InstanceName>,
}

impl Missing {
    /// Returns true if a new writer can no more be the one that sent it.
    fn is_certain(&self, now: Option<SimTime>) -> bool {
        self.at.zip(now).is_none_or(|(at, now)| now.ms_since(at) >= SETTLED_MS)
    }
}

impl Progress {
    /// Takes a row into account. Returns true if it could have passed over another one.
    fn row(&mut self, writer: &InstanceName, token: Token) -> bool {
        self.sent.insert(token);
        self.passed.remove(&token);
        let before = self.positions.get(writer).copied();
        self.advance(writer, before.map_or(token, |before| before.max(token)));
        let Some(from) = before.max(self.settled_upto).filter(|_| before.is_some()) else { return false };
        if from.0 >= token.0.saturating_sub(1) {
            return before < Some(token);
        }
        if token.0.abs_diff(from.0) > TOKENS_MAX as u64 {
            self.forget(token);
            return false;
        }
        for passed in (from.0 + 1..token.0).map(Token).filter(|passed| !self.sent.contains(passed)) {
            let writers = self.passed.entry(passed).or_default();
            if writers.len() < NAMES_LISTED_MAX {
                writers.insert(writer.clone());
            }
        }
        true
    }

    /// Takes a position into account.
    fn position(&mut self, writer: &InstanceName, prev: Token, new: Token) {
        // If the position begins beyond the last token, `positions_meet` reports the tokens in between.
        if let Some(from) = self.positions.get(writer).copied().filter(|from| *from < prev) {
            let skipped: Vec<_> = self.passed.range(from.next()..=prev).map(|(token, _)| *token).collect();
            for token in skipped {
                self.passed.remove(&token);
            }
        }
        self.advance(writer, new);
    }

    /// Moves the position of a writer.
    fn advance(&mut self, writer: &InstanceName, position: Token) {
        if self.positions.insert(writer.clone(), position).is_none() {
            // It may have sent all of these before its first payload here.
            self.forget(position);
            self.missing.clear();
        }
    }

    /// Forgets every token up to `upto`.
    fn forget(&mut self, upto: Token) {
        self.settled_upto = self.settled_upto.max(Some(upto));
        let is_beyond = |token: &Token| *token > upto;
        self.sent.retain(is_beyond);
        self.passed.retain(|token, _| is_beyond(token));
    }

    /// Declares missing the tokens that every writer has passed.
    fn settle(&mut self, line: u64, at: Option<SimTime>) {
        let Some(slowest) = self.positions.values().min().copied().filter(|min| Some(*min) > self.settled_upto) else {
            return;
        };
        let rest = self.passed.split_off(&Token(slowest.0.saturating_add(1)));
        for (token, writers) in std::mem::replace(&mut self.passed, rest) {
            self.missing.push_back(Missing { line, at, token, writers });
        }
        self.forget(slowest);
        // One writer may stand still while the others go on.
        while self.sent.len().max(self.passed.len()) > TOKENS_MAX {
            if let Some(first) = self.sent.first().copied().max(self.passed.keys().next().copied()) {
                self.forget(first);
            }
        }
        while self.missing.len() > TOKENS_MAX {
            self.missing.pop_front();
        }
    }
}

impl RowsComplete {
    /// Reports the missing tokens that no writer can send any more.
    fn report_certain(&mut self, now: Option<SimTime>, findings: &mut Findings<Violation>) {
        for (stream, progress) in &mut self.streams {
            let certain = progress.missing.iter().take_while(|missing| missing.is_certain(now)).count();
            // Tokens that were passed together are reported together.
            let mut groups: BTreeMap<u64, (Vec<Token>, BTreeSet<InstanceName>)> = BTreeMap::new();
            for missing in progress.missing.drain(..certain) {
                let (tokens, writers) = groups.entry(missing.line).or_default();
                tokens.push(missing.token);
                writers.extend(missing.writers);
                while writers.len() > NAMES_LISTED_MAX {
                    writers.pop_last();
                }
            }
            for (line, (mut tokens, writers)) in groups {
                let count = tokens.len() as u64;
                tokens.truncate(LISTED_MAX);
                let stream = stream.clone();
                let writers = writers.into_iter().collect();
                findings.add(line, Violation::PassedOver { stream, writers, tokens, count });
            }
        }
    }
}

impl Rule for RowsComplete {
    type Violation = Violation;

    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Violation>) {
        self.report_certain(payload.at, findings);
        let row = payload.row();
        let stream = match (&row, payload.command) {
            (Some(row), _) => &row.origin.stream,
            (None, Ok(Command::Position(position))) => &position.stream,
            _ => return,
        };
        if !COMPLETE.contains(&stream.as_str()) {
            return;
        }
        let progress = self.streams.entry(stream.clone()).or_default();
        match (&row, payload.command) {
            (Some(row), _) => {
                let Some(token) = row.token else { return };
                self.judged += u64::from(progress.row(&row.origin.writer, token));
            }
            (None, Ok(Command::Position(position))) => {
                progress.position(&position.writer, position.prev, position.new);
            }
            _ => {}
        }
        progress.settle(payload.line, payload.at);
    }

    fn tick(&mut self, now: Option<SimTime>, findings: &mut Findings<Violation>) {
        self.report_certain(now, findings);
    }

    fn missed(&mut self, _now: Option<SimTime>) {
        self.streams.clear();
    }

    fn end(&mut self, at: Option<SimTime>, findings: &mut Findings<Violation>) {
        self.report_certain(at, findings);
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::finding::Finding;
    use crate::audit::testing::{Traffic, found_at};

    /// Returns the tokens that are found to be passed over some time after these payloads, with the lines that show it.
    fn passed_over(payloads: &[&str]) -> Vec<(u64, Vec<i64>)> {
        let payloads = (0..).zip(payloads.iter().copied()).chain([(2 * SETTLED_MS, "PING 1")]);
        let payloads: Vec<_> = payloads.collect();
        let found = found_at(RowsComplete::default(), &payloads);
        let tokens = found.into_iter().map(|finding| {
            let Violation::PassedOver { tokens, .. } = finding.violation;
            (finding.line, tokens.into_iter().map(|token| token.0).collect())
        });
        tokens.collect()
    }

    #[test]
    fn a_finding_names_the_first_of_many_writers() {
        let writers = 0..3 * NAMES_LISTED_MAX;
        let positions = writers.clone().map(|number| format!("POSITION events w{number} 4 4"));
        let rows = writers.map(|number| format!(r#"RDATA events w{number} 9 ["x"]"#));
        let payloads: Vec<_> = positions.chain(rows).chain(["PING 1".to_owned()]).collect();
        let times = (0..payloads.len() as u64 - 1).chain([2 * SETTLED_MS]);
        let payloads: Vec<_> = times.zip(payloads.iter().map(String::as_str)).collect();
        let found = found_at(RowsComplete::default(), &payloads);
        let [Finding { violation: Violation::PassedOver { writers, count: 4, .. }, .. }] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(writers.len(), NAMES_LISTED_MAX);
    }

    const BOTH: [&str; 2] = ["POSITION events a 4 4", "POSITION events b 4 4"];
    const A5: &str = r#"RDATA events a 5 ["x"]"#;
    const A7: &str = r#"RDATA events a 7 ["x"]"#;
    const B6: &str = r#"RDATA events b 6 ["x"]"#;
    const B8: &str = r#"RDATA events b 8 ["x"]"#;

    #[test]
    fn a_row_that_no_instance_sent_is_found_when_every_writer_has_passed_it() {
        let payloads = [BOTH[0], BOTH[1], A5, A7];
        assert!(passed_over(&payloads).is_empty(), "it may still be on its way");
        assert_eq!(passed_over(&[&payloads[..], &[B8]].concat()), [(5, vec![6])]);
        assert_eq!(passed_over(&[&payloads[..], &["POSITION events b 4 7"]].concat()), [(5, vec![6])]);
        let alone = [r#"RDATA events a 4 ["x"]"#, A7];
        assert_eq!(passed_over(&alone), [(2, vec![5, 6])]);
    }

    #[test]
    fn a_row_that_any_writer_sends_late_is_not_passed_over() {
        assert!(passed_over(&[BOTH[0], BOTH[1], A5, B6, A7, B8]).is_empty());
        assert!(passed_over(&[BOTH[0], BOTH[1], A5, A7, B6, B8]).is_empty());
        assert!(passed_over(&[BOTH[0], BOTH[1], B6, B8, A5, A7]).is_empty());
    }

    #[test]
    fn a_position_accounts_for_the_tokens_before_it() {
        assert!(passed_over(&[BOTH[0], A5, "POSITION events a 5 6", A7]).is_empty());
        assert!(passed_over(&[BOTH[0], A5, "POSITION events a 6 6", A7]).is_empty());
    }

    #[test]
    fn rows_from_before_the_recording_are_not_missed() {
        assert!(passed_over(&[A7, B8]).is_empty());
        assert!(passed_over(&[A5, A7, "POSITION events b 6 6"]).is_empty(), "another writer, which may have sent it");
        assert_eq!(
            passed_over(&[A5, B6, B8, A7, r#"RDATA events a 10 ["x"]"#, "POSITION events b 8 10"]),
            [(6, vec![9])]
        );
    }

    #[test]
    fn streams_whose_rows_replace_each_other_are_not_judged() {
        let payloads = ["POSITION receipts a 4 4", r#"RDATA receipts a 9 ["x"]"#];
        assert!(passed_over(&payloads).is_empty());
    }

    #[test]
    fn a_missing_row_is_found_as_time_passes_and_once() {
        let mut traffic = Traffic::default();
        let mut rule = RowsComplete::default();
        let mut findings = Findings::default();
        for (line, text) in (1..).zip([BOTH[0], A5, A7]) {
            traffic.check(&mut rule, line, Some(SimTime(0)), text, &mut findings);
        }
        let mut found_by = |ms| {
            rule.tick(Some(SimTime(ms)), &mut findings);
            findings.0.len()
        };
        assert_eq!((found_by(SETTLED_MS - 1), found_by(SETTLED_MS), found_by(90_000)), (0, 1, 1));
    }
}
