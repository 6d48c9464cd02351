//! No position hides a row.
//!
//! `POSITION <prev> <new>` is the writer's promise that it has no rows in `(prev, new]`: whoever is in that range goes to
//! its end and fetches nothing. And whoever has come to a position, in whatever way, drops rows at or below it as old
//! news (Synapse #7648). So a row inside a promised range, or one that comes after a position has passed it, is lost to
//! every follower that did not fetch it from the database in between.
//!
//! No false alarm: a row that comes twice was there the first time (see `tokens_ascend` for those), and a writer that goes
//! back begins anew.

use std::collections::BTreeMap;

use super::Rule;
use crate::judge::audit::{Findings, Heard, Origin, Violation};
use crate::judge::observation::Moment;
use crate::protocol::{Command, Token};

/// Judges every row against the positions around it.
#[derive(Debug, Default)]
pub struct PositionsHideNoRows {
    origins: BTreeMap<Origin, Told>,
    judged: u64,
}

/// What a writer has told.
#[derive(Debug, Default)]
struct Told {
    last_row: Option<Token>,
    /// Its position, and the line that told it.
    position: Option<(Token, u64)>,
}

impl Rule for PositionsHideNoRows {
    fn name(&self) -> &'static str {
        "positions_hide_no_rows"
    }

    fn hear(&mut self, heard: &Heard<'_>, findings: &mut Findings) {
        match heard.said {
            Ok(Command::Rdata(rdata)) => {
                let Some(token) = rdata.token else { return };
                let origin = Origin::from(rdata);
                let told = self.origins.entry(origin.clone()).or_default();
                if told.last_row.is_some_and(|last| token <= last) {
                    return;
                }
                told.last_row = Some(token);
                self.judged += 1;
                if let Some((position, announced_on)) = told.position
                    && token <= position
                {
                    findings.add(heard.line, Violation::Passed { origin, token, position, announced_on });
                }
            }
            Ok(Command::Position(position)) => {
                let origin = Origin::from(position);
                let (prev, new) = (position.prev, position.new);
                let told = self.origins.entry(origin.clone()).or_default();
                if told.position.is_some_and(|(before, _)| new < before) {
                    *told = Told::default();
                }
                told.position = Some((new, heard.line));
                self.judged += 1;
                if let Some(token) = told.last_row.filter(|last| prev < *last && *last <= new) {
                    findings.add(heard.line, Violation::Hidden { origin, token, prev, new });
                }
            }
            _ => {}
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
    fn rows_and_positions_that_follow_one_another_are_fine() {
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
    fn a_writer_that_goes_back_begins_anew() {
        let payloads = [r#"RDATA typing a 4 ["x"]"#, "POSITION typing a 4 4", "POSITION typing a 0 0"];
        let payloads = [&payloads[..], &[r#"RDATA typing a 1 ["x"]"#]].concat();
        assert_eq!(found(PositionsHideNoRows::default(), &payloads), []);
    }
}
