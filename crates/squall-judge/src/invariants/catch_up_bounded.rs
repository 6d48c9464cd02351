//! Catching up is bounded.
//!
//! A follower that lacks rows fetches those rows, and a follower that lacks none fetches nothing. Otherwise the heartbeats
//! of every writer cost the database as much as all the rows do (Synapse #16555 fetched wherever a position was not
//! exactly the previous one). A follower that starts from the beginning, or that is disconnected for being slow and comes
//! back just as far behind, never catches up (Synapse #2738, #4963). So a follower queries a stream no more often, and
//! receives no more rows, than the positions announced ahead of its own allow.
//!
//! No false alarm: the need is taken at its highest. It counts from the position at the announcement, although some rows
//! may be on their way, and once for every announcement, because a lost connection leaves a catch-up unfinished. A row
//! that cannot be understood is a reason to fetch. So is a position that no instance has announced: it ends the half of a
//! batch that has arrived, and the batch is fetched (seed 1001695 of `swarm`, accused without that). A query counts if it
//! succeeded and its result was delivered. Rows that an instance reads of a stream that it writes itself, in order to send
//! them, are not judged.
//!
//! Where the plan makes queues or batches so short that arrived rows are discarded, each token above the follower's position
//! and each announced position is a reason to fetch the rows up to there once: a row or a position arrives with each
//! discard.
//!
//! An answer that was cut off at its limit may have no more than a quarter of it: each table has half of the limit, and a
//! token that does not fit is left to the next query. A bound of 40 rows for a limit of 100 was wrong: of tokens with 26
//! rows each, a query returns one (seed 1000776 of `redis_swarm`).

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::names::{Follower, Followers, Instance, Names, Source, Stream, Table};
use crate::observation::{Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::Topology;
use squall_protocol::{InstanceName, StreamName, Token};

/// The most rows that a query reads beyond those it returns.
const ROWS_CUT_OFF: u64 = 200;

/// A follower that fetches too much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A follower fetched more than it can have lacked.
    #[error(
        "{instance} fetched {rows} rows of {stream} in {fetches} queries; \
         it can have lacked at most {rows_needed} rows, in {needed} queries"
    )]
    TooMuchFetched {
        instance: InstanceName,
        stream: StreamName,
        fetches: u64,
        rows: u64,
        needed: u64,
        rows_needed: u64,
    },
}

/// Checks the rows that followers fetch against the rows that they lack.
pub struct CatchUpBounded {
    topology: Topology,
    /// The number of rows under each token, by writer.
    rows: Table<Source, BTreeMap<Token, u64>>,
    positions: Followers<Token>,
    fetched: Table<Instance, Table<Stream, Fetched>>,
    judged: u64,
}

/// The queries and rows that a process has fetched of a stream, and those that it can have needed.
#[derive(Debug, Default)]
struct Fetched {
    fetches: u64,
    rows: u64,
    needed: u64,
    rows_needed: u64,
}

impl CatchUpBounded {
    /// Returns the fewest rows, or tokens, that a query returns before its limit cuts it off.
    fn rows_a_query_least(&self) -> u64 {
        (self.topology.rows_per_query() as u64 / 4).max(1)
    }

    /// Adds the rows that `follower` needs to catch up with `announced`; none if its position is there or after `prev`.
    fn announced(&mut self, follower: Follower, prev: Token, announced: Token, names: &Names) {
        let Some(position) = self.positions.get(follower).copied() else { return };
        let lacks_none = prev <= position && position <= announced && !self.topology.discards_rows();
        if lacks_none || announced <= position {
            return;
        }
        let least = self.rows_a_query_least();
        let of_writer = self.rows.get(follower.source);
        let lacking = of_writer.into_iter().flat_map(|rows| rows.range((Excluded(position), Included(announced))));
        let rows: u64 = lacking.map(|(_, rows)| *rows).sum();
        let tokens = (announced.0 - position.0).unsigned_abs();
        let fetched = self.fetched.or_default(follower.instance).or_default(names.stream_of(follower.source));
        let queries = 1 + (rows + tokens).div_ceil(least);
        fetched.needed += queries;
        fetched.rows_needed += 2 * rows + ROWS_CUT_OFF * queries;
    }
}

impl Invariant for CatchUpBounded {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[
        Kind::Started,
        Kind::Committed,
        Kind::Fetched,
        Kind::Following,
        Kind::Applied,
        Kind::Positioned,
        Kind::Announced,
        Kind::UnknownRowRead,
        Kind::ForgedPositionRead,
    ];

    fn new(topology: &Topology) -> Self {
        CatchUpBounded {
            topology: topology.clone(),
            rows: Table::default(),
            positions: Followers::default(),
            fetched: Table::default(),
            judged: 0,
        }
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        let names = &scene.names;
        match observation {
            Observation::Started { .. } => {
                self.positions.forget(scene.instance());
                self.fetched.remove(scene.instance());
            }
            Observation::Committed { token, .. } => {
                *self.rows.or_default(scene.source()).entry(*token).or_default() += 1;
                if self.topology.discards_rows() && names.is_configured(scene.source()) {
                    for follower in names.followers_of(scene.source()) {
                        self.announced(follower, *token, *token, names);
                    }
                }
            }
            Observation::Following { position, .. } => {
                self.positions.insert(scene.follower(), *position);
                if self.topology.discards_rows() {
                    // Rows that were committed before this process began may arrive after that.
                    let of_writer = self.rows.get(scene.source());
                    let later = of_writer.into_iter().flat_map(|rows| rows.range((Excluded(*position), Unbounded)));
                    for token in later.map(|(token, _)| *token).collect::<Vec<_>>() {
                        self.announced(scene.follower(), token, token, names);
                    }
                }
            }
            Observation::Applied { token: position, .. } | Observation::Positioned { position, .. } => {
                self.positions.insert(scene.follower(), *position);
            }
            Observation::Announced { prev, position, .. } => {
                self.announced(scene.follower(), *prev, *position, names);
            }
            // A row that cannot be understood is fetched, and so is a batch that such a position has ended.
            Observation::UnknownRowRead { .. } | Observation::ForgedPositionRead { .. } => {
                let sources = names.sources_of(scene.stream()).iter().copied();
                for source in sources.filter(|source| names.is_configured(*source)) {
                    let of_writer = self.rows.get(source);
                    let Some((highest, _)) = of_writer.and_then(|rows| rows.last_key_value()) else { continue };
                    let follower = Follower { source, instance: scene.instance() };
                    self.announced(follower, *highest, *highest, names);
                }
            }
            Observation::Fetched { instance, stream, rows } if !self.topology.is_written_by(stream, instance) => {
                self.judged += 1;
                let fetched = self.fetched.or_default(scene.instance()).or_default(scene.stream());
                fetched.fetches += 1;
                fetched.rows += rows;
                let Fetched { fetches, rows, needed, rows_needed } = *fetched;
                if fetches > needed || rows > rows_needed {
                    let instance = instance.clone();
                    let stream = stream.clone();
                    return Err(Violation::TooMuchFetched { instance, stream, fetches, rows, needed, rows_needed });
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
    use squall_protocol::Delivery;
    use squall_protocol::rows::{AccountDataRow, Row};

    /// A worker at position 3 of a stream that has a row under each token up to 200.
    struct Worker(Alone<CatchUpBounded>);

    impl Worker {
        fn new() -> Self {
            Self::of(Topology::new(["worker".into()]))
        }

        fn of(topology: Topology) -> Self {
            let topology = topology.with_stream("events", Delivery::Log, ["writer".into()]);
            let mut worker = Worker(Alone::<CatchUpBounded>::new(&topology));
            for token in 1..=200 {
                worker.committed(token);
            }
            let (instance, stream, writer) = ("worker".into(), "events".into(), "writer".into());
            worker.see(Observation::Following { instance, stream, writer, position: Token(3) });
            worker
        }

        fn see(&mut self, observation: Observation) {
            self.0.observe(SimTime(0), &observation).unwrap();
        }

        fn committed(&mut self, token: i64) {
            let row = Row::AccountData(AccountDataRow { user_id: "@user".into(), room_id: None, kind: "x".into() });
            let (stream, writer, token) = ("events".into(), "writer".into(), Token(token));
            self.see(Observation::Committed { stream, writer, token, row });
        }

        fn announced(&mut self, prev: i64, position: i64) {
            let (instance, stream, writer) = ("worker".into(), "events".into(), "writer".into());
            let (prev, position) = (Token(prev), Token(position));
            self.see(Observation::Announced { instance, attempt: 1, stream, writer, prev, position });
        }

        fn may_fetch(&mut self, instance: &str, rows: u64) -> bool {
            let fetched = Observation::Fetched { instance: instance.into(), stream: "events".into(), rows };
            self.0.observe(SimTime(1), &fetched).is_ok()
        }
    }

    #[test]
    fn a_follower_that_lacks_nothing_fetches_nothing() {
        let mut worker = Worker::new();
        worker.announced(3, 3);
        worker.announced(2, 9);
        assert!(!worker.may_fetch("worker", 0), "a heartbeat is no reason");
    }

    #[test]
    fn a_follower_that_lacks_rows_fetches_those_and_not_all_rows() {
        let mut worker = Worker::new();
        worker.announced(9, 9);
        assert!(worker.may_fetch("worker", 6));
        assert!(!worker.may_fetch("worker", 1_000));
    }

    #[test]
    fn many_rows_are_fetched_in_pieces_and_in_no_more_than_that() {
        let mut worker = Worker::new();
        worker.announced(103, 103);
        let allowed = (0..100).take_while(|_| worker.may_fetch("worker", 50)).count();
        assert_eq!(allowed, 9, "a hundred rows and as many tokens, 25 at a time");
    }

    /// Seed 1000776 of `redis_swarm`.
    #[test]
    fn tokens_of_more_than_a_quarter_of_the_limit_are_fetched_one_by_one() {
        let mut worker = Worker::new();
        for token in 201..=209 {
            (0..26).for_each(|_| worker.committed(token));
        }
        let (instance, stream, writer) = ("worker".into(), "events".into(), "writer".into());
        worker.see(Observation::Following { instance, stream, writer, position: Token(200) });
        worker.announced(209, 209);
        let allowed = (0..100).take_while(|_| worker.may_fetch("worker", 51)).count();
        assert_eq!(allowed, 11, "nine tokens, and not many more");
    }

    #[test]
    fn small_answers_are_a_reason_for_more_queries() {
        let mut worker = Worker::of(Topology::new(["worker".into()]).with_rows_per_query(10));
        worker.announced(103, 103);
        let allowed = (0..1_000).take_while(|_| worker.may_fetch("worker", 1)).count();
        assert_eq!(allowed, 101, "a hundred rows and as many tokens, two at a time");
    }

    #[test]
    fn a_follower_that_discards_rows_may_fetch_each_of_them_once() {
        let discarding = || Worker::of(Topology::new(["worker".into()]).with_discarded_rows());
        let at_the_end = || {
            let mut worker = discarding();
            let (instance, stream, writer) = ("worker".into(), "events".into(), "writer".into());
            worker.see(Observation::Started { instance, boot: 2 });
            let instance = "worker".into();
            worker.see(Observation::Following { instance, stream, writer, position: Token(200) });
            worker
        };
        assert!(discarding().may_fetch("worker", 1), "rows that were committed before may arrive");
        assert!(!at_the_end().may_fetch("worker", 0), "it has all rows");
        let mut worker = at_the_end();
        worker.committed(201);
        let allowed = (0..100).take_while(|_| worker.may_fetch("worker", 1)).count();
        assert_eq!(allowed, 2, "not again and again");
        let mut worker = at_the_end();
        worker.announced(199, 202);
        assert!(worker.may_fetch("worker", 0), "the position may have come when rows before it were discarded");
        let mut unlimited = Worker::new();
        unlimited.committed(201);
        assert!(!unlimited.may_fetch("worker", 1), "a queue of production discards nothing");
    }

    #[test]
    fn a_new_process_lacks_what_is_announced_to_it() {
        let mut worker = Worker::new();
        worker.announced(9, 9);
        worker.see(Observation::Started { instance: "worker".into(), boot: 2 });
        assert!(!worker.may_fetch("worker", 0));
    }

    #[test]
    fn a_row_that_cannot_be_understood_is_a_reason_to_fetch() {
        let mut worker = Worker::new();
        let (instance, target, stream) = ("worker".into(), "writer".into(), "events".into());
        worker.see(Observation::UnknownRowRead { instance, target, stream });
        assert!(worker.may_fetch("worker", 1));
    }

    #[test]
    fn a_position_that_no_instance_has_announced_is_a_reason_to_fetch_its_stream() {
        let forged = |stream: &str| {
            let mut worker = Worker::new();
            let (instance, target, stream) = ("worker".into(), "writer".into(), stream.into());
            worker.see(Observation::ForgedPositionRead { instance, target, stream });
            worker.may_fetch("worker", 1)
        };
        assert!(forged("events"));
        assert!(!forged("receipts"), "another stream");
    }

    #[test]
    fn rows_that_a_writer_reads_in_order_to_send_them_are_not_judged() {
        assert!(Worker::new().may_fetch("writer", 1_000_000));
    }
}
