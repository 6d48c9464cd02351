//! Requests that write: they take effect once despite retries, and the client sees what it has written.

use std::time::Duration;

use rusqlite::types::FromSql;
use serde_json::{Map, Value, json};
use squall::instance::config::StreamWriters;
use squall::store::account_data::Datum;
use squall::transport::http::endpoints::fed_send_edu::{DirectToDevice, Typing};
use squall::transport::http::endpoints::presence::{BumpBody, SetBody, State};
use squall::transport::http::endpoints::send_events::SentEvent;
use squall::transport::http::{BODY_BYTES_MAX, HttpClient, HttpError, RETRY_FOR};
use squall_protocol::rows::{Json, ReceiptsRow};
use squall_protocol::{InstanceName, Token};
use tokio::time::Instant;

use crate::deployment::{Deployment, SECRET, SERVER_NAME};
use crate::peer::Peer;
use crate::requests::{ask, post};
use crate::run;

const SEND: &str = "/_synapse/replication/send_events";
const ACCOUNT_DATA: &str = "/_synapse/replication/add_user_account_data/%40a%3Ab/m.direct";

/// Returns a room whose events `writer` writes.
fn room_of(deployment: &Deployment, writer: &str) -> String {
    let rooms = (0..).map(|number| format!("!room{number}:{SERVER_NAME}"));
    rooms.into_iter().find(|room_id| deployment.config().events_writer_of(room_id).as_str() == writer).unwrap()
}

fn message(room_id: &str, body: &str) -> SentEvent {
    // The content is redacted before the event is hashed, and `hashes` is kept. So `hashes` makes the event ids differ.
    let event = json!({"type": "m.room.message", "room_id": room_id, "sender": "@a:b", "content": {"body": body},
                       "hashes": {"sha256": body}});
    SentEvent::new("10", event.as_object().unwrap().clone())
}

/// Returns the body of a request that sends `event`.
fn sending(event: &SentEvent) -> String {
    json!({ "events": [event] }).to_string()
}

fn object(body: &str) -> Map<String, Value> {
    serde_json::from_str(body).unwrap_or_else(|_| panic!("no object: {body}"))
}

/// Returns the result of a query on the shared database.
async fn query<T: FromSql + Send + 'static>(deployment: &Deployment, sql: &'static str) -> T {
    deployment.database().transaction("query", move |tx| tx.query_row(sql, (), |row| row.get(0))).await.unwrap()
}

/// Returns a client on the host of `worker1` that belongs to no instance, so it does not wait for positions.
fn client(deployment: &Deployment) -> HttpClient {
    let addresses = deployment.config().http_addresses();
    HttpClient::new(deployment.env("worker1"), "worker1".into(), addresses, SECRET.into())
}

fn datum(version: u32) -> Datum {
    Datum {
        user_id: "@a:b".into(),
        room_id: None,
        kind: "m.direct".into(),
        content: json!({ "version": version, "name": "Ü" }),
    }
}

#[test]
fn a_request_that_is_repeated_takes_effect_once_even_after_a_restart() {
    run(async {
        let deployment = Deployment::new();
        let writer = deployment.start("writer1").await;
        let body = sending(&message(&room_of(&deployment, "writer1"), "hello"));
        let path = format!("{SEND}/transaction1");
        let (status, first) = post(&deployment, "writer1", &path, &body).await;
        assert_eq!(status, 200, "{first}");
        assert_eq!(post(&deployment, "writer1", &path, &body).await, (200, first.clone()));
        writer.stop().await;
        let _writer = deployment.start("writer1").await;
        let (status, again) = post(&deployment, "writer1", &path, &body).await;
        assert_eq!(status, 200, "{again}");
        for key in ["stream_id", "event_id"] {
            assert_eq!(object(&again)[key], object(&first)[key]);
        }
        assert_eq!(query::<i64>(&deployment, "SELECT COUNT(*) FROM events").await, 1);
    });
}

#[test]
fn an_event_that_is_already_persisted_keeps_its_token() {
    run(async {
        let deployment = Deployment::new();
        let _writer = deployment.start("writer1").await;
        let room_id = room_of(&deployment, "writer1");
        let send = async |transaction_id: &str, text: &str| {
            let path = format!("{SEND}/{transaction_id}");
            let (status, answer) = post(&deployment, "writer1", &path, &sending(&message(&room_id, text))).await;
            assert_eq!(status, 200, "{answer}");
            object(&answer)["stream_id"].as_i64().unwrap()
        };
        let first = send("transaction1", "one").await;
        let second = send("transaction2", "two").await;
        assert!(second > first);
        assert_eq!(send("transaction3", "one").await, first);
        assert_eq!(query::<i64>(&deployment, "SELECT COUNT(*) FROM events").await, 2);
    });
}

#[test]
fn an_outlier_that_is_sent_again_becomes_an_ordinary_event_and_changes_the_state() {
    run(async {
        let deployment = Deployment::new();
        let writer = deployment.start("writer1").await;
        let timeline = async |since: Option<&str>| {
            let shown = writer.sync_handler().sync("@b:c", "DEVICE", since, Duration::ZERO).await.unwrap();
            let events = shown.news.events.into_iter().map(|(token, event)| (token.0, event.event_id));
            (shown.next_batch, events.collect::<Vec<_>>())
        };
        let room_id = room_of(&deployment, "writer1");
        let (since, _) = timeline(None).await;
        let event = json!({"event_id": "$invite", "room_id": room_id, "type": "m.room.member", "state_key": "@b:c",
                           "sender": "@a:b", "content": {"membership": "invite"}});
        let send = async |transaction_id: &str, outlier: bool| {
            let mut sent = SentEvent::new("1", event.as_object().unwrap().clone());
            sent.outlier = outlier;
            if !outlier {
                let entry = ("m.room.member".to_owned(), "@b:c".to_owned(), Some("$invite".to_owned()));
                sent.context.state_delta_due_to_event = Some(vec![entry]);
            }
            let path = format!("{SEND}/{transaction_id}");
            let (status, answer) = post(&deployment, "writer1", &path, &sending(&sent)).await;
            assert_eq!(status, 200, "{answer}");
            object(&answer)["stream_id"].as_i64().unwrap()
        };
        let first = send("transaction1", true).await;
        assert_eq!(send("transaction2", true).await, first, "an outlier that stays one");
        assert_eq!(timeline(Some(&since)).await.1, []);
        let second = send("transaction3", false).await;
        assert!(second > first);
        assert_eq!(query::<i64>(&deployment, "SELECT outlier FROM events").await, 0);
        assert_eq!(query::<i64>(&deployment, "SELECT event_stream_ordering FROM ex_outlier_stream").await, second);
        assert_eq!(query::<i64>(&deployment, "SELECT stream_id FROM current_state_delta_stream").await, second);
        assert_eq!(timeline(Some(&since)).await.1, [(second, "$invite".to_owned())]);
        // It has become one already: its last row is named, and nothing is written.
        assert_eq!(send("transaction4", false).await, second);
        assert_eq!(send("transaction5", true).await, second);
        assert_eq!(query::<i64>(&deployment, "SELECT COUNT(*) FROM ex_outlier_stream").await, 1);
        assert_eq!(query::<i64>(&deployment, "SELECT COUNT(*) FROM current_state_delta_stream").await, 1);
    });
}

#[test]
fn a_message_that_its_server_sends_again_in_another_transaction_comes_once() {
    run(async {
        let deployment = Deployment::new();
        let _master = deployment.start("master").await;
        let send = async |origin: &str, transaction_id: &str| {
            let path = format!("/_synapse/replication/fed_send_edu/m.direct_to_device/{transaction_id}");
            let content = json!({"sender": format!("@a:{origin}"), "type": "m.x", "message_id": "m1",
                                 "messages": {"@b:c": {"DEVICE": {"n": 1}}}});
            let body = json!({ "origin": origin, "content": content }).to_string();
            let (status, answer) = post(&deployment, "master", &path, &body).await;
            assert_eq!(status, 200, "{answer}");
        };
        for transaction_id in ["t1", "t1", "t2"] {
            send("remote.test", transaction_id).await;
        }
        assert_eq!(query::<i64>(&deployment, "SELECT COUNT(*) FROM device_inbox").await, 1);
        send("other.test", "t3").await;
        assert_eq!(query::<i64>(&deployment, "SELECT COUNT(*) FROM device_inbox").await, 2);
    });
}

#[test]
fn receipts_of_rooms_with_several_writers_are_shared_out_by_any_instance() {
    run(async {
        let hosts = ["master", "writer1", "writer2"];
        let receipts = vec!["master".into(), "writer1".into()];
        let events = vec!["writer2".into()];
        let deployment = Deployment::of(&hosts, StreamWriters { receipts, events, ..StreamWriters::default() });
        let _master = deployment.start("master").await;
        let _writer = deployment.start("writer1").await;
        let _other = deployment.start("writer2").await;
        let rooms: Vec<String> = (0..8).map(|number| format!("!room{number}:{SERVER_NAME}")).collect();
        let read = json!({"m.read": {"@a:remote.test": {"event_ids": ["$e"], "data": {"ts": 7}}}});
        let content: Map<String, Value> = rooms.iter().map(|room_id| (room_id.clone(), read.clone())).collect();
        let send = async |to: &str, transaction_id: &str, is_shared_out: bool| {
            let path = format!("/_synapse/replication/fed_send_edu/m.receipt/{transaction_id}");
            let body = json!({ "origin": "remote.test", "content": content, "is_shared_out": is_shared_out });
            post(&deployment, to, &path, &body.to_string()).await
        };
        for to in hosts {
            let (status, answer) = send(to, &format!("to_{to}"), false).await;
            assert_eq!(status, 200, "{to}: {answer}");
            assert_eq!(query::<i64>(&deployment, "SELECT COUNT(*) FROM receipts_linearized").await, 8);
        }
        let writers = query::<i64>(&deployment, "SELECT COUNT(DISTINCT instance_name) FROM receipts_linearized").await;
        assert_eq!(writers, 2);
        // Where the configurations differ, receipts are not passed back and forth.
        let written_by =
            async || query::<i64>(&deployment, "SELECT COUNT(DISTINCT instance_name) FROM receipts_linearized").await;
        let (status, answer) = send("writer1", "shared", true).await;
        assert_eq!((status, written_by().await), (200, 1), "{answer}");
        let (status, answer) = send("writer2", "shared", true).await;
        assert_eq!(status, 400);
        assert!(answer.contains("ask there"), "{answer}");
    });
}

#[test]
fn a_writer_writes_to_any_room_and_any_other_instance_names_the_writer() {
    run(async {
        let writers = StreamWriters { events: vec!["writer1".into(), "writer2".into()], ..StreamWriters::default() };
        let deployment = Deployment::of(&["master", "writer1", "writer2"], writers);
        let _master = deployment.start("master").await;
        let _writer = deployment.start("writer1").await;
        let event = message(&room_of(&deployment, "writer2"), "hello");
        let (status, answer) = post(&deployment, "writer1", &format!("{SEND}/a"), &sending(&event)).await;
        assert_eq!(status, 200, "the sender may have another configuration: {answer}");
        let (status, answer) = post(&deployment, "master", &format!("{SEND}/b"), &sending(&event)).await;
        assert_eq!(status, 400);
        assert!(answer.contains("is written by writer2: ask there"), "{answer}");
        let (status, answer) = post(&deployment, "writer1", ACCOUNT_DATA, r#"{"content":{}}"#).await;
        assert_eq!(status, 400);
        assert!(answer.contains("account_data is written by master: ask there"), "{answer}");
    });
}

#[test]
fn the_client_sees_what_it_has_written() {
    run(async {
        let deployment = Deployment::new();
        let _master = deployment.start("master").await;
        let _writer = deployment.start("writer1").await;
        let worker = deployment.start("worker1").await;
        let (master, writer): (InstanceName, InstanceName) = ("master".into(), "writer1".into());
        let seen = |stream: &str, writer: &InstanceName| worker.handler().position(stream, writer).unwrap();
        let client = worker.client();

        let token = client.set_account_data(&master, &datum(1)).await.unwrap();
        assert!(seen("account_data", &master) >= token);
        let event = message(&room_of(&deployment, "writer1"), "hello");
        let sent = client.send_events(&writer, std::slice::from_ref(&event)).await.unwrap();
        assert!(seen("events", &writer) >= sent.stream_id);
        assert_eq!(sent.event_id, event.event_id().unwrap());

        let receipt = ReceiptsRow {
            room_id: "!r".into(),
            kind: "m.read".into(),
            user_id: format!("@a:{SERVER_NAME}"),
            event_id: "$e".into(),
            thread_id: Some("main".into()),
            data: Json(json!({ "ts": 7 })),
        };
        client.send_receipts(&master, SERVER_NAME, vec![receipt.clone()]).await.unwrap();
        let last = query(&deployment, "SELECT MAX(stream_id) FROM receipts_linearized").await;
        assert!(seen("receipts", &master) >= Token(last));
        let data = "SELECT event_id || ' ' || thread_id || ' ' || data FROM receipts_linearized";
        assert_eq!(query::<String>(&deployment, data).await, r#"$e main {"ts":7}"#);

        let messages = DirectToDevice {
            sender: format!("@a:{SERVER_NAME}"),
            kind: "m.x".into(),
            message_id: "message1".into(),
            messages: [("@b:c".to_owned(), [("DEVICE".to_owned(), json!({"n": 1}))].into_iter().collect())].into(),
        };
        client.send_to_device(&master, SERVER_NAME, messages).await.unwrap();
        let last = query(&deployment, "SELECT MAX(stream_id) FROM device_inbox").await;
        assert!(seen("to_device", &master) >= Token(last));
        let inbox = query::<String>(&deployment, "SELECT message_json FROM device_inbox").await;
        assert_eq!(inbox, format!(r#"{{"content":{{"n":1}},"type":"m.x","sender":"@a:{SERVER_NAME}"}}"#));

        let typing = Typing { room_id: "!r".into(), user_id: format!("@a:{SERVER_NAME}"), typing: true };
        client.set_typing(&master, SERVER_NAME, typing.clone()).await.unwrap();
        assert_eq!(worker.typing().typing_in("!r"), std::slice::from_ref(&typing.user_id));
        client.set_typing(&master, SERVER_NAME, Typing { typing: false, ..typing }).await.unwrap();
        assert!(worker.typing().typing_in("!r").is_empty());

        let state = State { presence: "unavailable".into(), status_msg: Some("away".into()) };
        let set = SetBody { device_id: None, force_notify: false, is_sync: false, state };
        client.set_presence(&master, "@a:b", set).await.unwrap();
        assert_eq!(worker.presence().presence_of("@a:b").status_msg.as_deref(), Some("away"));
        client.bump_presence(&master, "@a:b", BumpBody { device_id: None }).await.unwrap();
        assert_eq!(worker.presence().presence_of("@a:b").state.as_str(), "online");
    });
}

#[test]
fn a_server_speaks_for_its_own_users_only() {
    run(async {
        let deployment = Deployment::new();
        let master = deployment.start("master").await;
        let typing = json!({"origin": "elsewhere", "content": {"room_id": "!r", "user_id": "@a:here", "typing": true}});
        let path = "/_synapse/replication/fed_send_edu/m.typing/a";
        assert_eq!(post(&deployment, "master", path, &typing.to_string()).await.0, 200);
        assert!(master.typing().typing_in("!r").is_empty());
        let path = "/_synapse/replication/fed_send_edu/m.other/a";
        let (status, answer) = post(&deployment, "master", path, r#"{"origin":"a","content":{}}"#).await;
        assert!(status == 400 && answer.contains("m.other"), "{status} {answer}");
    });
}

#[test]
fn a_request_waits_for_the_positions_that_it_names() {
    run(async {
        let deployment = Deployment::new();
        let _master = deployment.start("master").await;
        let writer = deployment.start("writer1").await;
        let body = |position: i64| {
            json!({"_INT_STREAM_POS": {"instance_name": "writer1", "streams": {"events": position, "nosuch": 7}},
                   "content": {}})
            .to_string()
        };
        let asked = Instant::now();
        let (status, answer) = post(&deployment, "master", ACCOUNT_DATA, &body(9)).await;
        assert_eq!((status, asked.elapsed().as_secs()), (503, 30));
        assert!(answer.contains("events of writer1 did not reach 9 within 30s"), "{answer}");

        let event = message(&room_of(&deployment, "writer1"), "hello");
        let written = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let path = format!("{SEND}/a");
            assert_eq!(post(&deployment, "writer1", &path, &sending(&event)).await.0, 200);
        };
        let asked = Instant::now();
        let body = body(2);
        let ((status, answer), ()) = tokio::join!(post(&deployment, "master", ACCOUNT_DATA, &body), written);
        assert_eq!((status, asked.elapsed().as_secs()), (200, 3), "{answer}");
        let _ = writer;
    });
}

/// Reads the head of a request, and returns its lines.
async fn hear(server: &mut Peer) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let line = server.line().await.expect("the head of a request ends with an empty line");
        if line == "\r" {
            return lines;
        }
        lines.push(line.trim_end().to_owned());
    }
}

async fn answer(server: &mut Peer, status: &str, body: &str) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
    server.say_bytes(format!("{head}{body}").as_bytes()).await;
}

#[test]
fn an_unconfirmed_request_is_retried_as_the_same_request() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play_http("writer1").await;
        let client = client(&deployment);
        let (event, writer) = (message("!r", "hello"), "writer1".into());
        let events = [event];
        let sent = client.send_events(&writer, &events);
        let server = async {
            let mut paths = Vec::new();
            // The connection is lost, the server does not answer in time, and the server cannot serve the request yet.
            for what in ["lost", "silence", "503 Not Now", "200 OK"] {
                let mut server = Peer::new(port.accept().await.unwrap());
                paths.push(hear(&mut server).await.swap_remove(0));
                match what {
                    "lost" => {}
                    "silence" => tokio::time::sleep(Duration::from_secs(11)).await,
                    "200 OK" => answer(&mut server, what, r#"{"stream_id":7,"event_id":"$e"}"#).await,
                    status => answer(&mut server, status, "{}").await,
                }
            }
            paths
        };
        let (sent, paths) = tokio::join!(sent, server);
        assert_eq!(sent.unwrap().stream_id, Token(7));
        assert!(paths[0].starts_with(&format!("POST {SEND}/")), "{paths:?}");
        assert!(paths.iter().all(|path| *path == paths[0]), "{paths:?}");
    });
}

#[test]
fn a_client_waits_for_the_row_that_it_wrote_though_the_positions_are_behind_it() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play_http("writer1").await;
        let worker = deployment.start("worker1").await;
        let (client, events, writer) = (worker.client(), [message("!r", "hello")], "writer1".into());
        let server = async {
            let mut server = Peer::new(port.accept().await.unwrap());
            hear(&mut server).await;
            let body = r#"{"stream_id":7,"event_id":"$e","_INT_STREAM_POS":{"events":1}}"#;
            answer(&mut server, "200 OK", body).await;
        };
        let (sent, ()) = tokio::join!(client.send_events(&writer, &events), server);
        assert!(matches!(sent, Err(HttpError::NotSeen(_))), "{sent:?}");
    });
}

#[test]
fn a_request_without_a_transaction_id_in_its_path_has_one_in_a_header() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play_http("master").await;
        let client = client(&deployment);
        let master = "master".into();
        let set = async {
            let first = client.set_account_data(&master, &datum(1)).await;
            (first, client.set_account_data(&master, &datum(2)).await)
        };
        let server = async {
            let mut ids = Vec::new();
            for status in ["502 No", "200 OK", "200 OK"] {
                let mut server = Peer::new(port.accept().await.unwrap());
                let head = hear(&mut server).await;
                assert_eq!(head[0], format!("POST {ACCOUNT_DATA} HTTP/1.1"));
                ids.extend(head.into_iter().find(|line| line.starts_with("x-squall-transaction: ")));
                answer(&mut server, status, r#"{"max_stream_id":3,"_INT_STREAM_POS":{"events":9}}"#).await;
            }
            ids
        };
        let ((first, second), ids) = tokio::join!(set, server);
        assert_eq!((first.unwrap(), second.unwrap()), (Token(3), Token(3)));
        assert!(ids.len() == 3 && ids[0] == ids[1] && ids[1] != ids[2], "another request has another id: {ids:?}");
    });
}

#[test]
fn a_transaction_id_in_a_header_makes_requests_one() {
    run(async {
        let deployment = Deployment::new();
        let master = deployment.start("master").await;
        let set = async |transaction_id: &str, version: u32| {
            let authorization = format!("Bearer {SECRET}\r\nX-Squall-Transaction: {transaction_id}");
            let body = json!({"content": {"version": version}}).to_string();
            let request = format!("POST {ACCOUNT_DATA}");
            let (status, answer) = ask(&deployment, "master", &request, Some(&authorization), Some(&body)).await;
            assert_eq!(status, 200, "{answer}");
            object(&answer)["max_stream_id"].as_i64().unwrap()
        };
        let first = set("a", 1).await;
        let second = set("b", 2).await;
        assert_eq!(set("a", 1).await, first);
        master.stop().await;
        let _master = deployment.start("master").await;
        assert_eq!(set("a", 1).await, first);
        let content = query::<String>(&deployment, "SELECT content FROM account_data").await;
        assert_eq!((content.as_str(), second > first), (r#"{"version":2}"#, true));
        // Another request that happens to have the same id.
        assert!(set("a", 3).await > second);
        let content = query::<String>(&deployment, "SELECT content FROM account_data").await;
        assert_eq!(content, r#"{"version":3}"#);
        // Requests without an id are never the same one.
        for version in [4, 5, 4] {
            let body = json!({"content": {"version": version}}).to_string();
            assert_eq!(post(&deployment, "master", ACCOUNT_DATA, &body).await.0, 200);
        }
        let content = query::<String>(&deployment, "SELECT content FROM account_data").await;
        assert_eq!(content, r#"{"version":4}"#);
    });
}

#[test]
fn a_client_gives_up_in_time_and_does_not_retry_a_refusal() {
    run(async {
        let deployment = Deployment::new();
        let client = client(&deployment);
        let asked = Instant::now();
        let error = client.set_account_data(&"master".into(), &datum(1)).await.unwrap_err();
        assert!(matches!(error, HttpError::GaveUp { attempts: 10.., .. }), "{error}");
        assert!(asked.elapsed() <= RETRY_FOR && asked.elapsed() > RETRY_FOR / 2, "{:?}", asked.elapsed());
        assert!(error.to_string().contains("cannot connect to master:9093"), "{error}");

        let impatient = client.retrying_for(Duration::from_secs(1));
        let asked = Instant::now();
        assert!(impatient.set_account_data(&"master".into(), &datum(1)).await.is_err());
        assert!(asked.elapsed() <= Duration::from_secs(1), "{:?}", asked.elapsed());
        let _writer = deployment.start("writer1").await;
        let asked = Instant::now();
        let error = client.set_account_data(&"writer1".into(), &datum(1)).await.unwrap_err();
        assert!(matches!(error, HttpError::Status { .. }) && asked.elapsed() < Duration::from_secs(1), "{error}");
        let error = client.set_account_data(&"worker1".into(), &datum(1)).await.unwrap_err();
        assert!(matches!(error, HttpError::Itself(_)), "{error}");
    });
}

#[test]
fn a_body_that_is_too_long_or_too_deep_is_refused() {
    run(async {
        let deployment = Deployment::new();
        let _master = deployment.start("master").await;
        let deep = format!("{{\"content\":{}{}}}", "[".repeat(200), "]".repeat(200));
        let (status, answer) = post(&deployment, "master", ACCOUNT_DATA, &deep).await;
        assert!(status == 400 && answer.contains("M_NOT_JSON"), "{status} {answer}");
        let long = " ".repeat(BODY_BYTES_MAX + 1);
        let (status, answer) = post(&deployment, "master", ACCOUNT_DATA, &long).await;
        assert!(status == 413 && answer.contains("M_TOO_LARGE"), "{status} {answer}");
    });
}
