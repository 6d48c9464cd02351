//! No position over what is not committed.
//!
//! A position says that everything up to it is settled. If a row is committed behind it after all, nobody fetches it any
//! more: an id was in flight, and was passed (Synapse #11045); its transaction took longer than its writer believed, or
//! its writer's predecessor was thought to be dead. So no writer ever commits a row at or below a position that it has
//! announced on a connection, by `POSITION` or by a row, or that any follower of it has come to.
//!
//! No false alarm: what was announced was claimed, whether or not it arrived, and by whichever process of the writer; what
//! a follower has come to counts as long as its process lives. Only streams in the database are judged: the numbers of
//! those in memory begin anew.

use std::collections::BTreeMap;

use super::Invariant;
use crate::judge::observation::{Line, Moment, Observation};
use crate::judge::topology::{Feed, Topology};
use crate::judge::violation::Violation;
use crate::protocol::{InstanceName, StreamName, Token};
use crate::streams::Promise;

/// Judges every row that is committed against the positions of its writer.
pub struct NoPositionOverUncommitted {
    topology: Topology,
    /// The highest position that anybody has of a writer: what it has announced itself stands under its own name.
    positions: BTreeMap<(StreamName, InstanceName), BTreeMap<InstanceName, Token>>,
    judged: u64,
}

impl NoPositionOverUncommitted {
    /// Knows from `topology` which streams lie in the database.
    pub fn new(topology: &Topology) -> Self {
        NoPositionOverUncommitted { topology: topology.clone(), positions: BTreeMap::new(), judged: 0 }
    }

    fn reached(&mut self, stream: &StreamName, writer: &InstanceName, instance: &InstanceName, position: Token) {
        if self.topology.promise(stream).is_none_or(|promise| promise == Promise::Memory) {
            return;
        }
        let of_writer = self.positions.entry((stream.clone(), writer.clone())).or_default();
        let highest = of_writer.entry(instance.clone()).or_insert(position);
        *highest = position.max(*highest);
    }
}

impl Invariant for NoPositionOverUncommitted {
    fn name(&self) -> &'static str {
        "no_position_over_uncommitted"
    }

    fn observe(&mut self, _at: Moment, observation: &Observation) -> Result<(), Violation> {
        match observation {
            Observation::Started { instance, .. } | Observation::Stopped { instance, .. } => {
                let followed = self.positions.iter_mut().filter(|((_, writer), _)| writer != instance);
                followed.for_each(|(_, of_writer)| {
                    of_writer.remove(instance);
                });
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
                    let (feed, position) = (Feed::new(instance, stream, writer), *position);
                    return Err(Violation::CommittedBehind { feed, token: *token, position });
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
    use crate::streams::{AccountDataRow, Row};

    fn positioned(position: i64) -> Observation {
        let (instance, stream, writer) = ("worker".into(), "account_data".into(), "writer".into());
        Observation::Positioned { instance, stream, writer, position: Token(position) }
    }

    fn wrote(line: Line) -> Observation {
        Observation::Wrote { instance: "writer".into(), attempt: 1, side: Side::Server, line }
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

    /// Whether a row of `writer` may be committed under token 5 after `story`.
    fn may_commit(story: &[Observation], writer: &str) -> bool {
        let topology = Topology::new(["worker".into()]).with_stream(
            "account_data",
            Promise::Keyed,
            ["writer".into(), "other".into()],
        );
        let mut judge = NoPositionOverUncommitted::new(&topology);
        story.iter().for_each(|observation| judge.observe(Moment(0), observation).unwrap());
        let row = Row::AccountData(AccountDataRow { user_id: "@user".into(), room_id: None, kind: "x".into() });
        let (stream, writer) = ("account_data".into(), writer.into());
        let committed = Observation::Committed { stream, writer, token: Token(5), row };
        let verdict = judge.observe(Moment(1), &committed);
        assert!(matches!(verdict, Ok(()) | Err(Violation::CommittedBehind { .. })), "{verdict:?}");
        verdict.is_ok()
    }

    #[test]
    fn a_row_is_committed_behind_no_position_that_a_follower_has_come_to() {
        assert!(may_commit(&[positioned(4)], "writer"));
        assert!(!may_commit(&[positioned(5)], "writer"));
        assert!(may_commit(&[positioned(5)], "other"), "each writer has a position of its own");
        assert!(may_commit(&[positioned(5), stopped("worker")], "writer"), "it is gone, and asks anew");
    }

    #[test]
    fn a_row_is_committed_behind_no_position_that_its_writer_has_announced() {
        assert!(may_commit(&[announced(4), sent(Some(4)), sent(None)], "writer"));
        assert!(!may_commit(&[announced(5)], "writer"));
        assert!(!may_commit(&[sent(Some(6)), announced(4)], "writer"));
        assert!(!may_commit(&[announced(5), stopped("writer")], "writer"), "what was said was said");
    }
}
