//! A deployment on loopback sockets and one SQLite file, in real time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use squall::instance::config::StreamWriters;
use squall::instance::{Config, Instance, Write};
use squall::observer::{Observer, process_env};
use squall::replication::{Consumer, Consumers};
use squall::store::{Database, SqliteBackend};
use squall::transport::{InstanceLocation, RedisConfig};
use squall_env::Noop;
use squall_protocol::rows::events::{EventRow, StateRow};
use squall_protocol::rows::{EventsRow, Row};
use squall_protocol::{InstanceName, StreamName, Token};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet};

use crate::ports::free_port;

const WRITERS: [&str; 2] = ["writer1", "writer2"];
pub(crate) const ROOM: &str = "!room:squall.test";
/// The time limit of every step. It takes milliseconds, unless the machine is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A directory for the files of a test. Dropping it removes the directory.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("squall-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A master that writes typing, two writers of events, and any number of workers.
pub(crate) struct Deployment {
    scratch: Scratch,
    config: Rc<Config>,
}

impl Deployment {
    /// Creates a deployment whose instances connect to the broker, if there is one, and otherwise to each other.
    pub(crate) fn new(test: &str, redis: Option<RedisConfig>) -> Self {
        let names = ["master"].into_iter().chain(WRITERS);
        // All ports are held until the last one is drawn, so that no two are the same.
        let held: Vec<_> = names.map(|name| (name, free_port(), free_port())).collect();
        let port = |listener: &std::net::TcpListener| listener.local_addr().unwrap().port();
        let endpoint = |(name, replication, http): &(&str, _, _)| {
            let host = "127.0.0.1".into();
            let endpoint = InstanceLocation { host, replication_port: port(replication), http_port: port(http) };
            (InstanceName::from(*name), endpoint)
        };
        let config = Config {
            server_name: "squall.test".into(),
            secret: "replsecret".into(),
            instance_map: held.iter().map(endpoint).collect(),
            stream_writers: StreamWriters {
                events: WRITERS.map(InstanceName::from).into(),
                ..StreamWriters::default()
            },
            presence: Default::default(),
            redis,
            shares_database: true,
            limits: Default::default(),
        };
        Deployment { scratch: Scratch::new(test), config: Rc::new(config) }
    }

    pub(crate) async fn start(&self, name: &str) -> Process {
        self.start_observed(name, Rc::new(Noop)).await
    }

    /// Starts an instance that reports to `observer`.
    pub(crate) async fn start_observed(&self, name: &str, observer: Rc<dyn Observer>) -> Process {
        let follower = Rc::new(Follower::default());
        let consumers = Consumers::default();
        consumers.register(follower.clone());
        let database = Database::new(Rc::new(SqliteBackend::open(self.scratch.path().join("squall.db")).unwrap()));
        let env = process_env(Ipv4Addr::LOCALHOST.into(), observer);
        let env = self.config.with_tls(env).unwrap();
        // Every task of a process must end with the process.
        let tasks = LocalSet::new();
        let starting = Instance::start(name.into(), Rc::clone(&self.config), env, database, consumers);
        let instance = tasks.run_until(starting).await.unwrap();
        let running = tokio::task::spawn_local(tasks);
        Process { instance, follower, running }
    }
}

/// One process of the deployment.
pub(crate) struct Process {
    pub instance: Rc<Instance>,
    pub follower: Rc<Follower>,
    running: JoinHandle<()>,
}

impl Process {
    pub(crate) async fn stop(mut self) {
        self.stop_in_place().await;
    }

    /// Stops the process like [`stop`](Self::stop), and keeps the value, so that the next process can replace it.
    pub(crate) async fn stop_in_place(&mut self) {
        self.instance.stop().await;
        self.kill().await;
    }

    /// Kills the process: it sends no last command.
    pub(crate) async fn kill(&mut self) {
        self.running.abort();
        let _ = (&mut self.running).await;
    }

    /// Persists one event for each id and returns the last token.
    pub(crate) async fn persist(&self, event_ids: impl IntoIterator<Item = String>) -> Token {
        self.instance.events().unwrap().persist(event_ids.into_iter().map(event).collect()).await.unwrap()
    }

    pub(crate) fn typing_begins(&self, user_id: &str) -> Token {
        self.instance.typing().started(&self.instance.env().tasks, ROOM, user_id, Duration::from_secs(600))
    }
}

fn event(event_id: String) -> Write {
    let event = EventRow::message(event_id, ROOM);
    Write { event: Some(event), state: Vec::new() }
}

/// Returns an event that changes so much state that its token has `rows` rows.
pub(crate) fn big_event(event_id: &str, rows: usize) -> Write {
    let member = |number: usize| StateRow {
        room_id: ROOM.into(),
        kind: "m.room.member".into(),
        state_key: format!("@user{number}:squall.test"),
        event_id: Some(event_id.to_owned()),
    };
    Write { state: (1..rows).map(member).collect(), ..event(event_id.to_owned()) }
}

pub(crate) fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("${prefix}{number}")).collect()
}

/// A consumer that records the rows that one process applies.
#[derive(Default)]
pub(crate) struct Follower {
    followed: RefCell<BTreeMap<(StreamName, InstanceName), Followed>>,
    changed: Notify,
}

/// The applied rows of one stream and writer.
#[derive(Clone, Default)]
pub(crate) struct Followed {
    pub start: Token,
    pub position: Token,
    pub rows: Vec<(Token, Vec<Row>)>,
}

impl Followed {
    pub(crate) fn event_ids(&self) -> Vec<String> {
        let id = |row: &Row| match row {
            Row::Events(EventsRow::Event(event)) => Some(event.event_id.clone()),
            _ => None,
        };
        self.rows.iter().flat_map(|(_, rows)| rows).filter_map(id).collect()
    }
}

impl Follower {
    fn change(&self, stream: &StreamName, writer: &InstanceName, change: impl FnOnce(&mut Followed)) {
        change(self.followed.borrow_mut().entry((stream.clone(), writer.clone())).or_default());
        self.changed.notify_one();
    }

    /// Waits until the position is at `token`, and returns the rows applied until then.
    pub(crate) async fn reaches(&self, stream: &str, writer: &str, token: Token) -> Followed {
        let key = (StreamName::from(stream), InstanceName::from(writer));
        let reached = async {
            loop {
                if let Some(followed) = self.followed.borrow().get(&key).filter(|followed| followed.position >= token) {
                    return followed.clone();
                }
                self.changed.notified().await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        reached.unwrap_or_else(|_| panic!("{writer}'s {stream} did not reach {token} within {PATIENCE:?}"))
    }
}

impl Consumer for Follower {
    fn following(&self, stream: &StreamName, writer: &InstanceName, position: Token) {
        let rows = Vec::new();
        self.change(stream, writer, |followed| *followed = Followed { start: position, position, rows });
    }

    fn applied(&self, stream: &StreamName, writer: &InstanceName, token: Token, rows: &[Row]) {
        self.change(stream, writer, |followed| {
            followed.rows.push((token, rows.to_vec()));
            followed.position = token;
        });
    }

    fn positioned(&self, stream: &StreamName, writer: &InstanceName, position: Token) {
        self.change(stream, writer, |followed| followed.position = position);
    }

    fn reset(&self, stream: &StreamName, writer: &InstanceName) {
        self.change(stream, writer, |followed| *followed = Followed::default());
    }
}
