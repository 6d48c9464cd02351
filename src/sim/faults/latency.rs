//! Latency: packets one way take another time than usual.

use std::ops::RangeInclusive;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::time::sleep_until;

use super::cluster::Cluster;
use super::draw::Draw;
use super::kind::{FaultKind, Span};
use crate::sim::invalid::{InvalidValue, check_range};
use squall_netsim::{LatencyRange, Unsupported};

/// Another latency from one host to another: a detour, a congested link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// The sender.
    pub from: String,
    /// The receiver.
    pub to: String,
    /// The shortest time a packet takes, in microseconds.
    pub min_us: u64,
    /// The longest time a packet takes, in microseconds.
    pub max_us: u64,
    /// The fault's duration, in milliseconds.
    pub for_ms: u64,
}

impl FaultKind for Latency {
    const PER_PLAN: RangeInclusive<u32> = 3..=24;
    const HITS_BROKER: bool = true;
    const SHRINKABLE: &'static [&'static str] = &["min_us", "max_us", "for_ms"];

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        let (from, to) = draw.connected_hosts();
        let min_us = draw.rng.random_range(1_000..=20_000);
        let max_us = min_us + draw.rng.random_range(0..=300_000);
        Some(Latency { from, to, min_us, max_us, for_ms: draw.rng.random_range(500..=8_000) })
    }

    fn check(&self) -> Result<(), InvalidValue> {
        check_range(self.min_us, self.max_us)
    }

    fn hosts(&self) -> Vec<&str> {
        vec![&self.from, &self.to]
    }

    fn for_ms(&self) -> u64 {
        self.for_ms
    }

    async fn inject(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported> {
        let Latency { from, to, min_us, max_us, .. } = self;
        let engine = cluster.engine();
        let before = engine.sent(&from, &to);
        engine.set_latency(&from, &to, LatencyRange { min_us, max_us });
        sleep_until(span.until).await;
        engine.reset_latency(&from, &to);
        Ok(engine.sent(&from, &to) > before)
    }

    fn describe(&self) -> String {
        let Latency { from, to, min_us, max_us, .. } = self;
        format!("latency from {from} to {to} {} to {} ms", min_us / 1000, max_us / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::{in_world, takes_effect};

    #[test]
    fn latency_counts_where_something_is_sent() {
        in_world(|world| async move {
            let slow = |from: &str, to: &str| {
                let (from, to) = (from.into(), to.into());
                Latency { from, to, min_us: 50_000, max_us: 60_000, for_ms: 6_000 }
            };
            assert!(takes_effect(&world, slow("writer1", "worker1")).await);
            assert!(!takes_effect(&world, slow("worker1", "worker2")).await);
        });
    }
}
