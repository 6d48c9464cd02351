//! A deployment for tests: `master` writes typing, `writer1` and `master` write events. Any of them, and any number of
//! workers, can be real or played by the test.

use std::rc::Rc;
use std::time::Duration;

#[cfg(feature = "sim")]
use squall::instance::config::StreamWriters;
use squall::instance::{Config, Instance};
use squall::observer::Env;
use squall::replication::Consumers;
use squall::store::Database;
use squall::transport::{InstanceLocation, RedisConfig};
use squall_env::{Address, Clock, Listener, Network, Noop, SeedTree, TaskSpawner};

use crate::database::{self, Delay};
use crate::network::Hosts;
use crate::peer::Peer;

pub(crate) const SERVER_NAME: &str = "squall.test";
pub(crate) const SECRET: &str = "replsecret";
/// The time on every clock.
pub(crate) const NOW_MS: u64 = 1_500_000_000_000;

/// The `POSITION` lines of a new master, one for each stream that it writes.
pub(crate) const MASTER_POSITIONS: [&str; 7] = [
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
pub(crate) const REDIS_PORT: u16 = 6379;

struct StoppedClock;

impl Clock for StoppedClock {
    fn now_ms(&self) -> u64 {
        NOW_MS
    }
}

pub(crate) struct Deployment {
    hosts: Hosts,
    config: Rc<Config>,
    database: Database,
    database_delay: Delay,
}

impl Deployment {
    pub(crate) fn new() -> Self {
        let writers = StreamWriters { events: vec!["master".into(), "writer1".into()], ..StreamWriters::default() };
        Deployment::of(&["master", "writer1"], writers)
    }

    /// Returns a deployment with these listeners and writers.
    pub(crate) fn of(listeners: &[&str], stream_writers: StreamWriters) -> Self {
        let endpoint = |host: &str| InstanceLocation {
            host: host.into(),
            replication_port: REPLICATION_PORT,
            http_port: HTTP_PORT,
        };
        let config = Config {
            server_name: SERVER_NAME.into(),
            secret: SECRET.into(),
            instance_map: listeners.iter().map(|name| ((*name).into(), endpoint(name))).collect(),
            stream_writers,
            presence: Default::default(),
            redis: None,
            shares_database: true,
            limits: Default::default(),
        };
        let database_delay = Delay::default();
        let database = database::empty(&database_delay);
        Deployment { hosts: Hosts::default(), config: Rc::new(config), database, database_delay }
    }

    #[cfg(feature = "sim")]
    /// Returns the deployment with a broker on `host`.
    pub(crate) fn with_broker(self, host: &str) -> Self {
        let redis = RedisConfig::at(host, REDIS_PORT);
        Deployment { config: Rc::new(Config { redis: Some(redis), ..(*self.config).clone() }), ..self }
    }

    #[cfg(feature = "sim")]
    /// Opens the port of the broker on `host`, which the test plays.
    pub(crate) async fn play_broker(&self, host: &str) -> Box<dyn Listener> {
        self.hosts.seen_by(host).listen(REDIS_PORT).await.unwrap()
    }

    /// Allocates some ids of events, under which the test may send rows of a writer that it plays.
    pub(crate) async fn allocate_events(&self) {
        let take = "UPDATE sequences SET last_value = last_value + 100 WHERE name = 'events_stream_seq'";
        let taken = self.database.transaction("allocate_events", move |tx| tx.execute(take, ())).await;
        assert_eq!(taken.unwrap(), 1);
    }

    /// Returns the database that all instances share.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// Sets the time that every transaction takes from now on.
    pub(crate) fn set_database_delay(&self, delay: Duration) {
        self.database_delay.set(delay);
    }

    /// Returns the environment of an instance on `host`.
    pub(crate) fn env(&self, host: &str) -> Env {
        Env {
            network: Rc::new(self.hosts.seen_by(host)),
            clock: Rc::new(StoppedClock),
            seeds: SeedTree::from_seed(7).child(host),
            observer: Rc::new(Noop),
            tasks: TaskSpawner::new(Rc::new(Noop)),
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Starts a real instance.
    pub(crate) async fn start(&self, name: &str) -> Rc<Instance> {
        self.start_with(name, Consumers::default()).await
    }

    /// Starts a real instance whose rows go to `consumers`.
    pub(crate) async fn start_with(&self, name: &str, consumers: Consumers) -> Rc<Instance> {
        let (config, database) = (Rc::clone(&self.config), self.database.clone());
        Instance::start(name.into(), config, self.env(name), database, consumers).await.unwrap()
    }

    /// Connects to the line protocol of `host`, as a client that the test plays.
    pub(crate) async fn connect(&self, host: &str) -> Peer {
        self.connect_to_port(host, REPLICATION_PORT).await
    }

    /// Connects like [`connect`](Self::connect), and receives the greeting.
    pub(crate) async fn join(&self, host: &str) -> Peer {
        let mut peer = self.connect(host).await;
        peer.hear("SERVER ").await;
        peer.hear("PING ").await;
        peer
    }

    /// Returns true if `host` accepts connections of the line protocol.
    pub(crate) async fn is_listening(&self, host: &str) -> bool {
        self.hosts.seen_by("the test").connect(&Address::new(host, REPLICATION_PORT)).await.is_ok()
    }

    /// Connects to the HTTP port of `host`.
    pub(crate) async fn connect_http(&self, host: &str) -> Peer {
        self.connect_to_port(host, HTTP_PORT).await
    }

    /// Connects to a port of `host`.
    pub(crate) async fn connect_to_port(&self, host: &str, port: u16) -> Peer {
        let network = self.hosts.seen_by("the test");
        Peer::new(network.connect(&Address::new(host, port)).await.unwrap())
    }

    /// Opens the line protocol's port of `host`, which the test plays.
    pub(crate) async fn play(&self, host: &str) -> Box<dyn Listener> {
        self.hosts.seen_by(host).listen(REPLICATION_PORT).await.unwrap()
    }

    /// Opens the HTTP port of `host`, which the test plays.
    pub(crate) async fn play_http(&self, host: &str) -> Box<dyn Listener> {
        self.hosts.seen_by(host).listen(HTTP_PORT).await.unwrap()
    }
}
