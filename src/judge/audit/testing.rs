//! What the tests of the rules share: made-up traffic.

use super::{Finding, Findings, Heard, Rule, Transport, Unreadable};
use crate::judge::observation::Moment;
use crate::protocol::Dialect;

/// What `rule` finds in these payloads, which come at these milliseconds on the channel `squall.test`.
pub(super) fn found_at(mut rule: impl Rule, payloads: &[(u64, &str)]) -> Vec<Finding> {
    let mut findings = Findings::default();
    let mut last = None;
    for (line, (at, text)) in (1..).zip(payloads) {
        last = Some(Moment(*at));
        let said = Dialect::V1_163.parse(text).map_err(Unreadable::from);
        rule.hear(
            &Heard {
                line,
                at: last,
                channel: Some("squall.test"),
                transport: Transport::Redis,
                dialect: Dialect::V1_163,
                said: said.as_ref(),
            },
            &mut findings,
        );
    }
    rule.end(last, &mut findings);
    findings.0
}

/// The same for payloads that come one after the other: the lines and kinds of what it finds.
pub(super) fn found(rule: impl Rule, payloads: &[&str]) -> Vec<(u64, &'static str)> {
    let payloads: Vec<_> = (0..).zip(payloads.iter().copied()).collect();
    found_at(rule, &payloads).iter().map(|finding| (finding.line, finding.violation.kind())).collect()
}
