//! Failing database: transactions fail.

use std::ops::RangeInclusive;

use tokio::time::Instant;

use super::cluster::Cluster;
use super::database::disturb_database;
use super::draw::Draw;
use super::per_mille::{PerMilleFault, PerMilleKind};
use crate::sim::database::faults::{DatabaseFault, Scope};
use squall_protocol::InstanceName;

/// A failing database: transactions that fail on one host.
pub type FailingDatabase = PerMilleFault<FailingTransactions>;

/// Transactions that fail: half of them before they ran, as when no connection is left, half of them after, as when the
/// database rolls them back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailingTransactions {}

impl PerMilleKind for FailingTransactions {
    const PER_PLAN: RangeInclusive<u32> = 2..=8;
    const FOR_MS: RangeInclusive<u64> = 500..=5_000;

    fn draw_host(draw: &mut Draw<'_>) -> String {
        draw.database_user()
    }

    async fn inject(cluster: &dyn Cluster, host: &InstanceName, per_mille: u32, until: Instant) -> bool {
        let fault = DatabaseFault::Failing { scope: Scope::All, per_mille };
        disturb_database(cluster, Some(host.as_str()), fault, until).await
    }

    fn describe(host: &str, per_mille: u32) -> String {
        format!("failing database: {per_mille} ‰ of {host}'s transactions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::counts_where_it_is_met;

    #[test]
    fn a_failing_database_counts_where_a_transaction_meets_it() {
        counts_where_it_is_met(FailingDatabase::new("writer1", 1_000, 3_000));
    }
}
