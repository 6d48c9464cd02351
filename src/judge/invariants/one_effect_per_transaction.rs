//! One effect per transaction.
//!
//! Whoever asks for something and hears no answer asks again, and cannot know whether it was done. A request that is
//! repeated must take effect once, also when its answer was lost, when the database's was, and when the instance that
//! did it has been started again since: a cache of answers in memory forgets just then (Synapse #8476).
//!
//! No false alarm: every request of the storm's clients says something that no other one says (a message id, a version),
//! so the same words written twice to the same place are the same request done twice.

use std::collections::BTreeSet;

use super::Invariant;
use crate::judge::observation::{Moment, Observation};
use crate::judge::violation::Violation;

/// Judges what the database was made to say.
#[derive(Debug, Default)]
pub struct OneEffectPerTransaction {
    seen: BTreeSet<(String, String)>,
    judged: u64,
}

impl Invariant for OneEffectPerTransaction {
    fn name(&self) -> &'static str {
        "one_effect_per_transaction"
    }

    fn observe(&mut self, _at: Moment, observation: &Observation) -> Result<(), Violation> {
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

    #[test]
    fn the_same_words_in_the_same_place_are_one_request_done_twice() {
        let mut judge = OneEffectPerTransaction::default();
        let mut say = |place: &str, words: &str| {
            judge.observe(Moment(0), &Observation::TookEffect { place: place.into(), words: words.into() })
        };
        assert_eq!(say("@a DEVICE", "message1"), Ok(()));
        assert_eq!(say("@b DEVICE", "message1"), Ok(()));
        assert_eq!(say("@a DEVICE", "message2"), Ok(()));
        assert!(matches!(say("@a DEVICE", "message1"), Err(Violation::DoneTwice { .. })));
    }
}
