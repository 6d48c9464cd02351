//! Positions never go back.
//!
//! A follower's position in a writer's rows only grows. A row at or below the position is old, and to apply it again
//! undoes what came after it (Synapse #7648); live rows that are handled during a catch-up do that (#7226). Only a stream
//! in memory may be reset: all that was applied is void then. But the position that the follower reaches afterwards is no
//! less than the one before, because a restarted writer numbers its rows above those of its predecessor.
//!
//! No false alarm: a position may be confirmed where it is. A new process begins where it says. In memory, the row of the
//! position itself may come once more.

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::names::{Follower, Followers};
use crate::observation::{Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::{FollowerKey, Topology};
use squall_protocol::Token;

/// A position that went back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A token at or below the position was applied.
    #[error("{follower}: applied token {token} at position {position}, so again or too late")]
    Repeated {
        #[serde(flatten)]
        follower: FollowerKey,
        token: Token,
        position: Token,
    },
    /// The position went back.
    #[error("{follower}: the position went back from {from} to {to} without a reset")]
    WentBack {
        #[serde(flatten)]
        follower: FollowerKey,
        from: Token,
        to: Token,
    },
}

/// Checks every move of every follower's position.
#[derive(Default)]
pub struct PositionsNeverGoBack {
    positions: Followers<Token>,
    /// The highest position of each follower before a reset, until it reaches a position again.
    before_reset: Followers<Token>,
    judged: u64,
}

impl PositionsNeverGoBack {
    /// Moves the position of `follower`, and returns the one before; none if it does not follow.
    fn moved(&mut self, follower: Follower, to: Token) -> Option<Token> {
        let position = self.positions.get_mut(follower)?;
        self.judged += 1;
        Some(std::mem::replace(position, to))
    }
}

impl Invariant for PositionsNeverGoBack {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] =
        &[Kind::Started, Kind::Stopped, Kind::Following, Kind::Applied, Kind::Positioned, Kind::Reset];

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::Started { .. } | Observation::Stopped { .. } => {
                self.positions.forget(scene.instance());
                self.before_reset.forget(scene.instance());
            }
            Observation::Following { position, .. } => {
                self.positions.insert(scene.follower(), *position);
            }
            Observation::Applied { token, .. } => {
                let token = *token;
                let Some(position) = self.moved(scene.follower(), token) else { return Ok(()) };
                if token < position || (token == position && !scene.is_in_memory()) {
                    self.positions.insert(scene.follower(), position);
                    let follower = scene.names.key_of(scene.follower());
                    return Err(Violation::Repeated { follower, token, position });
                }
            }
            Observation::Reset { position, .. } if scene.is_in_memory() => {
                let Some(from) = self.moved(scene.follower(), *position) else { return Ok(()) };
                let highest = self.before_reset.or_default(scene.follower());
                *highest = from.max(*highest);
            }
            Observation::Positioned { position: to, .. } | Observation::Reset { position: to, .. } => {
                let Some(from) = self.moved(scene.follower(), *to) else { return Ok(()) };
                let from = self.before_reset.remove(scene.follower()).map_or(from, |highest| highest.max(from));
                if *to < from {
                    let follower = scene.names.key_of(scene.follower());
                    return Err(Violation::WentBack { follower, from, to: *to });
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
    use squall_protocol::Delivery;

    enum Step {
        Applied(i64),
        Positioned(i64),
        Reset,
        Stopped,
    }
    use Step::{Applied, Positioned, Reset, Stopped};

    /// The violation of the last step, for a worker that follows `stream` from 3.
    fn kind(stream: &str, steps: &[Step]) -> String {
        let topology = Topology::new(["worker".into()])
            .with_stream("events", Delivery::Log, ["writer".into()])
            .with_stream("typing", Delivery::Memory, ["writer".into()]);
        let mut judge = Alone::<PositionsNeverGoBack>::new(&topology);
        let follower = FollowerKey::new(&"worker".into(), &stream.into(), &"writer".into());
        let FollowerKey { instance, stream, writer } = follower;
        let (i, s, w) = (instance.clone(), stream.clone(), writer.clone());
        let following = Observation::Following { instance: i, stream: s, writer: w, position: Token(3) };
        judge.observe(SimTime(0), &following).unwrap();
        let mut verdict = Ok(());
        for step in steps {
            let (instance, stream, writer) = (instance.clone(), stream.clone(), writer.clone());
            let observation = match step {
                Applied(token) => {
                    Observation::Applied { instance, stream, writer, token: Token(*token), rows: Vec::new() }
                }
                Positioned(to) => Observation::Positioned { instance, stream, writer, position: Token(*to) },
                Reset => Observation::Reset { instance, stream, writer, position: Token(0) },
                Stopped => Observation::Stopped { instance, boot: 1 },
            };
            verdict = judge.observe(SimTime(1), &observation);
        }
        violation::kind(&verdict)
    }

    #[test]
    fn positions_may_grow_and_be_confirmed() {
        for stream in ["events", "typing"] {
            assert_eq!(kind(stream, &[Applied(4), Positioned(4), Positioned(9), Applied(10)]), "none");
        }
    }

    #[test]
    fn a_token_at_or_below_the_position_is_repeated() {
        assert_eq!(kind("events", &[Applied(3)]), "repeated");
        assert_eq!(kind("events", &[Positioned(7), Applied(5)]), "repeated");
        assert_eq!(kind("events", &[Positioned(7), Applied(5), Positioned(7)]), "none", "reported once");
        assert_eq!(kind("typing", &[Applied(3)]), "none", "the row of the position itself");
        assert_eq!(kind("typing", &[Applied(2)]), "repeated");
    }

    #[test]
    fn rows_in_memory_may_come_anew_and_the_position_does_not_go_back() {
        assert_eq!(kind("events", &[Positioned(2)]), "went_back");
        assert_eq!(kind("typing", &[Positioned(2)]), "went_back");
        assert_eq!(kind("typing", &[Reset, Applied(1)]), "none");
        assert_eq!(kind("typing", &[Reset, Applied(1), Positioned(3)]), "none");
        assert_eq!(kind("typing", &[Reset, Applied(1), Positioned(2)]), "went_back");
        assert_eq!(kind("typing", &[Reset, Positioned(4), Reset, Positioned(3)]), "went_back");
        assert_eq!(kind("events", &[Reset]), "went_back");
    }

    #[test]
    fn a_process_that_is_gone_has_no_position() {
        assert_eq!(kind("events", &[Stopped, Positioned(1)]), "none");
    }
}
