//! Tokens come whole.
//!
//! The rows applied under a token are those that its writer committed under it: all of them, none of another writer's, in
//! the order of their types. One transaction is one token, and half of it is a state that never existed. Rows of a token
//! were cut off at the limit of a query (Synapse #7337, #7358), and mixed with those of another writer whose batch arrived
//! at the same time. In a keyed stream some rows may be missing, because a later row has overwritten them.
//!
//! No false alarm: all state rows of a room may be missing where a `state-all` row has come in their place, or may yet
//! come (Synapse #16510); `no_missed_rows` checks that it comes. An event that ceases to be an outlier has a second row,
//! and a follower that fetches the first row afterwards finds it changed; see `Outliers`. The second row may be another
//! writer's. (This once looked only among the rows of the first one's writer. When a writer is added, rooms get another
//! one: seed 1000004 of `redis_swarm`.)

mod compare;
mod outliers;

use std::collections::{BTreeMap, BTreeSet};

pub use self::compare::Differs;
use self::compare::compare;
use self::outliers::Outliers;
use serde::Serialize;
use thiserror::Error;

use crate::due::state_room;
use crate::invariant::Invariant;
use crate::names::{Names, Source, Table};
use crate::observation::{Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::{FollowerKey, Topology};
use squall_protocol::Delivery;
use squall_protocol::Token;
use squall_protocol::rows::Row;

/// A token that was applied in part or with other rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A token was applied with other rows than were committed under it, or in another order of types.
    #[error("{follower}: applied {applied} rows under token {token}, where {committed} were committed{differs}")]
    WrongRows {
        #[serde(flatten)]
        follower: FollowerKey,
        token: Token,
        committed: usize,
        applied: usize,
        differs: Differs,
    },
}

/// Checks the rows applied under each token against the rows committed under it.
pub struct TokensWhole {
    written: Table<Source, Written>,
    judged: u64,
}

/// The rows that one writer committed to one stream.
#[derive(Default)]
struct Written {
    is_log: bool,
    /// The rows of each token, in order.
    rows: BTreeMap<Token, Vec<Row>>,
    /// The highest token with state rows, by room.
    state_upto: BTreeMap<String, Token>,
    outliers: Outliers,
}

impl Written {
    fn add(&mut self, token: Token, row: &Row) {
        if let Some(room) = state_room(row) {
            let upto = self.state_upto.entry(room.to_owned()).or_insert(token);
            *upto = token.max(*upto);
        }
        let rows = self.rows.entry(token).or_default();
        rows.insert(rows.partition_point(|other| other <= row), row.clone());
    }

    /// Returns a difference between the rows `applied` and `committed` under `token`; none if there is none.
    fn differs(&self, token: Token, committed: &[Row], applied: &[Row]) -> Option<Differs> {
        if self.is_log {
            let may_come = |room: &str| self.state_upto.get(room).is_some_and(|upto| *upto > token);
            return compare(committed, &self.outliers.as_committed(committed, applied), may_come).err();
        }
        let mut seen = BTreeSet::new();
        let mut unexpected = applied.iter().filter(|row| !committed.contains(row) || !seen.insert(*row));
        unexpected.next().map(|row| Differs::Unexpected(Box::new(row.to_json())))
    }
}

impl Invariant for TokensWhole {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[Kind::Committed, Kind::Applied];

    fn new(topology: &Topology) -> Self {
        let names = Names::new(topology);
        let mut written = Table::default();
        for source in names.configured() {
            let delivery = names.delivery_of(source);
            if delivery != Some(Delivery::Memory) {
                written.insert(source, Written { is_log: delivery == Some(Delivery::Log), ..Written::default() });
            }
        }
        TokensWhole { written, judged: 0 }
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::Committed { token, row, .. } => {
                for source in scene.names.sources_of(scene.stream()) {
                    let Some(written) = self.written.get_mut(*source) else { continue };
                    written.outliers.written(row);
                    if *source == scene.source() {
                        written.add(*token, row);
                    }
                }
            }
            Observation::Applied { token, rows, .. } => {
                let Some(written) = self.written.get(scene.source()) else { return Ok(()) };
                // A token of which nothing was committed is judged by `only_committed_applied`.
                let Some(committed) = written.rows.get(token) else { return Ok(()) };
                self.judged += 1;
                if let Some(differs) = written.differs(*token, committed, rows) {
                    return Err(Violation::WrongRows {
                        follower: scene.names.key_of(scene.follower()),
                        token: *token,
                        committed: committed.len(),
                        applied: rows.len(),
                        differs,
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
    use crate::invariants::made_up::{event, state, state_all};
    use squall_protocol::StreamName;
    use squall_protocol::rows::events::EventRow;
    use squall_protocol::rows::{AccountDataRow, EventsRow};

    struct Story(Alone<TokensWhole>);

    impl Story {
        fn new(committed: &[(&str, i64, Row)]) -> Self {
            let topology = Topology::new(["worker".into()])
                .with_stream("events", Delivery::Log, ["writer".into(), "other".into()])
                .with_stream("account_data", Delivery::Keyed, ["writer".into()]);
            let mut story = Story(Alone::<TokensWhole>::new(&topology));
            for (writer, token, row) in committed {
                let (stream, writer, token, row) = (stream_of(row), (*writer).into(), Token(*token), row.clone());
                story.0.observe(SimTime(0), &Observation::Committed { stream, writer, token, row }).unwrap();
            }
            story
        }

        /// Returns true if these rows may be applied as the writer's under `token`.
        fn may_apply(&mut self, token: i64, rows: &[Row]) -> bool {
            let (instance, stream, writer) = ("worker".into(), stream_of(&rows[0]), "writer".into());
            let applied = Observation::Applied { instance, stream, writer, token: Token(token), rows: rows.to_vec() };
            self.0.observe(SimTime(1), &applied).is_ok()
        }
    }

    fn stream_of(row: &Row) -> StreamName {
        if matches!(row, Row::AccountData(_)) { "account_data" } else { "events" }.into()
    }

    fn datum(kind: &str) -> Row {
        Row::AccountData(AccountDataRow { user_id: "@user".into(), room_id: None, kind: kind.into() })
    }

    #[test]
    fn all_the_rows_of_a_token_may_be_applied_and_not_some_of_them() {
        let mut story = Story::new(&[("writer", 2, state("room", "x")), ("writer", 2, state("room", "y"))]);
        assert!(story.may_apply(2, &[state("room", "y"), state("room", "x")]));
        assert!(!story.may_apply(2, &[state("room", "x")]), "it lost a row at the limit");
        assert!(story.may_apply(2, &[state_all("room")]), "it stands for both");
    }

    #[test]
    fn another_writers_rows_must_not_be_among_them() {
        let mut story = Story::new(&[("writer", 2, event("a")), ("other", 3, event("b"))]);
        assert!(!story.may_apply(2, &[event("a"), event("b")]));
        assert!(story.may_apply(2, &[event("a")]));
    }

    #[test]
    fn state_rows_may_be_left_out_while_later_ones_of_the_room_may_bring_all_of_it() {
        let mut story = Story::new(&[("writer", 2, event("a")), ("writer", 2, state("room", "x"))]);
        assert!(!story.may_apply(2, &[event("a")]));
        let later = ("writer", 3, state("room", "y"));
        let mut story = Story::new(&[("writer", 2, event("a")), ("writer", 2, state("room", "x")), later]);
        assert!(story.may_apply(2, &[event("a")]));
    }

    #[test]
    fn of_a_keyed_stream_rows_may_be_missing_and_none_may_be_added() {
        let mut story = Story::new(&[("writer", 2, datum("a")), ("writer", 2, datum("b"))]);
        assert!(story.may_apply(2, &[datum("a")]), "the other one may be overwritten");
        assert!(!story.may_apply(2, &[datum("a"), datum("z")]));
        assert!(!story.may_apply(2, &[datum("a"), datum("a")]));
    }

    #[test]
    fn the_first_row_of_an_event_that_another_writer_made_an_ordinary_one_may_come_either_way() {
        let Row::Events(EventsRow::Event(ordinary)) = event("a") else { unreachable!() };
        let outlier = Row::Events(EventsRow::Event(EventRow { outlier: true, ..ordinary }));
        let mut story = Story::new(&[("writer", 2, outlier.clone())]);
        assert!(story.may_apply(2, std::slice::from_ref(&outlier)) && !story.may_apply(2, &[event("a")]));
        let mut story = Story::new(&[("writer", 2, outlier.clone()), ("other", 3, event("a"))]);
        assert!(story.may_apply(2, &[outlier]) && story.may_apply(2, &[event("a")]));
    }
}
