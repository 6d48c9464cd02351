//! What the tests of this module share.

use super::plan::{DatabasePlan, Deployment, FORMAT, MASTER, NetworkPlan, Plan, Scenario, SchedulingPlan};

/// A plan of ten seconds in which nothing happens: a master, a writer and two workers, which have nothing to do with
/// each other.
pub(super) fn small_plan() -> Plan {
    Plan {
        format: FORMAT,
        seed: 7,
        scenario: Scenario::Storm,
        storm_ms: 10_000,
        topology: Deployment {
            events_writers: vec!["writer1".into()],
            typing_writer: MASTER.into(),
            account_data_writer: MASTER.into(),
            presence_writer: MASTER.into(),
            receipts_writers: vec![MASTER.into()],
            to_device_writer: MASTER.into(),
            workers: vec!["worker1".into(), "worker2".into()],
            broker: None,
        },
        network: NetworkPlan { latency_us_min: 1_000, latency_us_max: 5_000 },
        scheduling: SchedulingPlan::default(),
        database: DatabasePlan { before_us: (500, 2_000), after_us: (500, 2_000), rollback_per_mille: 0 },
        presence: Default::default(),
        operations: Vec::new(),
        faults: Vec::new(),
        clients: Vec::new(),
    }
}
