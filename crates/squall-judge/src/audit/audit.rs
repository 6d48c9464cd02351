//! The auditor of one deployment's traffic.

use super::bounds::{Bounds, Exceeded, NAME_BYTES_MAX, PAYLOAD_BYTES_MAX};
use super::capture::{Entry, Recorded};
use super::connections::Connections;
use super::ignored::IgnoredKind;
use super::origin::{Origin, Writers};
use super::payload::{ParsedPayload, Payload, RowHead, Transport, Unreadable};
use super::rules::{self, AnyRule, Finding};
use super::tally::Tally;
use super::unsent::Unsent;
use crate::observation::SimTime;
use squall_protocol::{Command, Dialect, Header};

/// Number of bytes at the beginning of a payload in which the head of a row is looked for.
const HEAD_BYTES_MAX: usize = 3 * NAME_BYTES_MAX;

/// Judges the traffic of one deployment, payload by payload.
pub struct Audit {
    transport: Transport,
    dialect: Option<Dialect>,
    rules: Vec<Box<dyn AnyRule>>,
    bounds: Bounds,
    tally: Tally,
    unsent: Unsent,
    connections: Connections,
    /// The time from which on every payload was received, as far as the payloads show it.
    receiving_since: Option<SimTime>,
    ignored: Vec<IgnoredKind>,
    ignored_count: u64,
    last: Option<SimTime>,
}

impl Audit {
    /// Returns an audit of traffic over `transport`. Without a dialect, the first payload that has one decides.
    pub fn new(transport: Transport, dialect: Option<Dialect>) -> Self {
        let bounds = Bounds::default();
        Audit {
            transport,
            dialect,
            rules: rules::all(),
            bounds,
            tally: Tally::default(),
            unsent: Unsent::default(),
            connections: Connections::default(),
            receiving_since: None,
            ignored: Vec::new(),
            ignored_count: 0,
            last: None,
        }
    }

    /// Names the writers of some streams.
    pub fn with_writers(mut self, writers: &Writers) -> Self {
        for rule in &mut self.rules {
            rule.set_writers(writers);
        }
        self
    }

    /// Leaves out the findings of some kinds, and counts them.
    pub fn ignoring(mut self, kinds: Vec<IgnoredKind>) -> Self {
        self.ignored = kinds;
        self
    }

    /// Checks one line of a recording, and returns its findings.
    pub fn check_line(&mut self, recorded: &Recorded) -> Vec<Finding> {
        match (recorded.payload(), recorded.at) {
            (Some(payload), _) => self.check(&payload),
            (None, Some(now)) if recorded.entry == Entry::Mark => self.tick(now),
            (None, now) => {
                self.missed(now);
                Vec::new()
            }
        }
    }

    /// Checks one payload, and returns its findings.
    pub fn check(&mut self, payload: &Payload<'_>) -> Vec<Finding> {
        let at = self.advance(payload.at);
        let command = self.parse(payload.data);
        self.tally.count(at, self.dialect(), command.as_ref());
        let shown = self.connections.check(at, command.as_ref().ok());
        self.receiving_since = self.receiving_since.or(at);
        let unread = if command.is_err() { self.row_head(payload.data) } else { None };
        let parsed = ParsedPayload {
            line: payload.line,
            at,
            channel: payload.channel,
            transport: self.transport,
            dialect: self.dialect(),
            command: command.as_ref(),
            unread: unread.as_ref(),
            shown,
            just_connected: self.connections.is_of_connected(command.as_ref().ok()),
            receiving_since: self.receiving_since,
        };
        if parsed.dialect == Dialect::V1_163 {
            self.unsent.check(&parsed, &mut self.tally);
        }
        let mut found = Vec::new();
        for rule in &mut self.rules {
            rule.check(&parsed, &mut found);
        }
        self.leave_out_ignored(&mut found);
        found
    }

    /// Returns the findings that follow from the time: it is `now`, and every payload before `now` has been checked.
    pub fn tick(&mut self, now: SimTime) -> Vec<Finding> {
        let now = self.advance(Some(now));
        let mut found = Vec::new();
        for rule in &mut self.rules {
            rule.tick(now, &mut found);
        }
        self.unsent.settle(now, &mut self.tally);
        self.leave_out_ignored(&mut found);
        found
    }

    fn leave_out_ignored(&mut self, found: &mut Vec<Finding>) {
        let before = found.len();
        found.retain(|finding| !self.ignored.iter().any(|kind| kind.contains(&finding.violation)));
        self.ignored_count += (before - found.len()) as u64;
    }

    /// Forgets what depends on having received every payload: some of those before `now` may have been missed.
    pub fn missed(&mut self, now: Option<SimTime>) {
        let now = self.advance(now);
        for rule in &mut self.rules {
            rule.missed(now);
        }
        self.unsent.missed();
        self.connections.clear();
        self.receiving_since = now;
    }

    /// Moves the time to `now`, or leaves it where it is if the clock was set back.
    fn advance(&mut self, now: Option<SimTime>) -> Option<SimTime> {
        let now = now.max(self.last);
        self.last = now;
        now
    }

    /// Returns the head of a row that cannot be read.
    fn row_head(&mut self, data: &[u8]) -> Option<RowHead> {
        let beginning = String::from_utf8_lossy(&data[..data.len().min(HEAD_BYTES_MAX)]);
        let Ok(Header::Rdata(head)) = Header::peek(&beginning) else { return None };
        let mut origin = Origin { stream: head.stream.into(), writer: head.writer.into() };
        self.bounds.admit_writer(&mut origin.stream, &mut origin.writer).ok()?;
        Some(RowHead { origin, token: head.token })
    }

    fn parse(&mut self, data: &[u8]) -> Result<Command, Unreadable> {
        if data.len() > PAYLOAD_BYTES_MAX {
            return Err(Unreadable::TooLong(data.len()));
        }
        let text = std::str::from_utf8(data).map_err(|error| Unreadable::NotUtf8(error.valid_up_to()))?;
        if self.dialect.is_none() {
            self.dialect = Dialect::detect(text);
        }
        let mut command = self.dialect().parse(text)?;
        self.bounds.admit(&mut command).map_err(Unreadable::Unfollowed)?;
        Ok(command)
    }

    /// Ends the audit, and returns the findings that no later payload can explain.
    pub fn end(&mut self) -> Vec<Finding> {
        let mut found = Vec::new();
        for rule in &mut self.rules {
            rule.end(self.last, &mut found);
        }
        self.leave_out_ignored(&mut found);
        found
    }

    /// Returns the number of findings that were left out.
    pub fn ignored(&self) -> u64 {
        self.ignored_count
    }

    /// Returns the counts of the payloads.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Returns the number of times that each rule could have been violated, with the rule's name.
    pub fn judged(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.rules.iter().map(|rule| (rule.name(), rule.judged()))
    }

    /// Returns the bounds of the rules that the traffic exceeded: not all of it was judged.
    pub fn exceeded(&self) -> Vec<Exceeded> {
        let mut exceeded = Vec::new();
        for rule in &self.rules {
            let of_rule = rule.bounds().into_iter().filter(|bound| bound.unjudged > 0);
            exceeded.extend(of_rule.map(|bound| Exceeded { rule: rule.name(), bound }));
        }
        exceeded
    }

    /// Returns the dialect that payloads are parsed by.
    pub fn dialect(&self) -> Dialect {
        self.dialect.unwrap_or_default()
    }

    /// Returns the time of the last payload, if the payloads have times.
    pub fn last(&self) -> Option<SimTime> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::audit::rules::Violation;
    use squall_protocol::Token;
    use squall_protocol::rows::{NAMES, Row};

    fn audit(payloads: &[(&str, u64)]) -> (Audit, Vec<Finding>) {
        let mut audit = Audit::new(Transport::Redis, None);
        let mut findings = Vec::new();
        for (line, (text, at)) in (1..).zip(payloads) {
            let data = text.as_bytes();
            findings.extend(audit.check(&Payload { line, at: Some(SimTime(*at)), channel: None, data }));
        }
        (audit, findings)
    }

    #[test]
    fn the_first_payload_that_has_a_dialect_decides() {
        let (older, findings) = audit(&[("REPLICATE", 0), ("POSITION events a 5", 0), ("POSITION events a 5 6", 0)]);
        assert_eq!((older.dialect(), findings.len()), (Dialect::V1_19, 1));
        let (newer, findings) = audit(&[("REPLICATE", 0), ("POSITION events a 5 6", 0), ("POSITION events a 6", 0)]);
        assert_eq!((newer.dialect(), findings.len()), (Dialect::V1_163, 1));
    }

    #[test]
    fn a_row_that_cannot_be_read_is_one_finding_and_not_missing_too() {
        let long = format!(r#"RDATA events a 5 ["{}"]"#, "x".repeat(PAYLOAD_BYTES_MAX));
        let no_command = "not_a_command";
        let unreadable =
            [(&*long, "unfollowed"), ("RDATA events a 5 [", no_command), ("RDATA events a 5 not json", no_command)];
        for (unreadable, kind) in unreadable {
            let (mut audit, mut findings) = audit(&[
                ("POSITION events a 4 4", 0),
                ("RDATA events a batch [\"ev\"", 1),
                (unreadable, 2),
                ("POSITION events a 6 6", 3),
                ("POSITION events a 6 6", 9_000),
            ]);
            findings.extend(audit.end());
            let kinds: Vec<_> = findings.iter().map(|finding| (finding.line, finding.violation.kind())).collect();
            assert_eq!(kinds, [(2, no_command), (3, kind), (4, "skipped")]);
            let Some(Finding { violation: Violation::PositionsMeet(skipped), .. }) = findings.last() else { panic!() };
            assert!(skipped.to_string().contains("no instance sent 6;"), "{skipped}");
            assert_eq!(audit.tally().streams["events"]["a"].last_unsent, [Token(6)]);
        }
    }

    #[test]
    fn findings_of_ignored_kinds_are_only_counted() {
        let payloads = ["NOSUCH", "POSITION pushers a 9 9", "POSITION pushers a 5 5", "REPLICATE"];
        let mut audit = Audit::new(Transport::Redis, None);
        audit = audit.ignoring(vec![IgnoredKind::parse("tokens_ascend").unwrap()]);
        let mut kinds = Vec::new();
        for (line, text) in (1..).zip(payloads) {
            let data = text.as_bytes();
            let found = audit.check(&Payload { line, at: Some(SimTime(line)), channel: None, data });
            kinds.extend(found.iter().map(|finding| finding.violation.kind()));
        }
        assert_eq!((kinds, audit.ignored()), (vec!["not_a_command"], 1));
        audit = audit.ignoring(vec![IgnoredKind::parse("replicate_answered_once/pushers").unwrap()]);
        assert_eq!((audit.tick(SimTime(90_000)), audit.ignored()), (vec![], 2));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_turn_time_back() {
        let (mut audit, _) = audit(&[("REPLICATE", 500), ("REPLICATE", 300)]);
        assert_eq!(audit.last(), Some(SimTime(500)));
        assert_eq!(audit.tick(SimTime(400)), []);
        assert_eq!(audit.last(), Some(SimTime(500)));
    }

    #[test]
    fn findings_that_take_time_are_reported_as_time_passes() {
        let (mut audit, findings) =
            audit(&[("POSITION receipts a 4 4", 0), ("POSITION receipts a 6 6", 10), ("REPLICATE", 20)]);
        assert_eq!(findings, []);
        let kinds = |findings: Vec<Finding>| -> Vec<_> {
            findings.iter().map(|finding| (finding.line, finding.violation.kind())).collect()
        };
        assert_eq!(kinds(audit.tick(SimTime(4_000))), []);
        assert_eq!(kinds(audit.tick(SimTime(6_000))), [(2, "skipped")]);
        assert_eq!(kinds(audit.tick(SimTime(31_000))), [(3, "unanswered")]);
        assert_eq!(audit.end(), []);
    }

    #[test]
    fn no_violation_is_reported_that_a_missed_payload_could_explain() {
        let before = [
            ("POSITION typing a 9 9", 0),
            ("POSITION receipts a 4 4", 1),
            ("POSITION receipts a 6 6", 2),
            (r#"RDATA pushers a batch ["@u:h","a","k",true]"#, 3),
            ("USER_SYNC old @u:h D start 0", 4),
            ("USER_SYNC new @u:h D start 0", 5),
            ("POSITION federation a 4 4", 6),
            ("REPLICATE", 7),
        ];
        let after = [
            (r#"RDATA typing b 3 ["!r",[]]"#, 3_000),
            ("POSITION receipts a 90 90", 3_001),
            ("POSITION pushers a 7 7", 3_002),
            ("FEDERATION_ACK sender 7", 3_003),
            ("PING 1", 60_000),
        ];
        let judge = |has_gap: bool| {
            let (mut audit, mut findings) = audit(&before);
            if has_gap {
                audit.missed(Some(SimTime(2_000)));
            }
            for (line, (text, at)) in (9..).zip(after) {
                let data = text.as_bytes();
                findings.extend(audit.check(&Payload { line, at: Some(SimTime(at)), channel: None, data }));
            }
            findings.extend(audit.end());
            findings.iter().map(|finding| finding.violation.kind()).collect::<BTreeSet<_>>()
        };
        let kinds = ["acknowledged_ahead", "cut_short", "not_cleared", "second_writer", "skipped", "unanswered"];
        assert_eq!(judge(false), BTreeSet::from(kinds));
        assert_eq!(judge(true), BTreeSet::new());
    }

    /// Returns rows of the shapes that the stream has, with extreme numbers.
    fn rows_of(stream: &str) -> &'static [&'static str] {
        match stream {
            "account_data" => &[r#"["@u:h","!r","m.tag"]"#],
            "caches" => &[r#"["f",["@u:h"],9223372036854775807]"#, r#"["f",null,-1]"#],
            "events" => &[
                r#"["ev",["$1","!r","m.room.create","",null,null,null,false,false]]"#,
                r#"["state",["!r","t","","$1"]]"#,
                r#"["state",["!r","t","","$2"]]"#,
                r#"["ev",["$2","!r","t",null,null,null,null,false,false]]"#,
            ],
            "presence" => &[
                r#"["@u:h","online",9223372036854775807,0,-9223372036854775808,null,true]"#,
                r#"["@u:h","offline",0,0,0,null,false]"#,
            ],
            "receipts" => &[r#"["!r","m.read","@u:h","$1",null,{}]"#],
            "push_rules" | "to_device" => &[r#"["@u:h"]"#],
            "pushers" => &[r#"["@u:h","a","k",true]"#],
            "backfill" => &[r#"["$1","!r","t",null,null,null]"#],
            "device_lists" => &[r#"["@u:h",false,true]"#],
            "federation" => &[r#"["k",{"key":[9223372036854775807],"edu":{}}]"#, r#"["",{}]"#],
            "presence_federation" => &[r#"["h","@u:h"]"#],
            "profile_updates" => &[r#"["@u:h","update",["f","f"]]"#, r#"["@u:h","",null]"#],
            "quarantined_media" => &[r#"[null,"m",true]"#],
            "sticky_events" => &[r#"["!r","$1"]"#],
            "thread_subscriptions" => &[r#"["@u:h","!r","$1"]"#],
            "typing" => &[r#"["!r",["@u:h"]]"#],
            "un_partial_stated_event" => &[r#"["$1",true]"#],
            "un_partial_stated_room" => &[r#"["!r"]"#],
            _ => panic!("the stream {stream} has no rows here"),
        }
    }

    #[test]
    fn no_payload_does_any_harm() {
        let min = i64::MIN;
        let max = i64::MAX;
        let mut lines: Vec<Vec<u8>> = vec![b"\xff\xfe".to_vec(), vec![b'x'; PAYLOAD_BYTES_MAX + 1], Vec::new()];
        for (from, to) in [(min, max), (max, min), (0, max), (max, max), (min, min), (max - 1, max), (min, 0)] {
            lines.push(format!("POSITION events a {from} {to}").into_bytes());
            lines.push(format!("POSITION typing a {to} {from}").into_bytes());
            lines.push(format!(r#"RDATA events a {to} ["x"]"#).into_bytes());
            lines.push(format!(r#"RDATA events b {from} ["x"]"#).into_bytes());
            lines.push(format!("FEDERATION_ACK a {to}").into_bytes());
            for stream in NAMES {
                for row in rows_of(stream) {
                    assert!(Row::parse(&stream.into(), serde_json::from_str(row).unwrap()).is_ok(), "{row}");
                    lines.push(format!("RDATA {stream} a {from} {row}").into_bytes());
                    lines.push(format!("RDATA {stream} a batch {row}").into_bytes());
                    lines.push(format!("RDATA {stream} a {to} {row}").into_bytes());
                }
            }
        }
        lines.push(format!("RDATA events a 1 {}", "[".repeat(100_000)).into_bytes());
        let mut audit = Audit::new(Transport::Redis, Some(Dialect::V1_163));
        for (line, data) in (1..).zip(lines.iter().cycle().take(10 * lines.len())) {
            audit.check(&Payload { line, at: Some(SimTime(line * 700)), channel: Some("h"), data });
        }
        audit.end();
        let parsed = lines.len() as u64 - 4;
        assert_eq!((audit.tally().payloads, audit.tally().parsed), (10 * lines.len() as u64, 10 * parsed));
    }
}
