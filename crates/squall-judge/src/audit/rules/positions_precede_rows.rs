//! After a REPLICATE, a writer's position comes before its rows.
//!
//! A process that has connected lacks the rows that were sent while it was away. It learns from the position of each
//! writer up to where it has to fetch them. A process of Synapse takes a stream's rows as soon as *any* writer of the
//! stream has announced its position. If a row of another writer comes first, the process believes that it has that
//! writer's rows up to there, and that writer's own position tells it nothing. The rows in between are lost to it: its
//! caches stay stale, and its clients never hear of them. A row is also ignored that came after the REPLICATE, and before
//! any position. In a recording of Synapse 1.163 with a process that reconnected 16 times under load, its clients missed
//! 92 of 860 messages in this way.
//!
//! No false alarm: a process that connected is recognised by its positions (`Connections`). It ignores its own rows and
//! positions, so both writers must be others. Nothing is found if the process is not recognised (a REPLICATE of
//! `squall follow`, or several at once), or if the writer sent no row while the process may have been away. That is the
//! time since it connected before, but at most [`AWAY_MS_MAX`]. A process of Squall waits for the position of each writer,
//! so it loses nothing. It announces each position every 5 s without a REPLICATE. Nothing is found of an instance that does
//! this, and nothing before it would have shown. If no other REPLICATE came within 5 s, a process has two answers at most,
//! and the third position is such an announcement: a row is judged after [`JUDGED_ALONE_AFTER_MS`]. Otherwise only positions
//! 5 s after the REPLICATE are told from answers, and a row is judged after [`JUDGED_AFTER_MS`].
//!
//! The traffic does not show how long the process was away: of the rows that were received here, it lost these or fewer.
//! Nor does it show the version: this is what Synapse does up to 1.163. Nor does it show whether the process reconnected or
//! was started. One that was started lost at most the rows since it read its positions from the database, and hardly has
//! caches or clients that wait. The message names this case.
//!
//! Class: loss. Nothing brings the rows back to a process that runs on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;

use crate::audit::class::Class;
use crate::audit::connections::{AWAITED_MS, Shown, TOGETHER_MS};
use crate::audit::finding::{Findings, RuleViolation};
use crate::audit::origin::Origin;
use crate::audit::payload::ParsedPayload;
use crate::audit::rule::Rule;
use crate::observation::SimTime;
use squall_protocol::{Command, InstanceName, Position, Rdata, StreamName, Token};

/// Longest time for which a process is away without noticing it, in milliseconds. Synapse pings the broker every 30 s, and
/// waits 30 s for the answer.
pub const AWAY_MS_MAX: u64 = 65_000;

/// Time after which a row is judged, in milliseconds: a process that sends heartbeats has sent one by then.
pub const JUDGED_AFTER_MS: u64 = AWAITED_MS + 7_000;

/// The same where the REPLICATE is the only one, so that the first heartbeat shows, in milliseconds. Heartbeats come every
/// 5 s.
pub const JUDGED_ALONE_AFTER_MS: u64 = 8_500;

/// Number of a process's answers to its own REPLICATE, in each stream. Other processes have one.
const ANSWERS_MAX: u32 = 2;

/// Age of a heartbeat that still shows that an instance sends heartbeats, in milliseconds.
const HEARTBEAT_MS: u64 = 30_000;

/// Length of the intervals of which the first tokens are remembered, in milliseconds.
const INTERVAL_MS: u64 = 500;

/// Number of writers of which rows wait to be judged, for each REPLICATE.
const SUSPECTS_MAX: usize = 100;

/// A violation of this rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error, IntoStaticStr, VariantNames)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum Violation {
    /// A row came before its writer's position, and after that of another writer.
    #[error(
        "{origin}: {asked_by} may have lost its rows from {from} to {upto}. After the REPLICATE of {asked_by} (line \
         {asked_on}), row {row} came before the position of {} and after that of {announced_by}, which Synapse takes for \
         the whole stream. Restart {asked_by}, whose caches may be stale, unless it had only just been started",
        origin.writer
    )]
    RowsLost {
        #[serde(flatten)]
        origin: Origin,
        /// The instance that connected.
        asked_by: InstanceName,
        /// The line of its REPLICATE.
        asked_on: u64,
        /// The other writer, whose position came.
        announced_by: InstanceName,
        row: Token,
        /// The first token that it may have lost.
        from: Token,
        /// The last token that it may have lost.
        upto: Token,
    },
}

impl RuleViolation for Violation {
    fn class(&self) -> Class {
        Class::Loss
    }

    fn origin(&self) -> Option<&Origin> {
        let Violation::RowsLost { origin, .. } = self;
        Some(origin)
    }
}

/// Checks the rows after each REPLICATE.
#[derive(Debug, Default)]
pub(super) struct PositionsPrecedeRows {
    /// The last REPLICATE, and what came after it.
    last: Option<Replicate>,
    /// The REPLICATEs before it, with rows that are not judged yet.
    unjudged: VecDeque<Replicate>,
    sent: BTreeMap<Origin, Sent>,
    /// The time of each instance's last connection and the one before it.
    connected: BTreeMap<InstanceName, (SimTime, Option<SimTime>)>,
    /// The time of each instance's last position that was no answer.
    heartbeats: BTreeMap<InstanceName, SimTime>,
    judged: u64,
}

/// A REPLICATE, and what came after it.
#[derive(Debug)]
struct Replicate {
    line: u64,
    at: SimTime,
    /// True if no other REPLICATE came at the same time.
    is_alone: bool,
    /// True if no other REPLICATE came in the [`AWAITED_MS`] before it, nor after it.
    is_only: bool,
    /// Number of each writer's positions that answer it.
    answers: BTreeMap<Origin, u32>,
    /// The instances that are recognised to have connected, with the time of the connection before.
    asked_by: BTreeMap<InstanceName, Option<SimTime>>,
    /// The writers of each stream whose positions have come.
    announced: BTreeMap<StreamName, Vec<InstanceName>>,
    /// Rows that came before their writers' positions, and are not judged yet.
    suspects: BTreeMap<Origin, Suspect>,
    /// The writers of all such rows. The first row of each is judged.
    suspected: BTreeSet<Origin>,
}

impl Replicate {
    /// Returns true if a position without news may be an answer to it, or to one before it.
    fn explains(&mut self, at: SimTime, position: &Position) -> bool {
        if at.ms_since(self.at) >= AWAITED_MS {
            return false;
        }
        let answers = self.answers.entry(Origin::from(position)).or_default();
        *answers += 1;
        !self.is_only || *answers <= ANSWERS_MAX
    }

    /// Returns the time after which its suspects are judged, in milliseconds.
    fn judged_after_ms(&self) -> u64 {
        if self.is_only { JUDGED_ALONE_AFTER_MS } else { JUDGED_AFTER_MS }
    }
}

/// A row that came before its writer's position.
#[derive(Debug)]
struct Suspect {
    line: u64,
    at: SimTime,
    /// Its token, or that of the end of its batch.
    row: Option<Token>,
    /// The first two writers whose positions had come. One of them is not the process that connected.
    announced_by: Vec<InstanceName>,
    /// The rows that its writer had sent.
    intervals: Vec<Interval>,
    /// The last row that its writer had sent.
    last: (SimTime, Token),
}

/// The rows that a writer has sent.
#[derive(Debug, Default)]
struct Sent {
    intervals: VecDeque<Interval>,
    /// The time and token of the last row.
    last: Option<(SimTime, Token)>,
}

/// The rows that a writer has sent in an interval.
#[derive(Debug, Clone, Copy)]
struct Interval {
    /// The time and token of the first row.
    first: (SimTime, Token),
    /// The token of the second row, if there is one.
    second: Option<Token>,
    last_at: SimTime,
}

impl Interval {
    /// Returns the lowest token of a row that may be lost. Not each time is remembered, so it may be the token of a row
    /// before it.
    fn first_lost(&self, is_lost: impl Fn(SimTime) -> bool) -> Option<Token> {
        let (at, token) = self.first;
        if is_lost(at) { Some(token) } else { self.second.filter(|_| is_lost(self.last_at)) }
    }
}

impl Sent {
    fn row(&mut self, at: SimTime, token: Token) {
        self.last = Some((at, token));
        match self.intervals.back_mut().filter(|interval| at.ms_since(interval.first.0) < INTERVAL_MS) {
            Some(interval) => {
                interval.second.get_or_insert(token);
                interval.last_at = at;
            }
            None => self.intervals.push_back(Interval { first: (at, token), second: None, last_at: at }),
        }
        while self.intervals.front().is_some_and(|interval| at.ms_since(interval.last_at) > AWAY_MS_MAX) {
            self.intervals.pop_front();
        }
    }
}

impl Suspect {
    /// Returns the violation, if a process that connected before at `connected_before` may have lost rows.
    fn violation(
        &self,
        origin: &Origin,
        replicate: &Replicate,
        asked_by: &InstanceName,
        connected_before: Option<SimTime>,
    ) -> Option<Violation> {
        let announced_by = self.announced_by.iter().find(|writer| *writer != asked_by)?;
        if origin.writer == *asked_by {
            return None;
        }
        let is_lost =
            |at: SimTime| replicate.at.ms_since(at) <= AWAY_MS_MAX && connected_before.is_none_or(|before| before < at);
        let (last_at, upto) = self.last;
        if !is_lost(last_at) {
            return None;
        }
        let from = self.intervals.iter().find_map(|interval| interval.first_lost(is_lost)).unwrap_or(upto);
        Some(Violation::RowsLost {
            origin: origin.clone(),
            asked_by: asked_by.clone(),
            asked_on: replicate.line,
            announced_by: announced_by.clone(),
            row: self.row?,
            from,
            upto,
        })
    }
}

impl PositionsPrecedeRows {
    fn replicate_came(&mut self, payload: &ParsedPayload<'_>, at: SimTime) {
        let line = payload.line;
        let mut is_alone = true;
        let mut is_only = payload.receiving_since.is_some_and(|since| at.ms_since(since) >= AWAITED_MS);
        if let Some(mut before) = self.last.take() {
            is_only &= at.ms_since(before.at) >= AWAITED_MS;
            before.is_only = false;
            is_alone = at.ms_since(before.at) >= TOGETHER_MS;
            before.is_alone &= is_alone;
            if before.is_alone && !before.suspects.is_empty() {
                before.announced.clear();
                before.answers.clear();
                self.unjudged.push_back(before);
            }
        }
        self.last = Some(Replicate {
            line,
            at,
            is_alone,
            is_only,
            answers: BTreeMap::new(),
            asked_by: BTreeMap::new(),
            announced: BTreeMap::new(),
            suspects: BTreeMap::new(),
            suspected: BTreeSet::new(),
        });
    }

    fn position_came(&mut self, at: SimTime, position: &Position, shown: Shown) {
        if matches!(shown, Shown::Connected { is_first: true } | Shown::TooOften) {
            let connected = self.connected.entry(position.writer.clone()).or_insert((at, None));
            if connected.0 < at {
                *connected = (at, Some(connected.0));
            }
            // A later answer may be to a REPLICATE before it.
            if let Some(replicate) = &mut self.last
                && at.ms_since(replicate.at) < TOGETHER_MS
            {
                replicate.asked_by.insert(position.writer.clone(), connected.1);
            }
        }
        let is_explained = |replicate: &mut Replicate| replicate.explains(at, position);
        if position.prev == position.new && !self.last.as_mut().is_some_and(is_explained) {
            self.heartbeats.insert(position.writer.clone(), at);
        }
        if let Some(replicate) = &mut self.last {
            let announced = replicate.announced.entry(position.stream.clone()).or_default();
            if !announced.contains(&position.writer) {
                self.judged += 1;
                announced.push(position.writer.clone());
            }
        }
    }

    fn row_came(&mut self, line: u64, at: SimTime, rdata: &Rdata) {
        let origin = Origin::from(rdata);
        let sent = self.sent.entry(origin.clone()).or_default();
        if let Some(replicate) = &mut self.last {
            if let Some(suspect) = replicate.suspects.get_mut(&origin) {
                suspect.row = suspect.row.or(rdata.token);
            } else if let Some(announced_by) = replicate.announced.get(&rdata.stream)
                && !announced_by.contains(&rdata.writer)
                && let Some(last) = sent.last
                && replicate.suspected.len() < SUSPECTS_MAX
                && replicate.suspected.insert(origin.clone())
            {
                let announced_by = announced_by.iter().take(2).cloned().collect();
                let intervals = sent.intervals.iter().copied().collect();
                let suspect = Suspect { line, at, row: rdata.token, announced_by, intervals, last };
                replicate.suspects.insert(origin, suspect);
            }
        }
        if let Some(token) = rdata.token {
            sent.row(at, token);
        }
    }

    /// Reports the rows that have become certain.
    fn report_certain(&mut self, now: Option<SimTime>, findings: &mut Findings<Violation>) {
        let Some(now) = now else { return };
        if let Some(replicate) = &mut self.last
            && replicate.is_alone
        {
            report(replicate, &self.heartbeats, now, findings);
        }
        for replicate in &mut self.unjudged {
            report(replicate, &self.heartbeats, now, findings);
        }
        self.unjudged.retain(|replicate| !replicate.suspects.is_empty());
    }
}

/// Reports the rows after a REPLICATE that have become certain, and forgets them.
fn report(
    replicate: &mut Replicate,
    heartbeats: &BTreeMap<InstanceName, SimTime>,
    now: SimTime,
    findings: &mut Findings<Violation>,
) {
    let judged_after_ms = replicate.judged_after_ms();
    let is_certain = |suspect: &Suspect| now.ms_since(suspect.at) >= judged_after_ms;
    let certain: BTreeSet<Origin> = replicate
        .suspects
        .iter()
        .filter(|(_, suspect)| is_certain(suspect))
        .map(|(origin, _)| origin.clone())
        .collect();
    for origin in certain {
        let Some(suspect) = replicate.suspects.remove(&origin) else { continue };
        // With two of them, one did not send this REPLICATE.
        let [(asked_by, connected_before)] = replicate.asked_by.iter().collect::<Vec<_>>()[..] else { continue };
        if heartbeats.get(asked_by).is_some_and(|at| suspect.at.ms_since(*at) < HEARTBEAT_MS) {
            continue;
        }
        if let Some(violation) = suspect.violation(&origin, replicate, asked_by, *connected_before) {
            findings.add(suspect.line, violation);
        }
    }
}

impl Rule for PositionsPrecedeRows {
    type Violation = Violation;

    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Violation>) {
        self.report_certain(payload.at, findings);
        // Without times the process that connected is not recognised.
        let Some(at) = payload.at else { return };
        match payload.command {
            Ok(Command::Replicate) => self.replicate_came(payload, at),
            Ok(Command::Position(position)) => self.position_came(at, position, payload.shown),
            Ok(Command::Rdata(rdata)) => self.row_came(payload.line, at, rdata),
            _ => {}
        }
    }

    fn tick(&mut self, now: Option<SimTime>, findings: &mut Findings<Violation>) {
        self.report_certain(now, findings);
    }

    fn missed(&mut self, _now: Option<SimTime>) {
        // A missed position may be the one that a row lacks, or the one that shows another process.
        self.last = None;
        self.unjudged.clear();
        self.sent.clear();
        self.connected.clear();
        self.heartbeats.clear();
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
    use crate::audit::testing::{Traffic, found_at};

    /// Returns the line, the process, and the first and last token of each finding, some time after these payloads.
    fn lost(payloads: &[(u64, &str)]) -> Vec<(u64, String, i64, i64)> {
        let later = (payloads.last().unwrap().0 + JUDGED_AFTER_MS, "PING 1");
        let payloads: Vec<_> = payloads.iter().copied().chain([later]).collect();
        let found = found_at(PositionsPrecedeRows::default(), &payloads);
        let lost = found.into_iter().map(|finding| {
            let Violation::RowsLost { asked_by, from, upto, .. } = finding.violation;
            (finding.line, asked_by.to_string(), from.0, upto.0)
        });
        lost.collect()
    }

    const BEFORE: [(u64, &str); 2] = [(10_000, r#"RDATA events b 5 ["x"]"#), (11_000, r#"RDATA events b 6 ["x"]"#)];
    const REPLICATE: (u64, &str) = (12_000, "REPLICATE");
    const CONNECTED: [(u64, &str); 2] = [(12_001, "POSITION caches c 1 1"), (12_002, "POSITION caches c 1 1")];
    const POSITION_A: (u64, &str) = (12_003, "POSITION events a 6 6");
    const ROW_B: (u64, &str) = (12_004, r#"RDATA events b 7 ["x"]"#);
    const POSITION_B: (u64, &str) = (12_005, "POSITION events b 7 7");

    fn in_order(rest: &[(u64, &'static str)]) -> Vec<(u64, &'static str)> {
        [&BEFORE[..], &[REPLICATE], &CONNECTED, rest].concat()
    }

    #[test]
    fn a_row_before_its_writers_position_is_found() {
        let found = [(7, "c".to_owned(), 5, 6)];
        assert_eq!(lost(&in_order(&[POSITION_A, ROW_B, POSITION_B])), found);
        assert_eq!(lost(&in_order(&[POSITION_A, ROW_B])), found, "no position ever came");
        let batch = (12_003, r#"RDATA events b batch ["x"]"#);
        assert_eq!(lost(&in_order(&[POSITION_A, batch, ROW_B, POSITION_B])), found);
        let connected = CONNECTED.map(|(at, text)| (at + 100, text));
        let late = [&BEFORE[..], &[REPLICATE, POSITION_A, ROW_B, POSITION_B], &connected].concat();
        assert_eq!(lost(&late), [(5, "c".to_owned(), 5, 6)], "the process is recognised later");
    }

    #[test]
    fn rows_in_their_order_are_fine() {
        assert_eq!(lost(&in_order(&[POSITION_B, ROW_B, POSITION_A])), []);
        assert_eq!(lost(&in_order(&[ROW_B, POSITION_A, POSITION_B])), [], "no position came before it");
        let other_stream = (12_003, "POSITION receipts a 6 6");
        assert_eq!(lost(&in_order(&[other_stream, ROW_B, POSITION_B])), []);
    }

    #[test]
    fn a_process_loses_none_of_its_own_rows_and_reads_none_of_its_own_positions() {
        let rename = |payloads: Vec<(u64, &str)>, name: &str| -> Vec<(u64, String)> {
            let to = format!("caches {name}");
            payloads.into_iter().map(|(at, text)| (at, text.replace("caches c", &to))).collect()
        };
        for name in ["a", "b"] {
            let payloads = rename(in_order(&[POSITION_A, ROW_B, POSITION_B]), name);
            let payloads: Vec<_> = payloads.iter().map(|(at, text)| (*at, &**text)).collect();
            assert_eq!(lost(&payloads), [], "{name}");
        }
    }

    #[test]
    fn a_process_that_is_not_recognised_is_not_judged() {
        let asked_by_another = [&BEFORE[..], &[REPLICATE, POSITION_A, ROW_B, POSITION_B]].concat();
        assert_eq!(lost(&asked_by_another), []);
        let two = [&BEFORE[..], &[REPLICATE, REPLICATE], &CONNECTED, &[CONNECTED[1], POSITION_A, ROW_B]].concat();
        assert_eq!(lost(&two), []);
        let another = (12_000, "POSITION caches d 1 1");
        assert_eq!(lost(&in_order(&[another, another, POSITION_A, ROW_B, POSITION_B])), [], "one did not send it");
        let c = (13_500, "POSITION caches c 1 1");
        let asked_before = [REPLICATE, (13_000, "REPLICATE"), (13_001, POSITION_A.1), (13_002, ROW_B.1), c, c, c];
        assert_eq!(lost(&[&BEFORE[..], &asked_before].concat()), [], "a slow process sent the REPLICATE before");
    }

    #[test]
    fn an_instance_with_heartbeats_is_not_judged() {
        let rest = [POSITION_A, ROW_B, POSITION_B];
        let before = [&[(5_000, "POSITION caches c 1 1")], &in_order(&rest)[..]].concat();
        assert_eq!(lost(&before), []);
        let after = in_order(&[&rest[..], &[(17_500, "POSITION caches c 1 1")]].concat());
        assert_eq!(lost(&after), []);
    }

    /// Returns the time of the finding after these payloads and the row of b, in milliseconds since the row.
    fn found_after_ms(payloads: &[(u64, &str)]) -> Option<u64> {
        let mut rule = PositionsPrecedeRows::default();
        let mut findings = Findings::default();
        let mut traffic = Traffic::default();
        for (line, (at, text)) in (1..).zip(payloads) {
            traffic.check(&mut rule, line, Some(SimTime(*at)), text, &mut findings);
        }
        (0..20_000).step_by(100).find(|ms| {
            rule.tick(Some(SimTime(ROW_B.0 + ms)), &mut findings);
            !findings.0.is_empty()
        })
    }

    const LONG_BEFORE: (u64, &str) = (7_000, "PING 1");

    #[test]
    fn the_only_process_that_connects_is_judged_sooner() {
        let payloads = in_order(&[POSITION_A, ROW_B, POSITION_B]);
        let sooner = [&[LONG_BEFORE], &payloads[..]].concat();
        assert_eq!(found_after_ms(&sooner), Some(JUDGED_ALONE_AFTER_MS));
        assert_eq!(found_after_ms(&payloads), Some(JUDGED_AFTER_MS), "a REPLICATE may have come before");
        let another = (7_500, "REPLICATE");
        let before = [&[LONG_BEFORE, another], &payloads[..]].concat();
        assert_eq!(found_after_ms(&before), Some(JUDGED_AFTER_MS));
        let after = [&sooner[..], &[(ROW_B.0 + 6_000, "REPLICATE")]].concat();
        assert_eq!(found_after_ms(&after), Some(JUDGED_AFTER_MS));
    }

    #[test]
    fn a_third_position_is_a_heartbeat_if_only_one_process_connects() {
        let payloads = in_order(&[POSITION_A, ROW_B, POSITION_B, (16_900, "POSITION caches c 1 1")]);
        assert_eq!(found_after_ms(&[&[LONG_BEFORE], &payloads[..]].concat()), None);
        assert_eq!(found_after_ms(&payloads), Some(JUDGED_AFTER_MS), "it may be an answer to another REPLICATE");
        let slow = in_order(&[POSITION_A, ROW_B, POSITION_B, (16_900, "POSITION receipts c 1 1")]);
        assert_eq!(found_after_ms(&[&[LONG_BEFORE], &slow[..]].concat()), Some(JUDGED_ALONE_AFTER_MS));
    }

    #[test]
    fn only_rows_of_the_time_away_are_lost() {
        let long_ago = [(10_000, BEFORE[1].1), (10_001 + AWAY_MS_MAX, "REPLICATE")];
        let rest = [CONNECTED[0].1, CONNECTED[1].1, POSITION_A.1, ROW_B.1].map(|text| (10_001 + AWAY_MS_MAX, text));
        assert_eq!(lost(&[&long_ago[..], &rest].concat()), []);
        let connected_before = [
            (10_500, "REPLICATE"),
            (10_500, CONNECTED[0].1),
            (10_500, CONNECTED[0].1),
            (10_501, "POSITION events b 5 5"),
        ];
        let rest = [BEFORE[1], REPLICATE, CONNECTED[0], CONNECTED[1], POSITION_A, ROW_B];
        let found = lost(&[&BEFORE[..1], &connected_before, &rest].concat());
        assert_eq!(found, [(11, "c".to_owned(), 6, 6)]);
    }

    #[test]
    fn no_row_of_the_time_away_is_left_out() {
        let row = |at: u64, token: i64| (at, format!(r#"RDATA events b {token} ["x"]"#));
        let connected = [(10_500, "REPLICATE"), (10_500, CONNECTED[0].1), (10_500, CONNECTED[0].1)];
        let position = (10_500, "POSITION events b 5 5");
        let rest = [REPLICATE, CONNECTED[0], CONNECTED[1], POSITION_A, ROW_B];
        // The rows before and after the connection at 10 500 ms, and the first one that may be lost.
        for (rows, from) in [
            (vec![row(10_400, 4), row(10_600, 5), row(11_000, 6)], 5),
            (vec![row(10_400, 3), row(10_450, 4), row(10_600, 5), row(11_000, 6)], 4),
            (vec![row(10_400, 4), row(10_450, 5), row(11_000, 6)], 6),
        ] {
            let rows: Vec<_> = rows.iter().map(|(at, text)| (*at, &**text)).collect();
            let before: Vec<_> = rows.iter().copied().filter(|(at, _)| *at < 10_500).collect();
            let after: Vec<_> = rows.iter().copied().filter(|(at, _)| *at > 10_500).collect();
            let found = lost(&[&before[..], &connected, &[position], &after, &rest].concat());
            assert_eq!(found.iter().map(|(.., from, upto)| (*from, *upto)).collect::<Vec<_>>(), [(from, 6)]);
        }
    }

    #[test]
    fn nothing_is_found_that_a_missed_payload_could_explain() {
        let mut traffic = Traffic::default();
        let mut rule = PositionsPrecedeRows::default();
        let mut findings = Findings::default();
        for (line, (at, text)) in (1..).zip(in_order(&[POSITION_A, ROW_B])) {
            traffic.check(&mut rule, line, Some(SimTime(at)), text, &mut findings);
        }
        rule.missed(Some(SimTime(13_000)));
        rule.tick(Some(SimTime(90_000)), &mut findings);
        assert_eq!(findings.0.len(), 0);
    }
}
