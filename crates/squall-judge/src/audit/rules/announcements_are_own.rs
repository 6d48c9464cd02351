//! A writer announces its own rows.
//!
//! The writers of one stream share its tokens, so the position of an idle writer falls behind those of the others. In
//! Synapse it follows them: for each row of another writer it sends a `POSITION` of its own (Synapse #8499, left out for
//! `caches` since #16557). Every process reads that echo, and only the other writer has a use for it. With `n` writers one
//! row causes `n - 1` echoes.
//!
//! No false alarm: a position that moves over a token that is unknown, or the writer's own, is not an echo. An idle writer
//! must announce its position now and then, so at most [`ECHOES_MAX`] echoes of one writer and stream within [`WINDOW_MS`]
//! are tolerated; Squall needs half of that. Once a writer exceeds it, all its echoes are reported.
//!
//! Class: load, because every process reads the echo. It is a habit of a known writer of the stream: one that has sent a
//! row of it, has announced its position otherwise, or is named by the operator. A writer of `events` also writes the other
//! streams of event persisters. A writer may be idle when the traffic begins, so its echoes wait for [`KNOWN_WITHIN_MS`]
//! for the evidence. It is no habit in `caches`, nor of a process that is not among the named writers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;

use crate::audit::bounds::{Bound, NAMES_LISTED_MAX};
use crate::audit::class::Class;
use crate::audit::finding::{Finding, Findings, RuleViolation};
use crate::audit::origin::{Origin, Writers};
use crate::audit::payload::ParsedPayload;
use crate::audit::rule::Rule;
use crate::audit::streams;
use crate::observation::SimTime;
use crate::violation::list;
use squall_protocol::{Command, InstanceName, Position, StreamName, Token};

/// Number of tokens of a stream that are remembered.
const TOKENS_MAX: usize = 10_000;

/// Length of the window in which echoes are counted, in milliseconds.
pub const WINDOW_MS: u64 = 10_000;

/// Number of echoes of one writer and stream that are tolerated within the window.
pub const ECHOES_MAX: usize = 20;

/// Number of echoes of a writer that are remembered while they are tolerated or wait for evidence.
const REMEMBERED_MAX: usize = 2_000;

/// Number of echoes of all writers that are remembered.
const REMEMBERED_OF_ALL_MAX: usize = 50_000;

/// Time in which a process shows that it is a writer of the stream, in milliseconds.
pub const KNOWN_WITHIN_MS: u64 = 60_000;

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
        /// The first of the other writers.
        others: Vec<InstanceName>,
        /// True if the process is known to write the stream.
        is_writer: bool,
    },
}

impl RuleViolation for Violation {
    fn class(&self) -> Class {
        let Violation::OfOthers { origin, is_writer, .. } = self;
        if *is_writer && origin.stream.as_str() != "caches" { Class::Habit } else { Class::Load }
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
    known: KnownWriters,
    judged: u64,
    /// Number of echoes that were too many and are not reported.
    forgotten: u64,
}

/// The processes that are known to write a stream.
#[derive(Debug, Default)]
struct KnownWriters {
    /// The writers that the operator named.
    named: Writers,
    /// The processes that have sent a row, or a position that does not move.
    seen: BTreeSet<Origin>,
}

impl KnownWriters {
    fn contains(&self, origin: &Origin) -> bool {
        if let Some(writers) = self.named.get(&origin.stream) {
            return writers.contains(&origin.writer);
        }
        let of_events = Origin { stream: "events".into(), writer: origin.writer.clone() };
        let is_persisted = streams::OF_EVENT_PERSISTERS.contains(&origin.stream.as_str());
        self.seen.contains(origin) || is_persisted && self.seen.contains(&of_events)
    }

    fn add(&mut self, origin: Origin) {
        if !self.seen.contains(&origin) {
            self.seen.insert(origin);
        }
    }
}

/// The echoes of one writer.
#[derive(Debug, Default)]
struct Echoes {
    /// Echoes that are still tolerated, with their times.
    tolerated: VecDeque<(SimTime, Finding<Violation>)>,
    /// True if there were once more than are tolerated.
    is_excessive: bool,
    /// Number of writers that were known when the echoes were last looked through.
    known_then: usize,
}

impl Echoes {
    fn add(&mut self, at: Option<SimTime>, echo: Finding<Violation>) {
        let Some(at) = at else {
            // Without times any number is too many.
            self.is_excessive = true;
            return self.tolerated.push_back((SimTime(0), echo));
        };
        let stream = echo.violation.stream().cloned();
        self.tolerated.push_back((at, echo));
        let recent = self.tolerated.iter().rev().take_while(|(then, _)| at.ms_since(*then) < WINDOW_MS);
        let of_stream = recent.filter(|(_, echo)| echo.violation.stream() == stream.as_ref());
        self.is_excessive = self.is_excessive || of_stream.count() > ECHOES_MAX;
    }

    /// Reports the echoes of a writer that has too many. Those of a process that is not known as a writer wait, unless no
    /// more evidence can come.
    fn report(
        &mut self,
        now: Option<SimTime>,
        known: &KnownWriters,
        is_over: bool,
        findings: &mut Findings<Violation>,
    ) {
        if !self.is_excessive || !is_over && !self.has_news(now, known) {
            return;
        }
        self.known_then = known.seen.len();
        let mut waiting = VecDeque::new();
        for (at, mut echo) in self.tolerated.drain(..) {
            let Violation::OfOthers { origin, is_writer, .. } = &mut echo.violation;
            *is_writer = known.contains(origin);
            let can_wait = can_wait(now, at);
            if *is_writer || is_over || !can_wait || known.named.contains_key(&origin.stream) {
                findings.add(echo.line, echo.violation);
            } else {
                waiting.push_back((at, echo));
            }
        }
        self.tolerated = waiting;
    }

    /// Returns true if the first echo can wait no more, the last one need not, or another writer has become known.
    fn has_news(&self, now: Option<SimTime>, known: &KnownWriters) -> bool {
        let Some(((at, _), (_, last))) = self.tolerated.front().zip(self.tolerated.back()) else { return false };
        let Violation::OfOthers { origin, .. } = &last.violation;
        let need_not_wait = known.contains(origin) || known.named.contains_key(&origin.stream);
        need_not_wait || !can_wait(now, *at) || self.known_then != known.seen.len()
    }
}

/// Returns true if more evidence about an echo can come.
fn can_wait(now: Option<SimTime>, at: SimTime) -> bool {
    now.is_some_and(|now| now.ms_since(at) < KNOWN_WITHIN_MS)
}

impl AnnouncementsAreOwn {
    /// Forgets the oldest echo of the writer that has most, if there are too many.
    fn forget_too_many(&mut self) {
        let remembered: usize = self.echoes.values().map(|echoes| echoes.tolerated.len()).sum();
        let Some(longest) = self.echoes.values_mut().max_by_key(|echoes| echoes.tolerated.len()) else { return };
        if longest.tolerated.len() > REMEMBERED_MAX || remembered > REMEMBERED_OF_ALL_MAX {
            longest.tolerated.pop_front();
            self.forgotten += u64::from(longest.is_excessive);
        }
    }

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

    fn set_writers(&mut self, writers: &Writers) {
        self.known.named = writers.clone();
    }

    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Violation>) {
        match payload.command {
            Ok(Command::Rdata(rdata)) => {
                self.known.add(Origin::from(rdata));
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
                    others: writers.into_iter().take(NAMES_LISTED_MAX).cloned().collect(),
                    is_writer: false,
                };
                let echoes = self.echoes.entry(position.writer.clone()).or_default();
                echoes.add(payload.at, Finding { line: payload.line, violation });
                echoes.report(payload.at, &self.known, false, findings);
                self.forget_too_many();
            }
            Ok(Command::Position(position)) if position.prev == position.new => {
                self.known.add(Origin::from(position));
            }
            _ => {}
        }
    }

    fn tick(&mut self, now: Option<SimTime>, findings: &mut Findings<Violation>) {
        for echoes in self.echoes.values_mut() {
            echoes.report(now, &self.known, false, findings);
        }
    }

    fn end(&mut self, at: Option<SimTime>, findings: &mut Findings<Violation>) {
        for echoes in self.echoes.values_mut() {
            echoes.report(at, &self.known, true, findings);
        }
    }

    fn missed(&mut self, _now: Option<SimTime>) {
        self.rows.clear();
        self.echoes.clear();
    }

    fn judged(&self) -> u64 {
        self.judged
    }

    fn bounds(&self) -> Vec<Bound> {
        vec![Bound { things: "echoes at once", max: REMEMBERED_OF_ALL_MAX, unjudged: self.forgotten }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::finding::Kind;
    use crate::audit::testing::{Traffic, found_at};

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
    fn the_echoes_of_many_writers_are_bounded() {
        let mut traffic = Traffic::default();
        let mut rule = AnnouncementsAreOwn::default();
        let mut findings = Findings::default();
        traffic.check(&mut rule, 1, Some(SimTime(0)), r#"RDATA events a 5 ["x"]"#, &mut findings);
        for writer in 0..40 {
            let echo = format!("POSITION events w{writer} 4 5");
            for line in 0..REMEMBERED_MAX as u64 {
                traffic.check(&mut rule, line, Some(SimTime(0)), &echo, &mut findings);
            }
        }
        let remembered: usize = rule.echoes.values().map(|echoes| echoes.tolerated.len()).sum();
        assert_eq!(remembered, REMEMBERED_OF_ALL_MAX);
        assert_eq!(rule.bounds()[0].unjudged, 80_000 - REMEMBERED_OF_ALL_MAX as u64);
        assert!(rule.echoes.values().all(|echoes| echoes.is_excessive), "none displaces another writer's");
    }

    #[test]
    fn an_idle_writer_that_echoes_each_row_of_another_writer_is_found() {
        let echo = |token| format!("POSITION events b {} {token}", token - 1);
        assert_eq!(found(40, 400, echo), (1..=40).map(|token| 2 * token).collect::<Vec<_>>());
    }

    /// Returns the classes of the echoes of `b` on `stream`, if `first` comes before them and `last` after them.
    fn classes(stream: &str, first: &str, last: &str, writers: &[&str]) -> BTreeSet<Class> {
        let mut payloads = vec![(0, first.to_owned())];
        for token in 1..=40 {
            payloads.push((token, format!(r#"RDATA {stream} a {token} ["x"]"#)));
            payloads.push((token, format!("POSITION {stream} b {} {token}", token - 1)));
        }
        payloads.push((1_000, last.to_owned()));
        payloads.push((1_000 + KNOWN_WITHIN_MS, format!("POSITION {stream} b 39 40")));
        let payloads: Vec<_> = payloads.iter().map(|(at, text)| (*at, text.as_str())).collect();
        let mut rule = AnnouncementsAreOwn::default();
        if !writers.is_empty() {
            let writers = writers.iter().map(|writer| InstanceName::from(*writer)).collect();
            rule.set_writers(&Writers::from([(stream.into(), writers)]));
        }
        let found = found_at(rule, &payloads);
        assert_eq!(found.len(), 41);
        found.iter().map(|finding| finding.violation.class()).collect()
    }

    #[test]
    fn the_echoes_of_a_known_writer_are_a_habit_and_others_are_load() {
        let row = r#"RDATA events b 90 ["x"]"#;
        let habit = BTreeSet::from([Class::Habit]);
        let load = BTreeSet::from([Class::Load]);
        assert_eq!(classes("events", row, "PING 1", &[]), habit);
        assert_eq!(classes("events", "PING 1", row, &[]), habit, "the evidence may come later");
        assert_eq!(classes("events", "POSITION events b 0 0", "PING 1", &[]), habit);
        assert_eq!(classes("events", "PING 1", "PING 1", &["a", "b"]), habit);
        assert_eq!(classes("events", "PING 1", "PING 1", &[]), load);
        assert_eq!(classes("events", r#"RDATA receipts b 90 ["x"]"#, "PING 1", &[]), load, "another stream");
        assert_eq!(classes("events", row, "PING 1", &["a"]), load, "the operator named other writers");
        assert_eq!(classes("sticky_events", row, "PING 1", &[]), habit, "a stream of event persisters");
        assert_eq!(classes("caches", "POSITION caches b 0 0", "PING 1", &[]), load, "Synapse has no echoes there");
    }

    #[test]
    fn echoes_that_have_ceased_are_reported_when_their_time_is_over() {
        let mut rule = AnnouncementsAreOwn::default();
        let mut traffic = Traffic::default();
        let mut findings = Findings::default();
        for token in 1..=40 {
            let row = format!(r#"RDATA events a {token} ["x"]"#);
            let echo = format!("POSITION events b {} {token}", token - 1);
            traffic.check(&mut rule, 2 * token, Some(SimTime(token)), &row, &mut findings);
            traffic.check(&mut rule, 2 * token + 1, Some(SimTime(token)), &echo, &mut findings);
        }
        rule.tick(Some(SimTime(KNOWN_WITHIN_MS)), &mut findings);
        assert_eq!(findings.0, []);
        rule.tick(Some(SimTime(KNOWN_WITHIN_MS + 40)), &mut findings);
        assert_eq!(findings.0.len(), 40);
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
