//! Tokens ascend.
//!
//! A follower that has taken in a token drops whatever comes at or below it (Synapse #7648). So the rows of one writer of
//! one stream come in the order of their tokens, each token once: what comes later is lost, and what comes again is work
//! for everybody. A position goes back only where the stream is kept in memory and its writer has been started again,
//! which the position itself tells.
//!
//! No false alarm: the tokens of different writers may come in any order, and a recording may begin with any of them. A
//! restart of a writer in memory that comes as far as its predecessor before anybody asks is not seen, and need not be.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::Xxh3;

use super::Rule;
use crate::judge::audit::{Findings, Heard, Origin, Violation};
use crate::judge::observation::Moment;
use crate::protocol::{Command, Position, Rdata, Token};

/// How many tokens of a writer are remembered, to tell what comes again from what comes late.
const TOKENS_MAX: usize = 1_000;

/// Judges every token and every position.
#[derive(Debug, Default)]
pub struct TokensAscend {
    origins: BTreeMap<Origin, Sent>,
    judged: u64,
}

/// What a writer has sent.
#[derive(Default)]
struct Sent {
    position: Option<Token>,
    /// A hash over the rows of each token.
    rows: BTreeMap<Token, u64>,
    /// The rows of a token that is still to come.
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
        let words = std::mem::take(&mut self.batch).digest();
        let last = self.rows.last_key_value().map(|(last, _)| *last);
        self.position = self.position.max(Some(token));
        let before = self.rows.insert(token, words);
        while self.rows.len() > TOKENS_MAX {
            self.rows.pop_first();
        }
        let (origin, last) = (Origin::from(rdata), last.filter(|last| token <= *last)?);
        Some(match before {
            Some(before) if before == words => Violation::Repeated { origin, token, last },
            Some(_) => Violation::Contradicted { origin, token, last },
            None => Violation::Behind { origin, token, last },
        })
    }

    fn position(&mut self, position: &Position) -> Option<Violation> {
        let (origin, to) = (Origin::from(position), position.new);
        let before = self.position.replace(to);
        let from = before.filter(|before| to < *before)?;
        *self = Sent { position: Some(to), ..Sent::default() };
        (!origin.is_in_memory()).then_some(Violation::WentBack { origin, from, to })
    }
}

impl Rule for TokensAscend {
    fn name(&self) -> &'static str {
        "tokens_ascend"
    }

    fn hear(&mut self, heard: &Heard<'_>, findings: &mut Findings) {
        let violation = match heard.said {
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
            findings.add(heard.line, violation);
        }
    }

    fn missed(&mut self, _now: Option<Moment>) {
        self.origins.clear();
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::audit::testing::found;

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
    fn what_comes_again_is_told_from_what_comes_late_and_from_what_is_new() {
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
    fn only_a_stream_in_memory_begins_again() {
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
