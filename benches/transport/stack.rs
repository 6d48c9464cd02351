//! The stack: a master that writes events, and followers, on real sockets and one SQLite file.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use squall::env::{Env, Silent};
use squall::instance::config::{Endpoint, RedisConfig, StreamWriters};
use squall::instance::{Config, Instance, Write};
use squall::protocol::{Command, InstanceName, Rdata, StreamName, Token};
use squall::replication::{Consumer, Consumers};
use squall::store::{Database, NewEvent, SqliteBackend};
use squall::streams::Row;
use tokio::sync::Notify;
use tokio::task::LocalSet;

use crate::{BURST, now};

const ROOM: &str = "!room:squall.test";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where a deployment keeps its database, and how it is configured.
#[derive(Clone)]
pub struct Scratch {
    path: PathBuf,
    config: Config,
}

impl Scratch {
    pub fn new(name: &str, redis: Option<RedisConfig>) -> Self {
        let path = std::env::temp_dir().join(format!("squall-bench-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("there is a directory for temporary files");
        let free = || std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let held = [free(), free()];
        let [replication_port, http_port] = held.each_ref().map(|held| held.local_addr().expect("it is bound").port());
        let master = Endpoint { host: "127.0.0.1".into(), replication_port, http_port };
        let config = Config {
            server_name: "squall.test".into(),
            secret: "replsecret".into(),
            instance_map: [("master".into(), master)].into(),
            stream_writers: StreamWriters::default(),
            presence: Default::default(),
            redis,
        };
        Scratch { path, config }
    }

    async fn start(&self, name: &str, consumers: Consumers) -> Rc<Instance> {
        let database = SqliteBackend::open(self.path.join("squall.db")).expect("the directory is there");
        let env = Env::of_process(Ipv4Addr::LOCALHOST.into(), Rc::new(Silent));
        let (config, database) = (Rc::new(self.config.clone()), Database::new(Rc::new(database)));
        Instance::start(name.into(), config, env, database, consumers).await.expect("nothing is in its way")
    }
}

/// Somebody who follows the master.
pub struct Follower {
    instance: Rc<Instance>,
    reached: Rc<Reached>,
}

/// How far the master's events are known.
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
    pub async fn start(scratch: &Scratch, name: &str) -> Self {
        let (reached, consumers) = (Rc::new(Reached::default()), Consumers::default());
        consumers.register(reached.clone());
        Follower { instance: scratch.start(name, consumers).await, reached }
    }

    /// Waits until the master's events up to `token` are known.
    pub async fn reaches(&self, token: Token) {
        let reaching = async {
            while self.reached.token.get() < token {
                self.reached.changed.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, reaching).await.expect("rows arrive");
    }

    /// How many rows came one by one, and not by catching up.
    fn streamed(&self) -> u64 {
        self.instance.env().tasks.tallies().get("on_rdata").map_or(0, |tally| tally.started)
    }
}

/// A master and its followers, on one thread.
pub struct Cluster {
    master: Rc<Instance>,
    followers: Vec<Follower>,
    written: Cell<usize>,
}

impl Cluster {
    pub async fn start(name: &str, redis: Option<RedisConfig>, followers: usize) -> Self {
        let scratch = Scratch::new(&format!("{name}-{followers}"), redis);
        let master = scratch.start("master", Consumers::default()).await;
        let mut cluster = Cluster { master, followers: Vec::new(), written: Cell::new(0) };
        for number in 0..followers {
            cluster.followers.push(Follower::start(&scratch, &format!("worker{number}")).await);
        }
        // Everybody is connected when a row has come.
        cluster.arrived(write(&cluster.master, &cluster.written, 1).await).await;
        cluster
    }

    async fn arrived(&self, token: Token) {
        for follower in &self.followers {
            follower.reaches(token).await;
        }
    }

    /// How long it takes from the moment in which rows are committed until every follower has applied them, for so many.
    pub async fn carry(&self, rows: usize) -> Duration {
        let before: Vec<u64> = self.followers.iter().map(Follower::streamed).collect();
        let (mut took, mut left) = (Duration::ZERO, rows);
        while left > 0 {
            let burst = left.min(BURST);
            left -= burst;
            let last = write(&self.master, &self.written, burst).await;
            let began = now();
            self.arrived(last).await;
            took += began.elapsed();
        }
        for (follower, before) in self.followers.iter().zip(before) {
            assert_eq!(follower.streamed() - before, rows as u64, "rows were caught up with");
        }
        took
    }
}

/// Commits so many events at once, each of which is a row.
async fn write(master: &Instance, written: &Cell<usize>, rows: usize) -> Token {
    let first = written.replace(written.get() + rows);
    let write = |number| Write { event: Some(NewEvent::message(event_id(number), ROOM)), state: Vec::new() };
    let writes = (first..first + rows).map(write).collect();
    master.events().expect("the master writes events").persist(writes).await.expect("the database is there")
}

/// As long as a real one.
fn event_id(number: usize) -> String {
    format!("${number:043}")
}

/// What the stack publishes for so many events.
pub fn payloads(rows: usize) -> Vec<String> {
    let payload = |number: usize| {
        let row =
            serde_json::json!(["ev", [event_id(number), ROOM, "m.room.message", null, null, null, null, false, false]]);
        let token = Some(Token(number as i64 + 2));
        let rdata = Rdata { stream: "events".into(), writer: "master".into(), token, row };
        Command::Rdata(rdata).to_line().expect("there are no line breaks in it")
    };
    (0..rows).map(payload).collect()
}

/// A master on a thread of its own, whose memory is not counted here.
pub struct Remote {
    ask: tokio::sync::mpsc::UnboundedSender<usize>,
    written: mpsc::Receiver<Token>,
    _running: JoinHandle<()>,
}

impl Remote {
    #[expect(clippy::disallowed_methods, reason = "another process would be, but one is easier started")]
    pub fn start(scratch: &Scratch) -> Self {
        let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let (tell, written) = mpsc::channel();
        let scratch = scratch.clone();
        let running = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            LocalSet::new().block_on(&runtime.expect("there are sockets"), async {
                let (master, count) = (scratch.start("master", Consumers::default()).await, Cell::new(0));
                while let Some(rows) = asked.recv().await {
                    let _ = tell.send(write(&master, &count, rows).await);
                }
            });
        });
        Remote { ask, written, _running: running }
    }

    /// Has it write, and gives the last token.
    pub fn write(&self, rows: usize) -> Token {
        self.ask.send(rows).expect("it runs");
        self.written.recv_timeout(PATIENCE).expect("it writes")
    }
}
