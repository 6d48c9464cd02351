//! Slow drip: packets one way trickle.

use std::ops::RangeInclusive;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::time::sleep_until;

use super::cluster::Cluster;
use super::draw::Draw;
use super::kind::{FaultKind, Span};
use crate::sim::invalid::{InvalidValue, check_range};
use squall_netsim::Unsupported;

/// A low bandwidth from one host to another: a modem, a saturated link. Packets that are queued when it ends arrive at the
/// usual speed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowDrip {
    /// The sender.
    pub from: String,
    /// The receiver.
    pub to: String,
    /// The bandwidth, headers included, in bytes a second; at least one.
    pub bytes_per_sec: u64,
    /// The fault's duration, in milliseconds.
    pub for_ms: u64,
}

impl FaultKind for SlowDrip {
    const PER_PLAN: RangeInclusive<u32> = 3..=20;
    const HITS_BROKER: bool = true;
    // Not `bytes_per_sec`: a lower bandwidth is a worse fault.
    const SHRINKABLE: &'static [&'static str] = &["for_ms"];

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        let (from, to) = draw.connected_hosts();
        let bytes_per_sec = draw.one_of(&[200, 500, 1_000, 2_000, 5_000]);
        // Long ones outlast the time-out of a request, or even the ping time-out.
        let is_long = draw.rng.random_ratio(1, 5);
        let for_ms = if is_long { draw.rng.random_range(8_000..=30_000) } else { draw.rng.random_range(500..=8_000) };
        Some(SlowDrip { from, to, bytes_per_sec, for_ms })
    }

    fn check(&self) -> Result<(), InvalidValue> {
        check_range(1, self.bytes_per_sec)
    }

    fn hosts(&self) -> Vec<&str> {
        vec![&self.from, &self.to]
    }

    fn for_ms(&self) -> u64 {
        self.for_ms
    }

    async fn inject(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported> {
        let SlowDrip { from, to, bytes_per_sec, .. } = self;
        let engine = cluster.engine();
        let before = engine.sent(&from, &to);
        engine.set_bandwidth(&from, &to, Some(bytes_per_sec))?;
        sleep_until(span.until).await;
        engine.set_bandwidth(&from, &to, None)?;
        Ok(engine.sent(&from, &to) > before)
    }

    fn describe(&self) -> String {
        let SlowDrip { from, to, bytes_per_sec, .. } = self;
        format!("slow drip from {from} to {to}: {bytes_per_sec} bytes a second")
    }
}

#[cfg(test)]
mod tests {
    use super::super::cut::Cut;
    use super::*;
    use crate::sim::testing::{SECOND, in_world, takes_effect};

    #[test]
    fn a_slow_drip_counts_where_something_was_sent_and_holds_up_nothing_once_it_is_over() {
        in_world(|world| async move {
            let drip = |from: &str, to: &str| {
                let (from, to) = (from.into(), to.into());
                SlowDrip { from, to, bytes_per_sec: 1, for_ms: 6_000 }
            };
            let arrived = || world.engine().connections("writer1", "worker1").len();
            assert_eq!(arrived(), 1);
            assert!(takes_effect(&world, drip("writer1", "worker1")).await);
            assert!(takes_effect(&world, Cut { a: "writer1".into(), b: "worker1".into() }).await);
            tokio::time::sleep(SECOND).await;
            assert_eq!(arrived(), 1, "the next handshake need not wait until the queue has dripped");
            assert!(!takes_effect(&world, drip("worker1", "worker2")).await);
        });
    }
}
