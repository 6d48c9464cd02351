//! Positions hide no row.
//!
//! `POSITION prev new` says that its writer has no row in `(prev, new]`. A follower anywhere in that range does not fetch.
//! A position announced over existing rows loses them for every follower, and nothing reports it (Synapse #19795). So
//! when a writer's end of a connection writes a position, no row of that writer may exist in the range.
//!
//! No false alarm: a position with `prev` equal to `new` claims nothing, and makes a follower that is behind fetch. Rows
//! that were removed, or that a later row of their key has overwritten, may be hidden. A row committed after the line was
//! written belongs to `no_position_over_uncommitted`. Streams in memory start again with each process of the writer, so
//! one process is not held to the positions of another; `no_missed_rows` judges their followers instead.

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::names::{Source, Table};
use crate::observation::{Kind, Line, Observation, SimTime};
use crate::present::Present;
use crate::scene::Scene;
use crate::topology::Topology;
use crate::violation::list;
use squall_protocol::{InstanceName, StreamName, Token};

/// A position that hides rows from followers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A position was announced over committed rows. Followers that are behind them do not fetch them.
    #[error("{writer} announced that {stream} has no rows in ({prev}, {new}], where it had committed {}", list(.tokens))]
    Hidden { stream: StreamName, writer: InstanceName, prev: Token, new: Token, tokens: Vec<Token> },
}

/// Checks every position written to a connection against the rows that exist.
#[derive(Default)]
pub struct PositionsHideNoRow {
    present: Table<Source, Present>,
    judged: u64,
}

impl Invariant for PositionsHideNoRow {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[Kind::Committed, Kind::Removed, Kind::Wrote];

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::Committed { token, row, .. } => {
                let source = scene.source();
                let others = scene.names.sources_of(scene.stream()).iter().filter(|other| **other != source);
                for other in others {
                    if let Some(present) = self.present.get_mut(*other) {
                        present.overwritten(*token, row);
                    }
                }
                let present = self.present.get_or_insert_with(source, || Present::new(&scene.names, source));
                present.written(*token, row);
            }
            Observation::Removed { token, row, .. } => {
                if let Some(present) = self.present.get_mut(scene.source()) {
                    present.removed(*token, row);
                }
            }
            Observation::Wrote { line: Line::Position { stream, writer, prev, new }, .. } if prev < new => {
                self.judged += 1;
                let Some(present) = self.present.get(scene.source()) else { return Ok(()) };
                let tokens: Vec<Token> = present.between(*prev, *new).map(|(token, _)| token).collect();
                if !tokens.is_empty() {
                    let stream = stream.clone();
                    let writer = writer.clone();
                    return Err(Violation::Hidden { stream, writer, prev: *prev, new: *new, tokens });
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
    use crate::invariant::Alone;
    use crate::observation::Role;
    use squall_protocol::Delivery;
    use squall_protocol::rows::{AccountDataRow, Row};

    struct Story(Alone<PositionsHideNoRow>);

    impl Story {
        fn new() -> Self {
            let topology = Topology::new(["worker".into()])
                .with_stream("events", Delivery::Log, ["writer".into(), "other".into()])
                .with_stream("account_data", Delivery::Keyed, ["writer".into()]);
            Story(Alone::<PositionsHideNoRow>::new(&topology))
        }

        fn row(&mut self, stream: &str, writer: &str, token: i64, kind: &str, is_there: bool) {
            let row = Row::AccountData(AccountDataRow { user_id: "@user".into(), room_id: None, kind: kind.into() });
            let (stream, writer, token) = (stream.into(), writer.into(), Token(token));
            let observation = if is_there {
                Observation::Committed { stream, writer, token, row }
            } else {
                Observation::Removed { stream, writer, token, row }
            };
            self.0.observe(SimTime(0), &observation).unwrap();
        }

        fn hidden(&mut self, stream: &str, prev: i64, new: i64) -> Vec<i64> {
            let line =
                Line::Position { stream: stream.into(), writer: "writer".into(), prev: Token(prev), new: Token(new) };
            let wrote = Observation::Wrote { instance: "writer".into(), attempt: 1, role: Role::Server, line };
            match self.0.observe(SimTime(1), &wrote) {
                Ok(()) => Vec::new(),
                Err(Violation::Hidden { tokens, .. }) => tokens.iter().map(|t| t.0).collect(),
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
        assert!(story.hidden("events", 7, 7).is_empty(), "a follower that is behind fetches");
        assert!(story.hidden("events", 3, 4).is_empty());
        assert!(story.hidden("events", 5, 9).is_empty(), "the row in between is another writer's");
    }

    #[test]
    fn rows_that_were_overwritten_or_removed_may_be_hidden() {
        let mut story = Story::new();
        story.row("account_data", "writer", 5, "a", true);
        story.row("account_data", "writer", 6, "b", true);
        story.row("account_data", "writer", 9, "a", true);
        assert_eq!(story.hidden("account_data", 4, 7), [6]);
        story.row("account_data", "writer", 11, "c", true);
        story.row("account_data", "writer", 12, "d", true);
        story.row("account_data", "other", 13, "c", true);
        assert_eq!(story.hidden("account_data", 10, 12), [12], "another writer has overwritten the other one");
        story.row("account_data", "writer", 6, "b", false);
        assert!(story.hidden("account_data", 4, 7).is_empty());
        assert_eq!(story.hidden("account_data", 4, 9), [9]);
    }
}
