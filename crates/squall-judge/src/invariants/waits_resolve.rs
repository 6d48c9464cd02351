//! Waits resolve.
//!
//! A client's write may be done by another instance than the one that the client talks to. The write is acknowledged to the
//! client when the position of the client's own instance has reached the row: not before (Synapse #7542), and without a
//! time-out afterwards. Waits were compared with the position of the wrong writer (Synapse #14856), woken by rows but not by
//! positions (#9796), and lost when two waited for the same token (#8196). Such a wait times out after half a minute,
//! although everything is there.
//!
//! No false alarm: a wait may time out while the position has not arrived, and also if it arrives in the very millisecond
//! in which the wait ends. The positions are those that a consumer on the instance received.

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::names::{Follower, Followers};
use crate::observation::{Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::{FollowerKey, Topology};
use squall_protocol::Token;

/// A wait that ended too early or too late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A wait timed out for a position that the instance had reached.
    #[error("{follower}: a wait for {awaited} timed out, although the position was {position} already")]
    WaitedInVain {
        #[serde(flatten)]
        follower: FollowerKey,
        awaited: Token,
        position: Token,
    },
    /// A write was acknowledged to a client before the position of the client's instance had reached it.
    #[error("{follower}: a write was acknowledged under {awaited} while the position was {position}")]
    ToldTooEarly {
        #[serde(flatten)]
        follower: FollowerKey,
        awaited: Token,
        position: Token,
    },
}

/// Checks the answers to writes against the positions of the instances that gave them.
#[derive(Debug, Default)]
pub struct WaitsResolve {
    positions: Followers<Position>,
    judged: u64,
}

/// A follower's position, and its position before the millisecond in which it last moved.
#[derive(Debug, Clone, Copy)]
struct Position {
    now: Token,
    moved_at: SimTime,
    before: Token,
}

impl WaitsResolve {
    fn moved(&mut self, at: SimTime, follower: Follower, to: Token) {
        let Some(position) = self.positions.get_mut(follower) else {
            self.positions.insert(follower, Position { now: to, moved_at: at, before: to });
            return;
        };
        if position.moved_at != at {
            position.moved_at = at;
            position.before = position.now;
        }
        position.now = to;
    }
}

impl Invariant for WaitsResolve {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[
        Kind::Started,
        Kind::Stopped,
        Kind::Following,
        Kind::Applied,
        Kind::Positioned,
        Kind::Reset,
        Kind::WriteAcked,
        Kind::WaitTimedOut,
    ];

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::Started { .. } | Observation::Stopped { .. } => self.positions.forget(scene.instance()),
            Observation::Following { position, .. }
            | Observation::Applied { token: position, .. }
            | Observation::Positioned { position, .. }
            | Observation::Reset { position, .. } => self.moved(at, scene.follower(), *position),
            Observation::WriteAcked { instance, writer, token, .. } if instance != writer => {
                self.judged += 1;
                let position = self.positions.get(scene.follower()).map(|position| position.now);
                if let Some(position) = position.filter(|position| position < token) {
                    let follower = scene.names.key_of(scene.follower());
                    return Err(Violation::ToldTooEarly { follower, awaited: *token, position });
                }
            }
            Observation::WaitTimedOut { position: awaited, .. } => {
                self.judged += 1;
                let Some(position) = self.positions.get(scene.follower()) else { return Ok(()) };
                let reached = if position.moved_at == at { position.before } else { position.now };
                if reached >= *awaited {
                    let follower = scene.names.key_of(scene.follower());
                    return Err(Violation::WaitedInVain { follower, awaited: *awaited, position: reached });
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
    use crate::violation;
    use squall_protocol::Cached;

    fn positioned(at: u64, position: i64) -> (u64, Observation) {
        let (instance, stream, writer) = ("worker".into(), "account_data".into(), "writer".into());
        (at, Observation::Positioned { instance, stream, writer, position: Token(position) })
    }

    fn acknowledged(at: u64, instance: &str, token: i64) -> (u64, Observation) {
        let what = Cached::AccountData { user_id: "@user".into() };
        (at, Observation::WriteAcked { instance: instance.into(), what, writer: "writer".into(), token: Token(token) })
    }

    fn timed_out(at: u64, position: i64) -> (u64, Observation) {
        let (instance, stream, writer) = ("worker".into(), "account_data".into(), "writer".into());
        (at, Observation::WaitTimedOut { instance, stream, writer, position: Token(position) })
    }

    /// The violation of the last observation.
    fn kind(story: &[(u64, Observation)]) -> String {
        let mut judge = Alone::<WaitsResolve>::default();
        let verdicts = story.iter().map(|(at, observation)| judge.observe(SimTime(*at), observation));
        violation::kind(&verdicts.last().unwrap())
    }

    #[test]
    fn a_write_is_acknowledged_when_the_position_has_reached_it() {
        assert_eq!(kind(&[positioned(1, 4), positioned(2, 5), acknowledged(2, "worker", 5)]), "none");
        assert_eq!(kind(&[positioned(1, 4), acknowledged(2, "worker", 5)]), "told_too_early");
        assert_eq!(kind(&[positioned(1, 4), acknowledged(2, "writer", 5)]), "none", "the writer need not wait");
    }

    #[test]
    fn no_wait_times_out_for_a_position_that_was_reached() {
        assert_eq!(kind(&[positioned(1, 4), timed_out(9, 5)]), "none", "it has not arrived");
        assert_eq!(
            kind(&[positioned(1, 4), positioned(9, 5), timed_out(9, 5)]),
            "none",
            "it arrived in that millisecond"
        );
        assert_eq!(kind(&[positioned(1, 4), positioned(8, 5), timed_out(9, 5)]), "waited_in_vain");
        assert_eq!(kind(&[positioned(1, 5), positioned(9, 6), timed_out(9, 5)]), "waited_in_vain");
        let stopped = (5, Observation::Stopped { instance: "worker".into(), boot: 1 });
        assert_eq!(kind(&[positioned(1, 5), stopped, timed_out(9, 5)]), "none", "it is another process's position");
    }
}
