//! Keyed randomness.
//!
//! Every draw comes from a ChaCha stream keyed by a seed and by a stable hash of who draws and what for. There is no
//! shared generator, so an added draw changes nothing elsewhere: removing one fault from a plan leaves every other
//! draw as it was.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// A place in the tree of randomness: a key, from which streams are drawn and narrower keys derived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chance {
    key: [u8; 32],
}

impl Chance {
    /// The root of everything that `seed` decides.
    pub fn from_seed(seed: u64) -> Self {
        Chance { key: Sha256::digest(seed.to_le_bytes()).into() }
    }

    /// A root nobody can guess, for real instances.
    pub fn from_os() -> Self {
        let mut key = [0; 32];
        rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut key)
            .expect("the operating system has a source of randomness");
        Chance { key }
    }

    /// The part of this randomness that belongs to `who` (a host, a boot, a purpose, an ordinal).
    pub fn of(&self, who: impl std::fmt::Display) -> Chance {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update(who.to_string().as_bytes());
        Chance { key: hash.finalize().into() }
    }

    /// A generator at the start of this key's stream.
    pub fn rng(&self) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn the_same_key_draws_the_same_numbers() {
        let draw = |who: &str| Chance::from_seed(7).of(who).of(1).rng().random::<u64>();
        assert_eq!(draw("worker1"), draw("worker1"));
        assert_ne!(draw("worker1"), draw("worker2"));
    }

    #[test]
    fn a_draw_elsewhere_changes_nothing_here() {
        let root = Chance::from_seed(7);
        let before: u64 = root.of("latency").rng().random();
        let _: u64 = root.of("backoff").rng().random();
        assert_eq!(before, root.of("latency").rng().random::<u64>());
    }
}
