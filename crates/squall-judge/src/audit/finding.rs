//! Findings: violations of one rule, each with the payload that shows it.

use super::class::Class;
use super::origin::Origin;
use squall_protocol::StreamName;

/// The name of a violation's kind.
pub(super) trait Kind {
    /// Returns the name of the kind, as it stands in fingerprints and in JSON.
    fn kind(&self) -> &'static str;
}

impl<V> Kind for V
where
    for<'a> &'a V: Into<&'static str>,
{
    fn kind(&self) -> &'static str {
        self.into()
    }
}

/// The violation of one rule: data that carries the evidence, and a text made from it.
///
/// Each rule has its own type, in the rule's file. The name of the kind is that of the variant.
pub(super) trait RuleViolation: std::error::Error + Kind {
    /// Returns the class: the cost of this very violation.
    fn class(&self) -> Class;

    /// Returns the writer and stream that it concerns, if it concerns one.
    fn origin(&self) -> Option<&Origin> {
        None
    }

    /// Returns the stream that it concerns, if it concerns one.
    fn stream(&self) -> Option<&StreamName> {
        self.origin().map(|origin| &origin.stream)
    }
}

/// A violation, and the payload that shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding<V> {
    /// The payload's line.
    pub line: u64,
    /// The violation.
    pub violation: V,
}

/// Findings of one call of a rule.
#[derive(Debug)]
pub(super) struct Findings<V>(pub(super) Vec<Finding<V>>);

impl<V> Default for Findings<V> {
    fn default() -> Self {
        Findings(Vec::new())
    }
}

impl<V> Findings<V> {
    /// Adds a violation that the payload on `line` shows.
    pub(super) fn add(&mut self, line: u64, violation: V) {
        self.0.push(Finding { line, violation });
    }
}
