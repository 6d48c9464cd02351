//! Catching up is bounded.
//!
//! Whoever lacks rows fetches those rows, and whoever lacks none fetches nothing: the heartbeats of every writer would
//! otherwise ask as much of the database as all the rows do (Synapse #16555 fetched wherever a position was not exactly
//! the one before), and a follower that begins again at the beginning, or that is thrown out for being slow and comes back
//! just as far behind, never ends (Synapse #2738, #4963). So a follower asks for a stream's rows no more often, and is given
//! no more of them, than the positions that were announced to it ahead of its own allow.
//!
//! No false alarm: what is lacking is taken at the most: from the position when the announcement was read, although some
//! of the rows may be on their way already, and once for every announcement, because a lost connection leaves its catch-up
//! unfinished; and a row that cannot be understood is a reason to fetch it. Queries are judged that succeeded, and of
//! which somebody was told. What instances read of a stream that they write themselves, in order to send it, is not
//! judged, nor what they read of its other writers.

use std::collections::BTreeMap;

use super::Invariant;
use crate::judge::observation::{Moment, Observation};
use crate::judge::topology::{Feed, Topology};
use crate::judge::violation::Violation;
use crate::judge::wire_violation::WireViolation;
use crate::protocol::{InstanceName, StreamName, Token};

/// The least that a query brings before it is cut off, in rows, or in tokens where they are counted.
const ROWS_A_QUERY_LEAST: u64 = 40;
/// The most that a query reads and does not give.
const ROWS_CUT_OFF: u64 = 200;

/// Judges what followers fetch against what they lack.
pub struct CatchUpBounded {
    topology: Topology,
    /// The tokens of each writer's rows, one for each row.
    rows: BTreeMap<(StreamName, InstanceName), BTreeMap<Token, u64>>,
    positions: BTreeMap<Feed, Token>,
    fetched: BTreeMap<(InstanceName, StreamName), Fetched>,
    judged: u64,
}

/// What a process has fetched of a stream, and can have lacked.
#[derive(Debug, Default)]
struct Fetched {
    fetches: u64,
    rows: u64,
    needed: u64,
    rows_needed: u64,
}

impl CatchUpBounded {
    /// Knows from `topology` who writes what.
    pub fn new(topology: &Topology) -> Self {
        let (rows, positions, fetched) = Default::default();
        CatchUpBounded { topology: topology.clone(), rows, positions, fetched, judged: 0 }
    }

    /// `feed` must catch up with `announced`, unless it stands between that and `prev`.
    fn announced(&mut self, feed: Feed, prev: Token, announced: Token) {
        let Some(position) = self.positions.get(&feed).copied() else { return };
        if (prev <= position && position <= announced) || announced <= position {
            return;
        }
        let of_writer = self.rows.get(&(feed.stream.clone(), feed.writer));
        let lacking = of_writer.into_iter().flat_map(|rows| rows.range(position.next()..=announced));
        let rows: u64 = lacking.map(|(_, rows)| *rows).sum();
        let tokens = (announced.0 - position.0).unsigned_abs();
        let fetched = self.fetched.entry((feed.instance, feed.stream)).or_default();
        let queries = 1 + (rows + tokens).div_ceil(ROWS_A_QUERY_LEAST);
        fetched.needed += queries;
        fetched.rows_needed += 2 * rows + ROWS_CUT_OFF * queries;
    }
}

impl Invariant for CatchUpBounded {
    fn name(&self) -> &'static str {
        "catch_up_bounded"
    }

    fn observe(&mut self, _at: Moment, observation: &Observation) -> Result<(), Violation> {
        match observation {
            Observation::Started { instance, .. } => {
                self.positions.retain(|feed, _| feed.instance != *instance);
                self.fetched.retain(|(of, _), _| of != instance);
            }
            Observation::Committed { stream, writer, token, .. } => {
                *self.rows.entry((stream.clone(), writer.clone())).or_default().entry(*token).or_default() += 1;
            }
            Observation::Following { instance, stream, writer, position }
            | Observation::Applied { instance, stream, writer, token: position, .. }
            | Observation::Positioned { instance, stream, writer, position } => {
                self.positions.insert(Feed::new(instance, stream, writer), *position);
            }
            Observation::Announced { instance, stream, writer, prev, position, .. } => {
                self.announced(Feed::new(instance, stream, writer), *prev, *position);
            }
            // A row that cannot be understood is fetched.
            Observation::Strange { instance, stream, .. } => {
                let writers =
                    self.topology.writers().filter(|(of, ..)| *of == stream).map(|(.., writer)| writer.clone());
                for writer in writers.collect::<Vec<_>>() {
                    let of_writer = self.rows.get(&(stream.clone(), writer.clone()));
                    let Some((highest, _)) = of_writer.and_then(|rows| rows.last_key_value()) else { continue };
                    self.announced(Feed::new(instance, stream, &writer), *highest, *highest);
                }
            }
            Observation::Fetched { instance, stream, rows } if !self.topology.is_written_by(stream, instance) => {
                self.judged += 1;
                let fetched = self.fetched.entry((instance.clone(), stream.clone())).or_default();
                fetched.fetches += 1;
                fetched.rows += rows;
                let Fetched { fetches, rows, needed, rows_needed } = *fetched;
                if fetches > needed || rows > rows_needed {
                    let (instance, stream) = (instance.clone(), stream.clone());
                    return Err(Violation::Wire(WireViolation::TooMuchFetched {
                        instance,
                        stream,
                        fetches,
                        rows,
                        needed,
                        rows_needed,
                    }));
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
    use crate::streams::{AccountDataRow, Promise, Row};

    /// A worker at position 3 of a stream that has a row under each token up to 200.
    struct Worker(CatchUpBounded);

    impl Worker {
        fn new() -> Self {
            let topology = Topology::new(["worker".into()]).with_stream("events", Promise::Log, ["writer".into()]);
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
            self.0.observe(Moment(0), &observation).unwrap();
        }

        fn announced(&mut self, prev: i64, position: i64) {
            let (instance, stream, writer) = ("worker".into(), "events".into(), "writer".into());
            let (prev, position) = (Token(prev), Token(position));
            self.see(Observation::Announced { instance, attempt: 1, stream, writer, prev, position });
        }

        fn may_fetch(&mut self, instance: &str, rows: u64) -> bool {
            let fetched = Observation::Fetched { instance: instance.into(), stream: "events".into(), rows };
            self.0.observe(Moment(1), &fetched).is_ok()
        }
    }

    #[test]
    fn whoever_lacks_nothing_fetches_nothing() {
        let mut worker = Worker::new();
        worker.announced(3, 3);
        worker.announced(2, 9);
        assert!(!worker.may_fetch("worker", 0), "a heartbeat is no reason");
    }

    #[test]
    fn whoever_lacks_rows_fetches_them_and_not_all_there_are() {
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
        worker.see(Observation::Strange { instance, target, stream });
        assert!(worker.may_fetch("worker", 1));
    }

    #[test]
    fn what_a_writer_reads_in_order_to_send_it_is_not_judged() {
        assert!(Worker::new().may_fetch("writer", 1_000_000));
    }
}
