//! Power cut: a host is gone at once.

use std::ops::RangeInclusive;

use super::cluster::Cluster;
use super::outage::{OutageFault, OutageKind};
use squall_protocol::InstanceName;

/// An outage of a host without a goodbye to its peers. It comes back with nothing but the database.
pub type PowerCut = OutageFault<SuddenStop>;

/// The stop of a host whose power is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SuddenStop {}

impl OutageKind for SuddenStop {
    const NAME: &'static str = "power cut";
    const PER_PLAN: RangeInclusive<u32> = 4..=28;
    const TURN: u64 = 0;

    async fn take_down(cluster: &dyn Cluster, host: &InstanceName) -> bool {
        cluster.power_cut(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::super::restart::Restart;
    use crate::sim::testing::{SECOND, comes_back, in_world, inject, takes_effect};

    #[test]
    fn a_host_comes_back_after_a_power_cut() {
        comes_back(PowerCut::new("worker1", 3_000));
    }

    #[test]
    fn a_host_that_is_down_cannot_be_taken_down() {
        in_world(|world| async move {
            let first = inject(&world, PowerCut::new("worker1", 5_000), 10 * SECOND);
            tokio::time::sleep(SECOND).await;
            let since = Instant::now();
            assert!(!takes_effect(&world, PowerCut::new("worker1", 60_000)).await);
            assert!(!takes_effect(&world, Restart::new("worker1", 60_000)).await);
            assert_eq!(since.elapsed(), Duration::ZERO, "and neither waits for the host");
            assert!(first.await.unwrap().unwrap());
            assert!(world.engine().is_up("worker1"), "the first fault alone decides when it comes back");
        });
    }
}
