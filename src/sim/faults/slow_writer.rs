//! Slow writer: transactions that write rows take effect late.

use std::ops::RangeInclusive;

use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::cluster::Cluster;
use super::database::disturb_database;
use super::draw::Draw;
use super::kind::{FaultKind, Span};
use crate::sim::database::faults::DatabaseFault;
use crate::sim::invalid::{InvalidValue, check_at_most, check_per_mille, check_range};
use squall_netsim::Unsupported;

/// The longest delay of a transaction, in milliseconds.
const DELAY_MS_MAX: u64 = 10_000;

/// Transactions that write rows and take effect late, in any order: a lock, a busy disk, a deadlock. Their ids were allocated
/// long before, and hold the position back (Synapse #8499, #19795, #19800).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowWriter {
    /// The host of the transactions.
    pub host: String,
    /// The shortest delay, in milliseconds.
    pub delay_ms_min: u64,
    /// The longest delay, in milliseconds; at most 10 000.
    pub delay_ms_max: u64,
    /// Transactions out of a thousand that are rolled back for good in the end, so that their ids have no rows.
    pub rollback_per_mille: u32,
    /// The time during which transactions that begin are hit, in milliseconds.
    pub for_ms: u64,
}

impl FaultKind for SlowWriter {
    const PER_PLAN: RangeInclusive<u32> = 2..=8;
    const SHRINKABLE: &'static [&'static str] = &["delay_ms_min", "delay_ms_max", "rollback_per_mille", "for_ms"];
    const LINGER_MS: u64 = DELAY_MS_MAX;

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        let delay_ms_min = draw.rng.random_range(500..=2_000);
        Some(SlowWriter {
            host: draw.rows_writer(),
            delay_ms_min,
            delay_ms_max: draw.rng.random_range(delay_ms_min + 500..=DELAY_MS_MAX),
            rollback_per_mille: draw.one_of(&[0, 50, 200]),
            for_ms: draw.rng.random_range(1_000..=10_000),
        })
    }

    fn check(&self) -> Result<(), InvalidValue> {
        check_range(self.delay_ms_min, self.delay_ms_max)?;
        check_at_most(self.delay_ms_max, DELAY_MS_MAX)?;
        check_per_mille(self.rollback_per_mille)
    }

    fn hosts(&self) -> Vec<&str> {
        vec![&self.host]
    }

    fn for_ms(&self) -> u64 {
        self.for_ms
    }

    async fn inject(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported> {
        let SlowWriter { host, delay_ms_min, delay_ms_max, rollback_per_mille, .. } = self;
        let fault = DatabaseFault::SlowWriter { delay_ms: delay_ms_min..=delay_ms_max, rollback_per_mille };
        Ok(disturb_database(cluster, Some(&host), fault, span.until).await)
    }

    fn describe(&self) -> String {
        let SlowWriter { host, delay_ms_min, delay_ms_max, rollback_per_mille, .. } = self;
        format!(
            "slow writer: {host}'s rows are committed {delay_ms_min} to {delay_ms_max} ms late, {rollback_per_mille} ‰ \
             never"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::counts_where_it_is_met;

    #[test]
    fn a_slow_writer_counts_where_a_transaction_meets_it() {
        counts_where_it_is_met(SlowWriter {
            host: "writer1".into(),
            delay_ms_min: 500,
            delay_ms_max: 600,
            rollback_per_mille: 0,
            for_ms: 3_000,
        });
    }
}
