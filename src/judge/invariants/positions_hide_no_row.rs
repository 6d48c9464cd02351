//! Positions hide no row.
//!
//! `POSITION prev new` says that its writer has no row in `(prev, new]`: a follower that stands anywhere between the two
//! does not fetch. Announced over rows that are there, of whatever age, it loses them for everybody, and nobody notices
//! (Synapse #19795). So when a writer's end of a connection writes one, nothing of that writer may be there in between.
//!
//! No false alarm: `prev` and `new` alike claim nothing, and make whoever is behind fetch. Rows that a later one of their
//! key has overwritten, or that were removed, are hidden rightly. A row that is committed only after the line was written
//! is another matter (`no_position_over_uncommitted`). Streams in memory begin anew with their writers, so that a line
//! cannot be held against what another process said; what becomes of them is judged on their followers.

use std::collections::BTreeMap;

use super::Invariant;
use crate::judge::observation::{Line, Moment, Observation};
use crate::judge::present::Present;
use crate::judge::topology::Topology;
use crate::judge::violation::Violation;
use crate::judge::wire_violation::WireViolation;
use crate::protocol::{InstanceName, StreamName, Token};

/// Judges every position that is written to a connection against the rows that are there.
pub struct PositionsHideNoRow {
    topology: Topology,
    present: BTreeMap<(StreamName, InstanceName), Present>,
    judged: u64,
}

impl PositionsHideNoRow {
    /// Knows from `topology` which streams keep only the newest row of a key.
    pub fn new(topology: &Topology) -> Self {
        PositionsHideNoRow { topology: topology.clone(), present: BTreeMap::new(), judged: 0 }
    }
}

impl Invariant for PositionsHideNoRow {
    fn name(&self) -> &'static str {
        "positions_hide_no_row"
    }

    fn observe(&mut self, _at: Moment, observation: &Observation) -> Result<(), Violation> {
        match observation {
            Observation::Committed { stream, writer, token, row } => {
                let present = self.present.entry((stream.clone(), writer.clone()));
                present.or_insert_with(|| Present::new(stream, &self.topology)).written(*token, row);
            }
            Observation::Removed { stream, writer, token, row } => {
                if let Some(present) = self.present.get_mut(&(stream.clone(), writer.clone())) {
                    present.removed(*token, row);
                }
            }
            Observation::Wrote { line: Line::Position { stream, writer, prev, new }, .. } if prev < new => {
                self.judged += 1;
                let Some(present) = self.present.get(&(stream.clone(), writer.clone())) else { return Ok(()) };
                let tokens: Vec<Token> = present.between(*prev, *new).map(|(token, _)| token).collect();
                if !tokens.is_empty() {
                    let (stream, writer, prev, new) = (stream.clone(), writer.clone(), *prev, *new);
                    return Err(Violation::Wire(WireViolation::Hidden { stream, writer, prev, new, tokens }));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::observation::Side;
    use crate::streams::{AccountDataRow, Promise, Row};

    struct Story(PositionsHideNoRow);

    impl Story {
        fn new() -> Self {
            let topology = Topology::new(["worker".into()])
                .with_stream("events", Promise::Log, ["writer".into(), "other".into()])
                .with_stream("account_data", Promise::Keyed, ["writer".into()]);
            Story(PositionsHideNoRow::new(&topology))
        }

        fn row(&mut self, stream: &str, writer: &str, token: i64, kind: &str, is_there: bool) {
            let row = Row::AccountData(AccountDataRow { user_id: "@user".into(), room_id: None, kind: kind.into() });
            let (stream, writer, token) = (stream.into(), writer.into(), Token(token));
            let observation = if is_there {
                Observation::Committed { stream, writer, token, row }
            } else {
                Observation::Removed { stream, writer, token, row }
            };
            self.0.observe(Moment(0), &observation).unwrap();
        }

        fn hidden(&mut self, stream: &str, prev: i64, new: i64) -> Vec<i64> {
            let line =
                Line::Position { stream: stream.into(), writer: "writer".into(), prev: Token(prev), new: Token(new) };
            let wrote = Observation::Wrote { instance: "writer".into(), attempt: 1, side: Side::Server, line };
            match self.0.observe(Moment(1), &wrote) {
                Ok(()) => Vec::new(),
                Err(Violation::Wire(WireViolation::Hidden { tokens, .. })) => tokens.iter().map(|t| t.0).collect(),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_position_over_rows_of_its_writer_hides_them() {
        let mut story = Story::new();
        story.row("events", "writer", 5, "a", true);
        story.row("events", "writer", 6, "b", true);
        assert_eq!(story.hidden("events", 4, 6), [5, 6]);
        assert_eq!(story.hidden("events", 5, 9), [6]);
        assert_eq!(story.0.exercised(), 2);
    }

    #[test]
    fn a_position_that_claims_nothing_or_stops_before_a_row_hides_nothing() {
        let mut story = Story::new();
        story.row("events", "writer", 5, "a", true);
        story.row("events", "other", 8, "a", true);
        assert!(story.hidden("events", 7, 7).is_empty(), "whoever is behind fetches");
        assert!(story.hidden("events", 3, 4).is_empty());
        assert!(story.hidden("events", 5, 9).is_empty(), "the row in between is another writer's");
    }

    #[test]
    fn what_was_overwritten_or_removed_is_hidden_rightly() {
        let mut story = Story::new();
        story.row("account_data", "writer", 5, "a", true);
        story.row("account_data", "writer", 6, "b", true);
        story.row("account_data", "writer", 9, "a", true);
        assert_eq!(story.hidden("account_data", 4, 7), [6]);
        story.row("account_data", "writer", 6, "b", false);
        assert!(story.hidden("account_data", 4, 7).is_empty());
        assert_eq!(story.hidden("account_data", 4, 9), [9]);
    }
}
