//! The way from one host to another: latency, bandwidth, partition.
//!
//! Each directed link draws from a generator of its own, so more traffic or another fault on one link leaves every
//! other link's latencies as they were.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use crate::LatencyRange;

/// A directed link between two hosts.
pub(crate) struct Link {
    rng: ChaCha8Rng,
    /// The latency of its packets.
    pub latency: LatencyRange,
    /// Bytes a second, headers included; `None` for no limit.
    bandwidth: Option<u64>,
    /// True if nothing gets through.
    pub partitioned: bool,
    /// The number of packets that met the partition.
    pub held: u64,
    /// The number of packets sent.
    pub sent: u64,
    free_at: Option<Instant>,
}

impl Link {
    /// A link without faults.
    pub(crate) fn new(rng: ChaCha8Rng, latency: LatencyRange) -> Self {
        Link { rng, latency, bandwidth: None, partitioned: false, held: 0, sent: 0, free_at: None }
    }

    /// The most bytes a second that it carries, if limited.
    pub(crate) fn is_limited(&self) -> bool {
        self.bandwidth.is_some()
    }

    /// Sets the limit, in bytes a second. Without one the link is free at once.
    pub(crate) fn set_bandwidth(&mut self, bytes_per_sec: Option<u64>) {
        self.bandwidth = bytes_per_sec;
        if bytes_per_sec.is_none() {
            self.free_at = None;
        }
    }

    /// Draws the arrival of a packet of `size` bytes sent at `now`. A limited link is busy with each packet for as long as its
    /// bytes take.
    pub(crate) fn arrival(&mut self, now: Instant, size: u32) -> Instant {
        let LatencyRange { min_us, max_us } = self.latency;
        self.sent += 1;
        let departure = match self.bandwidth {
            Some(rate) => {
                let takes = Duration::from_nanos(u64::from(size) * 1_000_000_000 / rate.max(1));
                let free_at = self.free_at.map_or(now, |free_at| free_at.max(now)) + takes;
                *self.free_at.insert(free_at)
            }
            None => now,
        };
        departure + Duration::from_micros(self.rng.random_range(min_us..=max_us.max(min_us)))
    }
}
