//! Plans: what will happen in a run, as plain data.
//!
//! A plan comes from its seed alone, and a run from its plan alone. So a run can be printed, cut down to what matters
//! and run again; a finding is kept as the plan that shows it, and outlives every change to how plans are drawn.

mod client;
mod fault;
mod generate;
mod load;
mod operation;
mod scenario;

use serde::{Deserialize, Serialize};

use crate::instance::config::PresenceConfig;

pub use client::{CLIENT_PAUSE_MS_MAX, CLIENT_TIMEOUT_MS_MAX, ClientPlan};
pub use fault::{DELAY_MS_MAX, EXTRA_MS_MAX, Family, Fault, FaultEntry};
pub use load::{Place, PlanError};
pub use operation::{Operation, OperationKind, Reading, Writing};
pub use scenario::{Scenario, UnknownScenario};

/// The version of the plan's own form. A plan of another version is refused.
pub const FORMAT: u32 = 1;

/// The longest that one poll of a task may be put off, in milliseconds. The calm waits for it.
pub const DEFERRAL_MS_MAX: u64 = 100;

/// The name of the main instance, which every deployment has.
pub const MASTER: &str = "master";

/// The host of the broker, where there is one.
pub const BROKER: &str = "broker";

/// What will happen in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The version of this form: [`FORMAT`].
    pub format: u32,
    /// What every draw of the run comes from that the plan does not fix, such as the latency of each packet.
    pub seed: u64,
    /// What the plan was drawn for.
    pub scenario: Scenario,
    /// How long faults and operations go on, in simulated milliseconds; then comes the calm.
    pub storm_ms: u64,
    /// Which instances there are.
    pub topology: Deployment,
    /// How the network is when nothing is wrong with it.
    pub network: NetworkPlan,
    /// How the processes' tasks are scheduled.
    #[serde(default)]
    pub scheduling: SchedulingPlan,
    /// How the database is.
    pub database: DatabasePlan,
    /// How long what is said about syncing users is relied on.
    #[serde(default)]
    pub presence: PresenceConfig,
    /// What users do, in order of time.
    pub operations: Vec<Operation>,
    /// What goes wrong, in order of time.
    pub faults: Vec<FaultEntry>,
    /// Who syncs.
    #[serde(default)]
    pub clients: Vec<ClientPlan>,
}

/// Which instances there are. Every host runs one instance, of the host's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// The writers of `events`, among which rooms are divided.
    pub events_writers: Vec<String>,
    /// The one writer of `typing`: [`MASTER`] or any other host.
    pub typing_writer: String,
    /// The one writer of `account_data`; as with the next three, [`MASTER`] if the plan does not say.
    #[serde(default = "master")]
    pub account_data_writer: String,
    /// The one writer of `presence`.
    #[serde(default = "master")]
    pub presence_writer: String,
    /// The writers of `receipts`, among which rooms are divided.
    #[serde(default = "only_master")]
    pub receipts_writers: Vec<String>,
    /// The one writer of `to_device`.
    #[serde(default = "master")]
    pub to_device_writer: String,
    /// Instances that only follow.
    pub workers: Vec<String>,
    /// The broker at which instances meet. Without one they connect to each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<BrokerPlan>,
}

/// A Redis server, on the host [`BROKER`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerPlan {
    /// A subscriber for whom more bytes than this wait is dropped at once (`client-output-buffer-limit pubsub`).
    pub hard_bytes: usize,
    /// One for whom more than this wait ...
    pub soft_bytes: usize,
    /// ... for this long, in milliseconds, is dropped too.
    pub soft_for_ms: u64,
    /// Whether instances have to prove themselves to it.
    pub has_password: bool,
}

fn master() -> String {
    MASTER.to_owned()
}

fn only_master() -> Vec<String> {
    vec![master()]
}

/// How the network is when nothing is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkPlan {
    /// The shortest time a packet takes, in microseconds.
    pub latency_us_min: u64,
    /// The longest time a packet takes, in microseconds.
    pub latency_us_max: u64,
}

/// How the processes' tasks are scheduled. An instance is a single-threaded reactor, whose tasks run in the order in which
/// they are woken: without deferrals, a race that another order would show stays hidden. None unless given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulingPlan {
    /// How many in a thousand polls are put off.
    pub deferred_per_mille: u32,
    /// How long a poll is put off at the most, in milliseconds; half of those that are put off only let others go first.
    /// [`DEFERRAL_MS_MAX`] at the most.
    pub deferral_ms_max: u64,
}

/// How the database is. A transaction takes effect at one instant, with a delay before and another one after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabasePlan {
    /// The least and the most time before a transaction takes effect, in microseconds.
    pub before_us: (u64, u64),
    /// The least and the most time from there until its caller knows, in microseconds.
    pub after_us: (u64, u64),
    /// How many in a thousand transactions are rolled back after they ran, and run again.
    pub rollback_per_mille: u32,
}

impl Default for BrokerPlan {
    /// As Redis is unless it is told otherwise.
    fn default() -> Self {
        BrokerPlan { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_for_ms: 60_000, has_password: false }
    }
}

impl Deployment {
    /// Every host: the master, the events writers, the workers.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        let others = self.events_writers.iter().chain(&self.workers);
        std::iter::once(MASTER).chain(others.map(String::as_str))
    }

    /// Every host: those of instances, and the broker's.
    pub fn machines(&self) -> impl Iterator<Item = &str> {
        self.hosts().chain(self.broker.as_ref().map(|_| BROKER))
    }

    /// The master and the hosts that write a stream, to which all others connect.
    pub fn writers(&self) -> impl Iterator<Item = &str> {
        self.hosts().filter(|host| *host == MASTER || self.stream_writers().any(|(_, writer)| writer == *host))
    }

    /// The writers of each stream but `caches`, with the field of this plan that names them.
    pub fn stream_writers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let events = self.events_writers.iter().map(|writer| ("topology.events_writers", writer));
        let receipts = self.receipts_writers.iter().map(|writer| ("topology.receipts_writers", writer));
        let single = [
            ("topology.typing_writer", &self.typing_writer),
            ("topology.account_data_writer", &self.account_data_writer),
            ("topology.presence_writer", &self.presence_writer),
            ("topology.to_device_writer", &self.to_device_writer),
        ];
        events.chain(receipts).chain(single).map(|(field, writer)| (field, writer.as_str()))
    }

    /// Whether `host` writes `events`.
    pub fn writes_events(&self, host: &str) -> bool {
        self.events_writers.iter().any(|writer| writer == host)
    }
}

impl Plan {
    /// The plan as JSON that [`Plan::load`] understands and a person can edit.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a plan holds nothing that JSON cannot say")
    }

    /// How many rows of `events` the operations write, if none of them fails.
    pub fn rows(&self) -> u64 {
        self.operations.iter().map(|operation| u64::from(operation.kind.rows())).sum()
    }
}
