//! Plans: everything that happens in a run, as plain data.
//!
//! A plan comes from its seed alone, and a run from its plan alone. So a run can be printed, cut down to what matters and
//! run again. A finding is kept as the plan that shows it, and outlives every change to the way plans are drawn.

mod client;
mod generate;
mod limits;
mod load;
mod operation;
mod scenario;

use serde::{Deserialize, Serialize};

use crate::presence::PresenceConfig;

pub use super::deployment::{ADDED_PAUSE_MS_MAX, AddedWriter, BROKER, BrokerPlan, Deployment};
pub use super::faults::{Family, Fault, FaultEntry};
pub use super::invalid::InvalidValue;
pub use client::{CLIENT_PAUSE_MS_MAX, CLIENT_TIMEOUT_MS_MAX, ClientPlan, DEVICES};
pub use limits::LimitsPlan;
pub use load::{Place, PlanError};
pub use operation::{Operation, OperationKind, Reading, Writing};
pub use scenario::{Scenario, UnknownScenario};

/// The version of the plan's format. A plan of another version is refused.
pub const FORMAT: u32 = 1;

/// The longest delay of one poll of a task, in milliseconds. It is part of the calm bound.
pub const DEFERRAL_MS_MAX: u64 = 100;

/// The longest storm, in milliseconds: a day.
pub const STORM_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// The largest number of hosts.
pub const HOSTS_MAX: usize = 50;
/// Largest amount of a limit of the instances.
pub const LIMIT_MAX: u64 = 1_000_000_000;
/// The largest number of rows that the operations of a plan write together.
pub const ROWS_MAX: u64 = 1_000_000;
/// The longest time that a packet or a transaction takes without a fault, in microseconds: a minute.
pub const DELAY_US_MAX: u64 = 60_000_000;

/// Everything that happens in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The version of the format: [`FORMAT`].
    pub format: u32,
    /// The seed of every draw that the plan does not fix, such as the latency of each packet.
    pub seed: u64,
    /// The scenario that the plan was drawn for.
    pub scenario: Scenario,
    /// The length of the storm, in simulated milliseconds. The calm follows it.
    pub storm_ms: u64,
    /// The instances.
    pub topology: Deployment,
    /// The network without faults.
    pub network: NetworkPlan,
    /// The scheduling of the processes' tasks.
    #[serde(default)]
    pub scheduling: SchedulingPlan,
    /// The database without faults.
    pub database: DatabasePlan,
    /// The time-outs of presence.
    #[serde(default)]
    pub presence: PresenceConfig,
    /// The limits of the instances that differ from those of production.
    #[serde(default, skip_serializing_if = "LimitsPlan::is_production")]
    pub limits: LimitsPlan,
    /// The users' operations, in order of time.
    pub operations: Vec<Operation>,
    /// The faults, in order of time.
    pub faults: Vec<FaultEntry>,
    /// The clients that sync.
    #[serde(default)]
    pub clients: Vec<ClientPlan>,
    /// True if clients make one correct request of each kind in the calm.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_probe: bool,
}

/// The network without faults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkPlan {
    /// The shortest time a packet takes, in microseconds.
    pub latency_us_min: u64,
    /// The longest time a packet takes, in microseconds.
    pub latency_us_max: u64,
}

/// The scheduling of the processes' tasks. An instance is a single-threaded reactor, whose tasks run in the order in which
/// they are woken. Delayed polls show the races that only another order has. By default no poll is delayed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulingPlan {
    /// Polls out of a thousand that are delayed.
    pub deferred_per_mille: u32,
    /// The longest delay of a poll, in milliseconds; at most [`DEFERRAL_MS_MAX`]. Half of the delayed polls only let other
    /// tasks go first.
    pub deferral_ms_max: u64,
}

/// The database without faults. A transaction takes effect at one instant, with a delay before and another one after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabasePlan {
    /// The shortest and the longest time until a transaction takes effect, in microseconds.
    pub before_us: (u64, u64),
    /// The shortest and the longest time from there until the caller gets the result, in microseconds.
    pub after_us: (u64, u64),
    /// Transactions out of a thousand that are rolled back after they ran, and run again.
    pub rollback_per_mille: u32,
}

impl Plan {
    /// Returns the plan as JSON that [`Plan::load`] reads and a person can edit.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("every value of a plan has a form in JSON")
    }

    /// Returns the number of rows of `events` that the operations write, if none of them fails.
    pub fn rows(&self) -> u64 {
        self.operations.iter().map(|operation| u64::from(operation.kind.rows())).sum()
    }
}
