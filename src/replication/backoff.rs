//! Exponential back-off between retries.
//!
//! The delay doubles from [`DELAY_MIN`] to [`DELAY_MAX`]. For connections it is reset only once the connection is set
//! up: a reset as soon as TCP connects turns one bad row into hundreds of attempts a minute (Synapse #4749, back since
//! #7185).

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use squall_env::SeedTree;

/// The delay after the first failure.
pub const DELAY_MIN: Duration = Duration::from_millis(100);
/// The delay after many failures.
pub const DELAY_MAX: Duration = Duration::from_secs(5);
/// Largest relative deviation of a delay from its nominal value. It keeps instances from retrying in step.
pub const JITTER: f64 = 0.12;

/// The delays between the attempts at one operation.
#[derive(Debug)]
pub struct Backoff {
    failures: u32,
    rng: ChaCha8Rng,
}

impl Backoff {
    /// Returns a back-off that starts at [`DELAY_MIN`] and draws its jitter from `seeds`.
    pub fn new(seeds: &SeedTree) -> Self {
        Backoff { failures: 0, rng: seeds.rng() }
    }

    /// Returns the delay before the next attempt, and counts a failure.
    pub fn next_delay(&mut self) -> Duration {
        let nominal = nominal_delay(self.failures);
        self.failures = self.failures.saturating_add(1);
        jittered(nominal, &mut self.rng)
    }

    /// Forgets all failures, so that the next delay is the shortest.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Returns `nominal`, give or take the jitter.
pub(crate) fn jittered(nominal: Duration, rng: &mut ChaCha8Rng) -> Duration {
    nominal.mul_f64(rng.random_range(1.0 - JITTER..=1.0 + JITTER))
}

/// Returns the delay after `failures` earlier failures, without jitter.
pub(super) fn nominal_delay(failures: u32) -> Duration {
    DELAY_MIN.saturating_mul(1 << failures.min(16)).min(DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_to_its_maximum_until_it_is_reset() {
        let mut backoff = Backoff::new(&SeedTree::from_seed(1));
        for nominal_ms in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let delay = backoff.next_delay().as_secs_f64() * 1000.0;
            assert!((delay / f64::from(nominal_ms) - 1.0).abs() <= JITTER, "{delay} ms for {nominal_ms} ms");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= DELAY_MIN.mul_f64(1.0 + JITTER));
    }
}
