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

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::names::{Follower, Followers};
use crate::observation::{Kind, Line, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::{FollowerKey, Topology};
use squall_protocol::Token;

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
#[derive(Default)]
pub struct NoPositionOverUncommitted {
    /// The highest position of each writer that an instance has reached; under the writer's own name, the highest that it
    /// has announced.
    positions: Followers<Token>,
    judged: u64,
}

impl NoPositionOverUncommitted {
    fn reached(&mut self, position: Token, scene: &Scene) {
        if scene.is_in_database() {
            let highest = self.positions.get(scene.follower()).map_or(position, |highest| position.max(*highest));
            self.positions.insert(scene.follower(), highest);
        }
    }
}

impl Invariant for NoPositionOverUncommitted {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] =
        &[Kind::Started, Kind::Stopped, Kind::Committed, Kind::Following, Kind::Applied, Kind::Positioned, Kind::Wrote];

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::Started { .. } | Observation::Stopped { .. } => {
                let instance = scene.instance();
                self.positions.retain(|follower| {
                    follower.instance != instance || scene.names.writer_of(follower.source) == instance
                });
            }
            Observation::Wrote { instance, line, .. } => match line {
                Line::Position { writer, new: position, .. } | Line::Rdata { writer, token: Some(position), .. }
                    if instance == writer =>
                {
                    self.reached(*position, scene);
                }
                _ => {}
            },
            Observation::Following { position, .. }
            | Observation::Applied { token: position, .. }
            | Observation::Positioned { position, .. } => self.reached(*position, scene),
            Observation::Committed { token, .. } => {
                self.judged += 1;
                let source = scene.source();
                let passed = self.positions.of(source).find(|(_, position)| *position >= token);
                if let Some((instance, position)) = passed {
                    let follower = scene.names.key_of(Follower { source, instance });
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
    use crate::invariant::Alone;
    use crate::observation::Role;
    use squall_protocol::Delivery;
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
        let mut judge = Alone::<NoPositionOverUncommitted>::new(&topology);
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
