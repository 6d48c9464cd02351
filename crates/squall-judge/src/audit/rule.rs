//! The trait of every rule.

use super::bounds::Bound;
use super::finding::{Findings, RuleViolation};
use super::origin::Writers;
use super::payload::ParsedPayload;
use crate::observation::SimTime;

/// A property of the traffic.
///
/// A rule is a pure function of the payloads it received. It knows nothing of payloads it did not receive, and a recording
/// may begin and end at any payload. After a violation it goes on, so that one defect is found once.
///
/// The memory of a rule is bounded, because traffic goes on for years.
pub(super) trait Rule {
    /// The violation that this rule reports.
    type Violation: RuleViolation;

    /// Names the writers of some streams.
    fn set_writers(&mut self, _writers: &Writers) {}

    /// Checks one payload.
    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Self::Violation>);

    /// Checks what follows from the time: it is `now`, and every payload before `now` has been checked.
    fn tick(&mut self, _now: Option<SimTime>, _findings: &mut Findings<Self::Violation>) {}

    /// Forgets what depends on having received every payload: some of those before `now` may have been missed.
    fn missed(&mut self, now: Option<SimTime>);

    /// Checks what follows from the end of the traffic. The last payload came at `at`.
    fn end(&mut self, _at: Option<SimTime>, _findings: &mut Findings<Self::Violation>) {}

    /// Returns the number of times that the rule could have been violated. If it is 0, the rule has shown nothing.
    fn judged(&self) -> u64;

    /// Returns the bounds beyond which the rule leaves something unjudged, with the number of things that it left out.
    fn bounds(&self) -> Vec<Bound> {
        Vec::new()
    }
}
