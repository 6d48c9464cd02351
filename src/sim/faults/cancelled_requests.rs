//! Cancelled requests: requests are dropped in the middle.

use std::ops::RangeInclusive;

use tokio::time::Instant;

use super::cluster::Cluster;
use super::draw::Draw;
use super::per_mille::{PerMilleFault, PerMilleKind, hit_until};
use squall_protocol::InstanceName;

/// Cancelled requests: requests that are dropped on one host.
pub type CancelledRequests = PerMilleFault<DroppedRequests>;

/// Requests that are dropped in the middle, at any of their awaits: clients that go away (Synapse #19800).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DroppedRequests {}

impl PerMilleKind for DroppedRequests {
    const PER_PLAN: RangeInclusive<u32> = 2..=8;
    const FOR_MS: RangeInclusive<u64> = 1_000..=10_000;

    fn draw_host(draw: &mut Draw<'_>) -> String {
        draw.server()
    }

    async fn inject(cluster: &dyn Cluster, host: &InstanceName, per_mille: u32, until: Instant) -> bool {
        hit_until(cluster.cancellations(host).switch(), per_mille, until).await
    }

    fn describe(host: &str, per_mille: u32) -> String {
        format!("cancelled requests: {per_mille} ‰ of {host}'s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::counts_where_it_is_met;

    #[test]
    fn cancelled_requests_count_where_a_request_meets_them() {
        counts_where_it_is_met(CancelledRequests::new("writer1", 1_000, 3_000));
    }
}
