//! The reports of an instance about what it meets: commands of a newer version, writers that its configuration does not name,
//! TLS where there is none, slow writes.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use squall::instance::{Config, Instance, PersistError, Write};
use squall::observer::{Env, InstanceEvent, Observer, OutstandingWrite};
use squall::replication::Consumers;
#[cfg(feature = "sim")]
use squall::sim::broker;
use squall::store::account_data::Datum;
#[cfg(feature = "sim")]
use squall::transport::redis::resp::encode_request;
use squall_env::TaskObserver;
use squall_protocol::rows::events::EventRow;
use squall_protocol::{InstanceName, StreamName, Token};
use tokio::time::Instant;

#[cfg(feature = "sim")]
use crate::deployment::REDIS_PORT;
use crate::deployment::{Deployment, SERVER_NAME};
use crate::peer::Peer;
use crate::run;

const MOMENT: Duration = Duration::from_secs(1);
const HEARTBEAT: Duration = Duration::from_secs(5);

/// An observer that keeps every report.
#[derive(Default)]
struct Reports {
    events: RefCell<Vec<String>>,
    /// The oldest outstanding write of a stream, at each change.
    outstanding: RefCell<Vec<(String, Option<OutstandingWrite>)>>,
}

impl TaskObserver for Reports {}

impl Observer for Reports {
    fn event(&self, event: InstanceEvent<'_>) {
        let report = match event {
            InstanceEvent::Connection { peer, error } => {
                let causes = std::iter::successors(error.source(), |error| error.source());
                causes.fold(format!("{peer}: {error}"), |text, cause| format!("{text}: {cause}"))
            }
            InstanceEvent::NewerCommand { peer, newer } => format!("{peer}: {newer}"),
            InstanceEvent::UnknownWriter { is_first: false, .. } => return,
            other => format!("{other:?}"),
        };
        self.events.borrow_mut().push(report);
    }

    fn outstanding(&self, stream: &StreamName, _writer: &InstanceName, oldest: Option<&OutstandingWrite>) {
        self.outstanding.borrow_mut().push((stream.to_string(), oldest.cloned()));
    }
}

impl Reports {
    fn containing(&self, words: &str) -> Vec<String> {
        self.events.borrow().iter().filter(|report| report.contains(words)).cloned().collect()
    }
}

/// Starts an instance with this configuration, and returns it with its reports.
async fn start_as(deployment: &Deployment, config: Config, name: &str) -> (Rc<Instance>, Rc<Reports>) {
    let reports = Rc::<Reports>::default();
    let env = Env { observer: reports.clone(), ..deployment.env(name) };
    let database = deployment.database().clone();
    let instance = Instance::start(name.into(), Rc::new(config), env, database, Consumers::default()).await;
    (instance.unwrap(), reports)
}

async fn start(deployment: &Deployment, name: &str) -> (Rc<Instance>, Rc<Reports>) {
    start_as(deployment, deployment.config().clone(), name).await
}

const NEWER_SYNC: &str = "USER_SYNC BBBBBBBBBBBB @user2:squall.test DEV start online 1700000001000";
const LONGER_SYNC: &str = "USER_SYNC BBBBBBBBBBBB @user3:squall.test DEV start 1700000001000 online";

#[test]
fn commands_of_a_newer_version_are_reported_once_each_and_passed_over() {
    run(async {
        let deployment = Deployment::new();
        let (master, reports) = start(&deployment, "master").await;
        let mut newer = deployment.join("master").await;
        newer.say("NAME newer1").await;
        for _ in 0..3 {
            newer.say(NEWER_SYNC).await;
            newer.say("USER_SYNC_KEEPALIVE BBBBBBBBBBBB 1700000001000").await;
            newer.say("FEDERATION_ACK sender1 5 6").await;
        }
        newer.say("REPLICATE").await;
        newer.hear("POSITION ").await;
        assert_eq!(
            reports.containing("newer1: "),
            [
                "newer1: USER_SYNC has more arguments than this version knows, and is passed over",
                "newer1: USER_SYNC_KEEPALIVE is unknown to this version, and is passed over",
                "newer1: FEDERATION_ACK has more arguments than this version knows, and is passed over",
            ]
        );
        // Another connection has reports of its own.
        let mut other = deployment.join("master").await;
        other.say("USER_SYNC_KEEPALIVE BBBBBBBBBBBB 1700000001000").await;
        other.say("REPLICATE").await;
        other.hear("POSITION ").await;
        assert_eq!(reports.containing("USER_SYNC_KEEPALIVE").len(), 2);
        assert_eq!(master.handler().connections().len(), 2);
    });
}

#[cfg(feature = "sim")]
#[test]
fn payloads_of_a_newer_version_are_reported_once_each() {
    run(async {
        let deployment = Deployment::new().with_broker("redis");
        let port = deployment.play_broker("redis").await;
        tokio::task::spawn_local(broker::serve(port, broker::Options::default()));
        let (worker, reports) = start(&deployment, "worker1").await;
        tokio::time::sleep(MOMENT).await;
        let mut newer = deployment.connect_to_port("redis", REDIS_PORT).await;
        for payload in [NEWER_SYNC, "NEWER_COMMAND 7"].repeat(3) {
            newer.say_bytes(&encode_request(&["PUBLISH", SERVER_NAME, payload])).await;
        }
        tokio::time::sleep(MOMENT).await;
        assert_eq!(
            *reports.events.borrow(),
            [
                "the broker: USER_SYNC has more arguments than this version knows, and is passed over",
                "the broker: NEWER_COMMAND is unknown to this version, and is passed over",
            ]
        );
        assert_eq!(worker.handler().connections().len(), 2);
    });
}

#[test]
fn a_sync_with_another_argument_behind_the_known_ones_is_passed_over() {
    run(async {
        let deployment = Deployment::new();
        let (master, reports) = start(&deployment, "master").await;
        let mut newer = deployment.join("master").await;
        newer.say("NAME newer1").await;
        newer.say(LONGER_SYNC).await;
        newer.say("REPLICATE").await;
        newer.hear("POSITION ").await;
        assert_eq!(
            reports.containing("newer1: "),
            ["newer1: USER_SYNC has more arguments than this version knows, and is passed over"]
        );
        assert!(!master.presence().is_syncing("@user3:squall.test"));
    });
}

#[test]
fn a_client_passes_over_the_commands_of_a_newer_server() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play("master").await;
        let (worker, reports) = start(&deployment, "worker1").await;
        let mut server = Peer::new(port.accept().await.unwrap());
        server.hear("REPLICATE").await;
        for line in [
            "SERVER squall.test",
            "POSITION typing master 0 0",
            "NEWER_COMMAND 7 a b",
            "POSITION typing master 3 7 8",
            r#"RDATA typing master 1 ["!room:squall.test",["@user:squall.test"]]"#,
        ] {
            server.say(line).await;
        }
        server.lines_for(MOMENT).await;
        assert_eq!(worker.typing().typing_in("!room:squall.test"), ["@user:squall.test"]);
        assert_eq!(worker.handler().position("typing", &"master".into()).unwrap().0, 1);
        assert_eq!(
            reports.containing("master: "),
            [
                "master: NEWER_COMMAND is unknown to this version, and is passed over",
                "master: POSITION has more arguments than this version knows, and is passed over",
            ]
        );
    });
}

#[test]
fn a_client_that_sends_nothing_but_unknown_commands_is_closed() {
    run(async {
        let deployment = Deployment::new();
        let (_master, reports) = start(&deployment, "master").await;
        let mut stray = deployment.join("master").await;
        stray.say("GET / HTTP/1.1").await;
        let lines = stray.lines_to_end().await;
        assert!(lines.last().unwrap().starts_with("ERROR a line was not complete"), "{lines:?}");
        assert_eq!(reports.containing("GET is unknown").len(), 1);
    });
}

#[test]
fn a_writer_that_the_configuration_does_not_name_is_reported_once() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play("master").await;
        let (worker, reports) = start(&deployment, "worker1").await;
        let mut server = Peer::new(port.accept().await.unwrap());
        server.hear("REPLICATE").await;
        for line in [
            "SERVER squall.test",
            "POSITION events writer3 5 5",
            r#"RDATA events writer3 6 ["state-all",["!room:squall.test"]]"#,
            "POSITION events writer3 6 6",
            "POSITION caches writer3 1 1",
        ] {
            server.say(line).await;
        }
        server.lines_for(MOMENT).await;
        let unknown = reports.containing("UnknownWriter");
        assert_eq!(unknown.len(), 2, "{unknown:?}");
        assert_eq!(worker.handler().unknown_writers().to_string(), "caches of writer3, events of writer3");
    });
}

#[cfg(feature = "sim")]
#[test]
fn caches_of_a_process_that_writes_nothing_else_are_followed_where_it_is_configured() {
    run(async {
        let deployment = Deployment::new().with_broker("redis");
        let port = deployment.play_broker("redis").await;
        tokio::task::spawn_local(broker::serve(port, broker::Options::default()));
        let mut config = deployment.config().clone();
        config.stream_writers.caches = vec!["generic1".into()];
        config.shares_database = false;
        let (worker, reports) = start_as(&deployment, config, "worker1").await;
        tokio::time::sleep(MOMENT).await;
        let mut generic = deployment.connect_to_port("redis", REDIS_PORT).await;
        for payload in [
            "POSITION caches generic1 1 1",
            r#"RDATA caches generic1 2 ["cs_cache_fake",["!room:squall.test"],1700000000000]"#,
        ] {
            generic.say_bytes(&encode_request(&["PUBLISH", SERVER_NAME, payload])).await;
        }
        tokio::time::sleep(MOMENT).await;
        assert_eq!(worker.handler().position("caches", &"generic1".into()).unwrap().0, 2);
        assert_eq!(*reports.events.borrow(), [""; 0]);
    });
}

#[test]
fn a_position_of_a_writer_that_the_configuration_does_not_name_is_reported_and_kept() {
    run(async {
        let deployment = Deployment::new();
        let positions = || async {
            let read = |tx: &rusqlite::Transaction<'_>| {
                let of_writer = "SELECT COUNT(*) FROM stream_positions WHERE instance_name = 'writer1'";
                tx.query_row(of_writer, (), |row| row.get::<_, i64>(0))
            };
            deployment.database().transaction("count", read).await.unwrap()
        };
        let writer = deployment.start("writer1").await;
        let recorded = positions().await;
        let mut before = deployment.config().clone();
        before.stream_writers.events = vec!["master".into()];
        let (_worker, reports) = start_as(&deployment, before, "worker1").await;
        let unclaimed = reports.containing("UnclaimedPosition");
        assert_eq!((unclaimed.len() as i64, positions().await), (recorded, recorded), "{unclaimed:?}");
        assert!(unclaimed.iter().any(|report| report.contains("events") && report.contains("writer1")));
        drop(writer);
    });
}

/// Starts `writer1` beside a played master, and returns both with the reports of the writer.
async fn beside_a_played_master(deployment: &Deployment) -> (Rc<Instance>, Peer, Rc<Reports>) {
    let mut port = deployment.play("master").await;
    let (writer, reports) = start(deployment, "writer1").await;
    let mut server = Peer::new(port.accept().await.unwrap());
    server.hear("REPLICATE").await;
    server.say("SERVER squall.test").await;
    (writer, server, reports)
}

/// Persists an event at `writer`.
async fn persist_event(writer: &Instance) -> Result<Token, PersistError> {
    let event = EventRow::message("$event".to_owned(), format!("!room:{SERVER_NAME}"));
    writer.events().unwrap().persist(vec![Write { event: Some(event), state: Vec::new() }]).await
}

#[test]
fn a_writer_whose_database_does_not_know_what_others_announce_refuses_to_write() {
    for announced in ["events writer1", "events master"] {
        run(async {
            let deployment = Deployment::new();
            let (writer, mut server, reports) = beside_a_played_master(&deployment).await;
            let announcing = async {
                loop {
                    server.say(&format!("POSITION {announced} 10340 10340")).await;
                    server.lines_for(HEARTBEAT).await;
                }
            };
            let writing = async {
                tokio::time::sleep(MOMENT).await;
                let error = persist_event(&writer).await.unwrap_err().to_string();
                assert!(error.contains("allocated 1 on events, and 10340 was announced"), "{error}");
                assert!(error.contains(&writer.refusal_to_write().unwrap()));
                assert_eq!(reports.containing("ForeignDatabase").len(), 1);
            };
            tokio::select! {
                () = announcing => unreachable!("it goes on"),
                () = writing => {}
            }
            let heard = reports.containing("NotAllocated");
            assert!(heard.len() >= 2 && heard[0].contains("10340"), "{heard:?}");
        });
    }
}

#[test]
fn a_position_that_nobody_can_have_announced_moves_nothing_and_only_delays_writes() {
    for announced in ["events writer1", "events master"] {
        run(async {
            let deployment = Deployment::new();
            let (writer, mut server, reports) = beside_a_played_master(&deployment).await;
            server.say(&format!("POSITION {announced} 5 1000000")).await;
            server
                .say(&format!(
                    "RDATA {announced} 1000000 [\"ev\",[\"$x\",\"!r:x\",\"t\",null,null,null,null,null,null]]"
                ))
                .await;
            tokio::time::sleep(MOMENT).await;
            let position = |name: &str| writer.handler().position("events", &name.into()).unwrap();
            assert_eq!((position("master"), position("writer1")), (Token(1), Token(1)));
            assert_eq!(writer.refusal_to_write(), None);
            let began = Instant::now();
            assert_eq!(persist_event(&writer).await.unwrap(), Token(2));
            assert!(began.elapsed() < 2 * HEARTBEAT, "{:?}", began.elapsed());
            let heard = reports.containing("NotAllocated");
            assert!(!heard.is_empty() && heard[0].contains("1000000"), "{heard:?}");
        });
    }
}

/// The beginning of a client's handshake.
const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

#[test]
fn tls_at_a_port_without_it_is_named() {
    run(async {
        let deployment = Deployment::new();
        let (_master, reports) = start(&deployment, "master").await;
        let mut client = deployment.join("master").await;
        client.say_bytes(CLIENT_HELLO).await;
        assert!(client.lines_to_end().await.is_empty());
        let mut client = deployment.connect_http("master").await;
        client.say_bytes(CLIENT_HELLO).await;
        client.text_to_end().await;
        let named = reports.containing("the client speaks TLS, and this port does not");
        assert_eq!(named.len(), 2, "{:?}", reports.events.borrow());
    });
}

/// The alert with which a server answers what is no handshake.
const ALERT: &[u8] = b"\x15\x03\x03\x00\x02\x02\x46";

#[test]
fn a_port_with_tls_that_is_addressed_without_it_is_named() {
    run(async {
        let deployment = Deployment::new();
        let mut lines = deployment.play("writer1").await;
        let mut requests = deployment.play_http("writer1").await;
        let (worker, reports) = start(&deployment, "worker1").await;
        let mut server = Peer::new(lines.accept().await.unwrap());
        server.say_bytes(ALERT).await;
        tokio::time::sleep(MOMENT).await;
        let named = reports.containing("writer1: the port speaks TLS");
        assert_eq!(named.len(), 1, "{:?}", reports.events.borrow());
        let answering = async {
            let mut server = Peer::new(requests.accept().await.unwrap());
            server.say_bytes(ALERT).await;
            server.text_to_end().await
        };
        let datum = Datum { user_id: "@a:b".into(), room_id: None, kind: "m.direct".into(), content: Value::Null };
        let writer = "writer1".into();
        let (sent, _) = tokio::join!(worker.client().set_account_data(&writer, &datum), answering);
        let error = sent.unwrap_err().to_string();
        assert!(error.contains("speaks TLS"), "{error}");
    });
}

#[test]
fn the_oldest_outstanding_write_is_reported_until_it_has_ended() {
    run(async {
        let deployment = Deployment::new();
        let (writer, reports) = start(&deployment, "writer1").await;
        let of_events = |reports: &Reports| {
            let told = reports.outstanding.borrow();
            told.iter().rev().find(|(stream, _)| stream == "events").map(|(_, write)| write.clone()).unwrap()
        };
        assert_eq!(of_events(&reports), None, "it is reported from the beginning");
        deployment.set_database_delay(MOMENT);
        let began = Instant::now();
        let persist = |id: &'static str| {
            let events = Rc::clone(writer.events().unwrap());
            let event = EventRow::message(id.to_owned(), format!("!room:{SERVER_NAME}"));
            let write = Write { event: Some(event), state: Vec::new() };
            tokio::task::spawn_local(async move { events.persist(vec![write]).await.unwrap() })
        };
        let first = persist("$first");
        tokio::time::sleep(MOMENT / 2).await;
        let second = persist("$second");
        tokio::time::sleep(MOMENT / 4).await;
        let oldest = of_events(&reports).expect("it waits for the database");
        assert_eq!((oldest.operation, oldest.token, oldest.since), ("persist_events", None, began));
        tokio::time::sleep(MOMENT / 2).await;
        let oldest = of_events(&reports).expect("it waits for the transaction");
        let first_token = oldest.token.expect("its ids are allocated");
        assert_eq!(oldest.since, began, "the older of the two");
        assert_eq!(first.await.unwrap(), first_token);
        let oldest = of_events(&reports).expect("the second one is under way");
        assert_eq!(oldest.since, began + MOMENT / 2);
        assert!(second.await.unwrap() > first_token);
        assert_eq!(of_events(&reports), None);
    });
}
