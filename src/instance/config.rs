//! The configuration of a deployment, the same for all its instances.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::env::{Address, TlsConfig};
#[cfg(feature = "serve")]
use crate::env::{Env, TlsError};
use crate::protocol::{InstanceName, MASTER};
use crate::streams;

/// A deployment: who there is, where they listen and what they write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The homeserver's name, which both ends of a connection must agree on.
    pub server_name: String,
    /// The secret that instances prove themselves with over HTTP.
    pub secret: String,
    /// Every instance that others connect to: the master, and whoever writes a stream.
    pub instance_map: BTreeMap<InstanceName, Endpoint>,
    /// Who writes what.
    pub stream_writers: StreamWriters,
    /// How long what is said about syncing users is relied on.
    #[serde(default)]
    pub presence: PresenceConfig,
    /// The broker on which instances meet. Without one they connect to each other.
    #[serde(default)]
    pub redis: Option<RedisConfig>,
}

/// Where the Redis broker is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// Host name.
    pub host: Arc<str>,
    /// Port.
    #[serde(default = "redis_port")]
    pub port: u16,
    /// The password, if the broker asks for one.
    #[serde(default)]
    pub password: Option<String>,
    /// How to speak TLS with it, if it is to be spoken. Whoever makes the instance's network sees to it.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
}

/// Where Redis listens unless it is told otherwise.
fn redis_port() -> u16 {
    6379
}

impl RedisConfig {
    /// Where to connect to.
    pub fn address(&self) -> Address {
        Address::new(Arc::clone(&self.host), self.port)
    }
}

/// How long what is said about syncing users is relied on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PresenceConfig {
    /// In which time a process has said again of each who is syncing through it that they are, in milliseconds.
    pub refresh_ms: u64,
    /// After how long a silence a process is taken for dead, in milliseconds.
    pub process_expiry_ms: u64,
}

impl Default for PresenceConfig {
    fn default() -> Self {
        PresenceConfig { refresh_ms: 60_000, process_expiry_ms: 300_000 }
    }
}

impl PresenceConfig {
    /// In which time a process has said again of each who is syncing through it that they are.
    pub fn refresh(&self) -> Duration {
        Duration::from_millis(self.refresh_ms)
    }

    /// After how long a silence a process is taken for dead.
    pub fn process_expiry(&self) -> Duration {
        Duration::from_millis(self.process_expiry_ms)
    }
}

/// Where an instance listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Host name.
    pub host: Arc<str>,
    /// Port of the line protocol.
    pub replication_port: u16,
    /// Port of HTTP requests.
    pub http_port: u16,
}

/// Which instances write each stream. What is left out the master writes.
///
/// `caches` is not among them: the master and whoever writes a stream write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamWriters {
    /// The writers of events. Each room falls to one of them.
    pub events: Vec<InstanceName>,
    /// The one instance that knows who is typing.
    pub typing: InstanceName,
    /// The one writer of account data.
    pub account_data: InstanceName,
    /// The one instance that decides who is present.
    pub presence: InstanceName,
    /// The writers of receipts. Each room falls to one of them.
    pub receipts: Vec<InstanceName>,
    /// The one writer of messages to devices.
    pub to_device: InstanceName,
}

impl Default for StreamWriters {
    fn default() -> Self {
        let master = InstanceName::from(MASTER);
        StreamWriters {
            events: vec![master.clone()],
            typing: master.clone(),
            account_data: master.clone(),
            presence: master.clone(),
            receipts: vec![master.clone()],
            to_device: master,
        }
    }
}

impl StreamWriters {
    /// The streams that may have several writers, by name.
    fn shared(&self) -> [(&'static str, &Vec<InstanceName>); 2] {
        [("events", &self.events), ("receipts", &self.receipts)]
    }

    /// Everybody who writes a stream.
    fn all(&self) -> impl Iterator<Item = &InstanceName> {
        let StreamWriters { events, typing, account_data, presence, receipts, to_device } = self;
        events.iter().chain(receipts).chain([typing, account_data, presence, to_device])
    }
}

/// What is wrong with a configuration.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A stream that nobody writes.
    #[error("stream_writers.{0} is empty: name at least one instance")]
    NoWriter(&'static str),
    /// An instance that writes a stream twice would split its rooms with itself.
    #[error("stream_writers.{0} names {1} twice: name each instance once")]
    TwiceAWriter(&'static str, InstanceName),
    /// An instance that others must connect to has no address.
    #[error("{0} writes a stream or is the master but has no address: add it to instance_map")]
    NoAddress(InstanceName),
    /// Steady users would be taken for gone.
    #[error(
        "presence.refresh_ms is {refresh_ms}: it must be from 1 to half of presence.process_expiry_ms, {expiry_ms}"
    )]
    RefreshTooSlow {
        /// How often is refreshed.
        refresh_ms: u64,
        /// After how long a process counts as dead.
        expiry_ms: u64,
    },
    /// A broker, and a program that cannot speak to it.
    #[error("redis is configured, but this program was built without it: build it with the feature `redis`")]
    NoRedis,
    /// A name or secret that no line or header can carry.
    #[error("{0} contains a space or a control character: {1:?}")]
    BadName(&'static str, String),
}

impl Config {
    /// `env` as the instances of this deployment need it: with TLS on the way to the broker, if that is to be spoken.
    ///
    /// # Errors
    /// TLS cannot be spoken with what `[redis.tls]` says.
    #[cfg(feature = "serve")]
    pub fn with_tls(&self, env: Env) -> Result<Env, TlsError> {
        match &self.redis {
            Some(redis @ RedisConfig { tls: Some(tls), .. }) => env.with_tls(redis.address(), tls),
            _ => Ok(env),
        }
    }

    /// Checks that every name can be sent and every writer can be reached.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let names = self.instance_map.keys().chain(self.stream_writers.all()).map(|name| ("instance", name.as_str()));
        let others = [("server_name", self.server_name.as_str()), ("secret", self.secret.as_str())];
        for (what, name) in names.chain(others) {
            check_name(what, name)?;
        }
        for (stream, writers) in self.stream_writers.shared() {
            if writers.is_empty() {
                return Err(ConfigError::NoWriter(stream));
            }
            let mut seen = BTreeSet::new();
            if let Some(twice) = writers.iter().find(|name| !seen.insert(*name)) {
                return Err(ConfigError::TwiceAWriter(stream, twice.clone()));
            }
        }
        let PresenceConfig { refresh_ms, process_expiry_ms: expiry_ms } = self.presence;
        if refresh_ms == 0 || refresh_ms > expiry_ms / 2 {
            return Err(ConfigError::RefreshTooSlow { refresh_ms, expiry_ms });
        }
        if cfg!(not(feature = "redis")) && self.redis.is_some() {
            return Err(ConfigError::NoRedis);
        }
        match self.listeners().into_iter().find(|name| !self.instance_map.contains_key(name)) {
            Some(unreachable) => Err(ConfigError::NoAddress(unreachable)),
            None => Ok(()),
        }
    }

    /// The instances that others connect to: the master, and whoever writes a stream.
    pub fn listeners(&self) -> BTreeSet<InstanceName> {
        self.stream_writers.all().cloned().chain([MASTER.into()]).collect()
    }

    /// The instances that write `stream`; none for a stream of another version.
    pub fn writers_of(&self, stream: &str) -> Vec<InstanceName> {
        let StreamWriters { events, typing, account_data, presence, receipts, to_device } = &self.stream_writers;
        match stream {
            streams::events::NAME => events.clone(),
            streams::receipts::NAME => receipts.clone(),
            streams::typing::NAME => vec![typing.clone()],
            streams::account_data::NAME => vec![account_data.clone()],
            streams::presence::NAME => vec![presence.clone()],
            streams::to_device::NAME => vec![to_device.clone()],
            streams::caches::NAME => self.listeners().into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// The instance that writes the events of `room_id`.
    pub fn events_writer_of(&self, room_id: &str) -> &InstanceName {
        falls_to(&self.stream_writers.events, room_id)
    }

    /// The instance that writes the receipts of `room_id`.
    pub fn receipts_writer_of(&self, room_id: &str) -> &InstanceName {
        falls_to(&self.stream_writers.receipts, room_id)
    }

    /// Where each listening instance serves the line protocol.
    pub fn replication_addresses(&self) -> BTreeMap<InstanceName, Address> {
        self.addresses(|endpoint| endpoint.replication_port)
    }

    /// Where each listening instance serves HTTP.
    pub fn http_addresses(&self) -> BTreeMap<InstanceName, Address> {
        self.addresses(|endpoint| endpoint.http_port)
    }

    fn addresses(&self, port: impl Fn(&Endpoint) -> u16) -> BTreeMap<InstanceName, Address> {
        let address = |endpoint: &Endpoint| Address::new(Arc::clone(&endpoint.host), port(endpoint));
        let listeners = self.listeners();
        let listening = self.instance_map.iter().filter(|(name, _)| listeners.contains(*name));
        listening.map(|(name, endpoint)| (name.clone(), address(endpoint))).collect()
    }
}

/// The one among `writers` that `key` falls to: its SHA-256 as a little-endian number, modulo the number of writers, as
/// Synapse has it.
fn falls_to<'a>(writers: &'a [InstanceName], key: &str) -> &'a InstanceName {
    let digest = Sha256::digest(key.as_bytes());
    let index = digest.iter().rev().fold(0, |rest, byte| (rest * 256 + usize::from(*byte)) % writers.len());
    &writers[index]
}

/// Checks that lines and headers can carry a name: that of an instance which nobody connects to is in no configuration.
pub fn check_name(what: &'static str, name: &str) -> Result<(), ConfigError> {
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_graphic()) {
        return Err(ConfigError::BadName(what, name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(events: &[&str]) -> Config {
        let endpoint = |host: &str| Endpoint { host: host.into(), replication_port: 9092, http_port: 9093 };
        Config {
            server_name: "squall.test".into(),
            secret: "secret".into(),
            instance_map: ["master", "writer1"].map(|name| (name.into(), endpoint(name))).into(),
            stream_writers: StreamWriters {
                events: events.iter().map(|name| InstanceName::from(*name)).collect(),
                ..StreamWriters::default()
            },
            presence: PresenceConfig::default(),
            redis: None,
        }
    }

    #[test]
    fn a_writer_without_an_address_is_refused() {
        assert_eq!(config(&["writer1"]).validate(), Ok(()));
        assert_eq!(config(&["writer1", "writer2"]).validate(), Err(ConfigError::NoAddress("writer2".into())));
        assert_eq!(config(&[]).validate(), Err(ConfigError::NoWriter("events")));
        let twice = config(&["writer1", "writer1"]);
        assert_eq!(twice.validate(), Err(ConfigError::TwiceAWriter("events", "writer1".into())));
    }

    #[test]
    fn syncing_users_are_refreshed_well_before_they_expire() {
        let with = |refresh_ms, process_expiry_ms| {
            Config { presence: PresenceConfig { refresh_ms, process_expiry_ms }, ..config(&["writer1"]) }.validate()
        };
        assert_eq!(with(60_000, 120_000), Ok(()));
        let too_slow = |refresh_ms, expiry_ms| Err(ConfigError::RefreshTooSlow { refresh_ms, expiry_ms });
        assert_eq!(with(60_001, 120_000), too_slow(60_001, 120_000));
        assert_eq!(with(0, 120_000), too_slow(0, 120_000));
    }

    #[test]
    fn a_name_that_would_break_a_line_is_refused() {
        let mut bad = config(&["writer1"]);
        bad.server_name = "two words".into();
        assert_eq!(bad.validate(), Err(ConfigError::BadName("server_name", "two words".into())));
    }

    #[test]
    fn a_room_falls_to_a_writer_by_its_hash_as_a_little_endian_number() {
        // int.from_bytes(sha256(b"!room:0"), "little") % 3 and so on, computed with Python.
        let three = config(&["a", "b", "c"]);
        let writers: Vec<_> = (0..6).map(|room| three.events_writer_of(&format!("!room:{room}")).as_str()).collect();
        assert_eq!(writers, ["b", "a", "a", "b", "c", "c"]);
    }
}
