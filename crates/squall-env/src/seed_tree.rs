//! Keyed randomness.
//!
//! Every draw comes from a ChaCha stream whose key is a stable hash of the seed and of the purpose of the draw. There is
//! no shared generator, so a new draw changes no other one: removing one fault from a plan leaves every other draw as
//! it was.

use std::fmt::{self, Write};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// A node of the tree of seeds: a key from which random numbers are drawn and narrower keys derived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedTree {
    key: [u8; 32],
}

impl SeedTree {
    /// The root of the tree of `seed`.
    pub fn from_seed(seed: u64) -> Self {
        SeedTree { key: Sha256::digest(seed.to_le_bytes()).into() }
    }

    /// A root from the operating system, for real processes.
    pub fn from_os() -> Self {
        let mut key = [0; 32];
        rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut key)
            .expect("the operating system has a source of randomness");
        SeedTree { key }
    }

    /// The child for `key`: a host, a boot, a purpose, an ordinal.
    pub fn child(&self, key: impl fmt::Display) -> SeedTree {
        let mut text = Hashed(Sha256::new_with_prefix(self.key));
        write!(text, "{key}").expect("hashing never fails");
        SeedTree { key: text.0.finalize().into() }
    }

    /// A generator at the start of this node's stream of numbers.
    pub fn rng(&self) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(self.key)
    }
}

/// Hashes the text that is written to it.
struct Hashed(Sha256);

impl Write for Hashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn the_same_key_draws_the_same_numbers() {
        let draw = |key: &str| SeedTree::from_seed(7).child(key).child(1).rng().random::<u64>();
        assert_eq!(draw("worker1"), draw("worker1"));
        assert_ne!(draw("worker1"), draw("worker2"));
    }

    #[test]
    fn a_draw_elsewhere_changes_nothing_here() {
        let root = SeedTree::from_seed(7);
        let before: u64 = root.child("latency").rng().random();
        let _: u64 = root.child("backoff").rng().random();
        assert_eq!(before, root.child("latency").rng().random::<u64>());
    }
}
