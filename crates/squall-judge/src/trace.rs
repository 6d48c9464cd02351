//! The trace hash: one number for all observations.
//!
//! Two runs of one seed are the same run if their observations are equal, times included. Comparing the hashes checks that
//! cheaply, on every run, between processes. Integers are hashed in one width and one byte order, so the hash is the same
//! on every machine.

use std::hash::{Hash, Hasher};

use xxhash_rust::xxh3::Xxh3Default;

use super::observation::{Observation, SimTime};

/// A running hash of observations.
#[derive(Default)]
pub(super) struct Trace {
    bytes: Bytes,
}

impl Trace {
    /// Adds an observation with its time.
    pub(crate) fn add(&mut self, at: SimTime, observation: &Observation) {
        at.hash(&mut self.bytes);
        observation.hash(&mut self.bytes);
    }

    /// Returns the hash so far, as 16 hexadecimal digits.
    pub(crate) fn hex(&self) -> String {
        format!("{:016x}", self.bytes.finish())
    }
}

/// Passes the parts of a value to xxh3 in one form on every machine.
#[derive(Default)]
struct Bytes(Xxh3Default);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.write(&number.to_le_bytes());
    }

    fn write_i64(&mut self, number: i64) {
        self.write(&number.to_le_bytes());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_i64(number as i64);
    }

    fn finish(&self) -> u64 {
        self.0.digest()
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
