//! Cut: one connection is reset at both ends.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::cluster::Cluster;
use super::draw::Draw;
use super::kind::{FaultKind, Span};
use squall_netsim::Unsupported;

/// A reset of the oldest connection between two hosts, at both ends: a proxy that is restarted, a middlebox that drops
/// its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// One host.
    pub a: String,
    /// The other host.
    pub b: String,
}

impl FaultKind for Cut {
    const PER_PLAN: RangeInclusive<u32> = 4..=30;
    const HITS_BROKER: bool = true;
    const SHRINKABLE: &'static [&'static str] = &[];

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        let (a, b) = draw.client_and_server();
        Some(Cut { a, b })
    }

    fn hosts(&self) -> Vec<&str> {
        vec![&self.a, &self.b]
    }

    fn for_ms(&self) -> u64 {
        0
    }

    async fn inject(self, cluster: &dyn Cluster, _span: Span) -> Result<bool, Unsupported> {
        let engine = cluster.engine();
        let connections = engine.connections(&self.a, &self.b);
        Ok(connections.first().is_some_and(|connection| engine.cut(connection)))
    }

    fn describe(&self) -> String {
        format!("cut between {} and {}", self.a, self.b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::{in_world, takes_effect};

    #[test]
    fn a_cut_counts_where_a_connection_is_open() {
        in_world(|world| async move {
            let cut = |a: &str, b: &str| Cut { a: a.into(), b: b.into() };
            let before = world.engine().connections("worker1", "writer1");
            assert!(takes_effect(&world, cut("writer1", "worker1")).await);
            assert!(!world.engine().connections("worker1", "writer1").contains(&before[0]));
            assert!(!takes_effect(&world, cut("worker1", "worker2")).await);
        });
    }
}
