//! A writer announces its own rows.
//!
//! The writers of one stream share its tokens, so the position of an idle writer falls behind those of the others. In
//! Synapse it follows them: for each row of another writer it sends a `POSITION` of its own (Synapse #8499, left out for
//! `caches` since #16557). Every process reads that echo, and only the other writer has a use for it. With `n` writers one
//! row causes `n - 1` echoes.
//!
//! No false alarm: a position that moves over a token that is unknown, or the writer's own, is not an echo. An idle writer
//! must announce its position now and then, so a writer with at most [`ECHOES_MAX`] echoes of one stream within
//! [`WINDOW_MS`] is not reported; Squall needs half of that. Once a writer exceeds it, all its echoes are reported.
//!
//! Class: habit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;

use crate::audit::class::Class;
use crate::audit::finding::{Finding, Findings, RuleViolation};
use crate::audit::origin::Origin;
use crate::audit::payload::ParsedPayload;
use crate::audit::rule::Rule;
use crate::observation::SimTime;
use crate::violation::list;
use squall_protocol::{Command, InstanceName, Position, StreamName, Token};

/// Number of tokens of a stream that are remembered.
const TOKENS_MAX: usize = 10_000;

/// Length of the window in which echoes are counted, in milliseconds.
pub const WINDOW_MS: u64 = 10_000;

/// Number of echoes of one writer and stream that are tolerated within the window.
pub const ECHOES_MAX: usize = 20;

/// Number of echoes of a writer that are remembered while they are still tolerated.
const REMEMBERED_MAX: usize = 2_000;

/// A violation of this rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error, IntoStaticStr, VariantNames)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum Violation {
    /// A position moves over tokens that are all rows of other writers.
    #[error("{origin}: POSITION {prev} {new} covers only rows of {}", list(others))]
    OfOthers {
        #[serde(flatten)]
        origin: Origin,
        prev: Token,
        new: Token,
        others: Vec<InstanceName>,
    },
}

impl RuleViolation for Violation {
    fn kind(&self) -> &'static str {
        self.into()
    }

    fn class(&self) -> Class {
        Class::Habit
    }

    fn origin(&self) -> Option<&Origin> {
        let Violation::OfOthers { origin, .. } = self;
        Some(origin)
    }
}

/// Checks every position that moves.
#[derive(Debug, Default)]
pub(super) struct AnnouncementsAreOwn {
    rows: BTreeMap<StreamName, BTreeMap<Token, InstanceName>>,
    echoes: BTreeMap<InstanceName, Echoes>,
    judged: u64,
}

/// The echoes of one writer.
#[derive(Debug, Default)]
struct Echoes {
    /// Echoes that are still tolerated, with their times.
    tolerated: VecDeque<(SimTime, Finding<Violation>)>,
    /// True if there were once more than are tolerated.
    is_reported: bool,
}

impl Echoes {
    fn add(
        &mut self,
        at: Option<SimTime>,
        stream: &StreamName,
        echo: Finding<Violation>,
        findings: &mut Findings<Violation>,
    ) {
        let Some(at) = at.filter(|_| !self.is_reported) else {
            return findings.add(echo.line, echo.violation);
        };
        self.tolerated.push_back((at, echo));
        let recent = self.tolerated.iter().rev().take_while(|(then, _)| at.ms_since(*then) < WINDOW_MS);
        let of_stream = recent.filter(|(_, echo)| echo.violation.stream() == Some(stream));
        if of_stream.count() > ECHOES_MAX {
            self.is_reported = true;
            for (_, Finding { line, violation }) in self.tolerated.drain(..) {
                findings.add(line, violation);
            }
        } else if self.tolerated.len() > REMEMBERED_MAX {
            self.tolerated.pop_front();
        }
    }
}

impl AnnouncementsAreOwn {
    /// Returns the writers of the tokens that a position moves over, if all those tokens are known.
    fn writers(&self, position: &Position) -> Option<BTreeSet<&InstanceName>> {
        let span = usize::try_from(position.new.0.checked_sub(position.prev.0)?).ok()?;
        let rows = self.rows.get(&position.stream)?.range(position.prev.next()..=position.new);
        let writers: Vec<_> = rows.map(|(_, writer)| writer).collect();
        (writers.len() == span).then(|| writers.into_iter().collect())
    }
}

impl Rule for AnnouncementsAreOwn {
    type Violation = Violation;

    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Violation>) {
        match payload.command {
            Ok(Command::Rdata(rdata)) => {
                let Some(token) = rdata.token else { return };
                let rows = self.rows.entry(rdata.stream.clone()).or_default();
                rows.insert(token, rdata.writer.clone());
                while rows.len() > TOKENS_MAX {
                    rows.pop_first();
                }
            }
            Ok(Command::Position(position)) if position.prev < position.new => {
                self.judged += 1;
                let Some(writers) = self.writers(position).filter(|writers| !writers.contains(&position.writer)) else {
                    return;
                };
                let violation = Violation::OfOthers {
                    origin: Origin::from(position),
                    prev: position.prev,
                    new: position.new,
                    others: writers.into_iter().cloned().collect(),
                };
                let echo = Finding { line: payload.line, violation };
                let echoes = self.echoes.entry(position.writer.clone()).or_default();
                echoes.add(payload.at, &position.stream, echo, findings);
            }
            _ => {}
        }
    }

    fn missed(&mut self, _now: Option<SimTime>) {
        self.rows.clear();
        self.echoes.clear();
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::found_at;

    /// Returns the lines of findings if `echo` follows each row of `a`, and the rows come `apart_ms` apart.
    fn found(rows: u64, apart_ms: u64, echo: impl Fn(u64) -> String) -> Vec<u64> {
        let row = |token: u64| format!(r#"RDATA events a {token} ["x"]"#);
        let lines: Vec<_> = (1..=rows).flat_map(|token| [(token, row(token)), (token, echo(token))]).collect();
        let payloads: Vec<_> = lines.iter().map(|(token, text)| (token * apart_ms, text.as_str())).collect();
        let found = found_at(AnnouncementsAreOwn::default(), &payloads);
        assert!(found.iter().all(|finding| finding.violation.kind() == "of_others"));
        found.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn an_idle_writer_that_echoes_each_row_of_another_writer_is_found() {
        let echo = |token| format!("POSITION events b {} {token}", token - 1);
        assert_eq!(found(40, 400, echo), (1..=40).map(|token| 2 * token).collect::<Vec<_>>());
    }

    #[test]
    fn an_idle_writer_that_announces_its_position_now_and_then_is_not_found() {
        let echo = |token| format!("POSITION events b {} {token}", token - 1);
        assert!(found(400, 500, echo).is_empty());
    }

    #[test]
    fn a_position_over_unknown_or_own_tokens_is_no_echo() {
        assert!(found(40, 10, |token| format!("POSITION events b {token} {}", token + 1)).is_empty());
        assert!(found(40, 10, |token| format!("POSITION events a {} {token}", token - 1)).is_empty());
        assert!(found(40, 10, |token| format!("POSITION events b {token} {token}")).is_empty());
        assert!(found(40, 10, |_| "POSITION events b 4 0".to_owned()).is_empty());
        assert!(found(40, 10, |token| format!("POSITION receipts b {} {token}", token - 1)).is_empty());
    }
}
