//! A deployment for tests: `master` writes typing, `writer1` and `master` write events. Any of them, and any number of
//! workers, can be real or played by the test.

use std::rc::Rc;

use squall::env::{Address, Chance, Clock, Env, Listener, Network, Scope, Silent};
#[cfg(feature = "sim")]
use squall::instance::config::RedisConfig;
use squall::instance::config::{Endpoint, StreamWriters};
use squall::instance::{Config, Instance};
use squall::replication::Consumers;
use squall::store::Database;

use crate::database;
use crate::network::Hosts;
use crate::peer::Peer;

pub const SERVER_NAME: &str = "squall.test";
pub const SECRET: &str = "replsecret";
/// What every clock shows.
pub const NOW_MS: u64 = 1_500_000_000_000;

/// Where each stream that the master writes begins.
pub const MASTER_POSITIONS: [&str; 7] = [
    "POSITION account_data master 1 1",
    "POSITION caches master 1 1",
    "POSITION events master 1 1",
    "POSITION presence master 1 1",
    "POSITION receipts master 1 1",
    "POSITION to_device master 1 1",
    "POSITION typing master 4294967296 4294967296",
];

const REPLICATION_PORT: u16 = 9092;
const HTTP_PORT: u16 = 9093;
#[cfg(feature = "sim")]
const REDIS_PORT: u16 = 6379;

struct StoppedClock;

impl Clock for StoppedClock {
    fn now_ms(&self) -> u64 {
        NOW_MS
    }
}

pub struct Deployment {
    hosts: Hosts,
    config: Rc<Config>,
    database: Database,
}

impl Deployment {
    pub fn new() -> Self {
        let writers = StreamWriters { events: vec!["master".into(), "writer1".into()], ..StreamWriters::default() };
        Deployment::of(&["master", "writer1"], writers)
    }

    /// A deployment where others listen and write.
    pub fn of(listeners: &[&str], stream_writers: StreamWriters) -> Self {
        let endpoint =
            |host: &str| Endpoint { host: host.into(), replication_port: REPLICATION_PORT, http_port: HTTP_PORT };
        let config = Config {
            server_name: SERVER_NAME.into(),
            secret: SECRET.into(),
            instance_map: listeners.iter().map(|name| ((*name).into(), endpoint(name))).collect(),
            stream_writers,
            presence: Default::default(),
            redis: None,
        };
        Deployment { hosts: Hosts::default(), config: Rc::new(config), database: database::empty() }
    }

    #[cfg(feature = "sim")]
    /// The same, whose instances meet at a broker on `host`.
    pub fn with_broker(self, host: &str) -> Self {
        let redis = RedisConfig { host: host.into(), port: REDIS_PORT, password: None, tls: None };
        Deployment { config: Rc::new(Config { redis: Some(redis), ..(*self.config).clone() }), ..self }
    }

    #[cfg(feature = "sim")]
    /// Opens the port of the broker on `host`, which the test plays.
    pub async fn play_broker(&self, host: &str) -> Box<dyn Listener> {
        self.hosts.seen_by(host).listen(REDIS_PORT).await.unwrap()
    }

    /// The database that everybody shares.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// What an instance on `host` is given.
    pub fn env(&self, host: &str) -> Env {
        Env {
            network: Rc::new(self.hosts.seen_by(host)),
            clock: Rc::new(StoppedClock),
            chance: Chance::from_seed(7).of(host),
            observer: Rc::new(Silent),
            tasks: Scope::new(Rc::new(Silent)),
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Starts a real instance.
    pub async fn start(&self, name: &str) -> Rc<Instance> {
        self.start_with(name, Consumers::default()).await
    }

    /// Starts a real instance whose rows go to `consumers`.
    pub async fn start_with(&self, name: &str, consumers: Consumers) -> Rc<Instance> {
        let (config, database) = (Rc::clone(&self.config), self.database.clone());
        Instance::start(name.into(), config, self.env(name), database, consumers).await.unwrap()
    }

    /// Connects to the line protocol of `host`, as a client that the test plays.
    pub async fn connect(&self, host: &str) -> Peer {
        self.connect_to_port(host, REPLICATION_PORT).await
    }

    /// Connects like [`connect`](Self::connect), and hears the greeting out.
    pub async fn join(&self, host: &str) -> Peer {
        let mut peer = self.connect(host).await;
        peer.hear("SERVER ").await;
        peer.hear("PING ").await;
        peer
    }

    /// Whether `host` takes connections on the line protocol.
    pub async fn is_listening(&self, host: &str) -> bool {
        self.hosts.seen_by("the test").connect(&Address::new(host, REPLICATION_PORT)).await.is_ok()
    }

    /// Connects to the HTTP port of `host`.
    pub async fn connect_http(&self, host: &str) -> Peer {
        self.connect_to_port(host, HTTP_PORT).await
    }

    async fn connect_to_port(&self, host: &str, port: u16) -> Peer {
        let network = self.hosts.seen_by("the test");
        Peer::new(network.connect(&Address::new(host, port)).await.unwrap())
    }

    /// Opens the line protocol's port of `host`, which the test plays.
    pub async fn play(&self, host: &str) -> Box<dyn Listener> {
        self.hosts.seen_by(host).listen(REPLICATION_PORT).await.unwrap()
    }

    /// Opens the HTTP port of `host`, which the test plays.
    pub async fn play_http(&self, host: &str) -> Box<dyn Listener> {
        self.hosts.seen_by(host).listen(HTTP_PORT).await.unwrap()
    }
}
