//! `squall follow` on live deployments: healthy ones, and ones with a faulty instance.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Write};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use squall::follow::{Event, Follower, Journal, Refused, Target, Watcher, listen};
use squall::observer::process_env;
use squall::transport::redis::resp::encode_request;
use squall_env::Noop;
use squall_judge::audit::rules::syncs_cleared::SILENT_FOR_MS;
use squall_judge::audit::{Audit, Capture, Report, Transport, Writers};
use squall_judge::observation::SimTime;
use squall_protocol::InstanceName;
use squall_protocol::rows::{Json, ReceiptsRow};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::deployment::{Deployment, PATIENCE, Process, ROOM, ids};
use crate::server::{Kind, Server, on_both};

on_both! {
    a_healthy_deployment_has_no_findings_even_while_the_broker_restarts;
    a_rolling_restart_has_no_findings;
    a_faulty_instance_is_found_live_and_in_the_recording;
    a_row_that_was_lost_before_another_one_is_found;
    an_unknown_command_does_no_harm;
    a_follower_needs_the_password;
}

pub(crate) const SERVER_NAME: &str = "squall.test";

/// The events that a follower has reported, with the time of each first finding.
#[derive(Default)]
struct Reports {
    findings: RefCell<BTreeMap<String, (u64, Instant)>>,
    away: RefCell<Vec<(u64, String)>>,
    listening: RefCell<u64>,
    replicate_failures: RefCell<Vec<String>>,
    changed: Notify,
}

/// A watcher that records the events.
struct Recorder(Rc<Reports>);

impl Watcher for Recorder {
    fn on_event(&mut self, _now: SimTime, event: Event<'_>, _follower: &Follower) {
        match event {
            Event::Finding(finding) => {
                let new = || (0, Instant::now());
                self.0.findings.borrow_mut().entry(finding.violation.fingerprint()).or_insert_with(new).0 += 1;
            }
            Event::Gap(gap) => self.0.away.borrow_mut().push((gap.until.ms_since(gap.since), gap.why.clone())),
            Event::Subscribed => *self.0.listening.borrow_mut() += 1,
            Event::ReplicateFailed(why) => self.0.replicate_failures.borrow_mut().push(why.to_owned()),
            Event::Disconnected(_)
            | Event::Suppressed(..)
            | Event::RecordingFailed(_)
            | Event::Unheard(_)
            | Event::Exceeded(_)
            | Event::Tick => return,
        }
        self.0.changed.notify_one();
    }
}

/// A file in memory.
#[derive(Clone, Default)]
struct MemoryFile(Rc<RefCell<Vec<u8>>>);

impl Write for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A follower that runs in a task of its own.
struct Following {
    reports: Rc<Reports>,
    recording: MemoryFile,
    end: oneshot::Sender<()>,
    running: JoinHandle<(Option<Refused>, Follower)>,
}

impl Following {
    fn begin(server: &Server, announce: bool) -> Self {
        let reports = Rc::new(Reports::default());
        let recording = MemoryFile::default();
        let target = Target { broker: server.config(), server_name: SERVER_NAME.into(), send_replicate: announce };
        let (end, ended) = oneshot::channel();
        let mut watcher = Recorder(Rc::clone(&reports));
        let writer = Box::new(recording.clone());
        let running = tokio::task::spawn_local(async move {
            let env = process_env(Ipv4Addr::LOCALHOST.into(), Rc::new(Noop));
            let journal = Journal::new(&*env.clock, Some(writer));
            let mut follower = Follower::new(audit(), journal, &mut watcher);
            let refused = tokio::select! {
                refused = listen(&target, &env, &mut follower, &mut watcher) => Some(refused),
                _ = ended => None,
            };
            follower.end(&mut watcher);
            (refused, follower)
        });
        Following { reports, recording, end, running }
    }

    /// Waits until `look` finds its subject among the reports, and returns it.
    async fn wait_for<T>(&self, within: Duration, look: impl Fn(&Reports) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = look(&self.reports) {
                    return found;
                }
                self.reports.changed.notified().await;
            }
        };
        let found = tokio::time::timeout(within, found).await;
        let kinds: Vec<_> = self.reports.findings.borrow().keys().cloned().collect();
        found.unwrap_or_else(|_| panic!("not reported within {within:?}; the findings were {kinds:?}"))
    }

    async fn listens(&self, times: u64) {
        self.wait_for(PATIENCE, |reports| (*reports.listening.borrow() >= times).then_some(())).await;
    }

    /// Returns the time of the first finding of a kind.
    async fn finds(&self, fingerprint: &str, within: Duration) -> Instant {
        self.wait_for(within, |reports| reports.findings.borrow().get(fingerprint).map(|(_, at)| *at)).await
    }

    /// Stops following, and checks that an audit of the recording has the same findings. Returns the number of each.
    async fn end(self) -> (Follower, BTreeMap<String, u64>) {
        self.end.send(()).unwrap();
        let (refused, follower) = self.running.await.unwrap();
        assert!(refused.is_none());
        let capture = Capture::new(Cursor::new(self.recording.0.take())).unwrap();
        let report = Report::by(audit(), capture);
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        let found = follower.counts_by_kind().into_iter().map(|(kind, count)| (kind.to_owned(), count));
        let found: BTreeMap<_, _> = found.collect();
        let recorded: BTreeMap<_, _> =
            report.groups().into_iter().map(|(kind, group)| (kind, group.count as u64)).collect();
        assert_eq!(recorded, found, "the recording shows what was found live, and nothing else");
        let groups = report.groups();
        assert!(follower.found().all(|(kind, _, found)| groups[kind].first.line <= found.first.line));
        assert_eq!(report.tally.payloads, follower.tally().payloads);
        assert_eq!(report.checks, follower.judged().collect());
        assert_eq!(report.gaps.count, follower.gaps().count);
        (follower, found)
    }
}

fn audit() -> Audit {
    let writers = ["writer1", "writer2"].map(InstanceName::from);
    let writers = Writers::from([("events".into(), BTreeSet::from(writers))]);
    Audit::new(Transport::Redis, None).with_writers(&writers)
}

/// A client that publishes.
pub(crate) struct Publisher(TcpStream);

impl Publisher {
    pub(crate) async fn connect(server: &Server) -> Self {
        Publisher(TcpStream::connect(("127.0.0.1", server.port)).await.unwrap())
    }

    async fn publish_on(&mut self, channel: &str, payload: &[u8]) {
        let words = [&b"PUBLISH"[..], channel.as_bytes(), payload];
        self.0.write_all(&encode_request(&words)).await.unwrap();
        let mut answer = [0; 4];
        self.0.read_exact(&mut answer).await.unwrap();
        assert_eq!((answer[0], &answer[2..]), (b':', &b"\r\n"[..]), "{}", String::from_utf8_lossy(&answer));
    }

    /// Sends the password.
    pub(crate) async fn authenticate(&mut self, password: &str) {
        self.0.write_all(&encode_request(&["AUTH", password])).await.unwrap();
        let mut answer = [0; 5];
        self.0.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"+OK\r\n");
    }

    pub(crate) async fn publish(&mut self, payload: &str) {
        self.publish_on(SERVER_NAME, payload.as_bytes()).await;
    }
}

/// A master, two writers and a worker with a user who syncs.
struct Healthy {
    master: Process,
    writers: [Process; 2],
    worker: Process,
    rounds: u64,
}

impl Healthy {
    async fn start(deployment: &Deployment) -> Self {
        let master = deployment.start("master").await;
        let writers = [deployment.start("writer1").await, deployment.start("writer2").await];
        let worker = deployment.start("worker").await;
        Healthy { master, writers, worker, rounds: 0 }
    }

    /// Writes on every instance for this long; `writer2` writes no events in every other second.
    async fn work(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        let _syncing = self.worker.instance.user_syncs().begin("@user:squall.test", Some("D"));
        while Instant::now() < end {
            let round = self.rounds;
            self.rounds += 1;
            let [writer1, writer2] = &self.writers;
            writer1.persist(ids(&format!("one{round}-"), 5)).await;
            if round % 40 < 20 {
                writer2.persist(ids(&format!("two{round}-"), 5)).await;
            }
            let typing = self.master.instance.typing();
            let user_id = format!("@user{}:squall.test", round % 200);
            typing.started(&self.master.instance.env().tasks, ROOM, &user_id, Duration::from_secs(5));
            let receipt = ReceiptsRow {
                room_id: ROOM.into(),
                kind: "m.read".into(),
                user_id: format!("@user{}:squall.test", round % 50),
                event_id: format!("$one{round}-0"),
                thread_id: None,
                data: Json(serde_json::json!({ "ts": round })),
            };
            self.master.instance.insert_receipt(receipt).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Returns the time for which a healthy deployment is followed, half of it before and half after the broker restarts.
fn healthy_for() -> Duration {
    let seconds = std::env::var("SQUALL_FOLLOW_SECONDS").map(|seconds| seconds.parse().expect("a number of seconds"));
    Duration::from_secs(seconds.unwrap_or(20))
}

async fn a_healthy_deployment_has_no_findings_even_while_the_broker_restarts(kind: Kind) {
    let mut server = Server::start(kind, None).await;
    let deployment = Deployment::new(&format!("follow-healthy-{kind:?}"), Some(server.config()));
    let mut healthy = Healthy::start(&deployment).await;
    healthy.work(Duration::from_secs(1)).await;
    let following = Following::begin(&server, true);
    following.listens(1).await;
    healthy.work(healthy_for() / 2).await;
    server.kill().await;
    healthy.work(Duration::from_secs(1)).await;
    server.start_again().await;
    healthy.work(healthy_for() / 2).await;
    following.listens(2).await;

    let (follower, found) = following.end().await;
    assert_eq!(found, BTreeMap::new());
    let away = follower.gaps();
    let reasons: Vec<_> = away.last.iter().map(|away| away.why.as_str()).collect();
    assert!(away.ms >= 1_000 && reasons.contains(&"closed by the broker"), "{away:?}");
    let said = |stream: &str, writer: &str| {
        follower.tally().streams[stream].get(writer).map_or((0, 0), |said| (said.rows, said.positions))
    };
    for (stream, writer) in [("events", "writer1"), ("events", "writer2"), ("typing", "master")] {
        let (rows, positions) = said(stream, writer);
        assert!(rows > 50 && positions > 2, "{rows} rows and {positions} positions of {stream} of {writer}");
    }
    assert!(follower.tally().commands["REPLICATE"] >= 1);
    assert!(follower.tally().commands["USER_SYNC"] >= 5, "the worker refreshes its syncing users");
    // Each of these rules had enough to check.
    for rule in ["one_writer", "positions_hide_no_rows", "positions_meet", "replicate_answered_once", "tokens_ascend"] {
        let judged = follower.judged().find(|(name, _)| *name == rule).unwrap().1;
        assert!(judged > 10, "{rule} made only {judged} checks");
    }
}

async fn a_rolling_restart_has_no_findings(kind: Kind) {
    let server = Server::start(kind, None).await;
    let deployment = Deployment::new(&format!("follow-rolling-{kind:?}"), Some(server.config()));
    let mut healthy = Healthy::start(&deployment).await;
    let following = Following::begin(&server, true);
    following.listens(1).await;
    healthy.work(Duration::from_secs(2)).await;
    let restarted = async |process: &mut Process, name: &str| {
        // Two processes of one name must not run at the same time.
        process.stop_in_place().await;
        *process = deployment.start(name).await;
    };
    restarted(&mut healthy.worker, "worker").await;
    healthy.work(Duration::from_secs(2)).await;
    restarted(&mut healthy.writers[1], "writer2").await;
    healthy.work(Duration::from_secs(2)).await;
    restarted(&mut healthy.master, "master").await;
    healthy.work(Duration::from_secs(8)).await;
    let (follower, found) = following.end().await;
    assert_eq!(found, BTreeMap::new());
    assert_eq!(follower.gaps().count, 0, "{:?}", follower.gaps());
    assert!(follower.tally().commands["CLEAR_USER_SYNC"] >= 1);
    assert!(follower.tally().commands["REPLICATE"] >= 3);
}

async fn a_faulty_instance_is_found_live_and_in_the_recording(kind: Kind) {
    const SOON: Duration = Duration::from_secs(10);
    let server = Server::start(kind, None).await;
    let deployment = Deployment::new(&format!("follow-planted-{kind:?}"), Some(server.config()));
    let mut healthy = Healthy::start(&deployment).await;
    let following = Following::begin(&server, true);
    following.listens(1).await;
    let mut publisher = Publisher::connect(&server).await;
    healthy.work(Duration::from_secs(2)).await;

    // An instance stops without clearing its users, and the users continue on its successor.
    for device in ["@one:squall.test D", "@other:squall.test E"] {
        publisher.publish(&format!("USER_SYNC former {device} start 1")).await;
        publisher.publish(&format!("USER_SYNC successor {device} start 2")).await;
    }
    let deserted = Instant::now();

    // A Squall worker is killed. Its missing refreshes are noticed, even if no other instance announces its users.
    let mut another = deployment.start("another").await;
    let _syncing = another.instance.user_syncs().begin("@third:squall.test", Some("D"));
    healthy.work(Duration::from_secs(10)).await;
    another.kill().await;
    let died = Instant::now();
    let at = following.finds("syncs_cleared/lifeless", SOON).await;
    assert!(at - died < SOON, "found {:?} after the kill", at - died);

    // A second instance announces a stream of one writer, and an instance announces a stream that it does not write.
    let announced = Instant::now();
    publisher.publish("POSITION typing worker 3 3").await;
    publisher.publish("POSITION events master 5 5").await;
    for kind in ["one_writer/typing/second_writer", "one_writer/events/not_its_writer"] {
        assert!(following.finds(kind, SOON).await - announced < SOON);
    }

    // A writer's connection broke and lost a row. The writer does not know it: its next position begins after the row.
    publisher.publish("POSITION pushers writer1 40 40").await;
    publisher.publish(r#"RDATA pushers writer1 41 ["@user:squall.test","app","key",false]"#).await;
    publisher.publish("POSITION pushers writer1 42 42").await;
    let lost = Instant::now();
    let at = following.finds("positions_meet/pushers/skipped", SOON).await;
    assert!(at - lost < SOON);

    // A live instance may take that long to announce that its users no longer sync.
    let certain = deserted + Duration::from_millis(SILENT_FOR_MS);
    healthy.work(Duration::from_secs(5)).await;
    let at = following.finds("syncs_cleared/not_cleared", Duration::from_secs(60)).await;
    assert!(at > certain && at - certain < SOON, "found {:?} after the users moved", at - deserted);

    let (_, found) = following.end().await;
    let kinds = [
        "one_writer/events/not_its_writer",
        "one_writer/typing/second_writer",
        "positions_meet/pushers/skipped",
        "syncs_cleared/lifeless",
        "syncs_cleared/not_cleared",
    ];
    assert_eq!(found, kinds.map(|kind| (kind.to_owned(), 1)).into());
}

async fn a_row_that_was_lost_before_another_one_is_found(kind: Kind) {
    let server = Server::start(kind, None).await;
    let following = Following::begin(&server, false);
    following.listens(1).await;
    let mut publisher = Publisher::connect(&server).await;
    let row = |writer: &str, token: u64| {
        format!(r#"RDATA events {writer} {token} ["ev",["$e{token}","!r","m.x",null,null,null,null,false,false]]"#)
    };
    for writer in ["writer1", "writer2"] {
        publisher.publish(&format!("POSITION events {writer} 40 40")).await;
    }
    publisher.publish(&row("writer1", 41)).await;
    publisher.publish(&row("writer2", 42)).await;
    // Here the connection of writer1 breaks. Its row 43 is lost without its knowledge.
    publisher.publish(&row("writer1", 44)).await;
    let lost = Instant::now();
    publisher.publish(&row("writer2", 45)).await;
    let at = following.finds("rows_complete/events/passed_over", Duration::from_secs(10)).await;
    assert!(at - lost < Duration::from_secs(10));
    let (follower, found) = following.end().await;
    assert_eq!(found, [("rows_complete/events/passed_over".to_owned(), 1)].into());
    let words = follower.found().next().unwrap().2.first.violation.to_string();
    let expected = "events: no instance sent 43, although writer1, writer2 sent rows with higher tokens; those rows are lost, \
        unless their transactions failed";
    assert_eq!(words, expected);
}

async fn an_unknown_command_does_no_harm(kind: Kind) {
    let server = Server::start(kind, None).await;
    let following = Following::begin(&server, false);
    following.listens(1).await;
    let mut publisher = Publisher::connect(&server).await;
    publisher.publish_on(SERVER_NAME, b"\xff\xfeRDATA").await;
    publisher.publish_on(SERVER_NAME, b"").await;
    publisher.publish_on(SERVER_NAME, b"RDATA\r\n*3\r\n").await;
    publisher.publish_on(SERVER_NAME, &[b'x'; 300_000]).await;
    publisher.publish(&format!("POSITION events {} 1 1", "n".repeat(1_000))).await;
    publisher.publish(&format!("RDATA events a 1 {}", "[".repeat(10_000))).await;
    publisher.publish_on("squall.test/USER_IP", b"POSITION pushers a 1 1").await;
    publisher.publish("USER_IP @user:squall.test [\"token\",\"::1\",\"agent\",\"D\",1]").await;
    for _ in 0..50 {
        publisher.publish_on(SERVER_NAME, b"\xff").await;
    }
    publisher.publish("POSITION typing a 1 1").await;
    publisher.publish("POSITION typing b 1 1").await;
    // The last instance to connect is followed as well.
    following.finds("one_writer/typing/second_writer", PATIENCE).await;
    let shown = following.reports.findings.borrow()["payloads_readable/not_a_command"].0;
    assert_eq!(shown, squall::follow::REPORTED_MAX, "the others are only counted");
    let (follower, found) = following.end().await;
    assert_eq!(follower.gaps().count, 0);
    let expected = [
        ("commands_in_direction/wrong_channel", 2),
        ("one_writer/typing/second_writer", 1),
        ("payloads_readable/not_a_command", 55),
        ("payloads_readable/unfollowed", 1),
    ];
    assert_eq!(found, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
}

async fn a_follower_needs_the_password(kind: Kind) {
    let server = Server::start(kind, Some("secret")).await;
    for password in [None, Some("wrong")] {
        let mut wrong = server.config();
        wrong.password = password.map(str::to_owned);
        let target = Target { broker: wrong, server_name: SERVER_NAME.into(), send_replicate: true };
        let env = process_env(Ipv4Addr::LOCALHOST.into(), Rc::new(Noop));
        let mut watcher = Recorder(Rc::default());
        let mut follower = Follower::new(audit(), Journal::new(&*env.clock, None), &mut watcher);
        let refused = listen(&target, &env, &mut follower, &mut watcher);
        let refused = tokio::time::timeout(PATIENCE, refused).await.expect("the broker refuses the follower");
        let words = refused.to_string();
        assert!(words.contains("redis://:PASSWORD@HOST:PORT") && !words.contains("wrong"), "{words}");
    }
    let following = Following::begin(&server, true);
    following.listens(1).await;
    assert_eq!(following.reports.replicate_failures.borrow().first(), None);
    following.end().await;
}
