//! Stalled database: no transaction takes effect, and none is answered.

use std::ops::RangeInclusive;

use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::cluster::Cluster;
use super::database::{disturb_database, host_or_all};
use super::draw::Draw;
use super::kind::{FaultKind, Span};
use crate::sim::database::faults::DatabaseFault;
use squall_netsim::Unsupported;

/// A stretch of time in which no transaction takes effect and none is answered: a lock on everything, a failover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StalledDatabase {
    /// The host of the transactions; every host if none.
    pub host: Option<String>,
    /// The fault's duration, in milliseconds.
    pub for_ms: u64,
}

impl FaultKind for StalledDatabase {
    const PER_PLAN: RangeInclusive<u32> = 2..=8;
    const SHRINKABLE: &'static [&'static str] = &["for_ms"];

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        let host = draw.database_user_or_all();
        // Long ones outlast the grace of a stop and the time-outs of requests.
        let is_long = draw.rng.random_ratio(1, 5);
        let for_ms = if is_long { draw.rng.random_range(5_000..=15_000) } else { draw.rng.random_range(100..=3_000) };
        Some(StalledDatabase { host, for_ms })
    }

    fn hosts(&self) -> Vec<&str> {
        self.host.iter().map(String::as_str).collect()
    }

    fn for_ms(&self) -> u64 {
        self.for_ms
    }

    async fn inject(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported> {
        Ok(disturb_database(cluster, self.host.as_deref(), DatabaseFault::Stalled, span.until).await)
    }

    fn describe(&self) -> String {
        format!("stalled database for {}", host_or_all(&self.host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::{SECOND, counts_where_it_is_met, in_world, inject};

    #[test]
    fn a_process_that_starts_while_the_database_stalls_waits_for_it() {
        in_world(|world| async move {
            assert!(world.claim_down(&"worker1".into()));
            world.power_cut(&"worker1".into());
            let stall = StalledDatabase { host: None, for_ms: 6_000 };
            let stalled = inject(&world, stall, 10 * SECOND);
            tokio::time::sleep(SECOND).await;
            world.release_down(&"worker1".into());
            tokio::time::sleep(4 * SECOND).await;
            assert!(world.engine().connections("worker1", "writer1").is_empty());
            assert!(stalled.await.unwrap().unwrap());
            tokio::time::sleep(SECOND).await;
            assert!(!world.engine().connections("worker1", "writer1").is_empty());
        });
    }

    #[test]
    fn a_stalled_database_counts_where_a_transaction_meets_it() {
        counts_where_it_is_met(StalledDatabase { host: Some("writer1".into()), for_ms: 3_000 });
    }
}
