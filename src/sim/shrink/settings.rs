//! Simplifies the settings of a plan.

use crate::sim::plan::{BROKER, BrokerPlan, DatabasePlan, Deployment, LimitsPlan, NetworkPlan, Plan, SchedulingPlan};

/// Functions that each give limits the amounts of production: all limits at once, and then each by itself.
pub(super) fn simpler_limits() -> impl Iterator<Item = fn(LimitsPlan) -> LimitsPlan> {
    let all: fn(LimitsPlan) -> LimitsPlan = |_| LimitsPlan::default();
    std::iter::once(all).chain(LimitsPlan::SIMPLER.iter().copied())
}

/// Functions that each simplify one setting of a plan.
pub(super) const SIMPLER: [fn(Plan) -> Plan; 9] = [
    |plan| Plan { scheduling: SchedulingPlan::default(), ..plan },
    |plan| Plan { database: DatabasePlan { before_us: (0, 0), after_us: (0, 0), rollback_per_mille: 0 }, ..plan },
    |plan| Plan { database: DatabasePlan { rollback_per_mille: 0, ..plan.database }, ..plan },
    |plan| Plan { network: NetworkPlan { latency_us_min: 200, latency_us_max: 1_000 }, ..plan },
    |plan| Plan { presence: Default::default(), ..plan },
    |plan| Plan { has_probe: false, ..plan },
    |plan| Plan { topology: Deployment { added: None, ..plan.topology }, ..plan },
    without_broker,
    with_plain_broker,
];

/// Replaces Redis by TCP, unless a fault disturbs the broker.
fn without_broker(plan: Plan) -> Plan {
    if plan.faults.iter().any(|entry| entry.fault.hosts().contains(&BROKER)) {
        return plan;
    }
    Plan { topology: Deployment { broker: None, ..plan.topology }, ..plan }
}

/// Gives the broker, if there is one, the default settings of Redis.
fn with_plain_broker(plan: Plan) -> Plan {
    let broker = plan.topology.broker.as_ref().map(|_| BrokerPlan::default());
    Plan { topology: Deployment { broker, ..plan.topology }, ..plan }
}
