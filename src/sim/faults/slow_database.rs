//! Slow database: every transaction takes longer.

use std::ops::RangeInclusive;

use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::cluster::Cluster;
use super::database::{disturb_database, host_or_all};
use super::draw::Draw;
use super::kind::{FaultKind, Span};
use crate::sim::database::faults::DatabaseFault;
use crate::sim::invalid::{InvalidValue, check_at_most, check_range};
use squall_netsim::Unsupported;

/// The longest delay on either side of a transaction, in milliseconds.
const EXTRA_MS_MAX: u64 = 2_000;

/// A delay of every transaction: an overloaded database, a long way to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowDatabase {
    /// The host of the transactions; every host if none.
    pub host: Option<String>,
    /// The shortest delay before a transaction takes effect, and again until its caller knows, in milliseconds.
    pub extra_ms_min: u64,
    /// The longest delay on either side, in milliseconds; at most 2 000.
    pub extra_ms_max: u64,
    /// The time during which transactions that begin are hit, in milliseconds.
    pub for_ms: u64,
}

impl FaultKind for SlowDatabase {
    const PER_PLAN: RangeInclusive<u32> = 2..=8;
    const SHRINKABLE: &'static [&'static str] = &["extra_ms_min", "extra_ms_max", "for_ms"];
    const LINGER_MS: u64 = 2 * EXTRA_MS_MAX;

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        let host = draw.database_user_or_all();
        let extra_ms_min = draw.rng.random_range(0..=100);
        let extra_ms_max = extra_ms_min + draw.rng.random_range(50..=1_500);
        Some(SlowDatabase { host, extra_ms_min, extra_ms_max, for_ms: draw.rng.random_range(1_000..=8_000) })
    }

    fn check(&self) -> Result<(), InvalidValue> {
        check_range(self.extra_ms_min, self.extra_ms_max)?;
        check_at_most(self.extra_ms_max, EXTRA_MS_MAX)
    }

    fn hosts(&self) -> Vec<&str> {
        self.host.iter().map(String::as_str).collect()
    }

    fn for_ms(&self) -> u64 {
        self.for_ms
    }

    async fn inject(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported> {
        let fault = DatabaseFault::Slow { extra_ms: self.extra_ms_min..=self.extra_ms_max };
        Ok(disturb_database(cluster, self.host.as_deref(), fault, span.until).await)
    }

    fn describe(&self) -> String {
        let SlowDatabase { host, extra_ms_min, extra_ms_max, .. } = self;
        format!("slow database: {extra_ms_min} to {extra_ms_max} ms more each way for {}", host_or_all(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::counts_where_it_is_met;

    #[test]
    fn a_slow_database_counts_where_a_transaction_meets_it() {
        counts_where_it_is_met(SlowDatabase { host: None, extra_ms_min: 50, extra_ms_max: 60, for_ms: 3_000 });
    }
}
