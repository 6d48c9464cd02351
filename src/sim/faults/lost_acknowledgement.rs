//! Lost acknowledgement: a transaction commits and its caller gets an error.

use std::ops::RangeInclusive;

use tokio::time::Instant;

use super::cluster::Cluster;
use super::database::disturb_database;
use super::draw::Draw;
use super::per_mille::{PerMilleFault, PerMilleKind};
use crate::sim::database::faults::DatabaseFault;
use squall_protocol::InstanceName;

/// Lost acknowledgements: commits whose callers get an error on one host.
pub type LostAcknowledgement = PerMilleFault<UnacknowledgedCommits>;

/// Transactions that commit while their caller gets an error, before the commit or after it: the connection to the database
/// breaks at the wrong time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnacknowledgedCommits {}

impl PerMilleKind for UnacknowledgedCommits {
    const PER_PLAN: RangeInclusive<u32> = 2..=8;
    const FOR_MS: RangeInclusive<u64> = 500..=5_000;

    fn draw_host(draw: &mut Draw<'_>) -> String {
        draw.database_user()
    }

    async fn inject(cluster: &dyn Cluster, host: &InstanceName, per_mille: u32, until: Instant) -> bool {
        let fault = DatabaseFault::LostAcknowledgement { per_mille };
        disturb_database(cluster, Some(host.as_str()), fault, until).await
    }

    fn describe(host: &str, per_mille: u32) -> String {
        format!("lost acknowledgement: {per_mille} ‰ of {host}'s transactions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::counts_where_it_is_met;

    #[test]
    fn a_lost_acknowledgement_counts_where_a_transaction_meets_it() {
        counts_where_it_is_met(LostAcknowledgement::new("writer1", 1_000, 3_000));
    }
}
