//! The audit: what can be told of real replication traffic from the traffic alone.
//!
//! The [invariants](super::invariants) have witnesses in the database and on every instance. Whoever listens on Redis or
//! on a TCP connection has none of that: only what was said, in which order, and mostly when. An [`Audit`] is told one
//! [`Payload`] after the other, as they are read from a [`Capture`] or as they come in, and holds them against the
//! [`rules`], each of which is pure over what it was told.
//!
//! It judges one deployment from its own words, so a finding says what the traffic shows and not what became of it: the
//! rows of a [`Violation::Passed`] may have reached everybody by another way.

pub mod capture;
mod heard;
mod origin;
pub mod report;
pub mod rules;
mod tally;
pub mod violation;

pub use capture::{Capture, CaptureError, Malformed};
pub use heard::{Heard, Payload, Transport};
pub use origin::Origin;
pub use report::Report;
pub use rules::Rule;
pub use tally::{OriginTally, Tally};
pub use violation::Violation;

use super::observation::Moment;
use crate::protocol::Dialect;

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
    tally: Tally,
    last: Option<Moment>,
}

impl Audit {
    /// An audit of what is said over `transport`. Without a dialect, the first line that gives one away decides.
    pub fn new(transport: Transport, dialect: Option<Dialect>) -> Self {
        Audit { transport, dialect, rules: rules::all(), tally: Tally::default(), last: None }
    }

    /// Takes one payload into account, and tells what it shows.
    pub fn hear(&mut self, payload: &Payload<'_>) -> Vec<Finding> {
        if self.dialect.is_none() {
            self.dialect = Dialect::told_by(payload.text);
        }
        // A clock that was set back does not turn time.
        let at = payload.at.max(self.last);
        self.last = at;
        let said = self.dialect().parse(payload.text);
        self.tally.count(&said);
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
            findings.extend(audit.hear(&Payload { line, at: Some(Moment(*at)), channel: None, text }));
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
        let (audit, _) = audit(&[("REPLICATE", 500), ("REPLICATE", 300)]);
        assert_eq!(audit.last(), Some(Moment(500)));
    }
}
