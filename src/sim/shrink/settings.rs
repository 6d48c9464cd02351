//! The settings of a whole plan, each as simple as it can be.

use crate::sim::plan::{DatabasePlan, NetworkPlan, Plan, SchedulingPlan};

/// Each way in which a plan's settings can be simplified, one by one.
pub(super) const SIMPLER: [fn(Plan) -> Plan; 5] = [
    |plan| Plan { scheduling: SchedulingPlan::default(), ..plan },
    |plan| Plan { database: DatabasePlan { before_us: (0, 0), after_us: (0, 0), rollback_per_mille: 0 }, ..plan },
    |plan| Plan { database: DatabasePlan { rollback_per_mille: 0, ..plan.database }, ..plan },
    |plan| Plan { network: NetworkPlan { latency_us_min: 200, latency_us_max: 1_000 }, ..plan },
    |plan| Plan { presence: Default::default(), ..plan },
];
