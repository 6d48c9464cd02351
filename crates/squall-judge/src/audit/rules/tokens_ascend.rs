//! Tokens ascend.
//!
//! A follower that has applied a token drops every row at or below it (Synapse #7648). So the rows of one writer of one
//! stream come in the order of their tokens, each token once: a late row is lost, and a repeated one is work for every
//! instance. A position goes back only if the stream is kept in memory and its writer has been restarted.
//!
//! No false alarm: the tokens of different writers may come in any order, and a recording may begin with any of them. If a
//! restarted writer in memory reaches the position of its predecessor before a REPLICATE, the restart is not seen, and
//! need not be.
//!
//! Class: a follower drops contradicting and late rows, and rows below a position that went back: loss. It drops repeated
//! rows, too, but it has them: load. In `caches` two of these are a habit. The query of Synapse for that stream ignores its
//! upper bound, so it returns rows beyond the position that the writer then announces, and the next query returns them
//! again. So the position goes back among rows that were only just sent, and never below an announced one; and only those
//! rows are repeated, at most `OVERSHOT_MAX`.

use std::collections::BTreeMap;

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use crate::audit::class::Class;
use crate::audit::finding::{Findings, RuleViolation};
use crate::audit::origin::Origin;
use crate::audit::payload::ParsedPayload;
use crate::audit::rule::Rule;
use crate::observation::SimTime;
use squall_protocol::{Command, Position, Rdata, Token};

/// Number of tokens of a writer that are remembered, to distinguish repeated rows from late ones.
const TOKENS_MAX: usize = 1_000;

/// Number of tokens of `caches` by which rows may exceed the position of their writer: those of one query.
const OVERSHOT_MAX: u64 = 100;

/// A violation of this rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error, IntoStaticStr, VariantNames)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum Violation {
    /// The same rows were sent again under a token that had been sent.
    #[error("{origin}: the rows of {token} were sent again, after those of {last}")]
    Repeated {
        #[serde(flatten)]
        origin: Origin,
        token: Token,
        last: Token,
    },
    /// Other rows were sent under a token that had been sent.
    #[error("{origin}: other rows than before were sent under {token}, after those of {last}")]
    Contradicted {
        #[serde(flatten)]
        origin: Origin,
        token: Token,
        last: Token,
    },
    /// A row that had not been sent before came after a row with a higher token.
    #[error("{origin}: the rows of {token} came after those of {last}; every follower drops them")]
    Behind {
        #[serde(flatten)]
        origin: Origin,
        token: Token,
        last: Token,
    },
    /// A position went back, in a stream that is not kept in memory.
    #[error("{origin}: the position went back from {from} to {to}; only streams in memory may begin again")]
    WentBack {
        #[serde(flatten)]
        origin: Origin,
        from: Token,
        to: Token,
        /// The last position that was announced before.
        announced: Option<Token>,
    },
}

impl RuleViolation for Violation {
    fn class(&self) -> Class {
        match self {
            Violation::Repeated { origin, token, last } if is_overshot(origin, *token, *last) => Class::Habit,
            Violation::WentBack { origin, from, to, announced } if is_overshot(origin, *to, *from) => {
                if announced.is_some_and(|announced| announced <= *to) { Class::Habit } else { Class::Loss }
            }
            Violation::Repeated { .. } => Class::Load,
            Violation::Contradicted { .. } | Violation::Behind { .. } | Violation::WentBack { .. } => Class::Loss,
        }
    }

    fn origin(&self) -> Option<&Origin> {
        match self {
            Violation::Repeated { origin, .. }
            | Violation::Contradicted { origin, .. }
            | Violation::Behind { origin, .. }
            | Violation::WentBack { origin, .. } => Some(origin),
        }
    }
}

/// Returns true if rows after `token` may have been sent by the query of Synapse for `caches` that ignores its upper bound.
fn is_overshot(origin: &Origin, token: Token, last: Token) -> bool {
    origin.stream.as_str() == "caches" && last.0.abs_diff(token.0) < OVERSHOT_MAX
}

/// Checks every token and every position.
#[derive(Debug, Default)]
pub(super) struct TokensAscend {
    origins: BTreeMap<Origin, Sent>,
    judged: u64,
}

/// The rows and positions that a writer has sent.
#[derive(Default)]
struct Sent {
    position: Option<Token>,
    /// The last position that was announced, without rows.
    announced: Option<Token>,
    /// A hash of the rows of each token.
    rows: BTreeMap<Token, u64>,
    /// A hash of the rows of the open batch.
    batch: Xxh3,
}

impl std::fmt::Debug for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sent").field("position", &self.position).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Sent {
    fn row(&mut self, rdata: &Rdata) -> Option<Violation> {
        self.batch.update(rdata.row.to_string().as_bytes());
        let token = rdata.token?;
        let hash = std::mem::take(&mut self.batch).digest();
        let last = self.rows.last_key_value().map(|(last, _)| *last);
        self.position = self.position.max(Some(token));
        let before = self.rows.insert(token, hash);
        while self.rows.len() > TOKENS_MAX {
            self.rows.pop_first();
        }
        let last = last.filter(|last| token <= *last)?;
        let origin = Origin::from(rdata);
        Some(match before {
            Some(before) if before == hash => Violation::Repeated { origin, token, last },
            Some(_) => Violation::Contradicted { origin, token, last },
            None => Violation::Behind { origin, token, last },
        })
    }

    fn position(&mut self, position: &Position) -> Option<Violation> {
        let origin = Origin::from(position);
        let to = position.new;
        let before = self.position.replace(to);
        let announced = self.announced.replace(to);
        let from = before.filter(|before| to < *before)?;
        *self = Sent { position: Some(to), announced: Some(to), ..Sent::default() };
        (!origin.is_in_memory()).then_some(Violation::WentBack { origin, from, to, announced })
    }
}

impl Rule for TokensAscend {
    type Violation = Violation;

    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Violation>) {
        let violation = match payload.command {
            Ok(Command::Rdata(rdata)) => {
                self.judged += u64::from(rdata.token.is_some());
                self.origins.entry(Origin::from(rdata)).or_default().row(rdata)
            }
            Ok(Command::Position(position)) => {
                self.judged += 1;
                self.origins.entry(Origin::from(position)).or_default().position(position)
            }
            _ => None,
        };
        if let Some(violation) = violation {
            findings.add(payload.line, violation);
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
    use crate::audit::finding::Kind;
    use crate::audit::testing::{found, found_at};

    fn judge(payloads: &[&str]) -> Vec<(u64, &'static str)> {
        found(TokensAscend::default(), payloads)
    }

    #[test]
    fn each_writer_has_an_order_of_its_own() {
        let payloads = [
            r#"RDATA events a 5 ["x"]"#,
            r#"RDATA events b 4 ["x"]"#,
            r#"RDATA caches a 3 ["x"]"#,
            r#"RDATA events a batch ["x"]"#,
            r#"RDATA events a 6 ["x"]"#,
            "POSITION events a 6 8",
            "POSITION events a 8 8",
        ];
        assert_eq!(judge(&payloads), []);
    }

    #[test]
    fn repeated_contradicting_and_late_rows_are_distinguished() {
        let payloads = [
            r#"RDATA caches a batch ["x"]"#,
            r#"RDATA caches a 5 ["y"]"#,
            r#"RDATA caches a batch ["x"]"#,
            r#"RDATA caches a 5 ["y"]"#,
            r#"RDATA caches a 5 ["y"]"#,
            r#"RDATA caches a 4 ["x"]"#,
        ];
        assert_eq!(judge(&payloads), [(4, "repeated"), (5, "contradicted"), (6, "behind")]);
    }

    #[test]
    fn only_rows_of_caches_that_were_just_sent_are_repeated_by_habit() {
        let classes = |stream: &str, first: i64| -> Vec<(&'static str, Class)> {
            let payloads = [
                format!("POSITION {stream} a {first} {first}"),
                format!(r#"RDATA {stream} a {} ["x"]"#, first + 1),
                format!(r#"RDATA {stream} a 500 ["y"]"#),
                format!(r#"RDATA {stream} a {} ["x"]"#, first + 1),
                format!("POSITION {stream} a {0} {0}", first + 1),
                format!(r#"RDATA {stream} a 500 ["y"]"#),
                format!("POSITION {stream} a {0} {0}", first - 1),
            ];
            let payloads: Vec<_> = (0..).zip(payloads.each_ref().map(String::as_str)).collect();
            let found = found_at(TokensAscend::default(), &payloads);
            found.iter().map(|finding| (finding.violation.kind(), finding.violation.class())).collect()
        };
        let of = |repeated, once, twice| [("repeated", repeated), ("went_back", once), ("went_back", twice)];
        assert_eq!(classes("caches", 498), of(Class::Habit, Class::Habit, Class::Loss), "an announced position");
        assert_eq!(classes("caches", 300), of(Class::Load, Class::Loss, Class::Loss), "older rows");
        assert_eq!(classes("receipts", 498), of(Class::Load, Class::Loss, Class::Loss), "another stream");
    }

    #[test]
    fn only_a_stream_in_memory_may_begin_again() {
        let payloads = ["POSITION typing a 26 26", "POSITION typing a 0 0", r#"RDATA typing a 1 ["!r",[]]"#];
        assert_eq!(judge(&payloads), []);
        let payloads = [
            "POSITION pushers a 26 26",
            "POSITION pushers a 20 20",
            "POSITION pushers a 21 21",
            "POSITION pushers a 5 6",
        ];
        assert_eq!(judge(&payloads), [(2, "went_back"), (4, "went_back")]);
    }
}
