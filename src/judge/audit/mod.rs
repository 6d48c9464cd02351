//! The audit: what can be told of real replication traffic from the traffic alone.
//!
//! The [invariants](super::invariants) have witnesses in the database and on every instance. Whoever listens on Redis or
//! on a TCP connection has none of that: only what was said, in which order, and mostly when. An [`Audit`] is told one
//! [`Payload`] after the other, as they are read from a [`Capture`] or as they come in, and holds them against the
//! [`rules`], each of which is pure over what it was told. It is also told that time passed without a word, and that
//! something may have been said that it was not told: of that, nobody is accused.
//!
//! It judges one deployment from its own words, so a finding says what the traffic shows and not what became of it: the
//! rows of a [`Violation::Passed`] may have reached everybody by another way.

pub mod bounds;
pub mod capture;
mod heard;
mod origin;
pub mod report;
pub mod rules;
mod tally;
pub mod violation;

pub use capture::{Away, Capture, CaptureError, Entry, Malformed, Recorded};
pub use heard::{Heard, Payload, Transport, Unreadable};
pub use origin::Origin;
pub use report::Report;
pub use rules::Rule;
pub use tally::{OriginTally, Tally};
pub use violation::Violation;

use std::collections::{BTreeMap, BTreeSet};

use bounds::{Bounds, PAYLOAD_BYTES_MAX};

use super::observation::Moment;
use crate::protocol::{Command, Dialect, InstanceName, StreamName};

/// Who writes which stream, as far as that is known. The others may be written by anybody.
pub type Writers = BTreeMap<StreamName, BTreeSet<InstanceName>>;

/// A rule that was not kept, and the payload that shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The payload's line.
    pub line: u64,
    /// What was not kept.
    pub violation: Violation,
}

/// Collects what the rules find in one payload.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Adds a finding that the payload on `line` shows.
    pub fn add(&mut self, line: u64, violation: Violation) {
        self.0.push(Finding { line, violation });
    }
}

/// Judges the traffic of one deployment, payload by payload.
pub struct Audit {
    transport: Transport,
    dialect: Option<Dialect>,
    rules: Vec<Box<dyn Rule>>,
    bounds: Bounds,
    tally: Tally,
    last: Option<Moment>,
}

impl Audit {
    /// An audit of what is said over `transport`. Without a dialect, the first line that gives one away decides.
    pub fn new(transport: Transport, dialect: Option<Dialect>) -> Self {
        let (bounds, tally) = (Bounds::default(), Tally::default());
        Audit { transport, dialect, rules: rules::all(&Writers::new()), bounds, tally, last: None }
    }

    /// The same, where it is known who writes these streams.
    pub fn with_writers(self, writers: &Writers) -> Self {
        Audit { rules: rules::all(writers), ..self }
    }

    /// Takes one line of a recording into account, and tells what it shows.
    pub fn take(&mut self, recorded: &Recorded) -> Vec<Finding> {
        match (recorded.payload(), recorded.at) {
            (Some(payload), _) => self.hear(&payload),
            (None, Some(now)) if recorded.entry == Entry::Mark => self.tick(now),
            (None, now) => {
                self.missed(now);
                Vec::new()
            }
        }
    }

    /// Takes one payload into account, and tells what it shows.
    pub fn hear(&mut self, payload: &Payload<'_>) -> Vec<Finding> {
        let at = self.it_is(payload.at);
        let said = self.read(payload.data);
        self.tally.count(at, said.as_ref());
        let heard = Heard {
            line: payload.line,
            at,
            channel: payload.channel,
            transport: self.transport,
            dialect: self.dialect(),
            said: said.as_ref(),
        };
        let mut findings = Findings::default();
        for rule in &mut self.rules {
            rule.hear(&heard, &mut findings);
        }
        findings.0
    }

    /// It is `now`, and everything that was said until then was heard: tells what that shows.
    pub fn tick(&mut self, now: Moment) -> Vec<Finding> {
        let now = self.it_is(Some(now));
        let mut findings = Findings::default();
        for rule in &mut self.rules {
            rule.tick(now, &mut findings);
        }
        findings.0
    }

    /// What was said until now may not have been heard: whatever depends on having heard everything is forgotten.
    pub fn missed(&mut self, now: Option<Moment>) {
        let now = self.it_is(now);
        for rule in &mut self.rules {
            rule.missed(now);
        }
    }

    /// A clock that was set back does not turn time.
    fn it_is(&mut self, now: Option<Moment>) -> Option<Moment> {
        let now = now.max(self.last);
        self.last = now;
        now
    }

    fn read(&mut self, data: &[u8]) -> Result<Command, Unreadable> {
        if data.len() > PAYLOAD_BYTES_MAX {
            return Err(Unreadable::TooLong(data.len()));
        }
        let text = std::str::from_utf8(data).map_err(|error| Unreadable::NotUtf8(error.valid_up_to()))?;
        if self.dialect.is_none() {
            self.dialect = Dialect::told_by(text);
        }
        let said = self.dialect().parse(text)?;
        self.bounds.admit(&said).map_err(Unreadable::Unfollowed)?;
        Ok(said)
    }

    /// Nothing more comes: tells what now will not be put right any more.
    pub fn end(&mut self) -> Vec<Finding> {
        let mut findings = Findings::default();
        for rule in &mut self.rules {
            rule.end(self.last, &mut findings);
        }
        findings.0
    }

    /// What the payloads were, in numbers.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How often each rule could have been violated, by name.
    pub fn judged(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.rules.iter().map(|rule| (rule.name(), rule.judged()))
    }

    /// The dialect that payloads are read by.
    pub fn dialect(&self) -> Dialect {
        self.dialect.unwrap_or_default()
    }

    /// When the last payload came, if the payloads say when they come.
    pub fn last(&self) -> Option<Moment> {
        self.last
    }
}

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests {
    use super::*;

    fn audit(payloads: &[(&str, u64)]) -> (Audit, Vec<Finding>) {
        let mut audit = Audit::new(Transport::Redis, None);
        let mut findings = Vec::new();
        for (line, (text, at)) in (1..).zip(payloads) {
            let data = text.as_bytes();
            findings.extend(audit.hear(&Payload { line, at: Some(Moment(*at)), channel: None, data }));
        }
        (audit, findings)
    }

    #[test]
    fn the_first_line_that_tells_decides_the_dialect() {
        let (older, findings) = audit(&[("REPLICATE", 0), ("POSITION events a 5", 0), ("POSITION events a 5 6", 0)]);
        assert_eq!((older.dialect(), findings.len()), (Dialect::V1_19, 1));
        let (newer, findings) = audit(&[("REPLICATE", 0), ("POSITION events a 5 6", 0), ("POSITION events a 6", 0)]);
        assert_eq!((newer.dialect(), findings.len()), (Dialect::V1_163, 1));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_turn_time() {
        let (mut audit, _) = audit(&[("REPLICATE", 500), ("REPLICATE", 300)]);
        assert_eq!(audit.last(), Some(Moment(500)));
        assert_eq!(audit.tick(Moment(400)), []);
        assert_eq!(audit.last(), Some(Moment(500)));
    }

    #[test]
    fn what_takes_time_to_be_told_is_told_as_time_passes() {
        let (mut audit, findings) =
            audit(&[("POSITION receipts a 4 4", 0), ("POSITION receipts a 6 6", 10), ("REPLICATE", 20)]);
        assert_eq!(findings, []);
        let kinds = |findings: Vec<Finding>| -> Vec<_> {
            findings.iter().map(|finding| (finding.line, finding.violation.kind())).collect()
        };
        assert_eq!(kinds(audit.tick(Moment(4_000))), []);
        assert_eq!(kinds(audit.tick(Moment(6_000))), [(2, "skipped")]);
        assert_eq!(kinds(audit.tick(Moment(31_000))), [(3, "unanswered")]);
        assert_eq!(audit.end(), []);
    }

    #[test]
    fn nobody_is_accused_of_what_was_not_heard() {
        let before = [
            ("POSITION typing a 9 9", 0),
            ("POSITION receipts a 4 4", 1),
            ("POSITION receipts a 6 6", 2),
            (r#"RDATA pushers a batch ["x"]"#, 3),
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
        let judge = |is_away: bool| {
            let (mut audit, mut findings) = audit(&before);
            if is_away {
                audit.missed(Some(Moment(2_000)));
            }
            for (line, (text, at)) in (9..).zip(after) {
                let data = text.as_bytes();
                findings.extend(audit.hear(&Payload { line, at: Some(Moment(at)), channel: None, data }));
            }
            findings.extend(audit.end());
            findings.iter().map(|finding| finding.violation.kind()).collect::<BTreeSet<_>>()
        };
        let kinds = ["acknowledged_ahead", "cut_short", "not_cleared", "second_writer", "skipped", "unanswered"];
        assert_eq!(judge(false), BTreeSet::from(kinds));
        assert_eq!(judge(true), BTreeSet::new());
    }

    #[test]
    fn nothing_that_may_be_published_does_any_harm() {
        let (min, max) = (i64::MIN, i64::MAX);
        let mut lines: Vec<Vec<u8>> = vec![b"\xff\xfe".to_vec(), vec![b'x'; PAYLOAD_BYTES_MAX + 1], Vec::new()];
        for (from, to) in [(min, max), (max, min), (0, max), (max, max), (min, min), (max - 1, max), (min, 0)] {
            lines.push(format!("POSITION events a {from} {to}").into_bytes());
            lines.push(format!("POSITION typing a {to} {from}").into_bytes());
            lines.push(format!(r#"RDATA events a {to} ["x"]"#).into_bytes());
            lines.push(format!(r#"RDATA events b {from} ["x"]"#).into_bytes());
            lines.push(format!("FEDERATION_ACK a {to}").into_bytes());
        }
        lines.push(format!("RDATA events a 1 {}", "[".repeat(100_000)).into_bytes());
        let mut audit = Audit::new(Transport::Redis, Some(Dialect::V1_163));
        for (line, data) in (1..).zip(lines.iter().cycle().take(10 * lines.len())) {
            audit.hear(&Payload { line, at: Some(Moment(line * 700)), channel: Some("h"), data });
        }
        audit.end();
        let parsed = lines.len() as u64 - 4;
        assert_eq!((audit.tally().payloads, audit.tally().parsed), (10 * lines.len() as u64, 10 * parsed));
    }
}
