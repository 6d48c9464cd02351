//! Bursts that a follower missed: more rows at once than one answer returns, while its connection was lost.
//!
//! A connected follower gets a burst row by row. Only a follower that missed it asks for it, and gets it in parts.

use std::collections::{BTreeMap, BTreeSet};

use super::observation::{Observation, SimTime};
use super::topology::SUBSCRIPTION;
use squall_protocol::rows::ROWS_TARGET;
use squall_protocol::{InstanceName, StreamName};

/// An instance and the target that it connects to.
type Pair = (InstanceName, InstanceName);

/// Notices bursts that a follower missed.
#[derive(Debug, Default)]
pub(super) struct MissedBursts {
    /// The instance and target of each attempt and connection.
    pairs: BTreeMap<u64, Pair>,
    /// The instances that have lost their connection to a target and have no new one.
    lost: BTreeSet<Pair>,
    /// The latest rows of one stream and writer that were committed at one time, and their number.
    burst: Option<(StreamName, InstanceName, SimTime, usize)>,
}

impl MissedBursts {
    /// Returns the stream of a burst that now has more rows than one answer returns, if a follower misses it. Each burst
    /// counts once.
    pub(super) fn observe(&mut self, at: SimTime, observation: &Observation) -> Option<StreamName> {
        match observation {
            Observation::Connecting { instance, target, attempt } => {
                self.pairs.insert(*attempt, (instance.clone(), target.clone()));
            }
            Observation::Connected { attempt, .. } => {
                self.lost.remove(self.pairs.get(attempt)?);
            }
            Observation::Failed { attempt, .. } => {
                self.pairs.remove(attempt);
            }
            Observation::Closed { attempt, .. } => {
                self.lost.insert(self.pairs.remove(attempt)?);
            }
            Observation::Stopped { instance, .. } => {
                self.pairs.retain(|_, (from, _)| from != instance);
                self.lost.retain(|(from, _)| from != instance);
            }
            Observation::Committed { stream, writer, .. } => {
                let rows = match self.burst.take() {
                    Some((of, by, when, rows)) if (&of, &by, when) == (stream, writer, at) => rows + 1,
                    _ => 1,
                };
                self.burst = Some((stream.clone(), writer.clone(), at, rows));
                return (rows == ROWS_TARGET + 1 && self.is_missed(writer)).then(|| stream.clone());
            }
            _ => {}
        }
        None
    }

    /// Returns true if another instance has lost its connection to `writer`, or to the broker.
    fn is_missed(&self, writer: &InstanceName) -> bool {
        self.lost.iter().any(|(from, target)| from != writer && (target == writer || target.as_str() == SUBSCRIPTION))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use squall_protocol::Token;
    use squall_protocol::rows::{Row, ToDeviceRow};

    fn row(writer: &str) -> Observation {
        let row = Row::ToDevice(ToDeviceRow { entity: "@user0:squall.test".into() });
        Observation::Committed { stream: "to_device".into(), writer: writer.into(), token: Token(7), row }
    }

    /// Returns the number of bursts that count, of `rows` rows of `writer1` after `before`.
    fn missed(target: &str, before: &[Observation], rows: usize) -> usize {
        let (instance, attempt) = (InstanceName::from("worker1"), 1);
        let connecting = Observation::Connecting { instance: instance.clone(), target: target.into(), attempt };
        let connected = Observation::Connected { instance, attempt };
        let mut bursts = MissedBursts::default();
        let all = [connecting, connected].into_iter().chain(before.iter().cloned());
        all.chain((0..rows).map(|_| row("writer1"))).filter_map(|event| bursts.observe(SimTime(9), &event)).count()
    }

    #[test]
    fn a_burst_counts_once_and_only_past_the_limit_of_one_answer() {
        let closed = [Observation::Closed { instance: "worker1".into(), attempt: 1 }];
        assert_eq!(missed("writer1", &closed, ROWS_TARGET), 0);
        assert_eq!(missed("writer1", &closed, 3 * ROWS_TARGET), 1);
        assert_eq!(missed(SUBSCRIPTION, &closed, 3 * ROWS_TARGET), 1);
    }

    #[test]
    fn a_burst_that_every_follower_was_connected_for_does_not_count() {
        assert_eq!(missed("writer1", &[], 3 * ROWS_TARGET), 0);
        let instance = InstanceName::from("worker1");
        let closed = Observation::Closed { instance: instance.clone(), attempt: 1 };
        assert_eq!(missed("writer2", std::slice::from_ref(&closed), 3 * ROWS_TARGET), 0, "of another writer");
        let stopped = Observation::Stopped { instance: instance.clone(), boot: 1 };
        assert_eq!(missed("writer1", &[closed.clone(), stopped], 3 * ROWS_TARGET), 0, "it reads the database anew");
        let connecting = Observation::Connecting { instance: instance.clone(), target: "writer1".into(), attempt: 2 };
        let connected = Observation::Connected { instance, attempt: 2 };
        assert_eq!(missed("writer1", &[closed, connecting, connected], 3 * ROWS_TARGET), 0);
    }
}
