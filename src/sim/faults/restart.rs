//! Restart: an instance is stopped gracefully and started again.

use std::ops::RangeInclusive;

use super::cluster::Cluster;
use super::outage::{OutageFault, OutageKind};
use squall_protocol::InstanceName;

/// A graceful stop of an instance, and its next start: an upgrade, a change of configuration.
pub type Restart = OutageFault<GracefulStop>;

/// The stop of a process that may finish what it has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GracefulStop {}

impl OutageKind for GracefulStop {
    const NAME: &'static str = "restart";
    const PER_PLAN: RangeInclusive<u32> = 4..=28;
    const TURN: u64 = 1;

    async fn take_down(cluster: &dyn Cluster, host: &InstanceName) -> bool {
        cluster.stop(host).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::comes_back;

    #[test]
    fn a_host_comes_back_after_a_restart() {
        comes_back(Restart::new("worker1", 3_000));
    }
}
