//! Broker failover: the broker's name leads to another server, and the old one lives on.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::cluster::Cluster;
use super::draw::Draw;
use super::kind::{FaultKind, Span};
use crate::sim::broker::LostConnections;
use crate::sim::deployment::BROKER;
use squall_judge::Observation;
use squall_netsim::Unsupported;

/// A failover in which only some connections break. The other ones stay on the old server, where every ping is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerFailover {
    /// The connections that break.
    pub lost: LostConnections,
}

impl FaultKind for BrokerFailover {
    const PER_PLAN: RangeInclusive<u32> = 1..=4;
    const HITS_BROKER: bool = true;
    const NEEDS_BROKER: bool = true;
    // An instance with connections to the old server checks the name every 10 s, give or take the jitter, and needs up to
    // two pings of 5 s each to see that it did not hear the check. Until then it hears some of the others, and not all
    // (seed 20083 of `redis_swarm`).
    const LINGER_MS: u64 = 22_000;
    const SHRINKABLE: &'static [&'static str] = &[];

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        let lost =
            draw.one_of(&[LostConnections::Publishing, LostConnections::Publishing, LostConnections::Subscribing]);
        draw.deployment.broker.is_some().then_some(BrokerFailover { lost })
    }

    fn hosts(&self) -> Vec<&str> {
        vec![BROKER]
    }

    fn for_ms(&self) -> u64 {
        0
    }

    async fn inject(self, cluster: &dyn Cluster, _span: Span) -> Result<bool, Unsupported> {
        let has_clients = cluster.fail_over_broker(self.lost);
        cluster.observe(&Observation::BrokerFailedOver);
        Ok(has_clients)
    }

    fn describe(&self) -> String {
        let lost = match self.lost {
            LostConnections::Publishing => "the connections on which instances publish",
            LostConnections::Subscribing => "the subscriptions",
        };
        format!("failover of the broker: {lost} break, and the others stay on the old server")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::{BrokerPlan, FaultEntry, Operation, OperationKind};
    use crate::sim::runner;
    use crate::sim::testing::small_plan;

    #[test]
    fn rows_arrive_again_after_a_failover() {
        for lost in [LostConnections::Publishing, LostConnections::Subscribing] {
            let mut plan = small_plan();
            plan.topology.broker = Some(BrokerPlan::default());
            plan.faults = vec![FaultEntry { at_ms: 3_000, fault: BrokerFailover { lost }.into() }];
            plan.operations = vec![Operation::new(4_000, OperationKind::Send { room: 1 })];
            let verdict = runner::judge(&plan);
            assert!(verdict.passed(), "{verdict:?}");
            assert_eq!((verdict.faults, verdict.rows_committed), (1, 1));
            assert!(verdict.marks["set_up"] > 0);
        }
    }

    #[test]
    fn a_failover_without_a_broker_or_connections_does_not_count() {
        let failover = crate::sim::broker::Failover::default();
        assert!(!failover.fail_over(LostConnections::Publishing), "no broker runs");
    }
}
