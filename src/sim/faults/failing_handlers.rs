//! Failing handlers: the reads of rows fail, and nothing else.

use std::ops::RangeInclusive;

use tokio::time::Instant;

use super::cluster::Cluster;
use super::database::disturb_database;
use super::draw::Draw;
use super::per_mille::{PerMilleFault, PerMilleKind};
use crate::sim::database::faults::{DatabaseFault, Scope};
use squall_protocol::InstanceName;

/// Failing handlers: reads of rows that fail on one host.
pub type FailingHandlers = PerMilleFault<FailingReads>;

/// Reads of rows that fail, for catch-up and for streaming: the set-up of a connection fails while the connection itself is
/// well (Synapse #4749).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailingReads {}

impl PerMilleKind for FailingReads {
    const PER_PLAN: RangeInclusive<u32> = 2..=8;
    const FOR_MS: RangeInclusive<u64> = 1_000..=10_000;

    fn draw_host(draw: &mut Draw<'_>) -> String {
        draw.instance()
    }

    async fn inject(cluster: &dyn Cluster, host: &InstanceName, per_mille: u32, until: Instant) -> bool {
        let fault = DatabaseFault::Failing { scope: Scope::Updates, per_mille };
        disturb_database(cluster, Some(host.as_str()), fault, until).await
    }

    fn describe(host: &str, per_mille: u32) -> String {
        format!("failing handlers: {per_mille} ‰ of {host}'s reads of rows")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::counts_where_it_is_met;

    #[test]
    fn failing_handlers_count_where_a_read_meets_them() {
        counts_where_it_is_met(FailingHandlers::new("writer1", 1_000, 3_000));
    }
}
