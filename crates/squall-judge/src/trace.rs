//! The trace hash: one number for all observations.
//!
//! Two runs of one seed are the same run if their observations are equal, times included. Comparing the hashes checks that
//! cheaply, on every run, between processes.

use std::hash::Hash;

use xxhash_rust::xxh3::Xxh3Default;

use super::hash::Bytes;
use super::observation::{Observation, SimTime};

/// Number of bytes that are hashed together: hashing a few at a time costs several times as much.
const HASHED_TOGETHER: usize = 4096;

/// A running hash of observations.
#[derive(Default)]
pub(super) struct Trace {
    hash: Xxh3Default,
    /// Observations that are not hashed yet.
    bytes: Bytes,
}

impl Trace {
    /// Adds an observation with its time.
    pub(crate) fn add(&mut self, at: SimTime, observation: &Observation) {
        at.hash(&mut self.bytes);
        observation.hash(&mut self.bytes);
        if self.bytes.0.len() >= HASHED_TOGETHER {
            self.hash.update(&self.bytes.0);
            self.bytes.0.clear();
        }
    }

    /// Returns the hash so far, as 16 hexadecimal digits.
    pub(crate) fn hex(&self) -> String {
        let mut hash = self.hash.clone();
        hash.update(&self.bytes.0);
        format!("{:016x}", hash.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(observed: &[(u64, Observation)]) -> String {
        let mut trace = Trace::default();
        for (at, observation) in observed {
            trace.add(SimTime(*at), observation);
        }
        trace.hex()
    }

    fn started(instance: &str, boot: u64) -> Observation {
        Observation::Started { instance: instance.into(), boot }
    }

    #[test]
    fn the_same_observations_have_the_same_hash_in_any_process() {
        let observed = [(0, started("master", 1)), (5, started("writer", 2))];
        assert_eq!(hash(&observed), hash(&observed.clone()));
        assert_eq!(hash(&observed), "c5865a8726228015");
    }

    #[test]
    fn another_time_another_order_or_another_field_is_another_hash() {
        let one = hash(&[(0, started("a", 1)), (0, started("b", 1))]);
        assert_ne!(one, hash(&[(0, started("b", 1)), (0, started("a", 1))]));
        assert_ne!(one, hash(&[(0, started("a", 1)), (1, started("b", 1))]));
        assert_ne!(one, hash(&[(0, started("a", 1)), (0, started("b", 2))]));
    }
}
