//! `squall follow` beside live deployments: healthy ones, and ones in which somebody does what they must not.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Write};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use squall::env::{Env, Silent};
use squall::follow::{Follower, Journal, News, Refused, Target, Watcher, listen};
use squall::judge::audit::rules::SILENT_FOR_MS;
use squall::judge::audit::{Audit, Capture, Report, Transport, Writers};
use squall::judge::observation::Moment;
use squall::protocol::InstanceName;
use squall::streams::{Json, ReceiptsRow};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::deployment::{Deployment, PATIENCE, Process, ROOM, ids};
use crate::server::{Kind, Server, on_both};

on_both! {
    a_healthy_deployment_shows_nothing_even_while_the_broker_is_restarted;
    a_rolling_restart_shows_nothing;
    who_misbehaves_is_found_live_and_in_the_recording;
    a_row_that_was_lost_before_another_one_is_found;
    what_is_no_command_harms_nobody;
    nobody_is_followed_without_the_password;
}

pub const SERVER_NAME: &str = "squall.test";

/// What a follower told, and when.
#[derive(Default)]
struct Told {
    findings: RefCell<BTreeMap<String, (u64, Instant)>>,
    away: RefCell<Vec<(u64, String)>>,
    listening: RefCell<u64>,
    asked_in_vain: RefCell<Vec<String>>,
    changed: Notify,
}

/// Who notes down what is told.
struct Notes(Rc<Told>);

impl Watcher for Notes {
    fn tell(&mut self, _now: Moment, news: News<'_>, _follower: &Follower) {
        match news {
            News::Finding(finding) => {
                let new = || (0, Instant::now());
                self.0.findings.borrow_mut().entry(finding.violation.fingerprint()).or_insert_with(new).0 += 1;
            }
            News::Away(away) => self.0.away.borrow_mut().push((away.until.ms_since(away.since), away.why.clone())),
            News::Listening => *self.0.listening.borrow_mut() += 1,
            News::NotAsked(why) => self.0.asked_in_vain.borrow_mut().push(why.to_owned()),
            News::Deaf(_) | News::Omitted(..) | News::NotRecorded(_) | News::Tick => return,
        }
        self.0.changed.notify_one();
    }
}

/// A file in memory.
#[derive(Clone, Default)]
struct Tape(Rc<RefCell<Vec<u8>>>);

impl Write for Tape {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A follower at work.
struct Following {
    told: Rc<Told>,
    tape: Tape,
    end: oneshot::Sender<()>,
    running: JoinHandle<(Option<Refused>, Follower)>,
}

impl Following {
    fn begin(server: &Server, announce: bool) -> Self {
        let (told, tape) = (Rc::new(Told::default()), Tape::default());
        let target = Target { broker: server.config(), user: None, server_name: SERVER_NAME.into(), announce };
        let (end, ended) = oneshot::channel();
        let (mut watcher, recording) = (Notes(Rc::clone(&told)), Box::new(tape.clone()));
        let running = tokio::task::spawn_local(async move {
            let env = Env::of_process(Ipv4Addr::LOCALHOST.into(), Rc::new(Silent));
            let journal = Journal::new(&*env.clock, Some(recording));
            let mut follower = Follower::new(audit(), journal, &mut watcher);
            let refused = tokio::select! {
                refused = listen(&target, &env, &mut follower, &mut watcher) => Some(refused),
                _ = ended => None,
            };
            follower.end(&mut watcher);
            (refused, follower)
        });
        Following { told, tape, end, running }
    }

    /// Waits until it has told what is looked for, and gives the time.
    async fn has_told<T>(&self, within: Duration, look: impl Fn(&Told) -> Option<T>) -> T {
        let told = async {
            loop {
                if let Some(told) = look(&self.told) {
                    return told;
                }
                self.told.changed.notified().await;
            }
        };
        let told = tokio::time::timeout(within, told).await;
        let kinds: Vec<_> = self.told.findings.borrow().keys().cloned().collect();
        told.unwrap_or_else(|_| panic!("not told within {within:?}; there were {kinds:?}"))
    }

    async fn listens(&self, times: u64) {
        self.has_told(PATIENCE, |told| (*told.listening.borrow() >= times).then_some(())).await;
    }

    /// When the first finding of a kind was told.
    async fn finds(&self, fingerprint: &str, within: Duration) -> Instant {
        self.has_told(within, |told| told.findings.borrow().get(fingerprint).map(|(_, at)| *at)).await
    }

    /// Ends it, and checks that the recording shows what was found. Gives that.
    async fn end(self) -> (Follower, BTreeMap<String, u64>) {
        self.end.send(()).unwrap();
        let (refused, follower) = self.running.await.unwrap();
        assert!(refused.is_none());
        let capture = Capture::new(Cursor::new(self.tape.0.take())).unwrap();
        let report = Report::by(audit(), capture);
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        let found: BTreeMap<_, _> = follower.found().iter().map(|(kind, found)| (kind.clone(), found.count)).collect();
        let recorded: BTreeMap<_, _> =
            report.groups().into_iter().map(|(kind, group)| (kind, group.count as u64)).collect();
        assert_eq!(recorded, found, "the recording shows what was found live, and nothing else");
        let first = |kind: &String| (follower.found()[kind].first.line, report.groups()[kind].first.line);
        assert!(found.keys().map(first).all(|(live, recorded)| recorded <= live));
        assert_eq!(report.tally.payloads, follower.tally().payloads);
        assert_eq!(report.checks, follower.judged().collect());
        assert_eq!(report.away.len() as u64, follower.away().count);
        (follower, found)
    }
}

fn audit() -> Audit {
    let writers = ["writer1", "writer2"].map(InstanceName::from);
    let writers = Writers::from([("events".into(), BTreeSet::from(writers))]);
    Audit::new(Transport::Redis, None).with_writers(&writers)
}

/// Whoever may publish.
pub struct Publisher(TcpStream);

impl Publisher {
    pub async fn connect(server: &Server) -> Self {
        Publisher(TcpStream::connect(("127.0.0.1", server.port)).await.unwrap())
    }

    async fn say_on(&mut self, channel: &str, payload: &[u8]) {
        let head = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${}\r\n", channel.len(), payload.len());
        self.0.write_all(&[head.as_bytes(), payload, b"\r\n"].concat()).await.unwrap();
        let mut answer = [0; 4];
        self.0.read_exact(&mut answer).await.unwrap();
        assert_eq!((answer[0], &answer[2..]), (b':', &b"\r\n"[..]), "{}", String::from_utf8_lossy(&answer));
    }

    /// Says the password.
    pub async fn enter(&mut self, password: &str) {
        let request = format!("*2\r\n$4\r\nAUTH\r\n${}\r\n{password}\r\n", password.len());
        self.0.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 5];
        self.0.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"+OK\r\n");
    }

    pub async fn say(&mut self, payload: &str) {
        self.say_on(SERVER_NAME, payload.as_bytes()).await;
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

    /// Everybody has much to say for so long; `writer2` writes no events in every other second.
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

/// For how long a healthy deployment is followed, half of it before the broker is restarted and half of it after.
fn healthy_for() -> Duration {
    let seconds = std::env::var("SQUALL_FOLLOW_SECONDS").map(|seconds| seconds.parse().expect("a number of seconds"));
    Duration::from_secs(seconds.unwrap_or(20))
}

async fn a_healthy_deployment_shows_nothing_even_while_the_broker_is_restarted(kind: Kind) {
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
    assert_eq!(found, BTreeMap::new(), "{:?}", follower.found());
    let away = follower.away();
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
    assert!(follower.tally().commands["USER_SYNC"] >= 5, "they give signs of life");
    // And there was something to judge.
    for rule in ["one_writer", "positions_hide_no_rows", "positions_meet", "replicate_answered_once", "tokens_ascend"] {
        let judged = follower.judged().find(|(name, _)| *name == rule).unwrap().1;
        assert!(judged > 10, "{rule} has judged {judged} times");
    }
}

async fn a_rolling_restart_shows_nothing(kind: Kind) {
    let server = Server::start(kind, None).await;
    let deployment = Deployment::new(&format!("follow-rolling-{kind:?}"), Some(server.config()));
    let mut healthy = Healthy::start(&deployment).await;
    let following = Following::begin(&server, true);
    following.listens(1).await;
    healthy.work(Duration::from_secs(2)).await;
    let restarted = async |process: &mut Process, name: &str| {
        // Two of a name must not run at the same time.
        process.stop_here().await;
        *process = deployment.start(name).await;
    };
    restarted(&mut healthy.worker, "worker").await;
    healthy.work(Duration::from_secs(2)).await;
    restarted(&mut healthy.writers[1], "writer2").await;
    healthy.work(Duration::from_secs(2)).await;
    restarted(&mut healthy.master, "master").await;
    healthy.work(Duration::from_secs(8)).await;
    let (follower, found) = following.end().await;
    assert_eq!(found, BTreeMap::new(), "{:?}", follower.found());
    assert_eq!(follower.away().count, 0, "{:?}", follower.away());
    assert!(follower.tally().commands["CLEAR_USER_SYNC"] >= 1);
    assert!(follower.tally().commands["REPLICATE"] >= 3);
}

async fn who_misbehaves_is_found_live_and_in_the_recording(kind: Kind) {
    const SOON: Duration = Duration::from_secs(10);
    let server = Server::start(kind, None).await;
    let deployment = Deployment::new(&format!("follow-planted-{kind:?}"), Some(server.config()));
    let mut healthy = Healthy::start(&deployment).await;
    let following = Following::begin(&server, true);
    following.listens(1).await;
    let mut publisher = Publisher::connect(&server).await;
    healthy.work(Duration::from_secs(2)).await;

    // An instance that stopped without a word, and the one its users went on to.
    for device in ["@one:squall.test D", "@other:squall.test E"] {
        publisher.say(&format!("USER_SYNC former {device} start 1")).await;
        publisher.say(&format!("USER_SYNC successor {device} start 2")).await;
    }
    let deserted = Instant::now();

    // And one of Squall's, which ends without a word: what it has kept saying is missed, wherever its users are.
    let mut another = deployment.start("another").await;
    let _syncing = another.instance.user_syncs().begin("@third:squall.test", Some("D"));
    healthy.work(Duration::from_secs(10)).await;
    another.dies().await;
    let died = Instant::now();
    let at = following.finds("syncs_cleared/lifeless", SOON).await;
    assert!(at - died < SOON, "found {:?} after", at - died);

    // A stream of one writer that another one announces too, and a stream that is not the announcer's.
    let announced = Instant::now();
    publisher.say("POSITION typing worker 3 3").await;
    publisher.say("POSITION events master 5 5").await;
    for kind in ["one_writer/typing/second_writer", "one_writer/events/not_its_writer"] {
        assert!(following.finds(kind, SOON).await - announced < SOON);
    }

    // A writer whose connection broke, and who does not know that a row was lost: its next position begins behind it.
    publisher.say("POSITION pushers writer1 40 40").await;
    publisher.say(r#"RDATA pushers writer1 41 ["@user:squall.test","app","key",false]"#).await;
    publisher.say("POSITION pushers writer1 42 42").await;
    let lost = Instant::now();
    let at = following.finds("positions_meet/pushers/skipped", SOON).await;
    assert!(at - lost < SOON);

    // One that lives might take that long to say that its users are gone.
    let certain = deserted + Duration::from_millis(SILENT_FOR_MS);
    healthy.work(Duration::from_secs(5)).await;
    let at = following.finds("syncs_cleared/not_cleared", Duration::from_secs(60)).await;
    assert!(at > certain && at - certain < SOON, "found {:?} after", at - deserted);

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
        publisher.say(&format!("POSITION events {writer} 40 40")).await;
    }
    publisher.say(&row("writer1", 41)).await;
    publisher.say(&row("writer2", 42)).await;
    // Here the first one's connection breaks and takes its row with it, which it does not know.
    publisher.say(&row("writer1", 44)).await;
    let lost = Instant::now();
    publisher.say(&row("writer2", 45)).await;
    let at = following.finds("rows_complete/events/passed_over", Duration::from_secs(10)).await;
    assert!(at - lost < Duration::from_secs(10));
    let (follower, found) = following.end().await;
    assert_eq!(found, [("rows_complete/events/passed_over".to_owned(), 1)].into());
    let words = follower.found()["rows_complete/events/passed_over"].first.violation.to_string();
    assert_eq!(words, "events: nobody ever sent 43, and rows of writer1, writer2 went on behind");
}

async fn what_is_no_command_harms_nobody(kind: Kind) {
    let server = Server::start(kind, None).await;
    let following = Following::begin(&server, false);
    following.listens(1).await;
    let mut publisher = Publisher::connect(&server).await;
    publisher.say_on(SERVER_NAME, b"\xff\xfeRDATA").await;
    publisher.say_on(SERVER_NAME, b"").await;
    publisher.say_on(SERVER_NAME, b"RDATA\r\n*3\r\n").await;
    publisher.say_on(SERVER_NAME, &[b'x'; 300_000]).await;
    publisher.say(&format!("POSITION events {} 1 1", "n".repeat(1_000))).await;
    publisher.say(&format!("RDATA events a 1 {}", "[".repeat(10_000))).await;
    publisher.say_on("squall.test/USER_IP", b"POSITION pushers a 1 1").await;
    publisher.say("USER_IP @user:squall.test [\"token\",\"::1\",\"agent\",\"D\",1]").await;
    for _ in 0..50 {
        publisher.say_on(SERVER_NAME, b"\xff").await;
    }
    publisher.say("POSITION typing a 1 1").await;
    publisher.say("POSITION typing b 1 1").await;
    // Whoever comes last is heard too.
    following.finds("one_writer/typing/second_writer", PATIENCE).await;
    let shown = following.told.findings.borrow()["payloads_readable/not_a_command"].0;
    assert_eq!(shown, squall::follow::SHOWN_MAX, "the others are only counted");
    let (follower, found) = following.end().await;
    assert_eq!(follower.away().count, 0);
    let expected = [
        ("commands_in_direction/wrong_channel", 2),
        ("one_writer/typing/second_writer", 1),
        ("payloads_readable/not_a_command", 55),
        ("payloads_readable/unfollowed", 1),
    ];
    assert_eq!(found, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
}

async fn nobody_is_followed_without_the_password(kind: Kind) {
    let server = Server::start(kind, Some("secret")).await;
    for password in [None, Some("wrong")] {
        let mut wrong = server.config();
        wrong.password = password.map(str::to_owned);
        let target = Target { broker: wrong, user: None, server_name: SERVER_NAME.into(), announce: true };
        let env = Env::of_process(Ipv4Addr::LOCALHOST.into(), Rc::new(Silent));
        let mut watcher = Notes(Rc::default());
        let mut follower = Follower::new(audit(), Journal::new(&*env.clock, None), &mut watcher);
        let refused = listen(&target, &env, &mut follower, &mut watcher);
        let refused = tokio::time::timeout(PATIENCE, refused).await.expect("it is not let in");
        let words = refused.to_string();
        assert!(words.contains("redis://:PASSWORD@HOST:PORT") && !words.contains("wrong"), "{words}");
    }
    let following = Following::begin(&server, true);
    following.listens(1).await;
    let asked = |told: &Told| told.asked_in_vain.borrow().first().cloned();
    assert_eq!(asked(&following.told), None);
    following.end().await;
}
