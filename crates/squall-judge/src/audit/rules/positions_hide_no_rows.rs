//! No position hides a row.
//!
//! `POSITION <prev> <new>` is the writer's promise that it has no rows in `(prev, new]`: a follower in that range moves to
//! its end and fetches nothing. A follower that has reached a position drops rows at or below it, because it takes them
//! for old ones (Synapse #7648). A row inside a promised range, or one that comes after a position has passed it, is lost
//! to every follower that did not fetch it from the database in between.
//!
//! No false alarm: a row that comes twice was there the first time (`tokens_ascend` finds those), and a writer whose
//! position goes back begins again.
//!
//! Class: loss. Followers drop the row, or never fetch it.

use std::collections::BTreeMap;

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;

use crate::audit::class::Class;
use crate::audit::finding::{Findings, RuleViolation};
use crate::audit::origin::Origin;
use crate::audit::payload::ParsedPayload;
use crate::audit::rule::Rule;
use crate::observation::SimTime;
use squall_protocol::{Command, Position, Token};

/// A violation of this rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error, IntoStaticStr, VariantNames)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum Violation {
    /// A row came after a position that had passed it.
    #[error("{origin}: a row of {token} came after position {position} of line {announced_on}; followers drop it")]
    Passed {
        #[serde(flatten)]
        origin: Origin,
        token: Token,
        position: Token,
        announced_on: u64,
    },
    /// A position promises that there is no row between its tokens, and there was one.
    #[error("{origin}: POSITION {prev} {new} promises that there is no row in between, but {token} was sent")]
    Hidden {
        #[serde(flatten)]
        origin: Origin,
        token: Token,
        prev: Token,
        new: Token,
    },
}

impl RuleViolation for Violation {
    fn class(&self) -> Class {
        Class::Loss
    }

    fn origin(&self) -> Option<&Origin> {
        match self {
            Violation::Passed { origin, .. } | Violation::Hidden { origin, .. } => Some(origin),
        }
    }
}

/// Checks every row against the positions around it.
#[derive(Debug, Default)]
pub(super) struct PositionsHideNoRows {
    origins: BTreeMap<Origin, Progress>,
    judged: u64,
}

/// The progress of a writer.
#[derive(Debug, Default)]
struct Progress {
    last_row: Option<Token>,
    /// The last position, and its line.
    position: Option<(Token, u64)>,
}

impl Rule for PositionsHideNoRows {
    type Violation = Violation;

    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Violation>) {
        match payload.command {
            Ok(Command::Rdata(rdata)) => {
                let Some(token) = rdata.token else { return };
                let origin = Origin::from(rdata);
                let progress = self.origins.entry(origin.clone()).or_default();
                if progress.last_row.is_some_and(|last| token <= last) {
                    return;
                }
                progress.last_row = Some(token);
                self.judged += 1;
                if let Some((position, announced_on)) = progress.position
                    && token <= position
                {
                    findings.add(payload.line, Violation::Passed { origin, token, position, announced_on });
                }
            }
            Ok(Command::Position(position)) => {
                let origin = Origin::from(position);
                let Position { prev, new, .. } = *position;
                let progress = self.origins.entry(origin.clone()).or_default();
                if progress.position.is_some_and(|(before, _)| new < before) {
                    *progress = Progress::default();
                }
                progress.position = Some((new, payload.line));
                self.judged += 1;
                if let Some(token) = progress.last_row.filter(|last| prev < *last && *last <= new) {
                    findings.add(payload.line, Violation::Hidden { origin, token, prev, new });
                }
            }
            _ => {}
        }
    }

    fn missed(&mut self, _now: Option<SimTime>) {
        self.origins.clear();
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
    fn a_row_behind_a_position_is_found() {
        let payloads = ["POSITION events a 1 5", r#"RDATA events a 4 ["x"]"#, r#"RDATA events a 6 ["x"]"#];
        assert_eq!(found(PositionsHideNoRows::default(), &payloads), [(2, "passed")]);
    }

    #[test]
    fn a_row_inside_a_promised_range_is_found() {
        let payloads = [r#"RDATA events a 4 ["x"]"#, "POSITION events a 3 5"];
        assert_eq!(found(PositionsHideNoRows::default(), &payloads), [(2, "hidden")]);
    }

    #[test]
    fn rows_and_positions_in_order_are_fine() {
        let payloads = [
            r#"RDATA events a 4 ["x"]"#,
            "POSITION events a 4 5",
            "POSITION events a 5 5",
            r#"RDATA events a batch ["x"]"#,
            r#"RDATA events a 6 ["x"]"#,
            "POSITION events b 1 6",
            r#"RDATA events a 6 ["x"]"#,
        ];
        assert_eq!(found(PositionsHideNoRows::default(), &payloads), []);
    }

    #[test]
    fn a_writer_whose_position_goes_back_begins_again() {
        let payloads = [r#"RDATA typing a 4 ["x"]"#, "POSITION typing a 4 4", "POSITION typing a 0 0"];
        let payloads = [&payloads[..], &[r#"RDATA typing a 1 ["x"]"#]].concat();
        assert_eq!(found(PositionsHideNoRows::default(), &payloads), []);
    }
}
