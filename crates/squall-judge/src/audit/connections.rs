//! Instances that connected, recognised by their positions.
//!
//! `REPLICATE` does not name its sender. But a process of Synapse that has connected to the broker announces its positions,
//! sends `REPLICATE`, receives it like every other process, and announces its positions again. So within a moment it
//! announces each stream once more often than there were REPLICATEs. Every process of Synapse writes at least `caches`.
//!
//! An instance that was away while others connected did not receive their REPLICATEs, and announces fewer positions. So in
//! a storm of many instances only a part of the connections is recognised, and a count is a lower bound.

use std::collections::{BTreeMap, VecDeque};

use super::origin::Origin;
use crate::observation::SimTime;
use squall_protocol::{InstanceName, Position};

/// Time within which an instance that connected announces its positions twice, in milliseconds.
pub(super) const TOGETHER_MS: u64 = 400;

/// Number of REPLICATEs, and of positions of a writer, that are remembered.
const REMEMBERED_MAX: usize = 100;

/// Recognises the instances that connect.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// The times of the last REPLICATEs.
    replicates: VecDeque<SimTime>,
    /// The times of each writer's last positions that nothing preceded.
    announced: BTreeMap<Origin, VecDeque<SimTime>>,
    /// Number of times that each writer announced a position once too often.
    surplus: BTreeMap<Origin, u64>,
    /// Number of connections of each instance.
    connected: BTreeMap<InstanceName, u64>,
}

impl Connections {
    /// Takes a REPLICATE into account.
    pub(super) fn replicate(&mut self, at: SimTime) {
        remember(&mut self.replicates, at);
    }

    /// Takes a position into account. Returns true if it shows that its writer has connected.
    pub(super) fn position(&mut self, at: SimTime, position: &Position) -> bool {
        if position.prev != position.new {
            return false;
        }
        forget_before(&mut self.replicates, at);
        let origin = Origin::from(position);
        let announced = self.announced.entry(origin.clone()).or_default();
        remember(announced, at);
        forget_before(announced, at);
        if self.replicates.is_empty() || announced.len() <= self.replicates.len() {
            return false;
        }
        // It belongs to that connection, and is not counted for the next one.
        announced.pop_back();
        // Each of its streams shows the same connection.
        let surplus = self.surplus.entry(origin).or_default();
        *surplus += 1;
        let connected = self.connected.entry(position.writer.clone()).or_default();
        let is_new = *surplus > *connected;
        *connected = (*connected).max(*surplus);
        is_new
    }

    /// Forgets everything: payloads may have been missed.
    pub(super) fn missed(&mut self) {
        *self = Connections::default();
    }
}

fn remember(times: &mut VecDeque<SimTime>, at: SimTime) {
    times.push_back(at);
    if times.len() > REMEMBERED_MAX {
        times.pop_front();
    }
}

fn forget_before(times: &mut VecDeque<SimTime>, now: SimTime) {
    while times.front().is_some_and(|at| now.ms_since(*at) > TOGETHER_MS) {
        times.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use squall_protocol::Command;

    /// Returns the instances that these payloads show to have connected, in order.
    fn connected(payloads: &[(u64, &str)]) -> Vec<String> {
        let mut connections = Connections::default();
        let mut connected = Vec::new();
        for (at, text) in payloads {
            match Command::parse(text).unwrap() {
                Command::Replicate => connections.replicate(SimTime(*at)),
                Command::Position(position) => {
                    if connections.position(SimTime(*at), &position) {
                        connected.push(position.writer.to_string());
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        connected
    }

    const A: &str = "POSITION caches a 5 5";
    const A_TYPING: &str = "POSITION typing a 1 1";
    const B: &str = "POSITION caches b 5 5";

    #[test]
    fn an_instance_that_announces_its_positions_twice_has_connected() {
        assert_eq!(connected(&[(0, "REPLICATE"), (1, B), (2, A), (3, A)]), ["a"]);
        let twice = [(0, "REPLICATE"), (1, A), (1, A_TYPING), (2, A), (2, A_TYPING), (3, B)];
        assert_eq!(connected(&twice), ["a"], "once for all of its streams");
        let again = twice.iter().map(|(at, text)| (at + 1_000, *text));
        assert_eq!(connected(&twice.into_iter().chain(again).collect::<Vec<_>>()), ["a", "a"]);
    }

    #[test]
    fn an_instance_that_answers_each_replicate_has_not_connected() {
        assert!(connected(&[(0, "REPLICATE"), (1, A), (2, B)]).is_empty());
        assert!(connected(&[(0, "REPLICATE"), (1, "REPLICATE"), (2, A), (3, A), (4, B), (5, B)]).is_empty());
        assert!(connected(&[(0, A), (1, A)]).is_empty(), "without a REPLICATE");
        assert!(connected(&[(0, "REPLICATE"), (1, A), (401, A)]).is_empty(), "a heartbeat");
        assert!(connected(&[(0, "REPLICATE"), (1, A), (2, "POSITION caches a 5 6")]).is_empty(), "a change");
    }
}
