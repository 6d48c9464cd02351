//! Only what was committed is applied.
//!
//! Whatever an instance applies, somebody has committed before: under that token that writer has rows, and each of the
//! rows is one of that stream's. A row that was sent from a transaction that was rolled back after all, or under a token
//! that was made up (Synapse #7286 gave many rows the token of the last), is known to no database and to every cache.
//!
//! No false alarm: `state-all` stands for rows instead of being one, and is left to `tokens_whole`; an event that has
//! ceased to be an outlier is the same event. Rows of streams in memory are committed nowhere, and are judged against
//! what their writers said, by `no_missed_rows`.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use xxhash_rust::xxh3::Xxh3Default;

use super::Invariant;
use crate::judge::observation::{Moment, Observation};
use crate::judge::topology::{Feed, Topology};
use crate::judge::violation::Violation;
use crate::protocol::{InstanceName, StreamName, Token};
use crate::streams::events::EventRow;
use crate::streams::{EventsRow, Promise, Row};

/// Judges every row that is applied against all that were committed.
pub struct OnlyCommittedApplied {
    topology: Topology,
    tokens: BTreeMap<(StreamName, InstanceName), BTreeSet<Token>>,
    /// The hash of every row of a stream.
    rows: BTreeMap<StreamName, BTreeSet<u64>>,
    judged: u64,
}

impl OnlyCommittedApplied {
    /// Knows from `topology` which streams lie in the database.
    pub fn new(topology: &Topology) -> Self {
        let (tokens, rows) = Default::default();
        OnlyCommittedApplied { topology: topology.clone(), tokens, rows, judged: 0 }
    }

    fn is_in_database(&self, stream: &StreamName) -> bool {
        self.topology.promise(stream).is_some_and(|promise| promise != Promise::Memory)
    }
}

/// The same number for the same row, before and after it ceased to be an outlier.
fn fingerprint(row: &Row) -> u64 {
    let mut hasher = Xxh3Default::default();
    match row {
        Row::Events(EventsRow::Event(event)) if event.outlier => {
            Row::Events(EventsRow::Event(EventRow { outlier: false, ..event.clone() })).hash(&mut hasher);
        }
        _ => row.hash(&mut hasher),
    }
    hasher.finish()
}

impl Invariant for OnlyCommittedApplied {
    fn name(&self) -> &'static str {
        "only_committed_applied"
    }

    fn observe(&mut self, _at: Moment, observation: &Observation) -> Result<(), Violation> {
        match observation {
            Observation::Committed { stream, writer, token, row } => {
                self.tokens.entry((stream.clone(), writer.clone())).or_default().insert(*token);
                self.rows.entry(stream.clone()).or_default().insert(fingerprint(row));
            }
            Observation::Applied { instance, stream, writer, token, rows } if self.is_in_database(stream) => {
                self.judged += 1;
                let of_writer = self.tokens.get(&(stream.clone(), writer.clone()));
                let feed = || Feed::new(instance, stream, writer);
                if !of_writer.is_some_and(|tokens| tokens.contains(token)) {
                    return Err(Violation::NotCommitted { feed: feed(), token: *token });
                }
                let known = self.rows.get(stream);
                let is_known = |row: &Row| {
                    matches!(row, Row::Events(EventsRow::StateAll(_)))
                        || known.is_some_and(|known| known.contains(&fingerprint(row)))
                };
                if let Some(made_up) = rows.iter().find(|row| !is_known(row)) {
                    return Err(Violation::MadeUp { feed: feed(), token: *token, row: Box::new(made_up.to_json()) });
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
    use super::super::made_up::{event, outlier, state_all};
    use super::*;

    struct Story(OnlyCommittedApplied);

    impl Story {
        fn new() -> Self {
            let topology = Topology::new(["worker".into()])
                .with_stream("events", Promise::Log, ["writer".into(), "other".into()])
                .with_stream("typing", Promise::Memory, ["writer".into()]);
            Story(OnlyCommittedApplied::new(&topology))
        }

        fn committed(&mut self, writer: &str, token: i64, row: Row) {
            let (stream, writer, token) = ("events".into(), writer.into(), Token(token));
            self.0.observe(Moment(0), &Observation::Committed { stream, writer, token, row }).unwrap();
        }

        fn applied(&mut self, stream: &str, token: i64, row: Row) -> &'static str {
            let (instance, stream, writer) = ("worker".into(), stream.into(), "writer".into());
            let applied = Observation::Applied { instance, stream, writer, token: Token(token), rows: vec![row] };
            self.0.observe(Moment(1), &applied).map_or_else(|violation| violation.kind(), |()| "none")
        }
    }

    #[test]
    fn what_somebody_committed_may_be_applied() {
        let mut story = Story::new();
        story.committed("writer", 2, event("a"));
        assert_eq!(story.applied("events", 2, event("a")), "none");
        assert_eq!(story.applied("events", 2, state_all("room")), "none", "it is no row of its own");
    }

    #[test]
    fn a_token_of_which_its_writer_committed_nothing_must_not_be_applied() {
        let mut story = Story::new();
        story.committed("writer", 2, event("a"));
        story.committed("other", 3, event("b"));
        assert_eq!(story.applied("events", 1, event("a")), "not_committed");
        assert_eq!(story.applied("events", 3, event("b")), "not_committed", "it is another writer's");
    }

    #[test]
    fn a_row_that_nobody_committed_must_not_be_applied() {
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
    fn rows_in_memory_are_committed_nowhere() {
        assert_eq!(Story::new().applied("typing", 1, event("a")), "none");
    }
}
