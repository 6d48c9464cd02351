//! Made-up traffic for the tests of the rules.

use super::connections::Connections;
use super::finding::{Finding, Findings, RuleViolation};
use super::payload::{ParsedPayload, Transport, Unreadable};
use super::rule::Rule;
use crate::observation::SimTime;
use squall_protocol::{Command, Dialect};

/// Returns the findings of `rule` in these payloads, each with its time in milliseconds, on the channel `squall.test`.
pub(super) fn found_at<R: Rule>(mut rule: R, payloads: &[(u64, &str)]) -> Vec<Finding<R::Violation>> {
    let mut traffic = Traffic::default();
    let mut findings = Findings::default();
    for (line, (at, text)) in (1..).zip(payloads) {
        traffic.check(&mut rule, line, Some(SimTime(*at)), text, &mut findings);
    }
    rule.end(payloads.last().map(|(at, _)| SimTime(*at)), &mut findings);
    findings.0
}

/// Returns the lines and kinds of the findings of `rule` in these payloads, which come 1 ms apart.
pub(super) fn found<R: Rule>(rule: R, payloads: &[&str]) -> Vec<(u64, &'static str)> {
    let payloads: Vec<_> = (0..).zip(payloads.iter().copied()).collect();
    kinds(&found_at(rule, &payloads))
}

/// Returns the line and kind of each finding.
pub(super) fn kinds<V: RuleViolation>(findings: &[Finding<V>]) -> Vec<(u64, &'static str)> {
    findings.iter().map(|finding| (finding.line, finding.violation.kind())).collect()
}

/// The payloads so far, and what they show.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    connections: Connections,
    receiving_since: Option<SimTime>,
}

impl Traffic {
    /// Gives one payload to `rule`.
    pub(super) fn check<R: Rule>(
        &mut self,
        rule: &mut R,
        line: u64,
        at: Option<SimTime>,
        text: &str,
        findings: &mut Findings<R::Violation>,
    ) {
        let command = Dialect::V1_163.parse(text).map_err(Unreadable::from);
        self.receiving_since = self.receiving_since.or(at);
        let payload = ParsedPayload {
            shown: self.connections.check(at, command.as_ref().ok()),
            just_connected: self.connections.is_of_connected(command.as_ref().ok()),
            receiving_since: self.receiving_since,
            ..payload(line, at, &command)
        };
        rule.check(&payload, findings);
    }
}

/// Returns a payload on the channel `squall.test`, before which nothing is known.
pub(super) fn payload(line: u64, at: Option<SimTime>, command: &Result<Command, Unreadable>) -> ParsedPayload<'_> {
    ParsedPayload {
        line,
        at,
        channel: Some("squall.test"),
        transport: Transport::Redis,
        dialect: Dialect::V1_163,
        command: command.as_ref(),
        unread: None,
        shown: Default::default(),
        just_connected: false,
        receiving_since: at,
    }
}
