//! Rules: one property of the traffic per file, with its violation.
//!
//! To add a rule, write its file, with a `Violation` and a type that implements `Rule`, and register it with one line in
//! `rules!`, under the name of its module. The header gives the [`Class`] of each kind of violation, and the reason.

use serde::Serialize;
use strum::VariantNames;
use thiserror::Error;

use super::bounds::Bound;
use super::class::Class;
use super::finding::{self, Findings, RuleViolation};
use super::origin::{Origin, Writers};
use super::payload::ParsedPayload;
use super::rule::Rule;
use crate::observation::SimTime;
use squall_protocol::StreamName;

/// A violation of any rule, and the payload that shows it.
pub type Finding = finding::Finding<Violation>;

/// Declares the modules of the rules, and everything that has a part for each of them.
macro_rules! rules {
    ($($module:ident::$rule:ident,)+) => {
        $(pub mod $module;)+

        /// The name of every rule, in the order of the list.
        pub const NAMES: &[&str] = &[$(stringify!($module)),+];

        /// A violation of any rule.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
        #[serde(untagged)]
        pub enum Violation {
            $(
                #[doc = concat!("A violation of [`", stringify!($module), "`].")]
                #[error(transparent)]
                $rule(#[from] $module::Violation),
            )+
        }

        /// The name of every rule, with those of the kinds of its violations.
        const KINDS: &[(&str, &[&str])] = &[$((stringify!($module), $module::Violation::VARIANTS)),+];

        impl Violation {
            /// Returns the name of the rule.
            pub fn rule(&self) -> &'static str {
                match self {
                    $(Violation::$rule(_) => stringify!($module)),+
                }
            }

            fn of_rule(&self) -> &dyn RuleViolation {
                match self {
                    $(Violation::$rule(violation) => violation),+
                }
            }
        }

        /// Returns every rule, in the order of the list.
        pub(super) fn all() -> Vec<Box<dyn AnyRule>> {
            vec![$(Box::new(Registered { name: stringify!($module), rule: $module::$rule::default() })),+]
        }
    };
}

rules! {
    acknowledgements_follow::AcknowledgementsFollow,
    announcements_are_own::AnnouncementsAreOwn,
    batches_whole::BatchesWhole,
    commands_in_direction::CommandsInDirection,
    one_writer::OneWriter,
    payloads_readable::PayloadsReadable,
    positions_hide_no_rows::PositionsHideNoRows,
    positions_meet::PositionsMeet,
    positions_precede_rows::PositionsPrecedeRows,
    presence_steady::PresenceSteady,
    replicate_answered_once::ReplicateAnsweredOnce,
    replicates_bounded::ReplicatesBounded,
    rows_complete::RowsComplete,
    state_with_its_event::StateWithItsEvent,
    syncs_cleared::SyncsCleared,
    tokens_ascend::TokensAscend,
}

/// Returns `rule/kind` for every kind of finding. The fingerprint of a finding about a stream also names the stream.
pub fn kinds() -> impl Iterator<Item = String> {
    KINDS.iter().flat_map(|(rule, kinds)| kinds.iter().map(move |kind| format!("{rule}/{kind}")))
}

impl Violation {
    /// Returns the name of the kind, as it stands in fingerprints and in JSON.
    pub fn kind(&self) -> &'static str {
        self.of_rule().kind()
    }

    /// Returns the class: the cost of this very violation. Violations of one kind may differ in it.
    pub fn class(&self) -> Class {
        self.of_rule().class()
    }

    /// Returns the writer and stream that it concerns, if it concerns one.
    pub fn origin(&self) -> Option<&Origin> {
        self.of_rule().origin()
    }

    /// Returns the stream that it concerns, if it concerns one.
    pub fn stream(&self) -> Option<&StreamName> {
        self.of_rule().stream()
    }

    /// Returns `rule/stream/kind`, or `rule/kind` if no stream is concerned. Nothing in it differs between recordings.
    pub fn fingerprint(&self) -> String {
        match self.stream() {
            Some(stream) => format!("{}/{stream}/{}", self.rule(), self.kind()),
            None => format!("{}/{}", self.rule(), self.kind()),
        }
    }
}

/// A [`Rule`] whose violations have become those of any rule.
pub(super) trait AnyRule {
    fn name(&self) -> &'static str;
    fn set_writers(&mut self, writers: &Writers);
    fn check(&mut self, payload: &ParsedPayload<'_>, found: &mut Vec<Finding>);
    fn tick(&mut self, now: Option<SimTime>, found: &mut Vec<Finding>);
    fn missed(&mut self, now: Option<SimTime>);
    fn end(&mut self, at: Option<SimTime>, found: &mut Vec<Finding>);
    fn judged(&self) -> u64;
    fn bounds(&self) -> Vec<Bound>;
}

/// A rule with its name in the list.
struct Registered<R> {
    name: &'static str,
    rule: R,
}

impl<R: Rule> AnyRule for Registered<R>
where
    Violation: From<R::Violation>,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn set_writers(&mut self, writers: &Writers) {
        self.rule.set_writers(writers);
    }

    fn check(&mut self, payload: &ParsedPayload<'_>, found: &mut Vec<Finding>) {
        let mut findings = Findings::default();
        self.rule.check(payload, &mut findings);
        append(findings, found);
    }

    fn tick(&mut self, now: Option<SimTime>, found: &mut Vec<Finding>) {
        let mut findings = Findings::default();
        self.rule.tick(now, &mut findings);
        append(findings, found);
    }

    fn missed(&mut self, now: Option<SimTime>) {
        self.rule.missed(now);
    }

    fn end(&mut self, at: Option<SimTime>, found: &mut Vec<Finding>) {
        let mut findings = Findings::default();
        self.rule.end(at, &mut findings);
        append(findings, found);
    }

    fn judged(&self) -> u64 {
        self.rule.judged()
    }

    fn bounds(&self) -> Vec<Bound> {
        self.rule.bounds()
    }
}

/// Moves the findings of one rule to those of all.
fn append<V: Into<Violation>>(findings: Findings<V>, found: &mut Vec<Finding>) {
    for finding::Finding { line, violation } in findings.0 {
        found.push(Finding { line, violation: violation.into() });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use squall_protocol::Token;

    fn skipped(tokens: &[i64], count: u64) -> Violation {
        let origin = Origin { stream: "receipts".into(), writer: "writer1".into() };
        let tokens = tokens.iter().copied().map(Token).collect();
        let from = Token(75);
        let prev = Token(80);
        positions_meet::Violation::Skipped { origin, from, prev, tokens, count, just_connected: false }.into()
    }

    #[test]
    fn a_fingerprint_names_rule_stream_and_kind() {
        assert_eq!(skipped(&[76], 1).fingerprint(), "positions_meet/receipts/skipped");
        assert_eq!(skipped(&[76], 1).fingerprint(), skipped(&[77, 78], 2).fingerprint());
        let storm = replicates_bounded::Violation::Storm {
            replicates: 20,
            within_ms: 60_000,
            instances: 6,
            connected: Vec::new(),
            away: Vec::new(),
            processes: Vec::new(),
            before: Vec::new(),
        };
        assert_eq!(Violation::from(storm).fingerprint(), "replicates_bounded/storm");
    }

    #[test]
    fn the_kind_in_json_is_the_kind_of_the_fingerprint() {
        let json = serde_json::to_value(skipped(&[76], 1)).unwrap();
        assert_eq!((&json["kind"], &json["writer"]), (&"skipped".into(), &"writer1".into()));
    }

    #[test]
    fn the_kinds_are_those_of_the_fingerprints() {
        let kinds: Vec<_> = kinds().collect();
        assert!(kinds.contains(&"positions_meet/skipped".to_owned()), "{kinds:?}");
        assert!(kinds.contains(&"replicates_bounded/storm".to_owned()), "{kinds:?}");
        let rules: BTreeSet<_> = kinds.iter().map(|kind| kind.split('/').next().unwrap()).collect();
        assert_eq!(rules, BTreeSet::from_iter(NAMES.iter().copied()));
    }

    #[test]
    fn a_message_stays_short() {
        let message = skipped(&[76, 77], 5).to_string();
        let expected = "receipts of writer1: jumped from 75 to 80, but no instance sent 76, 77 and 3 more; followers now \
            fetch the rows, unless their transactions failed";
        assert_eq!(message, expected);
    }

    #[test]
    fn every_rule_has_its_name_in_the_list() {
        let names: Vec<_> = all().iter().map(|rule| rule.name()).collect();
        assert_eq!(names, NAMES);
        assert!(NAMES.is_sorted());
    }
}
