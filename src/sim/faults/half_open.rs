//! Half-open: one end of a replication connection is gone while the other still believes in it.

use std::ops::RangeInclusive;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::time::sleep_until;

use super::cluster::Cluster;
use super::draw::Draw;
use super::kind::{FaultKind, Span};
use crate::sim::deployment::replication_port;
use squall_judge::Observation;
use squall_netsim::Unsupported;

/// A replication connection of which only one end is left: a firewall that lost its state resets one side and drops all
/// that the other still sends. No kernel gives up within the time of a run, so the survivor has to notice by its pings.
/// When the fault is over, the survivor's packets are answered with a reset. A fault that outlasts the storm is never
/// healed: a firewall does not remember what it forgot, and the connection has to be given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HalfOpen {
    /// The host whose end is gone.
    pub gone: String,
    /// The host whose end stays.
    pub survivor: String,
    /// The time for which nothing is answered, in milliseconds.
    pub for_ms: u64,
}

impl FaultKind for HalfOpen {
    const PER_PLAN: RangeInclusive<u32> = 3..=20;
    const HITS_BROKER: bool = true;
    const SHRINKABLE: &'static [&'static str] = &["for_ms"];

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        let (gone, survivor) = draw.connected_hosts();
        // Long ones outlast the ping time-out. After short ones the survivor is reset instead.
        let is_long = draw.rng.random_ratio(1, 2);
        let for_ms = if is_long { draw.rng.random_range(25_000..=40_000) } else { draw.rng.random_range(100..=20_000) };
        Some(HalfOpen { gone, survivor, for_ms })
    }

    fn hosts(&self) -> Vec<&str> {
        vec![&self.gone, &self.survivor]
    }

    fn for_ms(&self) -> u64 {
        self.for_ms
    }

    async fn inject(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported> {
        let HalfOpen { gone, survivor, .. } = self;
        let engine = cluster.engine();
        let Some(connection) = engine.half_open(&gone, &survivor, replication_port(&gone, &survivor))? else {
            return Ok(false);
        };
        cluster.observe(&Observation::HalfOpened { survivor: survivor.into(), attempt: connection.id });
        sleep_until(span.until).await;
        if span.until < span.storm_end {
            engine.answer(&connection)?;
        }
        Ok(true)
    }

    fn describe(&self) -> String {
        format!("half-open: {}'s end of a connection is gone, {} hears nothing", self.gone, self.survivor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::{SECOND, in_world, inject, takes_effect};

    fn half_open(gone: &str, survivor: &str, for_ms: u64) -> HalfOpen {
        HalfOpen { gone: gone.into(), survivor: survivor.into(), for_ms }
    }

    #[test]
    fn a_half_open_connection_counts_where_one_was_established() {
        in_world(|world| async move {
            let before = world.engine().connections("worker1", "writer1");
            assert!(takes_effect(&world, half_open("worker1", "writer1", 3_000)).await);
            let after = world.engine().connections("worker1", "writer1");
            assert!(!after.contains(&before[0]) && !after.is_empty(), "whose end is gone has connected again");
            assert!(!takes_effect(&world, half_open("worker1", "worker2", 3_000)).await);
        });
    }

    #[test]
    fn the_survivor_of_a_half_open_connection_notices_by_its_pings() {
        in_world(|world| async move {
            // The client survives: no other instance connects for it.
            let fault = half_open("writer1", "worker1", 60_000);
            inject(&world, fault, 60 * SECOND);
            tokio::time::sleep(20 * SECOND).await;
            assert!(world.engine().connections("worker1", "writer1").is_empty(), "it believes itself connected");
            // The ping time-out, looked at every ping interval, and its goodbye, for which it has as much time again.
            tokio::time::sleep(45 * SECOND).await;
            assert!(!world.engine().connections("worker1", "writer1").is_empty());
        });
    }
}
