//! One effect per transaction.
//!
//! A client whose request is not answered sends it again, and cannot know if it was done. A repeated request must take
//! effect once: also when its answer was lost, when the database's answer was lost, and when the instance that served it
//! has restarted since. A cache of answers in memory forgets exactly then (Synapse #8476).
//!
//! No false alarm: each request of the storm's clients writes something unique (a message id, a version). The same words
//! written twice to the same place are one request that took effect twice.

use std::collections::BTreeSet;

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::observation::{Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::Topology;

/// A request that was not idempotent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// The words of one request were written twice.
    #[error("{words} was written twice to {place}")]
    DoneTwice { place: String, words: String },
}

/// Checks that each request is written to the database once.
#[derive(Debug, Default)]
pub struct OneEffectPerTransaction {
    seen: BTreeSet<(String, String)>,
    judged: u64,
}

impl Invariant for OneEffectPerTransaction {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[Kind::TookEffect];

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation, _scene: &Scene) -> Result<(), Violation> {
        let Observation::TookEffect { place, words } = observation else { return Ok(()) };
        self.judged += 1;
        if self.seen.insert((place.clone(), words.clone())) {
            return Ok(());
        }
        Err(Violation::DoneTwice { place: place.clone(), words: words.clone() })
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::Alone;

    #[test]
    fn the_same_words_in_the_same_place_are_one_request_done_twice() {
        let mut judge = Alone::<OneEffectPerTransaction>::default();
        let mut write = |place: &str, words: &str| {
            judge.observe(SimTime(0), &Observation::TookEffect { place: place.into(), words: words.into() })
        };
        assert_eq!(write("@a DEVICE", "message1"), Ok(()));
        assert_eq!(write("@b DEVICE", "message1"), Ok(()));
        assert_eq!(write("@a DEVICE", "message2"), Ok(()));
        assert!(matches!(write("@a DEVICE", "message1"), Err(Violation::DoneTwice { .. })));
    }
}
