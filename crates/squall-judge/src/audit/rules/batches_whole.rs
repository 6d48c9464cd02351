//! Batches come whole.
//!
//! Rows that share a token carry `batch` in its place; only the last one carries the token. A Synapse follower keeps one
//! open batch for each stream, not for each writer. If a row of another writer comes in between, the follower applies the
//! batch under the wrong token or drops it. A position of the stream makes it forget the batch.
//!
//! No false alarm: a batch that is open when the recording ends may have gone on, and a batch that was open when the
//! recording began is not recognised as one.
//!
//! Class: loss. A follower drops the rows of the batch, or applies them under a token at which it later takes other rows for
//! old ones.

use std::collections::BTreeMap;

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;

use crate::audit::class::Class;
use crate::audit::finding::{Findings, RuleViolation};
use crate::audit::origin::Origin;
use crate::audit::payload::{ParsedPayload, RowHead};
use crate::audit::rule::Rule;
use crate::observation::SimTime;
use squall_protocol::{Command, InstanceName, StreamName};

/// A violation of this rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error, IntoStaticStr, VariantNames)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum Violation {
    /// A writer's batch was open when another writer of the stream sent a row or a position.
    #[error("{origin}: a row or position came inside the batch that {open} opened on line {open_since}")]
    Interleaved {
        #[serde(flatten)]
        origin: Origin,
        open: InstanceName,
        open_since: u64,
    },
    /// A writer sent a position before the end of its batch.
    #[error("{origin}: a position came before the end of the batch of line {open_since}, which has {rows} rows so far")]
    CutShort {
        #[serde(flatten)]
        origin: Origin,
        rows: u64,
        open_since: u64,
    },
}

impl RuleViolation for Violation {
    fn class(&self) -> Class {
        Class::Loss
    }

    fn origin(&self) -> Option<&Origin> {
        match self {
            Violation::Interleaved { origin, .. } | Violation::CutShort { origin, .. } => Some(origin),
        }
    }
}

/// Checks every row and position of a stream that has an open batch.
#[derive(Debug, Default)]
pub(super) struct BatchesWhole {
    open: BTreeMap<StreamName, BTreeMap<InstanceName, Batch>>,
    judged: u64,
}

/// An open batch.
#[derive(Debug)]
struct Batch {
    since: u64,
    rows: u64,
    /// True if a payload of another writer inside this batch has been reported.
    is_interleaved: bool,
}

impl BatchesWhole {
    /// Checks that no other writer of the stream has an open batch.
    fn check_others(&mut self, line: u64, origin: &Origin, findings: &mut Findings<Violation>) {
        let Some(open) = self.open.get_mut(&origin.stream) else { return };
        for (writer, batch) in open.iter_mut().filter(|(writer, _)| **writer != origin.writer) {
            self.judged += 1;
            if !std::mem::replace(&mut batch.is_interleaved, true) {
                let open = writer.clone();
                findings.add(line, Violation::Interleaved { origin: origin.clone(), open, open_since: batch.since });
            }
        }
    }
}

impl Rule for BatchesWhole {
    type Violation = Violation;

    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Violation>) {
        if let Some(RowHead { origin, token }) = payload.row() {
            self.check_others(payload.line, &origin, findings);
            let open = self.open.entry(origin.stream).or_default();
            if token.is_none() {
                let new = || Batch { since: payload.line, rows: 0, is_interleaved: false };
                open.entry(origin.writer).or_insert_with(new).rows += 1;
            } else if open.remove(&origin.writer).is_some() {
                self.judged += 1;
            }
        }
        if let Ok(Command::Position(position)) = payload.command {
            let origin = Origin::from(position);
            self.check_others(payload.line, &origin, findings);
            let batch = self.open.get_mut(&origin.stream).and_then(|open| open.remove(&origin.writer));
            if let Some(Batch { since: open_since, rows, .. }) = batch {
                self.judged += 1;
                findings.add(payload.line, Violation::CutShort { origin, rows, open_since });
            }
        }
    }

    fn missed(&mut self, _now: Option<SimTime>) {
        self.open.clear();
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
    fn whole_batches_of_several_writers_and_streams_are_fine() {
        let payloads = [
            r#"RDATA events a batch ["x"]"#,
            r#"RDATA caches b 7 ["x"]"#,
            "POSITION caches a 7 7",
            r#"RDATA events a 2 ["x"]"#,
            r#"RDATA events b batch ["x"]"#,
            r#"RDATA events b 3 ["x"]"#,
            "POSITION events b 3 3",
            r#"RDATA events b batch ["x"]"#,
        ];
        assert_eq!(found(BatchesWhole::default(), &payloads), []);
    }

    #[test]
    fn another_writer_inside_a_batch_is_found_once() {
        let payloads = [
            r#"RDATA events a batch ["x"]"#,
            r#"RDATA events b 3 ["x"]"#,
            "POSITION events b 3 3",
            r#"RDATA events a 2 ["x"]"#,
            r#"RDATA events b 4 ["x"]"#,
        ];
        assert_eq!(found(BatchesWhole::default(), &payloads), [(2, "interleaved")]);
    }

    #[test]
    fn a_batch_without_its_end_is_found() {
        let payloads = [r#"RDATA events a batch ["x"]"#, "POSITION events a 1 1", r#"RDATA events a 2 ["x"]"#];
        assert_eq!(found(BatchesWhole::default(), &payloads), [(2, "cut_short")]);
    }
}
