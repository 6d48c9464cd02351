//! Isolation: one instance loses every other instance at once.

use std::ops::RangeInclusive;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::time::sleep_until;

use super::cluster::Cluster;
use super::draw::Draw;
use super::kind::{FaultKind, Span};
use squall_netsim::Unsupported;

/// A stretch of time in which no packet passes between one instance and any other: a switch that fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isolation {
    /// The host of the instance.
    pub host: String,
    /// The fault's duration, in milliseconds.
    pub for_ms: u64,
}

impl FaultKind for Isolation {
    const PER_PLAN: RangeInclusive<u32> = 2..=8;
    const SHRINKABLE: &'static [&'static str] = &["for_ms"];

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        let host = draw.instance();
        Some(Isolation { host, for_ms: draw.rng.random_range(500..=20_000) })
    }

    fn hosts(&self) -> Vec<&str> {
        vec![&self.host]
    }

    fn for_ms(&self) -> u64 {
        self.for_ms
    }

    async fn inject(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported> {
        let engine = cluster.engine();
        let mut directions = Vec::new();
        for peer in cluster.instances() {
            if peer.as_str() != self.host {
                directions.push((self.host.as_str(), peer.as_str()));
                directions.push((peer.as_str(), self.host.as_str()));
            }
        }
        let mut held_before = 0;
        for (from, to) in &directions {
            held_before += engine.held(from, to);
            engine.partition(from, to);
        }
        sleep_until(span.until).await;
        let mut held = 0;
        for (from, to) in &directions {
            engine.heal(from, to);
            held += engine.held(from, to);
        }
        Ok(held > held_before)
    }

    fn describe(&self) -> String {
        format!("isolation of {}", self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::{in_world, takes_effect};

    #[test]
    fn an_isolation_counts_where_it_held_a_packet() {
        in_world(|world| async move {
            assert!(takes_effect(&world, Isolation { host: "worker1".into(), for_ms: 6_000 }).await);
            assert!(!takes_effect(&world, Isolation { host: "worker1".into(), for_ms: 0 }).await);
        });
    }
}
