//! Positions never go back.
//!
//! What an instance has seen of a writer's rows only ever grows: a row at or below its position is old news, and to apply
//! it again undoes what came after it (Synapse #7648), as live rows do that are handled while a catch-up is under way
//! (#7226). Only of a stream in memory may all rows be given up and come anew: whatever was applied is void then, but the
//! position that is reached with them is no less than before, for a writer that was restarted numbers on above its
//! predecessor's.
//!
//! No false alarm: a position that is confirmed stays where it is; a new process begins where it says; and of a room in
//! memory, the row of the position itself may come once more.

use std::collections::BTreeMap;

use super::Invariant;
use crate::judge::observation::{Moment, Observation};
use crate::judge::topology::{Feed, Topology};
use crate::judge::violation::Violation;
use crate::protocol::Token;
use crate::streams::Promise;

/// Judges every move of every follower's position.
pub struct PositionsNeverGoBack {
    topology: Topology,
    positions: BTreeMap<Feed, Token>,
    /// Where those stood of whom all rows were given up, and who have not reached a position since.
    given_up: BTreeMap<Feed, Token>,
    judged: u64,
}

impl PositionsNeverGoBack {
    /// Knows from `topology` which streams' rows may come anew.
    pub fn new(topology: &Topology) -> Self {
        PositionsNeverGoBack {
            topology: topology.clone(),
            positions: BTreeMap::new(),
            given_up: BTreeMap::new(),
            judged: 0,
        }
    }

    fn is_in_memory(&self, feed: &Feed) -> bool {
        self.topology.promise(&feed.stream) == Some(Promise::Memory)
    }

    /// The position of `feed` before it moved to `to`; none if it does not follow.
    fn moved(&mut self, feed: &Feed, to: Token) -> Option<Token> {
        let position = self.positions.get_mut(feed)?;
        self.judged += 1;
        Some(std::mem::replace(position, to))
    }
}

impl Invariant for PositionsNeverGoBack {
    fn name(&self) -> &'static str {
        "positions_never_go_back"
    }

    fn observe(&mut self, _at: Moment, observation: &Observation) -> Result<(), Violation> {
        match observation {
            Observation::Started { instance, .. } | Observation::Stopped { instance, .. } => {
                self.positions.retain(|feed, _| feed.instance != *instance);
                self.given_up.retain(|feed, _| feed.instance != *instance);
            }
            Observation::Following { instance, stream, writer, position } => {
                self.positions.insert(Feed::new(instance, stream, writer), *position);
            }
            Observation::Applied { instance, stream, writer, token, .. } => {
                let feed = Feed::new(instance, stream, writer);
                let (is_in_memory, token) = (self.is_in_memory(&feed), *token);
                let Some(position) = self.moved(&feed, token) else { return Ok(()) };
                if token < position || (token == position && !is_in_memory) {
                    self.positions.insert(feed.clone(), position);
                    return Err(Violation::Repeated { feed, token, position });
                }
            }
            Observation::Reset { instance, stream, writer, position }
                if self.is_in_memory(&Feed::new(instance, stream, writer)) =>
            {
                let feed = Feed::new(instance, stream, writer);
                let Some(from) = self.moved(&feed, *position) else { return Ok(()) };
                let highest = self.given_up.entry(feed).or_default();
                *highest = from.max(*highest);
            }
            Observation::Positioned { instance, stream, writer, position: to }
            | Observation::Reset { instance, stream, writer, position: to } => {
                let feed = Feed::new(instance, stream, writer);
                let Some(from) = self.moved(&feed, *to) else { return Ok(()) };
                let from = self.given_up.remove(&feed).map_or(from, |given_up| given_up.max(from));
                if *to < from {
                    return Err(Violation::WentBack { feed, from, to: *to });
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

    enum Step {
        Applied(i64),
        Positioned(i64),
        Reset,
        Stopped,
    }
    use Step::{Applied, Positioned, Reset, Stopped};

    /// What the last step violates, for a worker that follows `stream` from 3.
    fn kind(stream: &str, steps: &[Step]) -> &'static str {
        let topology = Topology::new(["worker".into()])
            .with_stream("events", Promise::Log, ["writer".into()])
            .with_stream("typing", Promise::Memory, ["writer".into()]);
        let mut judge = PositionsNeverGoBack::new(&topology);
        let feed = Feed::new(&"worker".into(), &stream.into(), &"writer".into());
        let Feed { instance, stream, writer } = feed;
        let (i, s, w) = (instance.clone(), stream.clone(), writer.clone());
        let following = Observation::Following { instance: i, stream: s, writer: w, position: Token(3) };
        judge.observe(Moment(0), &following).unwrap();
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
            verdict = judge.observe(Moment(1), &observation);
        }
        verdict.map_or_else(|violation| violation.kind(), |()| "none")
    }

    #[test]
    fn positions_that_grow_or_are_confirmed_are_well() {
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
