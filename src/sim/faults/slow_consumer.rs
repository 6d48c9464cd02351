//! Slow consumer: an instance reads slowly from all its connections.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::time::sleep_until;

use super::cluster::Cluster;
use super::draw::Draw;
use super::kind::{FaultKind, Span};
use squall_netsim::{SlowReader, Unsupported};

/// Slow reads on all connections of a host, until its peers' buffers are full: a starved process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowConsumer {
    /// The host.
    pub host: String,
    /// The size of one read, in bytes.
    pub bytes: usize,
    /// The pause after each read, in milliseconds.
    pub pause_ms: u64,
    /// The fault's duration, in milliseconds.
    pub for_ms: u64,
}

impl FaultKind for SlowConsumer {
    const PER_PLAN: RangeInclusive<u32> = 3..=24;
    const HITS_BROKER: bool = true;
    // Not `bytes`: smaller reads are a worse fault.
    const SHRINKABLE: &'static [&'static str] = &["pause_ms", "for_ms"];

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        Some(SlowConsumer {
            host: draw.instance_or_broker(),
            bytes: 1 << draw.rng.random_range(5..=12),
            pause_ms: draw.rng.random_range(5..=200),
            for_ms: draw.rng.random_range(1_000..=8_000),
        })
    }

    fn hosts(&self) -> Vec<&str> {
        vec![&self.host]
    }

    fn for_ms(&self) -> u64 {
        self.for_ms
    }

    async fn inject(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported> {
        let SlowConsumer { host, bytes, pause_ms, .. } = self;
        let engine = cluster.engine();
        let before = engine.slowed(&host);
        engine.slow_reader(&host, Some(SlowReader { bytes, pause: Duration::from_millis(pause_ms) }))?;
        sleep_until(span.until).await;
        engine.slow_reader(&host, None)?;
        Ok(engine.slowed(&host) > before)
    }

    fn describe(&self) -> String {
        let SlowConsumer { host, bytes, pause_ms, .. } = self;
        format!("slow consumer: {host} reads {bytes} bytes every {pause_ms} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::{in_world, takes_effect};

    #[test]
    fn a_slow_consumer_counts_if_it_had_something_to_read() {
        in_world(|world| async move {
            let slow = || SlowConsumer { host: "worker1".into(), bytes: 4, pause_ms: 5, for_ms: 6_000 };
            assert!(takes_effect(&world, slow()).await);
            assert!(world.claim_down(&"worker1".into()));
            world.power_cut(&"worker1".into());
            assert!(!takes_effect(&world, slow()).await);
        });
    }
}
