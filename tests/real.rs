//! The stack without the simulator: a deployment on loopback sockets and one SQLite file, in real time.
//!
//! What the storm proves on a simulated network has to hold on a real one. Every wait ends as soon as what it waits for
//! has happened.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use squall::env::network::TokioNetwork;
use squall::env::{Chance, Env, Scope, Silent, SystemClock};
use squall::instance::config::{Endpoint, StreamWriters};
use squall::instance::{Config, Instance, Write};
use squall::protocol::{InstanceName, StreamName, Token};
use squall::replication::{Consumer, Consumers};
use squall::store::{Database, NewEvent, SqliteBackend, StateDelta};
use squall::streams::{EventsRow, Row, events, typing};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet};

const WRITERS: [&str; 2] = ["writer1", "writer2"];
const ROOM: &str = "!room:squall.test";
/// How long anything may take. It takes milliseconds, unless the machine is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory that is gone when the test is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("squall-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A master that writes typing, two writers of events, and any number of workers.
struct Deployment {
    scratch: Scratch,
    config: Rc<Config>,
}

impl Deployment {
    fn new(test: &str) -> Self {
        let names = ["master"].into_iter().chain(WRITERS);
        // All are held until all are drawn, so that no two are the same.
        let held: Vec<_> = names.map(|name| (name, free_port(), free_port())).collect();
        let port = |listener: &std::net::TcpListener| listener.local_addr().unwrap().port();
        let endpoint = |(name, replication, http): &(&str, _, _)| {
            let host = "127.0.0.1".into();
            let endpoint = Endpoint { host, replication_port: port(replication), http_port: port(http) };
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
        };
        Deployment { scratch: Scratch::new(test), config: Rc::new(config) }
    }

    async fn start(&self, name: &str) -> Process {
        let follower = Rc::new(Follower::default());
        let consumers = Consumers::default();
        consumers.register(follower.clone());
        let database = Database::new(Rc::new(SqliteBackend::open(self.scratch.0.join("squall.db")).unwrap()));
        let env = Env {
            network: Rc::new(TokioNetwork),
            clock: Rc::new(SystemClock),
            chance: Chance::from_os(),
            observer: Rc::new(Silent),
            tasks: Scope::new(Rc::new(Silent)),
        };
        // What a process leaves behind must end with it.
        let tasks = LocalSet::new();
        let starting = Instance::start(name.into(), Rc::clone(&self.config), env, database, consumers);
        let instance = tasks.run_until(starting).await.unwrap();
        let running = tokio::task::spawn_local(tasks);
        Process { instance, follower, running }
    }
}

fn free_port() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap()
}

/// One process of the deployment.
struct Process {
    instance: Rc<Instance>,
    follower: Rc<Follower>,
    running: JoinHandle<()>,
}

impl Process {
    async fn stop(self) {
        self.instance.stop().await;
        self.running.abort();
        let _ = self.running.await;
    }

    /// Persists one event for each id and gives the last token.
    async fn persist(&self, event_ids: impl IntoIterator<Item = String>) -> Token {
        self.instance.events().unwrap().persist(event_ids.into_iter().map(event).collect()).await.unwrap()
    }

    fn typing_begins(&self, user_id: &str) -> Token {
        self.instance.typing().started(&self.instance.env().tasks, ROOM, user_id, Duration::from_secs(600))
    }
}

fn event(event_id: String) -> Write {
    let event = NewEvent::message(event_id, ROOM);
    Write { event: Some(event), state: Vec::new() }
}

/// An event that changes so much state that its token has `rows` rows.
fn big_event(event_id: &str, rows: usize) -> Write {
    let member = |number: usize| StateDelta {
        room_id: ROOM.into(),
        kind: "m.room.member".into(),
        state_key: format!("@user{number}:squall.test"),
        event_id: Some(event_id.to_owned()),
    };
    Write { state: (1..rows).map(member).collect(), ..event(event_id.to_owned()) }
}

fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("${prefix}{number}")).collect()
}

/// What one process learnt of all others' rows.
#[derive(Default)]
struct Follower {
    feeds: RefCell<BTreeMap<(StreamName, InstanceName), Followed>>,
    changed: Notify,
}

/// What it learnt of one writer's rows of one stream.
#[derive(Clone, Default)]
struct Followed {
    start: Token,
    position: Token,
    rows: Vec<(Token, Vec<Row>)>,
}

impl Followed {
    fn event_ids(&self) -> Vec<String> {
        let id = |row: &Row| match row {
            Row::Events(EventsRow::Event(event)) => Some(event.event_id.clone()),
            _ => None,
        };
        self.rows.iter().flat_map(|(_, rows)| rows).filter_map(id).collect()
    }
}

impl Follower {
    fn change(&self, stream: &StreamName, writer: &InstanceName, change: impl FnOnce(&mut Followed)) {
        change(self.feeds.borrow_mut().entry((stream.clone(), writer.clone())).or_default());
        self.changed.notify_one();
    }

    /// What is known once the position is at `token`.
    async fn reaches(&self, stream: &str, writer: &str, token: Token) -> Followed {
        let key = (StreamName::from(stream), InstanceName::from(writer));
        let reached = async {
            loop {
                if let Some(followed) = self.feeds.borrow().get(&key).filter(|followed| followed.position >= token) {
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

/// Runs a test on one thread, in real time.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

#[test]
fn rows_of_all_writers_arrive_complete_and_in_order() {
    run(async {
        let deployment = Deployment::new("arrive");
        let master = deployment.start("master").await;
        let [writer1, writer2] = [deployment.start("writer1").await, deployment.start("writer2").await];
        let worker = deployment.start("worker").await;

        let mut last = Token(0);
        for number in 0..20 {
            let (one, other) = tokio::join!(
                writer1.persist([format!("$one{number}")]),
                writer2.persist([format!("$two{number}a"), format!("$two{number}b")]),
            );
            last = one.max(other);
        }
        let big = writer1.instance.events().unwrap().persist(vec![big_event("$big", 120)]).await.unwrap();
        assert!(big > last);
        for user in ["@a", "@b", "@c"] {
            master.typing_begins(user);
        }

        let from_writer1 = worker.follower.reaches(events::NAME, "writer1", big).await;
        assert_eq!(from_writer1.event_ids(), [ids("one", 20), vec!["$big".to_owned()]].concat());
        let (token, rows) = from_writer1.rows.last().unwrap();
        assert_eq!((*token, rows.len()), (big, 120), "a token arrives whole");

        let from_writer2 = worker.follower.reaches(events::NAME, "writer2", last).await;
        let two: Vec<_> = ids("two", 20).into_iter().flat_map(|id| [format!("{id}a"), format!("{id}b")]).collect();
        assert_eq!(from_writer2.event_ids(), two);

        worker.follower.reaches(typing::NAME, "master", Token(3)).await;
        assert_eq!(worker.instance.typing().typing_in(ROOM), ["@a", "@b", "@c"]);
        // The writers follow one another, and the master follows both.
        writer1.follower.reaches(events::NAME, "writer2", last).await;
        master.follower.reaches(events::NAME, "writer1", big).await;
    });
}

#[test]
fn a_worker_that_was_stopped_catches_up() {
    run(async {
        let deployment = Deployment::new("worker");
        let master = deployment.start("master").await;
        let [writer1, writer2] = [deployment.start("writer1").await, deployment.start("writer2").await];
        let worker = deployment.start("worker").await;
        let before = writer1.persist(ids("before", 5)).await;
        let typed = master.typing_begins("@before");
        worker.follower.reaches(events::NAME, "writer1", before).await;
        worker.follower.reaches(typing::NAME, "master", typed).await;
        worker.stop().await;

        let missed = writer1.persist(ids("missed", 150)).await;
        let elsewhere = writer2.persist(ids("elsewhere", 5)).await;
        let typed = master.typing_begins("@missed");

        let worker = deployment.start("worker").await;
        let after = writer1.persist(ids("after", 150)).await;
        let followed = worker.follower.reaches(events::NAME, "writer1", after).await;
        // What lies behind the position it starts from, it has in the database.
        let behind = usize::try_from(followed.start.0 - (missed.0 - 150)).unwrap_or(0);
        assert_eq!(followed.event_ids(), [&ids("missed", 150)[behind..], &ids("after", 150)].concat());
        worker.follower.reaches(events::NAME, "writer2", elsewhere).await;
        worker.follower.reaches(typing::NAME, "master", typed).await;
        assert_eq!(worker.instance.typing().typing_in(ROOM), ["@before", "@missed"]);
    });
}

#[test]
fn a_writer_that_was_stopped_goes_on_with_higher_tokens() {
    run(async {
        let deployment = Deployment::new("writer");
        let _master = deployment.start("master").await;
        let [writer1, writer2] = [deployment.start("writer1").await, deployment.start("writer2").await];
        let worker = deployment.start("worker").await;
        let before = writer1.persist(ids("before", 5)).await;
        worker.follower.reaches(events::NAME, "writer1", before).await;
        writer1.stop().await;
        let meanwhile = writer2.persist(ids("meanwhile", 5)).await;

        // Whoever has not connected to it again by now has to fetch these.
        let writer1 = deployment.start("writer1").await;
        let missed = writer1.persist(ids("missed", 150)).await;
        assert!(missed.0 - 150 >= meanwhile.0, "a token was given out twice: {missed} after {meanwhile}");
        let followed = worker.follower.reaches(events::NAME, "writer1", missed).await;
        assert_eq!(followed.event_ids(), [ids("before", 5), ids("missed", 150)].concat());

        let after = writer1.persist(ids("after", 5)).await;
        let followed = worker.follower.reaches(events::NAME, "writer1", after).await;
        assert_eq!(followed.event_ids(), [ids("before", 5), ids("missed", 150), ids("after", 5)].concat());
        let followed = worker.follower.reaches(events::NAME, "writer2", meanwhile).await;
        assert_eq!(followed.event_ids(), ids("meanwhile", 5));
    });
}
