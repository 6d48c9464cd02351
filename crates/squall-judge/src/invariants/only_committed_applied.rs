//! Only what was committed is applied.
//!
//! Every row that an instance applies was committed before: the writer has rows under that token, and each of the rows is
//! one of that stream. A row sent from a transaction that was then rolled back, or under a wrong token (Synapse #7286 gave
//! many rows the token of the last), is in no database and in every cache.
//!
//! No false alarm: a `state-all` row stands for other rows, and is left to `tokens_whole`. An event that has ceased to be
//! an outlier is the same event. Rows of streams in memory are not committed; `no_missed_rows` judges them against the
//! rows that their writers sent.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::hash::hash_of;
use crate::invariant::Invariant;
use crate::names::{Source, Stream, Table};
use crate::observation::{Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::{FollowerKey, Topology};
use squall_protocol::Token;
use squall_protocol::rows::events::EventRow;
use squall_protocol::rows::{EventsRow, Row};

/// Something that was applied and not committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A token was applied under which its writer had committed nothing.
    #[error("{follower}: applied token {token}, under which {} committed nothing", .follower.writer)]
    NotCommitted {
        #[serde(flatten)]
        follower: FollowerKey,
        token: Token,
    },
    /// A row was applied that no writer had committed to the stream.
    #[error("{follower}: applied under token {token} a row that was never committed: {row}")]
    MadeUp {
        #[serde(flatten)]
        follower: FollowerKey,
        token: Token,
        row: Box<Value>,
    },
}

/// Checks every applied row against all committed rows.
#[derive(Default)]
pub struct OnlyCommittedApplied {
    tokens: Table<Source, BTreeSet<Token>>,
    /// The hash of every row of a stream.
    rows: Table<Stream, BTreeSet<u64>>,
    judged: u64,
}

/// Returns a hash of the row that is the same before and after an event ceases to be an outlier.
fn row_hash(row: &Row) -> u64 {
    match row {
        Row::Events(EventsRow::Event(event)) if event.outlier => {
            hash_of(&Row::Events(EventsRow::Event(EventRow { outlier: false, ..event.clone() })))
        }
        _ => hash_of(row),
    }
}

impl Invariant for OnlyCommittedApplied {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[Kind::Committed, Kind::Applied];

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::Committed { token, row, .. } => {
                self.tokens.or_default(scene.source()).insert(*token);
                self.rows.or_default(scene.stream()).insert(row_hash(row));
            }
            Observation::Applied { token, rows, .. } if scene.is_in_database() => {
                self.judged += 1;
                let of_writer = self.tokens.get(scene.source());
                let follower = || scene.names.key_of(scene.follower());
                if !of_writer.is_some_and(|tokens| tokens.contains(token)) {
                    return Err(Violation::NotCommitted { follower: follower(), token: *token });
                }
                let known = self.rows.get(scene.stream());
                let is_known = |row: &Row| {
                    matches!(row, Row::Events(EventsRow::StateAll(_)))
                        || known.is_some_and(|known| known.contains(&row_hash(row)))
                };
                if let Some(made_up) = rows.iter().find(|row| !is_known(row)) {
                    return Err(Violation::MadeUp {
                        follower: follower(),
                        token: *token,
                        row: Box::new(made_up.to_json()),
                    });
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
    use crate::invariants::made_up::{event, outlier, state_all};
    use crate::violation;
    use squall_protocol::Delivery;

    struct Story(Alone<OnlyCommittedApplied>);

    impl Story {
        fn new() -> Self {
            let topology = Topology::new(["worker".into()])
                .with_stream("events", Delivery::Log, ["writer".into(), "other".into()])
                .with_stream("typing", Delivery::Memory, ["writer".into()]);
            Story(Alone::<OnlyCommittedApplied>::new(&topology))
        }

        fn committed(&mut self, writer: &str, token: i64, row: Row) {
            let (stream, writer, token) = ("events".into(), writer.into(), Token(token));
            self.0.observe(SimTime(0), &Observation::Committed { stream, writer, token, row }).unwrap();
        }

        fn applied(&mut self, stream: &str, token: i64, row: Row) -> String {
            let (instance, stream, writer) = ("worker".into(), stream.into(), "writer".into());
            let applied = Observation::Applied { instance, stream, writer, token: Token(token), rows: vec![row] };
            violation::kind(&self.0.observe(SimTime(1), &applied))
        }
    }

    #[test]
    fn a_committed_row_may_be_applied() {
        let mut story = Story::new();
        story.committed("writer", 2, event("a"));
        assert_eq!(story.applied("events", 2, event("a")), "none");
        assert_eq!(story.applied("events", 2, state_all("room")), "none", "it stands for other rows");
    }

    #[test]
    fn a_token_without_rows_of_its_writer_must_not_be_applied() {
        let mut story = Story::new();
        story.committed("writer", 2, event("a"));
        story.committed("other", 3, event("b"));
        assert_eq!(story.applied("events", 1, event("a")), "not_committed");
        assert_eq!(story.applied("events", 3, event("b")), "not_committed", "it is another writer's");
    }

    #[test]
    fn a_row_that_was_not_committed_must_not_be_applied() {
        let mut story = Story::new();
        story.committed("writer", 2, event("a"));
        assert_eq!(story.applied("events", 2, event("z")), "made_up");
    }

    #[test]
    fn an_event_that_ceased_to_be_an_outlier_is_the_same_event() {
        let mut story = Story::new();
        story.committed("writer", 2, outlier("a"));
        assert_eq!(story.applied("events", 2, event("a")), "none");
        assert_eq!(story.applied("events", 2, outlier("a")), "none");
    }

    #[test]
    fn rows_in_memory_are_not_judged() {
        assert_eq!(Story::new().applied("typing", 1, event("a")), "none");
    }
}
