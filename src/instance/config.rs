//! The configuration of a deployment, the same for all its instances.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::limits::Limits;
#[cfg(feature = "serve")]
use crate::observer::Env;
use crate::presence::PresenceConfig;
use crate::store::SOURCES;
use crate::transport::{InstanceLocation, RedisConfig};
use squall_env::Address;
#[cfg(feature = "serve")]
use squall_env::TlsError;
use squall_protocol::{InstanceName, MASTER, rows};

/// A deployment: its instances, their addresses, and the streams that each writes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The homeserver's name, which must be the same at both ends of a connection.
    pub server_name: String,
    /// The secret that authenticates instances to each other over HTTP.
    pub secret: String,
    /// The address of every instance that others connect to: the master and the writers of streams.
    pub instance_map: BTreeMap<InstanceName, InstanceLocation>,
    /// The writers of each stream.
    pub stream_writers: StreamWriters,
    /// The time limits of announcements about syncing users.
    #[serde(default)]
    pub presence: PresenceConfig,
    /// The Redis broker. Without one, instances connect to each other.
    #[serde(default)]
    pub redis: Option<RedisConfig>,
    /// False if this instance follows a deployment whose database it does not have, such as processes of Synapse. It then
    /// believes every token that it hears, and writes nothing. Default: true.
    #[serde(default = "shared")]
    pub shares_database: bool,
    /// The limits of each instance. Default: those of production.
    #[serde(default)]
    pub limits: Limits,
}

/// Returns the default of [`Config::shares_database`].
pub(crate) fn shared() -> bool {
    true
}

impl fmt::Debug for Config {
    /// Writes everything but the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { server_name, secret: _, instance_map, stream_writers, presence, redis, shares_database, limits } =
            self;
        let mut text = f.debug_struct("Config");
        text.field("server_name", server_name).field("secret", &"(secret)").field("instance_map", instance_map);
        text.field("stream_writers", stream_writers).field("presence", presence);
        text.field("redis", redis).field("shares_database", shares_database).field("limits", limits).finish()
    }
}

/// The instances that write each stream. The master writes the streams that are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamWriters {
    /// The writers of events. Each room is assigned to one of them.
    pub events: Vec<InstanceName>,
    /// The one writer of typing notifications.
    pub typing: InstanceName,
    /// The one writer of account data.
    pub account_data: InstanceName,
    /// The one writer of presence.
    pub presence: InstanceName,
    /// The writers of receipts. Each room is assigned to one of them.
    pub receipts: Vec<InstanceName>,
    /// The one writer of messages to devices.
    pub to_device: InstanceName,
    /// The writers of `caches` besides the master and the writers of the other streams, which all write it. An instance can
    /// follow processes of Synapse so, each of which writes it. But it must write nothing itself then, because it has another
    /// database than they have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<InstanceName>,
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
            caches: Vec::new(),
        }
    }
}

impl StreamWriters {
    /// Returns the streams that may have several writers, by name.
    fn shared(&self) -> [(&'static str, &Vec<InstanceName>); 2] {
        [("events", &self.events), ("receipts", &self.receipts)]
    }

    /// Returns the writers of all streams, some more than once, without those that write `caches` alone.
    fn all(&self) -> impl Iterator<Item = &InstanceName> {
        let StreamWriters { events, typing, account_data, presence, receipts, to_device, caches: _ } = self;
        events.iter().chain(receipts).chain([typing, account_data, presence, to_device])
    }
}

/// An error in a configuration.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A stream has no writer.
    #[error("stream_writers.{0} is empty: name at least one instance")]
    NoWriter(&'static str),
    /// An instance is named twice among the writers of a stream.
    #[error("stream_writers.{0} names {1} twice: name each instance once")]
    TwiceAWriter(&'static str, InstanceName),
    /// An instance that others connect to has no address.
    #[error("{0} writes a stream or is the master but has no address: add it to instance_map")]
    NoAddress(InstanceName),
    /// Syncing users would expire before they are announced again.
    #[error(
        "presence.refresh_ms is {refresh_ms}: it must be from 1 to half of presence.process_expiry_ms, {expiry_ms}"
    )]
    RefreshTooSlow {
        /// The configured `refresh_ms`.
        refresh_ms: u64,
        /// The configured `process_expiry_ms`.
        expiry_ms: u64,
    },
    /// Redis is configured, but the program was built without it.
    #[error("redis is configured, but this program was built without it: build it with the feature `redis`")]
    NoRedis,
    /// The broker has no address.
    #[error("redis names neither a host nor sentinels: add redis.host, or [redis.sentinel] with master and addresses")]
    NoBroker,
    /// The broker has an address, and sentinels that name another one.
    #[error("redis names a host and sentinels: leave one of them out")]
    TwoBrokers,
    /// A user without a password cannot log in.
    #[error("redis.user has no redis.password: add it, or leave the user out")]
    UserWithoutPassword,
    /// TLS is configured for a broker that sentinels name.
    #[error("redis.tls does not work together with redis.sentinel: leave one of them out")]
    SentinelWithTls,
    /// A name that does not fit a line or header.
    #[error("{0} is empty, or contains a space or a control character: {1:?}")]
    BadName(&'static str, String),
    /// The secret does not fit a header.
    #[error("secret is empty, or contains a space or a control character")]
    BadSecret,
}

impl Config {
    /// Returns `env` with TLS on connections to the broker, if `[redis.tls]` is configured.
    ///
    /// # Errors
    /// The files that `[redis.tls]` names cannot be used.
    #[cfg(feature = "serve")]
    pub fn with_tls(&self, env: Env) -> Result<Env, TlsError> {
        match &self.redis {
            Some(redis @ RedisConfig { tls: Some(tls), .. }) => env.with_tls(redis.address(), tls),
            _ => Ok(env),
        }
    }

    /// Checks that every name fits a line, every writer has an address, and the other values are valid.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let names = self.instance_map.keys().chain(self.stream_writers.all()).chain(&self.stream_writers.caches);
        let names = names.map(|name| ("instance", name.as_str()));
        for (what, name) in names.chain([("server_name", self.server_name.as_str())]) {
            check_name(what, name)?;
        }
        check_name("secret", &self.secret).map_err(|_| ConfigError::BadSecret)?;
        for (stream, writers) in self.stream_writers.shared() {
            if writers.is_empty() {
                return Err(ConfigError::NoWriter(stream));
            }
            let mut seen = BTreeSet::new();
            if let Some(twice) = writers.iter().find(|name| !seen.insert(*name)) {
                return Err(ConfigError::TwiceAWriter(stream, twice.clone()));
            }
        }
        let PresenceConfig { refresh_ms, process_expiry_ms: expiry_ms, .. } = self.presence;
        if refresh_ms == 0 || refresh_ms > expiry_ms / 2 {
            return Err(ConfigError::RefreshTooSlow { refresh_ms, expiry_ms });
        }
        if cfg!(not(feature = "redis")) && self.redis.is_some() {
            return Err(ConfigError::NoRedis);
        }
        if let Some(redis) = &self.redis {
            check_broker(redis)?;
        }
        match self.listeners().into_iter().find(|name| !self.instance_map.contains_key(name)) {
            Some(unreachable) => Err(ConfigError::NoAddress(unreachable)),
            None => Ok(()),
        }
    }

    /// Returns the instances that others connect to: the master and the writers of streams. A writer of `caches` alone
    /// needs no request, so with a broker no instance connects to it.
    pub fn listeners(&self) -> BTreeSet<InstanceName> {
        let of_caches = self.stream_writers.caches.iter().filter(|_| self.redis.is_none());
        self.stream_writers.all().chain(of_caches).cloned().chain([MASTER.into()]).collect()
    }

    /// Returns the instances that write `stream`: none for an unknown stream.
    pub fn writers_of(&self, stream: &str) -> Vec<InstanceName> {
        let StreamWriters { events, typing, account_data, presence, receipts, to_device, caches } =
            &self.stream_writers;
        match stream {
            rows::events::NAME => events.clone(),
            rows::receipts::NAME => receipts.clone(),
            rows::typing::NAME => vec![typing.clone()],
            rows::account_data::NAME => vec![account_data.clone()],
            rows::presence::NAME => vec![presence.clone()],
            rows::to_device::NAME => vec![to_device.clone()],
            rows::caches::NAME => {
                let all: BTreeSet<_> = self.listeners().into_iter().chain(caches.iter().cloned()).collect();
                all.into_iter().collect()
            }
            _ if SOURCES.iter().any(|source| source.name == stream) => vec![MASTER.into()],
            _ => Vec::new(),
        }
    }

    /// Returns the instance that writes the events of `room_id`.
    pub fn events_writer_of(&self, room_id: &str) -> &InstanceName {
        writer_for(&self.stream_writers.events, room_id)
    }

    /// Returns the instance that writes the receipts of `room_id`.
    pub fn receipts_writer_of(&self, room_id: &str) -> &InstanceName {
        writer_for(&self.stream_writers.receipts, room_id)
    }

    /// Returns the address of the line protocol of each instance that listens.
    pub fn replication_addresses(&self) -> BTreeMap<InstanceName, Address> {
        self.addresses(InstanceLocation::replication_address)
    }

    /// Returns the HTTP address of each instance that listens.
    pub fn http_addresses(&self) -> BTreeMap<InstanceName, Address> {
        self.addresses(InstanceLocation::http_address)
    }

    fn addresses(&self, address: fn(&InstanceLocation) -> Address) -> BTreeMap<InstanceName, Address> {
        let listeners = self.listeners();
        let listening = self.instance_map.iter().filter(|(name, _)| listeners.contains(*name));
        listening.map(|(name, location)| (name.clone(), address(location))).collect()
    }
}

/// Returns the writer among `writers` to which `key` is assigned: the SHA-256 of `key` as a little-endian number, modulo
/// the number of writers, as in Synapse.
pub(super) fn writer_for<'a>(writers: &'a [InstanceName], key: &str) -> &'a InstanceName {
    let digest = Sha256::digest(key.as_bytes());
    let index = digest.iter().rev().fold(0, |rest, byte| (rest * 256 + usize::from(*byte)) % writers.len());
    &writers[index]
}

/// Checks that a name fits lines and headers. [`Config::validate`] does not see the name of an instance that no other one
/// connects to, so the caller checks it with this.
pub fn check_name(what: &'static str, name: &str) -> Result<(), ConfigError> {
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_graphic()) {
        return Err(ConfigError::BadName(what, name.to_owned()));
    }
    Ok(())
}

/// Checks that the broker has one address, or sentinels that know it.
fn check_broker(redis: &RedisConfig) -> Result<(), ConfigError> {
    if redis.user.is_some() && redis.password.is_none() {
        return Err(ConfigError::UserWithoutPassword);
    }
    match &redis.sentinel {
        None if redis.host.is_empty() => Err(ConfigError::NoBroker),
        None => Ok(()),
        Some(sentinel) if sentinel.addresses.is_empty() || sentinel.master.is_empty() => Err(ConfigError::NoBroker),
        Some(_) if !redis.host.is_empty() => Err(ConfigError::TwoBrokers),
        Some(_) if redis.tls.is_some() => Err(ConfigError::SentinelWithTls),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "redis")]
    use crate::transport::SentinelConfig;

    fn config(events: &[&str]) -> Config {
        let location = |host: &str| InstanceLocation { host: host.into(), replication_port: 9092, http_port: 9093 };
        Config {
            server_name: "squall.test".into(),
            secret: "secret".into(),
            instance_map: ["master", "writer1"].map(|name| (name.into(), location(name))).into(),
            stream_writers: StreamWriters {
                events: events.iter().map(|name| InstanceName::from(*name)).collect(),
                ..StreamWriters::default()
            },
            presence: PresenceConfig::default(),
            redis: None,
            shares_database: true,
            limits: Limits::default(),
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

    #[cfg(feature = "redis")]
    #[test]
    fn a_broker_needs_an_address_or_sentinels_that_have_one() {
        let with = |redis| Config { redis: Some(redis), ..config(&["writer1"]) }.validate();
        let sentinels = |master: &str, addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let sentinel = SentinelConfig { master: master.into(), addresses, password: None };
            RedisConfig { sentinel: Some(sentinel), ..RedisConfig::at("", 6379) }
        };
        assert_eq!(with(RedisConfig::at("", 6379)), Err(ConfigError::NoBroker));
        assert_eq!(with(sentinels("m", &[])), Err(ConfigError::NoBroker));
        assert_eq!(with(sentinels("", &["a:26379"])), Err(ConfigError::NoBroker));
        let known = sentinels("m", &["a:26379", "[::1]:26379"]);
        assert_eq!(with(known.clone()), Ok(()));
        assert_eq!(with(RedisConfig { host: "h".into(), ..known.clone() }), Err(ConfigError::TwoBrokers));
        let with_tls = RedisConfig { tls: Some(Default::default()), ..known.clone() };
        assert_eq!(with(with_tls), Err(ConfigError::SentinelWithTls));
        let user = RedisConfig { user: Some("u".into()), ..known };
        assert_eq!(with(user.clone()), Err(ConfigError::UserWithoutPassword));
        assert_eq!(with(RedisConfig { password: Some("p".into()), ..user }), Ok(()));
    }

    #[test]
    fn the_secret_is_in_no_error_and_in_no_debug_output() {
        let config = Config { secret: "pre cious".into(), ..config(&["writer1"]) };
        assert_eq!(config.validate(), Err(ConfigError::BadSecret));
        assert!(!format!("{config:?}").contains("pre cious"));
    }

    #[test]
    fn a_writer_of_caches_alone_needs_an_address_where_others_connect_to_it() {
        let mut config = config(&["writer1"]);
        config.stream_writers.caches = vec!["worker1".into(), "writer1".into()];
        assert_eq!(config.writers_of("caches"), ["master", "worker1", "writer1"].map(InstanceName::from));
        assert_eq!(config.validate(), Err(ConfigError::NoAddress("worker1".into())));
        if cfg!(feature = "redis") {
            config.redis = Some(RedisConfig::at("broker", 6379));
            assert_eq!(config.validate(), Ok(()));
            assert!(!config.listeners().contains(&InstanceName::from("worker1")));
            assert_eq!(config.writers_of("caches").len(), 3);
        }
        config.stream_writers.caches = vec!["two words".into()];
        assert_eq!(config.validate(), Err(ConfigError::BadName("instance", "two words".into())));
    }

    #[test]
    fn syncing_users_are_refreshed_well_before_they_expire() {
        let with = |refresh_ms, process_expiry_ms| {
            let presence = PresenceConfig { refresh_ms, process_expiry_ms, ..PresenceConfig::default() };
            Config { presence, ..config(&["writer1"]) }.validate()
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
    fn a_room_is_assigned_to_a_writer_by_its_hash_as_a_little_endian_number() {
        // int.from_bytes(sha256(b"!room:0"), "little") % 3 and so on, computed with Python.
        let three = config(&["a", "b", "c"]);
        let writers: Vec<_> = (0..6).map(|room| three.events_writer_of(&format!("!room:{room}")).as_str()).collect();
        assert_eq!(writers, ["b", "a", "a", "b", "c", "c"]);
    }
}
