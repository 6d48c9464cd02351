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
//! that cannot be understood is a reason to fetch. A query counts if it succeeded and its result was delivered. Rows that
//! an instance reads of a stream that it writes itself, in order to send them, are not judged.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::observation::{Observation, SimTime};
use crate::topology::{FollowerKey, Topology};
use squall_protocol::{InstanceName, StreamName, Token};

/// The fewest rows, or tokens, that a query returns before its limit cuts it off.
const ROWS_A_QUERY_LEAST: u64 = 40;
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
    rows: BTreeMap<(StreamName, InstanceName), BTreeMap<Token, u64>>,
    positions: BTreeMap<FollowerKey, Token>,
    fetched: BTreeMap<(InstanceName, StreamName), Fetched>,
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
    /// Adds the rows that `follower` needs to catch up with `announced`; none if its position is there or after `prev`.
    fn announced(&mut self, follower: FollowerKey, prev: Token, announced: Token) {
        let Some(position) = self.positions.get(&follower).copied() else { return };
        if (prev <= position && position <= announced) || announced <= position {
            return;
        }
        let of_writer = self.rows.get(&(follower.stream.clone(), follower.writer));
        let lacking = of_writer.into_iter().flat_map(|rows| rows.range((Excluded(position), Included(announced))));
        let rows: u64 = lacking.map(|(_, rows)| *rows).sum();
        let tokens = (announced.0 - position.0).unsigned_abs();
        let fetched = self.fetched.entry((follower.instance, follower.stream)).or_default();
        let queries = 1 + (rows + tokens).div_ceil(ROWS_A_QUERY_LEAST);
        fetched.needed += queries;
        fetched.rows_needed += 2 * rows + ROWS_CUT_OFF * queries;
    }
}

impl Invariant for CatchUpBounded {
    type Violation = Violation;

    fn new(topology: &Topology) -> Self {
        CatchUpBounded {
            topology: topology.clone(),
            rows: BTreeMap::new(),
            positions: BTreeMap::new(),
            fetched: BTreeMap::new(),
            judged: 0,
        }
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation) -> Result<(), Violation> {
        match observation {
            Observation::Started { instance, .. } => {
                self.positions.retain(|follower, _| follower.instance != *instance);
                self.fetched.retain(|(of, _), _| of != instance);
            }
            Observation::Committed { stream, writer, token, .. } => {
                *self.rows.entry((stream.clone(), writer.clone())).or_default().entry(*token).or_default() += 1;
            }
            Observation::Following { instance, stream, writer, position }
            | Observation::Applied { instance, stream, writer, token: position, .. }
            | Observation::Positioned { instance, stream, writer, position } => {
                self.positions.insert(FollowerKey::new(instance, stream, writer), *position);
            }
            Observation::Announced { instance, stream, writer, prev, position, .. } => {
                self.announced(FollowerKey::new(instance, stream, writer), *prev, *position);
            }
            // A row that cannot be understood is fetched.
            Observation::UnknownRowRead { instance, stream, .. } => {
                let writers =
                    self.topology.writers().filter(|(of, ..)| *of == stream).map(|(.., writer)| writer.clone());
                for writer in writers.collect::<Vec<_>>() {
                    let of_writer = self.rows.get(&(stream.clone(), writer.clone()));
                    let Some((highest, _)) = of_writer.and_then(|rows| rows.last_key_value()) else { continue };
                    self.announced(FollowerKey::new(instance, stream, &writer), *highest, *highest);
                }
            }
            Observation::Fetched { instance, stream, rows } if !self.topology.is_written_by(stream, instance) => {
                self.judged += 1;
                let fetched = self.fetched.entry((instance.clone(), stream.clone())).or_default();
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
    use squall_protocol::Delivery;
    use squall_protocol::rows::{AccountDataRow, Row};

    /// A worker at position 3 of a stream that has a row under each token up to 200.
    struct Worker(CatchUpBounded);

    impl Worker {
        fn new() -> Self {
            let topology = Topology::new(["worker".into()]).with_stream("events", Delivery::Log, ["writer".into()]);
            let mut worker = Worker(CatchUpBounded::new(&topology));
            for token in (1..=200).map(Token) {
                let row = Row::AccountData(AccountDataRow { user_id: "@user".into(), room_id: None, kind: "x".into() });
                worker.see(Observation::Committed { stream: "events".into(), writer: "writer".into(), token, row });
            }
            let (instance, stream, writer) = ("worker".into(), "events".into(), "writer".into());
            worker.see(Observation::Following { instance, stream, writer, position: Token(3) });
            worker
        }

        fn see(&mut self, observation: Observation) {
            self.0.observe(SimTime(0), &observation).unwrap();
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
        assert_eq!(allowed, 6);
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
    fn rows_that_a_writer_reads_in_order_to_send_them_are_not_judged() {
        assert!(Worker::new().may_fetch("writer", 1_000_000));
    }
}
