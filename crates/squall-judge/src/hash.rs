//! Hashes that are the same on every machine, and in every process.

use std::hash::{Hash, Hasher};

use xxhash_rust::xxh3::xxh3_64;

/// Returns the hash of a value. Two values of one run that differ have different hashes, but for a chance of one in 2^64.
pub(super) fn hash_of(value: &impl Hash) -> u64 {
    let mut bytes = Bytes(Vec::with_capacity(256));
    value.hash(&mut bytes);
    bytes.finish()
}

/// Collects the parts of a value as bytes. Integers have one width and one byte order.
#[derive(Default)]
pub(super) struct Bytes(pub Vec<u8>);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
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
        xxh3_64(&self.0)
    }
}
