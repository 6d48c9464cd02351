//! The simulated deployment: its hosts, their ports, and the streams that each of them writes.

use serde::{Deserialize, Serialize};

use crate::instance::Config;
use crate::instance::config::StreamWriters;
use crate::limits::Limits;
use crate::presence::PresenceConfig;
use crate::transport::{InstanceLocation, RedisConfig};
use squall_protocol::MASTER;

/// The host of the broker, in a deployment that has one.
pub const BROKER: &str = "broker";

/// The homeserver's name.
pub(super) const SERVER_NAME: &str = "squall.test";

/// The port of the line protocol on every host.
pub(super) const REPLICATION_PORT: u16 = 9092;
/// The port of HTTP requests on every host.
pub(super) const HTTP_PORT: u16 = 9093;
/// The port of the broker.
pub(super) const BROKER_PORT: u16 = 6379;

/// The password that a client of the broker sends first, where the broker requires one.
pub(super) const BROKER_PASSWORD: &str = "a-password-of-the-storm";

/// The hosts of a deployment. Every host runs one instance, which has the host's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// The writers of `events`, among which rooms are divided. [`MASTER`] may be one of them.
    pub events_writers: Vec<String>,
    /// The one writer of `typing`: [`MASTER`] or any other host.
    pub typing_writer: String,
    /// The one writer of `account_data`. Like the next three fields, it is [`MASTER`] by default.
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
    /// The other instances. They only follow, unless another field names them.
    pub workers: Vec<String>,
    /// The broker through which instances replicate. Without one they connect to each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<BrokerPlan>,
    /// The writer that is added while the deployment runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<AddedWriter>,
}

/// A writer of `events` or `receipts` that is added while the deployment runs: the other instances are restarted one after
/// the other, with a configuration that names it, and then it starts for the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddedWriter {
    /// The host. It writes no stream that has one writer.
    pub host: String,
    /// The time of the first restart, in simulated milliseconds since the start.
    pub at_ms: u64,
    /// The pause between one restart and the next, in milliseconds.
    pub pause_ms: u64,
}

/// The longest `pause_ms` of a writer that is added.
pub const ADDED_PAUSE_MS_MAX: u64 = 10_000;

/// A Redis server, on the host [`BROKER`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerPlan {
    /// The output-buffer limit in bytes beyond which a subscriber is dropped at once (`client-output-buffer-limit
    /// pubsub`).
    pub hard_bytes: usize,
    /// The output-buffer limit in bytes beyond which a subscriber is dropped after [`soft_for_ms`](Self::soft_for_ms).
    pub soft_bytes: usize,
    /// The time above the soft limit after which a subscriber is dropped, in milliseconds.
    pub soft_for_ms: u64,
    /// True if clients have to send a password.
    pub has_password: bool,
}

fn master() -> String {
    MASTER.to_owned()
}

fn only_master() -> Vec<String> {
    vec![master()]
}

impl Default for BrokerPlan {
    /// Returns the limits of an unconfigured Redis.
    fn default() -> Self {
        BrokerPlan { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_for_ms: 60_000, has_password: false }
    }
}

impl Deployment {
    /// Returns the host of every instance: the master, the other events writers, the workers.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        let others = self.events_writers.iter().filter(|writer| *writer != MASTER).chain(&self.workers);
        std::iter::once(MASTER).chain(others.map(String::as_str))
    }

    /// Returns every host: those of the instances, then the broker's.
    pub fn machines(&self) -> impl Iterator<Item = &str> {
        self.hosts().chain(self.broker.as_ref().map(|_| BROKER))
    }

    /// Returns the master and the hosts that write a stream, to which all others connect.
    pub fn writers(&self) -> impl Iterator<Item = &str> {
        self.hosts().filter(|host| *host == MASTER || self.stream_writers().any(|(_, writer)| writer == *host))
    }

    /// Returns the writers of each stream except `caches`, with the field of the plan that names them.
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

    /// Returns the deployment as it is before a writer is added.
    pub(super) fn without_added(&self) -> Deployment {
        let mut before = self.clone();
        if let Some(AddedWriter { host, .. }) = before.added.take() {
            for hosts in [&mut before.events_writers, &mut before.receipts_writers, &mut before.workers] {
                hosts.retain(|name| *name != host);
            }
        }
        before
    }

    /// Returns true if `host` can be a writer that is added: it is not the master, it writes a stream, and each stream that
    /// it writes has another writer.
    pub(super) fn can_be_added(&self, host: &str) -> bool {
        let single = [&self.typing_writer, &self.account_data_writer, &self.presence_writer, &self.to_device_writer];
        let writes = |writers: &[String]| writers.iter().any(|writer| writer == host);
        let shared = [&self.events_writers, &self.receipts_writers];
        host != MASTER
            && single.iter().all(|writer| *writer != host)
            && shared.iter().any(|writers| writes(writers))
            && shared.iter().all(|writers| !writes(writers) || writers.len() > 1)
    }

    /// Returns true if `host` writes `events`.
    pub fn writes_events(&self, host: &str) -> bool {
        self.events_writers.iter().any(|writer| writer == host)
    }

    /// Returns the configuration that all instances of the deployment share.
    pub(super) fn config(&self, presence: &PresenceConfig, limits: Limits) -> Config {
        let listeners = self.writers().chain([MASTER]);
        Config {
            server_name: SERVER_NAME.into(),
            secret: "a-secret-of-the-storm".into(),
            instance_map: listeners.map(|host| (host.into(), endpoint(host))).collect(),
            stream_writers: StreamWriters {
                events: self.events_writers.iter().map(|name| name.as_str().into()).collect(),
                typing: self.typing_writer.as_str().into(),
                account_data: self.account_data_writer.as_str().into(),
                presence: self.presence_writer.as_str().into(),
                receipts: self.receipts_writers.iter().map(|name| name.as_str().into()).collect(),
                to_device: self.to_device_writer.as_str().into(),
                caches: Vec::new(),
            },
            presence: presence.clone(),
            redis: self.broker.as_ref().map(redis_config),
            shares_database: true,
            limits,
        }
    }
}

fn endpoint(host: &str) -> InstanceLocation {
    InstanceLocation { host: host.into(), replication_port: REPLICATION_PORT, http_port: HTTP_PORT }
}

fn redis_config(plan: &BrokerPlan) -> RedisConfig {
    let password = plan.has_password.then(|| BROKER_PASSWORD.to_owned());
    RedisConfig { password, ..RedisConfig::at(BROKER, BROKER_PORT) }
}

/// Returns the port of the replication connections between two hosts.
pub(super) fn replication_port(one: &str, other: &str) -> u16 {
    if [one, other].contains(&BROKER) { BROKER_PORT } else { REPLICATION_PORT }
}
