//! No position over what is not committed.
//!
//! A position says that every row up to it is committed. A row committed behind it is fetched by no follower: its id was
//! in flight and was passed over (Synapse #11045), its transaction took longer than its writer believed, or its writer's
//! predecessor was taken for dead. So no writer ever commits a row at or below a position that it has announced on a
//! connection, by `POSITION` or by a row, or that any of its followers has reached.
//!
//! No false alarm: an announced position counts, whether or not it arrived, and for every later process of the writer. A
//! follower's position counts as long as the follower's process lives. Only streams in the database are judged: the
//! tokens of a stream in memory start again.

use std::collections::BTreeMap;

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::observation::{Line, Observation, SimTime};
use crate::topology::{FollowerKey, Topology};
use squall_protocol::Delivery;
use squall_protocol::{InstanceName, StreamName, Token};

/// A row that followers have passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A row was committed at or below a position that a follower had reached, or that its writer had announced.
    #[error("{follower}: already at position {position} when token {token} was committed")]
    CommittedBehind {
        #[serde(flatten)]
        follower: FollowerKey,
        token: Token,
        position: Token,
    },
}

/// Checks every committed row against the positions of its writer.
pub struct NoPositionOverUncommitted {
    topology: Topology,
    /// The highest position of each writer that an instance has reached; under the writer's own name, the highest that it
    /// has announced.
    positions: BTreeMap<(StreamName, InstanceName), BTreeMap<InstanceName, Token>>,
    judged: u64,
}

impl NoPositionOverUncommitted {
    fn reached(&mut self, stream: &StreamName, writer: &InstanceName, instance: &InstanceName, position: Token) {
        if self.topology.delivery(stream).is_none_or(|delivery| delivery == Delivery::Memory) {
            return;
        }
        let of_writer = self.positions.entry((stream.clone(), writer.clone())).or_default();
        let highest = of_writer.entry(instance.clone()).or_insert(position);
        *highest = position.max(*highest);
    }
}

impl Invariant for NoPositionOverUncommitted {
    type Violation = Violation;

    fn new(topology: &Topology) -> Self {
        NoPositionOverUncommitted { topology: topology.clone(), positions: BTreeMap::new(), judged: 0 }
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation) -> Result<(), Violation> {
        match observation {
            Observation::Started { instance, .. } | Observation::Stopped { instance, .. } => {
                for ((_, writer), of_writer) in &mut self.positions {
                    if writer != instance {
                        of_writer.remove(instance);
                    }
                }
            }
            Observation::Wrote { instance, line, .. } => match line {
                Line::Position { stream, writer, new: position, .. }
                | Line::Rdata { stream, writer, token: Some(position) }
                    if instance == writer =>
                {
                    self.reached(stream, writer, instance, *position);
                }
                _ => {}
            },
            Observation::Following { instance, stream, writer, position }
            | Observation::Applied { instance, stream, writer, token: position, .. }
            | Observation::Positioned { instance, stream, writer, position } => {
                self.reached(stream, writer, instance, *position);
            }
            Observation::Committed { stream, writer, token, .. } => {
                self.judged += 1;
                let Some(of_writer) = self.positions.get(&(stream.clone(), writer.clone())) else { return Ok(()) };
                if let Some((instance, position)) = of_writer.iter().find(|(_, position)| *position >= token) {
                    let follower = FollowerKey::new(instance, stream, writer);
                    return Err(Violation::CommittedBehind { follower, token: *token, position: *position });
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
    use crate::observation::Role;
    use squall_protocol::rows::{AccountDataRow, Row};

    fn positioned(position: i64) -> Observation {
        let (instance, stream, writer) = ("worker".into(), "account_data".into(), "writer".into());
        Observation::Positioned { instance, stream, writer, position: Token(position) }
    }

    fn wrote(line: Line) -> Observation {
        Observation::Wrote { instance: "writer".into(), attempt: 1, role: Role::Server, line }
    }

    fn announced(position: i64) -> Observation {
        let (stream, writer, position) = ("account_data".into(), "writer".into(), Token(position));
        wrote(Line::Position { stream, writer, prev: position, new: position })
    }

    fn sent(token: Option<i64>) -> Observation {
        wrote(Line::Rdata { stream: "account_data".into(), writer: "writer".into(), token: token.map(Token) })
    }

    fn stopped(instance: &str) -> Observation {
        Observation::Stopped { instance: instance.into(), boot: 1 }
    }

    /// Returns true if a row of `writer` may be committed under token 5 after `story`.
    fn may_commit(story: &[Observation], writer: &str) -> bool {
        let topology = Topology::new(["worker".into()]).with_stream(
            "account_data",
            Delivery::Keyed,
            ["writer".into(), "other".into()],
        );
        let mut judge = NoPositionOverUncommitted::new(&topology);
        for observation in story {
            judge.observe(SimTime(0), observation).unwrap();
        }
        let row = Row::AccountData(AccountDataRow { user_id: "@user".into(), room_id: None, kind: "x".into() });
        let (stream, writer) = ("account_data".into(), writer.into());
        let committed = Observation::Committed { stream, writer, token: Token(5), row };
        judge.observe(SimTime(1), &committed).is_ok()
    }

    #[test]
    fn a_row_is_committed_behind_no_position_that_a_follower_has_reached() {
        assert!(may_commit(&[positioned(4)], "writer"));
        assert!(!may_commit(&[positioned(5)], "writer"));
        assert!(may_commit(&[positioned(5)], "other"), "each writer has a position of its own");
        assert!(may_commit(&[positioned(5), stopped("worker")], "writer"), "its next process starts again");
    }

    #[test]
    fn a_row_is_committed_behind_no_position_that_its_writer_has_announced() {
        assert!(may_commit(&[announced(4), sent(Some(4)), sent(None)], "writer"));
        assert!(!may_commit(&[announced(5)], "writer"));
        assert!(!may_commit(&[sent(Some(6)), announced(4)], "writer"));
        assert!(!may_commit(&[announced(5), stopped("writer")], "writer"), "an announced position stays announced");
    }
}
