//! The stack: a master that writes events, and its followers, on real sockets and one SQLite file.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use squall::instance::config::StreamWriters;
use squall::instance::{Config, Instance, Write};
use squall::observer::process_env;
use squall::replication::{Consumer, Consumers};
use squall::store::{Database, SqliteBackend};
use squall::transport::{InstanceLocation, RedisConfig};
use squall_env::Noop;
use squall_protocol::rows::Row;
use squall_protocol::rows::events::EventRow;
use squall_protocol::{Command, InstanceName, Rdata, StreamName, Token};
use tokio::sync::Notify;
use tokio::task::LocalSet;

use crate::now;

const ROOM: &str = "!room:squall.test";
/// Most time for any wait.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// The directory and the configuration of a deployment.
#[derive(Clone)]
pub(crate) struct Scratch {
    path: PathBuf,
    config: Config,
}

impl Scratch {
    pub(crate) fn new(name: &str, redis: Option<RedisConfig>) -> Self {
        let path = std::env::temp_dir().join(format!("squall-bench-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("there is a directory for temporary files");
        let free = || std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let held = [free(), free()];
        let [replication_port, http_port] = held.each_ref().map(|held| held.local_addr().expect("it is bound").port());
        let master = InstanceLocation { host: "127.0.0.1".into(), replication_port, http_port };
        let config = Config {
            server_name: "squall.test".into(),
            secret: "replsecret".into(),
            instance_map: [("master".into(), master)].into(),
            stream_writers: StreamWriters::default(),
            presence: Default::default(),
            redis,
            shares_database: true,
            limits: Default::default(),
        };
        Scratch { path, config }
    }

    async fn start(&self, name: &str, consumers: Consumers) -> Rc<Instance> {
        let database = SqliteBackend::open(self.path.join("squall.db")).expect("the directory is there");
        let env = process_env(Ipv4Addr::LOCALHOST.into(), Rc::new(Noop));
        let config = Rc::new(self.config.clone());
        let database = Database::new(Rc::new(database));
        Instance::start(name.into(), config, env, database, consumers).await.expect("the ports are free")
    }
}

/// An instance that follows the master.
pub(crate) struct Follower {
    instance: Rc<Instance>,
    reached: Rc<Reached>,
}

/// The position of a follower in the master's events.
#[derive(Default)]
struct Reached {
    token: Cell<Token>,
    changed: Notify,
}

impl Consumer for Reached {
    fn applied(&self, stream: &StreamName, writer: &InstanceName, token: Token, _rows: &[Row]) {
        self.positioned(stream, writer, token);
    }

    fn positioned(&self, stream: &StreamName, writer: &InstanceName, position: Token) {
        if stream.as_str() == "events" && writer.as_str() == "master" {
            self.token.set(position);
            self.changed.notify_one();
        }
    }
}

impl Follower {
    pub(crate) async fn start(scratch: &Scratch, name: &str) -> Self {
        let reached = Rc::new(Reached::default());
        let consumers = Consumers::default();
        consumers.register(reached.clone());
        Follower { instance: scratch.start(name, consumers).await, reached }
    }

    /// Waits until the follower has reached `token`.
    pub(crate) async fn reaches(&self, token: Token) {
        let reaching = async {
            while self.reached.token.get() < token {
                self.reached.changed.notified().await;
            }
        };
        tokio::time::timeout(WAIT_MAX, reaching).await.expect("rows arrive");
    }

    /// Returns the number of rows that arrived one by one, and not by catching up.
    fn streamed(&self) -> u64 {
        self.instance.env().tasks.tallies().get(&squall::tasks::ON_RDATA).map_or(0, |tally| tally.started)
    }
}

/// A master and its followers, on one thread.
pub(crate) struct Cluster {
    master: Rc<Instance>,
    followers: Vec<Follower>,
    written: Cell<usize>,
}

impl Cluster {
    pub(crate) async fn start(name: &str, redis: Option<RedisConfig>, followers: usize) -> Self {
        let scratch = Scratch::new(&format!("{name}-{followers}"), redis);
        let master = scratch.start("master", Consumers::default()).await;
        let mut cluster = Cluster { master, followers: Vec::new(), written: Cell::new(0) };
        for number in 0..followers {
            cluster.followers.push(Follower::start(&scratch, &format!("worker{number}")).await);
        }
        // Every follower is connected once a row has arrived.
        cluster.arrived(write(&cluster.master, &cluster.written, 1).await).await;
        cluster
    }

    async fn arrived(&self, token: Token) {
        for follower in &self.followers {
            follower.reaches(token).await;
        }
    }

    /// Writes so many rows at once. Returns the time from their commit until every follower has applied them.
    pub(crate) async fn carry(&self, rows: usize) -> Duration {
        let before: Vec<u64> = self.followers.iter().map(Follower::streamed).collect();
        let last = write(&self.master, &self.written, rows).await;
        let began = now();
        self.arrived(last).await;
        let took = began.elapsed();
        for (follower, before) in self.followers.iter().zip(before) {
            assert_eq!(follower.streamed() - before, rows as u64, "rows were caught up with");
        }
        took
    }
}

/// Commits so many events at once. Each is a row. Returns the last token.
async fn write(master: &Instance, written: &Cell<usize>, rows: usize) -> Token {
    let first = written.replace(written.get() + rows);
    let write = |number| Write { event: Some(EventRow::message(event_id(number), ROOM)), state: Vec::new() };
    let writes = (first..first + rows).map(write).collect();
    master.events().expect("the master writes events").persist(writes).await.expect("the database is there")
}

/// Returns an event id of the usual length.
fn event_id(number: usize) -> String {
    format!("${number:043}")
}

/// Returns the payloads that the stack publishes for so many events.
pub(crate) fn payloads(rows: usize) -> Vec<String> {
    let payload = |number: usize| {
        let row =
            serde_json::json!(["ev", [event_id(number), ROOM, "m.room.message", null, null, null, null, false, false]]);
        let token = Some(Token(number as i64 + 2));
        let rdata = Rdata { stream: "events".into(), writer: "master".into(), token, row };
        Command::Rdata(rdata).to_line().expect("there are no line breaks in it")
    };
    (0..rows).map(payload).collect()
}

/// A master on a thread of its own, whose memory is not counted.
pub(crate) struct Remote {
    requests: tokio::sync::mpsc::UnboundedSender<usize>,
    written: mpsc::Receiver<Token>,
    _running: JoinHandle<()>,
}

impl Remote {
    #[expect(clippy::disallowed_methods, reason = "a thread stands in for another process")]
    pub(crate) fn start(scratch: &Scratch) -> Self {
        let (requests, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let (sender, written) = mpsc::channel();
        let scratch = scratch.clone();
        let running = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            LocalSet::new().block_on(&runtime.expect("there are sockets"), async {
                let master = scratch.start("master", Consumers::default()).await;
                let count = Cell::new(0);
                while let Some(rows) = receiver.recv().await {
                    let _ = sender.send(write(&master, &count, rows).await);
                }
            });
        });
        Remote { requests, written, _running: running }
    }

    /// Writes so many rows on the master's thread. Returns the last token.
    pub(crate) fn write(&self, rows: usize) -> Token {
        self.requests.send(rows).expect("it runs");
        self.written.recv_timeout(WAIT_MAX).expect("it writes")
    }
}
