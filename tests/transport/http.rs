//! Rows by HTTP, at Synapse's path and as Synapse answers.

use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use squall::instance::{Instance, Write};
use squall::store::account_data::Datum;
use squall::streams::RemoteUpdates;
use squall::transport::http::{BODY_BYTES_MAX, HttpClient};
use squall_protocol::Token;
use squall_protocol::rows::Updates;
use squall_protocol::rows::events::{EventRow, StateRow};

use crate::deployment::{Deployment, SECRET, SERVER_NAME};
use crate::peer::Peer;
use crate::requests::{ask, get};
use crate::run;

const EVENTS: &str = "/_synapse/replication/get_repl_stream_updates/events/probe1";
const TYPING: &str = "/_synapse/replication/get_repl_stream_updates/typing/probe2";

/// Checks the status, the code and the message of the master's refusal.
async fn assert_refused(deployment: &Deployment, path: &str, status: u16, code: &str, why: &str) {
    let (answered, body) = get(deployment, "master", path).await;
    assert_eq!(answered, status, "{path}: the answer is {body}");
    let error: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(error["errcode"], code);
    assert!(error["error"].as_str().unwrap().contains(why), "{path}: the answer is {body}");
}

/// Returns the write of a state event and of its entry in the room's state, as recorded from Synapse.
fn state_event(event_id: &str, kind: &str, state_key: &str, membership: Option<&str>) -> Write {
    let room_id = "!feamJBxgfba9Qqx24KAHlYoxUtQg8xxkOF1zICCPYGQ".to_owned();
    let event = EventRow {
        event_id: event_id.into(),
        room_id: room_id.clone(),
        kind: kind.into(),
        state_key: Some(state_key.into()),
        redacts: None,
        relates_to: None,
        membership: membership.map(str::to_owned),
        rejected: false,
        outlier: false,
    };
    let delta = StateRow { room_id, kind: kind.into(), state_key: state_key.into(), event_id: Some(event_id.into()) };
    Write { event: Some(event), state: vec![delta] }
}

/// Persists the first two events of the recorded homeserver.
async fn persist_recorded_events(instance: &Instance) {
    let writes = vec![
        state_event("$feamJBxgfba9Qqx24KAHlYoxUtQg8xxkOF1zICCPYGQ", "m.room.create", "", None),
        state_event(
            "$htdna3TzDx0mvqhiy6X0cIiSLnX7m105GPEPhqchD-o",
            "m.room.member",
            "@r1795323925_u0:peer.test",
            Some("join"),
        ),
    ];
    instance.events().unwrap().persist(writes).await.unwrap();
}

/// Synapse's recorded answers for these events, byte for byte.
const RECORDED_EVENTS: &str = concat!(
    r#"{"updates":[[2,["ev",["$feamJBxgfba9Qqx24KAHlYoxUtQg8xxkOF1zICCPYGQ","#,
    r#""!feamJBxgfba9Qqx24KAHlYoxUtQg8xxkOF1zICCPYGQ","m.room.create","",null,null,null,false,false]]],"#,
    r#"[2,["state",["!feamJBxgfba9Qqx24KAHlYoxUtQg8xxkOF1zICCPYGQ","m.room.create","","#,
    r#""$feamJBxgfba9Qqx24KAHlYoxUtQg8xxkOF1zICCPYGQ"]]],"#,
    r#"[3,["ev",["$htdna3TzDx0mvqhiy6X0cIiSLnX7m105GPEPhqchD-o","#,
    r#""!feamJBxgfba9Qqx24KAHlYoxUtQg8xxkOF1zICCPYGQ","m.room.member","@r1795323925_u0:peer.test","#,
    r#"null,null,"join",false,false]]],"#,
    r#"[3,["state",["!feamJBxgfba9Qqx24KAHlYoxUtQg8xxkOF1zICCPYGQ","m.room.member","@r1795323925_u0:peer.test","#,
    r#""$htdna3TzDx0mvqhiy6X0cIiSLnX7m105GPEPhqchD-o"]]]],"upto_token":3,"limited":false}"#,
);

#[test]
fn events_are_answered_as_synapse_does() {
    run(async {
        let deployment = Deployment::new();
        let master = deployment.start("master").await;
        persist_recorded_events(&master).await;
        let answer = get(&deployment, "master", &format!("{EVENTS}?from_token=1&upto_token=3")).await;
        assert_eq!(answer, (200, RECORDED_EVENTS.to_owned()));
        let answer = get(&deployment, "master", &format!("{EVENTS}?from_token=3&upto_token=3")).await;
        assert_eq!(answer, (200, r#"{"updates":[],"upto_token":3,"limited":false}"#.to_owned()));
    });
}

#[test]
fn an_events_writer_answers_with_its_own_rows() {
    run(async {
        let deployment = Deployment::new();
        let master = deployment.start("master").await;
        let _writer = deployment.start("writer1").await;
        persist_recorded_events(&master).await;
        let answer = get(&deployment, "writer1", &format!("{EVENTS}?from_token=1&upto_token=20")).await;
        assert_eq!(answer, (200, r#"{"updates":[],"upto_token":20,"limited":false}"#.to_owned()));
    });
}

fn type_a_little(master: &Rc<Instance>) {
    for (room, user) in [("!a", "@x"), ("!b", "@x"), ("!b", "@y")] {
        master.typing().started(&master.env().tasks, room, user, Duration::from_secs(30));
    }
    master.typing().stopped("!a", "@x");
}

#[test]
fn typing_is_answered_with_the_newest_row_of_each_room() {
    run(async {
        let deployment = Deployment::new();
        let master = deployment.start("master").await;
        type_a_little(&master);
        let answer = get(&deployment, "master", &format!("{TYPING}?from_token=0&upto_token=4294967300")).await;
        let rows = r#"{"updates":[[4294967299,["!b",["@x","@y"]]],[4294967300,["!a",[]]]],"upto_token":4294967300,"limited":false}"#;
        assert_eq!(answer, (200, rows.to_owned()));
    });
}

#[test]
fn a_follower_of_a_typing_writer_that_restarted_gets_nothing_up_to_where_it_begins() {
    run(async {
        let deployment = Deployment::new();
        let _master = deployment.start("master").await;
        let answer = get(&deployment, "master", &format!("{TYPING}?from_token=26&upto_token=0")).await;
        assert_eq!(answer, (200, r#"{"updates":[],"upto_token":0,"limited":false}"#.to_owned()));
    });
}

#[test]
fn a_typing_writer_that_restarted_numbers_on_above_its_predecessor() {
    run(async {
        let deployment = Deployment::new();
        let first = deployment.start("master").await;
        type_a_little(&first);
        let last = first.typing().serial();
        first.stop().await;
        let second = deployment.start("master").await;
        assert!(second.typing().serial() > last);
        type_a_little(&second);
        let answer = get(&deployment, "master", &format!("{TYPING}?from_token=0&upto_token={}", i64::MAX)).await;
        let rows = r#"{"updates":[[8589934595,["!b",["@x","@y"]]],[8589934596,["!a",[]]]],"#;
        assert_eq!(answer, (200, format!(r#"{rows}"upto_token":8589934596,"limited":false}}"#)));
        let answer = get(&deployment, "master", &format!("{TYPING}?from_token=0&upto_token={last}")).await;
        assert_eq!(
            answer,
            (200, format!(r#"{{"updates":[],"upto_token":{last},"limited":false}}"#)),
            "nothing of it is left"
        );
    });
}

#[test]
fn a_request_needs_the_shared_secret() {
    run(async {
        let deployment = Deployment::new();
        let _master = deployment.start("master").await;
        let request = format!("GET {TYPING}?from_token=0&upto_token=0");
        for secret in [None, Some("wrong"), Some(""), Some("replsecre"), Some("replsecreT"), Some("replsecret2")] {
            let authorization = secret.map(|secret| format!("Bearer {secret}"));
            let (answered, body) = ask(&deployment, "master", &request, authorization.as_deref(), None).await;
            assert_eq!(answered, 401, "{secret:?} was answered {body}");
            assert!(!body.contains(SECRET) && !body.contains("updates"), "{body}");
        }
    });
}

#[test]
fn tokens_must_be_there_and_be_tokens() {
    run(async {
        let deployment = Deployment::new();
        let _master = deployment.start("master").await;
        let (missing, invalid) = ("M_MISSING_PARAM", "M_INVALID_PARAM");
        for (query, code, what) in [
            ("", missing, "from_token"),
            ("?", missing, "from_token"),
            ("?upto_token=1", missing, "from_token"),
            ("?from_token=1", missing, "upto_token"),
            ("?from_token&upto_token=1", missing, "from_token"),
            ("?from_token=x&upto_token=1", invalid, "from_token"),
            ("?from_token=1&upto_token=", invalid, "upto_token"),
            ("?from_token=-1&upto_token=5", invalid, "from_token"),
            ("?from_token=1&upto_token=9223372036854775808", invalid, "upto_token"),
        ] {
            assert_refused(&deployment, &format!("{EVENTS}{query}"), 400, code, what).await;
        }
    });
}

#[test]
fn an_unknown_stream_path_or_method_is_refused() {
    run(async {
        let deployment = Deployment::new();
        let _master = deployment.start("master").await;
        let endpoint = "/_synapse/replication/get_repl_stream_updates";
        let range = "?from_token=0&upto_token=1";
        assert_refused(&deployment, &format!("{endpoint}/nosuch/probe{range}"), 400, "M_UNKNOWN", "stream").await;
        for path in [
            format!("{endpoint}/events{range}"),
            format!("{endpoint}/events/{range}"),
            format!("{endpoint}/events/probe/more{range}"),
            format!("/_synapse/replication/nosuch/events/a{range}"),
            "/_synapse/replication".to_owned(),
            "/_matrix/client/versions".to_owned(),
        ] {
            assert_refused(&deployment, &path, 404, "M_UNRECOGNIZED", "Unrecognized request").await;
        }
        let secret = format!("Bearer {SECRET}");
        for method in ["POST", "PUT", "DELETE"] {
            let request = format!("{method} {EVENTS}{range}");
            assert_eq!(ask(&deployment, "master", &request, Some(&secret), None).await.0, 405, "{method}");
        }
    });
}

#[test]
fn an_instance_that_does_not_write_a_stream_names_its_writers() {
    run(async {
        let deployment = Deployment::new();
        let _writer = deployment.start("writer1").await;
        let (status, body) = get(&deployment, "writer1", &format!("{TYPING}?from_token=0&upto_token=1")).await;
        assert_eq!(status, 400);
        assert!(body.contains("typing is written by master"), "{body}");
    });
}

#[test]
fn a_percent_encoded_stream_is_the_same_stream() {
    run(async {
        let deployment = Deployment::new();
        let _master = deployment.start("master").await;
        let path = "/_synapse/replication/get_repl_stream_updates/%74yp%69ng/probe?from_token=0&upto_token=0";
        assert_eq!(get(&deployment, "master", path).await.0, 200);
    });
}

#[test]
fn a_connection_serves_one_request_after_another() {
    run(async {
        let deployment = Deployment::new();
        let _master = deployment.start("master").await;
        let mut connection = deployment.connect_http("master").await;
        let path = format!("{TYPING}?from_token=0&upto_token=0");
        for last in ["", "Connection: close\r\n"] {
            let head = format!("GET {path} HTTP/1.1\r\nHost: master\r\nAuthorization: Bearer {SECRET}\r\n{last}\r\n");
            connection.say_bytes(head.as_bytes()).await;
        }
        let answers = connection.text_to_end().await;
        assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answers}");
    });
}

#[test]
fn a_client_requests_rows_as_synapse_does() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play_http("master").await;
        let env = deployment.env("worker1");
        let client = HttpClient::new(env, "worker1".into(), deployment.config().http_addresses(), SECRET.into());
        let asked = client.updates(&"master".into(), &"un_partial_stated_room".into(), Token(26), Token(0));
        let answer = async {
            let mut server = Peer::new(port.accept().await.unwrap());
            let request = server.line().await.unwrap();
            let authorization = server.hear("authorization: ").await;
            server.hear("\r").await;
            let body = r#"{"updates":[],"upto_token":0,"limited":false}"#;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            server.say_bytes(format!("{head}{body}").as_bytes()).await;
            (request, authorization)
        };
        let (updates, (request, authorization)) = tokio::join!(asked, answer);
        assert_eq!(updates.unwrap(), Updates::empty(Token(0)));
        assert_eq!(authorization, format!("authorization: Bearer {SECRET}\r"));
        let path = "GET /_synapse/replication/get_repl_stream_updates/un_partial_stated_room/";
        let rest = request.strip_prefix(path).unwrap_or_else(|| panic!("unexpected request: {request}"));
        let (transaction_id, query) = rest.split_once('?').unwrap();
        assert!(transaction_id.len() == 10 && transaction_id.chars().all(|c| c.is_ascii_alphanumeric()), "{request}");
        assert_eq!(query, "from_token=26&upto_token=0 HTTP/1.1\r");
    });
}

#[test]
fn a_body_that_is_announced_as_too_long_is_refused_before_it_arrives() {
    run(async {
        let deployment = Deployment::new();
        let _master = deployment.start("master").await;
        let mut client = deployment.connect_http("master").await;
        let request = "POST /_synapse/replication/add_user_account_data/%40a%3Ab/m.direct HTTP/1.1\r\nHost: master";
        let length = BODY_BYTES_MAX + 1;
        let head = format!("{request}\r\nAuthorization: Bearer {SECRET}\r\nContent-Length: {length}\r\n\r\n");
        client.say_bytes(head.as_bytes()).await;
        assert_eq!(client.line().await.unwrap(), "HTTP/1.1 413 Payload Too Large\r");
    });
}

/// Receives a request, and returns its body.
async fn hear_body(server: &mut Peer) -> Value {
    let length = server.hear("content-length: ").await;
    server.hear("\r").await;
    let length = length.trim_end().trim_start_matches("content-length: ").parse().unwrap();
    serde_json::from_str(&server.text(length).await).unwrap()
}

#[test]
fn receipts_that_an_instance_sends_are_not_to_be_shared_out_again() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play_http("master").await;
        let env = deployment.env("worker1");
        let client = HttpClient::new(env, "worker1".into(), deployment.config().http_addresses(), SECRET.into());
        let client = client.retrying_for(Duration::from_secs(1));
        let master = "master".into();
        let sent = client.send_receipts(&master, SERVER_NAME, Vec::new());
        let server = async { hear_body(&mut Peer::new(port.accept().await.unwrap())).await };
        let (_, body) = tokio::join!(sent, server);
        assert_eq!(body, json!({ "content": {}, "origin": SERVER_NAME, "is_shared_out": true }));
    });
}

#[test]
fn a_client_that_writes_tells_the_server_its_own_positions() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play_http("master").await;
        let writer = deployment.start("writer1").await;
        let client = writer.client().retrying_for(Duration::from_secs(1));
        let datum = Datum { user_id: "@a:b".into(), room_id: None, kind: "m.direct".into(), content: json!({}) };
        let master = "master".into();
        let set = client.set_account_data(&master, &datum);
        let server = async { hear_body(&mut Peer::new(port.accept().await.unwrap())).await };
        let (_, body) = tokio::join!(set, server);
        let positions = json!({ "instance_name": "writer1", "streams": { "events": 1, "caches": 1 } });
        assert_eq!(body["_INT_STREAM_POS"], positions);
    });
}
