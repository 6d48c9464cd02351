//! Partition: packets do not arrive.

use std::ops::RangeInclusive;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::time::sleep_until;

use super::cluster::Cluster;
use super::draw::Draw;
use super::kind::{FaultKind, Span};
use squall_netsim::Unsupported;

/// A stretch of time in which packets do not arrive and are sent again and again: an unplugged cable, a lost route.
/// Neither end is notified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// The sender.
    pub from: String,
    /// The receiver.
    pub to: String,
    /// True if the other direction is broken too.
    pub both: bool,
    /// The fault's duration, in milliseconds.
    pub for_ms: u64,
}

impl FaultKind for Partition {
    const PER_PLAN: RangeInclusive<u32> = 3..=24;
    const HITS_BROKER: bool = true;
    const SHRINKABLE: &'static [&'static str] = &["for_ms"];

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        let (from, to) = draw.connected_hosts();
        let both = draw.rng.random_ratio(3, 5);
        // Long ones outlast the sender's time-out and the receiver's ping time-out.
        let is_long = draw.rng.random_ratio(1, 5);
        let for_ms = if is_long { draw.rng.random_range(5_000..=30_000) } else { draw.rng.random_range(100..=3_000) };
        Some(Partition { from, to, both, for_ms })
    }

    fn hosts(&self) -> Vec<&str> {
        vec![&self.from, &self.to]
    }

    fn for_ms(&self) -> u64 {
        self.for_ms
    }

    async fn inject(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported> {
        let Partition { from, to, both, .. } = self;
        let engine = cluster.engine();
        let ways = if both { vec![(&from, &to), (&to, &from)] } else { vec![(&from, &to)] };
        let held = || ways.iter().map(|(from, to)| engine.held(from, to)).sum::<u64>();
        let before = held();
        for (from, to) in &ways {
            engine.partition(from, to);
        }
        sleep_until(span.until).await;
        for (from, to) in &ways {
            engine.heal(from, to);
        }
        Ok(held() > before)
    }

    fn describe(&self) -> String {
        let Partition { from, to, both, .. } = self;
        if *both { format!("partition between {from} and {to}") } else { format!("partition from {from} to {to}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    use crate::sim::testing::{SECOND, in_world, takes_effect};

    fn partition(from: &str, to: &str, for_ms: u64) -> Partition {
        Partition { from: from.into(), to: to.into(), both: true, for_ms }
    }

    #[test]
    fn a_partition_counts_where_it_held_something() {
        in_world(|world| async move {
            assert!(takes_effect(&world, partition("worker1", "writer1", 6_000)).await);
            assert!(!takes_effect(&world, partition("worker1", "worker2", 6_000)).await);
        });
    }

    #[test]
    fn a_partition_is_over_when_the_storm_is() {
        in_world(|world| async move {
            let began = Instant::now();
            takes_effect(&world, partition("worker1", "writer1", 60_000)).await;
            assert_eq!(began.elapsed().as_secs(), 10);
            let held = world.engine().held("worker1", "writer1");
            tokio::time::sleep(20 * SECOND).await;
            assert_eq!(world.engine().held("worker1", "writer1"), held, "nothing is held any more");
            assert!(!world.engine().connections("worker1", "writer1").is_empty());
        });
    }
}
