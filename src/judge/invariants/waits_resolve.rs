//! Waits resolve.
//!
//! A client's write that another instance does is told to be done once the instance that the client talks to has seen it:
//! not before its position has reached the row (Synapse #7542), and not in vain when it has. Waits were compared with the
//! wrong writer's position (Synapse #14856), woken by rows but not by positions (#9796), and lost when two waited for the
//! same token (#8196); whoever waits then is told an error after half a minute, although everything is there.
//!
//! No false alarm: a wait that ends without success is a fault's work as long as the position has not come, and as long as
//! it came in the very moment in which the wait ended. The positions are those that a consumer on the instance was told.

use std::collections::BTreeMap;

use super::Invariant;
use crate::judge::observation::{Moment, Observation};
use crate::judge::topology::Feed;
use crate::judge::violation::Violation;
use crate::judge::wire_violation::WireViolation;
use crate::protocol::Token;

/// Judges what clients are told of their writes against the positions of their instances.
#[derive(Debug, Default)]
pub struct WaitsResolve {
    /// The position of each follower; and where it was before the moment in which it last moved.
    positions: BTreeMap<Feed, Position>,
    judged: u64,
}

#[derive(Debug, Clone, Copy)]
struct Position {
    now: Token,
    moved_at: Moment,
    before: Token,
}

impl WaitsResolve {
    fn moved(&mut self, at: Moment, feed: Feed, to: Token) {
        let position = self.positions.entry(feed).or_insert(Position { now: to, moved_at: at, before: to });
        if position.moved_at != at {
            (position.moved_at, position.before) = (at, position.now);
        }
        position.now = to;
    }
}

impl Invariant for WaitsResolve {
    fn name(&self) -> &'static str {
        "waits_resolve"
    }

    fn observe(&mut self, at: Moment, observation: &Observation) -> Result<(), Violation> {
        match observation {
            Observation::Started { instance, .. } | Observation::Stopped { instance, .. } => {
                self.positions.retain(|feed, _| feed.instance != *instance);
            }
            Observation::Following { instance, stream, writer, position }
            | Observation::Applied { instance, stream, writer, token: position, .. }
            | Observation::Positioned { instance, stream, writer, position }
            | Observation::Reset { instance, stream, writer, position } => {
                self.moved(at, Feed::new(instance, stream, writer), *position);
            }
            Observation::Answered { instance, what, writer, token } if instance != writer => {
                self.judged += 1;
                let feed = Feed::new(instance, &what.stream().into(), writer);
                let Some(Position { now: position, .. }) = self.positions.get(&feed).copied() else { return Ok(()) };
                if position < *token {
                    let early = WireViolation::ToldTooEarly { feed, awaited: *token, position };
                    return Err(Violation::Wire(early));
                }
            }
            Observation::WaitTimedOut { instance, stream, writer, position: awaited } => {
                self.judged += 1;
                let feed = Feed::new(instance, stream, writer);
                let Some(position) = self.positions.get(&feed) else { return Ok(()) };
                let reached = if position.moved_at == at { position.before } else { position.now };
                if reached >= *awaited {
                    let vain = WireViolation::WaitedInVain { feed, awaited: *awaited, position: reached };
                    return Err(Violation::Wire(vain));
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
    use crate::caches::Cached;

    fn positioned(at: u64, position: i64) -> (u64, Observation) {
        let (instance, stream, writer) = ("worker".into(), "account_data".into(), "writer".into());
        (at, Observation::Positioned { instance, stream, writer, position: Token(position) })
    }

    fn answered(at: u64, instance: &str, token: i64) -> (u64, Observation) {
        let what = Cached::AccountData { user_id: "@user".into() };
        (at, Observation::Answered { instance: instance.into(), what, writer: "writer".into(), token: Token(token) })
    }

    fn timed_out(at: u64, position: i64) -> (u64, Observation) {
        let (instance, stream, writer) = ("worker".into(), "account_data".into(), "writer".into());
        (at, Observation::WaitTimedOut { instance, stream, writer, position: Token(position) })
    }

    fn kind(story: &[(u64, Observation)]) -> &'static str {
        let mut judge = WaitsResolve::default();
        let verdicts = story.iter().map(|(at, observation)| judge.observe(Moment(*at), observation));
        verdicts.last().unwrap().map_or_else(|violation| violation.kind(), |()| "none")
    }

    #[test]
    fn whoever_is_told_that_a_write_is_done_is_not_told_too_early() {
        assert_eq!(kind(&[positioned(1, 4), positioned(2, 5), answered(2, "worker", 5)]), "none");
        assert_eq!(kind(&[positioned(1, 4), answered(2, "worker", 5)]), "told_too_early");
        assert_eq!(kind(&[positioned(1, 4), answered(2, "writer", 5)]), "none", "the writer need not wait");
    }

    #[test]
    fn nobody_waits_in_vain_for_a_position_that_is_there() {
        assert_eq!(kind(&[positioned(1, 4), timed_out(9, 5)]), "none", "it has not come");
        assert_eq!(kind(&[positioned(1, 4), positioned(9, 5), timed_out(9, 5)]), "none", "it came in that moment");
        assert_eq!(kind(&[positioned(1, 4), positioned(8, 5), timed_out(9, 5)]), "waited_in_vain");
        assert_eq!(kind(&[positioned(1, 5), positioned(9, 6), timed_out(9, 5)]), "waited_in_vain");
        let stopped = (5, Observation::Stopped { instance: "worker".into(), boot: 1 });
        assert_eq!(kind(&[positioned(1, 5), stopped, timed_out(9, 5)]), "none", "it is another process's position");
    }
}
