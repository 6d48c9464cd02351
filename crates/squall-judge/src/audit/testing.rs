//! Made-up traffic for the tests of the rules.

use super::finding::{Finding, Findings, RuleViolation};
use super::payload::{ParsedPayload, Transport, Unreadable};
use super::rule::Rule;
use crate::observation::SimTime;
use squall_protocol::Dialect;

/// Returns the findings of `rule` in these payloads, each with its time in milliseconds, on the channel `squall.test`.
pub(super) fn found_at<R: Rule>(mut rule: R, payloads: &[(u64, &str)]) -> Vec<Finding<R::Violation>> {
    let mut findings = Findings::default();
    let mut last = None;
    for (line, (at, text)) in (1..).zip(payloads) {
        last = Some(SimTime(*at));
        check(&mut rule, line, last, text, &mut findings);
    }
    rule.end(last, &mut findings);
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

/// Gives one payload to `rule`.
pub(super) fn check<R: Rule>(
    rule: &mut R,
    line: u64,
    at: Option<SimTime>,
    text: &str,
    findings: &mut Findings<R::Violation>,
) {
    let command = Dialect::V1_163.parse(text).map_err(Unreadable::from);
    let payload = ParsedPayload {
        line,
        at,
        channel: Some("squall.test"),
        transport: Transport::Redis,
        dialect: Dialect::V1_163,
        command: command.as_ref(),
        unread: None,
    };
    rule.check(&payload, findings);
}
