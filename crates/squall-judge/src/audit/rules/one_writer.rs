//! Some streams have one writer.
//!
//! A stream whose data is in the memory of one process, or is decided by one process, can have only that writer. If two
//! processes write such a stream, because they are configured differently, their followers mix the tokens of both. Synapse
//! refuses such a configuration, but no process knows the configuration of the others. Two processes of the same name
//! cannot be told apart here.
//!
//! The operator may also name the writers of a stream, one or several.
//!
//! No false alarm: a stream moves to another writer only when the whole deployment is reconfigured. A recording across
//! such a change has one finding for each stream that moved.
//!
//! Class: loss. A follower drops rows of one writer that lie below tokens of the other.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;

use crate::audit::class::Class;
use crate::audit::finding::{Findings, RuleViolation};
use crate::audit::origin::{Origin, Writers};
use crate::audit::payload::ParsedPayload;
use crate::audit::rule::Rule;
use crate::audit::streams;
use crate::observation::SimTime;
use crate::violation::list;
use squall_protocol::{Command, InstanceName, StreamName};

/// A violation of this rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error, IntoStaticStr, VariantNames)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum Violation {
    /// A second instance writes a stream that has one writer.
    #[error("{origin}: the stream has one writer, and so far that was {first}")]
    SecondWriter {
        #[serde(flatten)]
        origin: Origin,
        first: InstanceName,
    },
    /// An instance writes a stream of which the operator named other writers.
    #[error("{origin}: only {} may write the stream", list(writers))]
    NotItsWriter {
        #[serde(flatten)]
        origin: Origin,
        writers: Vec<InstanceName>,
    },
}

impl RuleViolation for Violation {
    fn class(&self) -> Class {
        Class::Loss
    }

    fn origin(&self) -> Option<&Origin> {
        match self {
            Violation::SecondWriter { origin, .. } | Violation::NotItsWriter { origin, .. } => Some(origin),
        }
    }
}

/// Checks the writer of every row and position of such a stream.
#[derive(Debug, Default)]
pub(super) struct OneWriter {
    /// The first writer of each stream, and all later ones.
    seen: BTreeMap<StreamName, (InstanceName, BTreeSet<InstanceName>)>,
    /// The writers that the operator named.
    named: Writers,
    /// Writers that were reported because they are not among the named ones.
    reported: BTreeSet<Origin>,
    judged: u64,
}

impl Rule for OneWriter {
    type Violation = Violation;

    fn set_writers(&mut self, writers: &Writers) {
        self.named = writers.clone();
    }

    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Violation>) {
        let origin = match payload.command {
            Ok(Command::Rdata(rdata)) => Origin::from(rdata),
            Ok(Command::Position(position)) => Origin::from(position),
            _ => return,
        };
        if let Some(writers) = self.named.get(&origin.stream) {
            self.judged += 1;
            if !writers.contains(&origin.writer) && self.reported.insert(origin.clone()) {
                let writers = writers.iter().cloned().collect();
                findings.add(payload.line, Violation::NotItsWriter { origin, writers });
            }
            return;
        }
        if !streams::OF_ONE_WRITER.contains(&origin.stream.as_str()) {
            return;
        }
        self.judged += 1;
        let new = || (origin.writer.clone(), BTreeSet::new());
        let (first, others) = self.seen.entry(origin.stream.clone()).or_insert_with(new);
        if *first != origin.writer && others.insert(origin.writer.clone()) {
            findings.add(payload.line, Violation::SecondWriter { first: first.clone(), origin });
        }
    }

    fn missed(&mut self, _now: Option<SimTime>) {
        // The deployment may have been reconfigured.
        self.seen.clear();
        self.reported.clear();
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::found;

    #[test]
    fn a_second_writer_is_found_once() {
        let payloads = [
            "POSITION typing a 1 1",
            r#"RDATA typing b 1 ["!r",[]]"#,
            "POSITION typing b 1 1",
            "POSITION typing a 1 1",
        ];
        assert_eq!(found(OneWriter::default(), &payloads), [(2, "second_writer")]);
    }

    #[test]
    fn a_stream_of_several_writers_may_have_several() {
        let payloads = ["POSITION events a 1 1", "POSITION events b 1 1", "POSITION typing a 1 1"];
        assert_eq!(found(OneWriter::default(), &payloads), []);
    }

    #[test]
    fn a_writer_that_was_not_named_is_found_once() {
        let writers = |names: &[&str]| names.iter().map(|name| InstanceName::from(*name)).collect::<BTreeSet<_>>();
        let named = Writers::from([("events".into(), writers(&["a", "b"])), ("typing".into(), writers(&["c"]))]);
        let payloads = [
            "POSITION events a 1 1",
            r#"RDATA events b 2 ["x"]"#,
            "POSITION events master 2 2",
            r#"RDATA events master 3 ["x"]"#,
            "POSITION typing master 1 1",
            "POSITION typing c 1 1",
            "POSITION receipts anybody 1 1",
        ];
        let expected = [(3, "not_its_writer"), (5, "not_its_writer")];
        let mut rule = OneWriter::default();
        rule.set_writers(&named);
        assert_eq!(found(rule, &payloads), expected);
    }
}
