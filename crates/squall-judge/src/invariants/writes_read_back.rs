//! Writes are read back.
//!
//! A client that has the answer to its write sees the write through the same instance, even if another instance is the
//! stream's writer. `caches_fresh_after_wait` checks this for events and account data, whose answers have a token. This
//! invariant checks it for receipts, messages to devices, presence and typing, whose answers have none: the client looks
//! for its own write. An early answer, before the instance has the writer's rows (Synapse #7542), shows an old state. So
//! does an instance that applies the rows and does not show them, and no other invariant sees that. An outlier that is sent
//! again as an ordinary event is one afterwards, and its change of state is there (Synapse #8605, #17635).
//!
//! No false alarm:
//!
//! - A message is shown once the position has passed it. The writer itself waits for no position: while an earlier write is
//!   under way, its own answer comes before that. So messages through the writer itself are not judged.
//! - Each of these writes is of a user who does nothing else, so that no later write replaces it.
//! - A write whose wait timed out has failed, and is not read back. A read that fails owes nothing.
//! - Typing is in memory: it is gone with the writer's process, and ends by itself. Presence ends by itself too. So a write
//!   that took long may not be seen.

use std::collections::BTreeMap;

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::observation::{Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::Topology;
use squall_protocol::rows::{presence, to_device, typing};
use squall_protocol::{Delivery, InstanceName, StreamName};

/// Time for which a user who began to type counts as typing, and one who set a presence does not go offline: less than that
/// of the constants, by the time that an answer takes.
const LASTING_MS: u64 = 20_000;

/// A write that its client did not see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// An instance acknowledged a write and did not show it.
    #[error(
        "{instance} acknowledged {what} of {stream}, which {writer} wrote within {after_ms} ms, and did not show it"
    )]
    Unseen { instance: InstanceName, stream: StreamName, writer: InstanceName, what: String, after_ms: u64 },
}

/// Checks that clients see their own writes.
#[derive(Debug)]
pub struct WritesReadBack {
    topology: Topology,
    /// The time at which the last process of each instance began or ended.
    restarted: BTreeMap<InstanceName, SimTime>,
    judged: u64,
}

impl WritesReadBack {
    /// Returns true if a write that began at `began` and was read back at `at` may be gone.
    fn may_be_gone(&self, stream: &StreamName, writer: &InstanceName, began: SimTime, at: SimTime) -> bool {
        let ends = [presence::NAME, typing::NAME].contains(&stream.as_str());
        let is_in_memory = self.topology.delivery(stream) == Some(Delivery::Memory);
        let has_restarted = self.restarted.get(writer).is_some_and(|restarted| *restarted >= began);
        (ends && at.ms_since(began) > LASTING_MS) || (is_in_memory && has_restarted)
    }
}

impl Invariant for WritesReadBack {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[Kind::Started, Kind::Stopped, Kind::ReadBack];

    fn new(topology: &Topology) -> Self {
        WritesReadBack { topology: topology.clone(), restarted: BTreeMap::new(), judged: 0 }
    }

    fn observe(&mut self, at: SimTime, observation: &Observation, _scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::Started { instance, .. } | Observation::Stopped { instance, .. } => {
                self.restarted.insert(instance.clone(), at);
            }
            Observation::ReadBack { instance, stream, writer, what, after_ms, is_seen } => {
                let began = SimTime(at.0.saturating_sub(*after_ms));
                let goes_by_positions = stream.as_str() == to_device::NAME;
                if (goes_by_positions && instance == writer) || self.may_be_gone(stream, writer, began, at) {
                    return Ok(());
                }
                self.judged += 1;
                if !is_seen {
                    let (instance, stream, writer) = (instance.clone(), stream.clone(), writer.clone());
                    let (what, after_ms) = (what.clone(), *after_ms);
                    return Err(Violation::Unseen { instance, stream, writer, what, after_ms });
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
    use crate::violation::kind;

    /// The violation of a write that took `after_ms` and was read back at 100 s, and the number of checks.
    fn told(restarted: Option<u64>, stream: &str, after_ms: u64, is_seen: bool) -> (String, u64) {
        let topology = Topology::new(["worker".into()])
            .with_stream("receipts", Delivery::Keyed, ["master".into()])
            .with_stream("presence", Delivery::Keyed, ["master".into()])
            .with_stream("typing", Delivery::Memory, ["master".into()]);
        let mut judge = Alone::<WritesReadBack>::new(&topology);
        if let Some(at) = restarted {
            let stopped = Observation::Stopped { instance: "master".into(), boot: 1 };
            judge.observe(SimTime(at), &stopped).expect("a stop is no violation");
        }
        let (instance, writer) = ("worker".into(), "master".into());
        let (stream, what) = (stream.into(), "@user".into());
        let read_back = Observation::ReadBack { instance, stream, writer, what, after_ms, is_seen };
        (kind(&judge.observe(SimTime(100_000), &read_back)), judge.exercised())
    }

    #[test]
    fn a_write_that_was_acknowledged_is_shown() {
        for stream in ["receipts", "presence", "typing"] {
            assert_eq!(told(None, stream, 50, true), ("none".into(), 1));
            assert_eq!(told(None, stream, 50, false), ("unseen".into(), 1));
        }
    }

    #[test]
    fn a_receipt_is_kept_however_long_it_took_and_typing_and_presence_end() {
        assert_eq!(told(None, "receipts", 60_000, false).0, "unseen");
        assert_eq!(told(None, "presence", 60_000, false), ("none".into(), 0));
        assert_eq!(told(None, "typing", 60_000, false), ("none".into(), 0));
    }

    #[test]
    fn a_message_through_its_writer_may_wait_for_an_earlier_one() {
        let told = |instance: &str| {
            let mut judge = Alone::<WritesReadBack>::new(&Topology::default());
            let (instance, writer, stream) = (instance.into(), "master".into(), "to_device".into());
            let (what, after_ms, is_seen) = ("message".into(), 9, false);
            kind(
                &judge
                    .observe(SimTime(9), &Observation::ReadBack { instance, stream, writer, what, after_ms, is_seen }),
            )
        };
        assert_eq!((told("master"), told("worker")), ("none".into(), "unseen".into()));
    }

    #[test]
    fn typing_is_gone_with_the_process_of_its_writer() {
        assert_eq!(told(Some(99_960), "typing", 50, false), ("none".into(), 0));
        assert_eq!(told(Some(99_940), "typing", 50, false).0, "unseen", "before the write");
        assert_eq!(told(Some(99_960), "receipts", 50, false).0, "unseen");
    }
}
