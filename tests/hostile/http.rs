//! Attacks on the HTTP port.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use squall::limits::HTTP_CONNECTIONS_MAX;
use squall::streams::{RemoteUpdates, UpdateError};
use squall::transport::http::{
    ANSWER_BYTES_MAX, BODY_BYTES_MAX, BODY_TIMEOUT, HEAD_BYTES_MAX, HEAD_TIMEOUT, HttpClient,
};
use squall_protocol::Token;
use tokio::time::{Instant, sleep};

use crate::attack::{Follower, nested, with_causes};
use crate::deployment::{Deployment, SECRET};
use crate::memory::Watch;
use crate::peer::Peer;
use crate::requests::{ask, post};
use crate::{on_master, run};

/// Memory that one connection may use without the secret: a head, the buffers of hyper, and the pipes of the test itself.
const CONNECTION_BYTES_MAX: usize = 2 * HEAD_BYTES_MAX + 64 * 1024;
const ATTACKERS: usize = 50;
const EDU: &str = "/_synapse/replication/fed_send_edu/m.typing/transaction1";

/// Returns the status of each answer in `text`.
fn statuses(text: &str) -> Vec<u16> {
    let after = text.split("HTTP/1.1 ").skip(1);
    after.map(|answer| answer[..3].parse().expect("a status has three digits")).collect()
}

/// Sends `bytes`, and returns everything that is received until the other end closes.
async fn answer_to(deployment: &Deployment, bytes: &[u8]) -> String {
    let mut attacker = deployment.connect_http("master").await;
    attacker.say_bytes(bytes).await;
    attacker.text_to_end().await
}

/// Returns a request that sends an EDU, with these headers and this text after them.
fn request(headers: &str, rest: &str) -> Vec<u8> {
    format!("POST {EDU} HTTP/1.1\r\nHost: master\r\nAuthorization: Bearer {SECRET}\r\n{headers}\r\n{rest}").into_bytes()
}

#[test]
fn a_malformed_head_is_refused_and_nothing_after_it_is_read() {
    on_master(async |deployment, master| {
        let smuggled = format!("POST {EDU} HTTP/1.1\r\nHost: master\r\nContent-Length: 2\r\n\r\n{{}}");
        let heads: [(&str, Vec<u8>); 9] = [
            ("two lengths", request("Content-Length: 2\r\nContent-Length: 40\r\n", &smuggled)),
            ("a length that is none", request("Content-Length: +2\r\n", &smuggled)),
            ("a negative length", request("Content-Length: -1\r\n", &smuggled)),
            ("another coding", request("Transfer-Encoding: gzip\r\n", &smuggled)),
            ("chunked in the middle", request("Transfer-Encoding: chunked, identity\r\n", &smuggled)),
            ("a header that goes on", request("X-A: b\r\n Content-Length: 2\r\n", &smuggled)),
            ("a space before the colon", request("Content-Length : 2\r\n", &smuggled)),
            ("a NUL", request("X-A: \0\r\n", &smuggled)),
            ("another protocol", b"SERVER squall.test\nNAME evil\nREPLICATE\n".to_vec()),
        ];
        for (what, head) in heads {
            let answer = answer_to(&deployment, &head).await;
            assert_eq!(statuses(&answer), [400], "{what} was answered {answer:?}");
        }
        // RFC 9112, 6.3: if a request has both, the length is ignored, and the connection is closed.
        let both = request("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{smuggled}"));
        let answer = answer_to(&deployment, &both).await;
        assert_eq!(statuses(&answer), [400], "both lengths were answered {answer:?}");
        master.serves_others(&deployment).await;
    });
}

#[test]
fn garbage_is_refused_or_times_out() {
    on_master(async |deployment, master| {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..300 {
            let mut garbage = vec![0; rng.random_range(1..2 * HEAD_BYTES_MAX)];
            rng.fill(&mut garbage[..]);
            let since = Instant::now();
            let answer = answer_to(&deployment, &garbage).await;
            assert!(statuses(&answer).iter().all(|status| [400, 414, 431].contains(status)), "{answer:?}");
            assert!(since.elapsed() <= HEAD_TIMEOUT);
        }
        assert!(master.reported(&["an HTTP client"]) == 300, "{:?}", master.reports());
        master.serves_others(&deployment).await;
    });
}

#[test]
fn an_endless_head_is_not_buffered() {
    on_master(async |deployment, master| {
        let long = "x".repeat(1024 * 1024);
        let many: String = (0..100_000).map(|number| format!("X-{number}: a\r\n")).collect();
        for (what, bytes, status) in [
            ("a header", request(&format!("X-A: {long}\r\n"), ""), 431),
            ("a path", format!("GET /{long} HTTP/1.1\r\n\r\n").into_bytes(), 414),
            ("headers", request(&many, ""), 431),
        ] {
            let watch = Watch::begin();
            let mut attackers = tokio::task::JoinSet::new();
            for _ in 0..ATTACKERS {
                let (mut attacker, bytes) = (deployment.connect_http("master").await, bytes.clone());
                attackers.spawn_local(async move {
                    attacker.say_bytes(&bytes).await;
                    attacker.text_to_end().await
                });
            }
            master.serves_others(&deployment).await;
            for answer in attackers.join_all().await {
                assert!(matches!(statuses(&answer)[..], [got] if got == status || got == 431), "{what}: {answer:?}");
            }
            let bound = ATTACKERS * (CONNECTION_BYTES_MAX + bytes.len());
            watch.assert_below(bound, what);
        }
        master.serves_others(&deployment).await;
    });
}

#[test]
fn an_incomplete_head_times_out() {
    on_master(async |deployment, master| {
        let mut attacker = deployment.connect_http("master").await;
        let since = Instant::now();
        for byte in request("Content-Length: 2\r\n", "{}") {
            attacker.say_bytes(&[byte]).await;
            sleep(Duration::from_secs(1)).await;
            if master.reported(&["an HTTP client", "timeout"]) == 1 {
                break;
            }
        }
        let waited = since.elapsed();
        assert!((HEAD_TIMEOUT..HEAD_TIMEOUT + Duration::from_secs(2)).contains(&waited), "given up after {waited:?}");
        assert_eq!(attacker.text_to_end().await, "");
        master.serves_others(&deployment).await;
    });
}

#[test]
fn an_incomplete_body_times_out() {
    on_master(async |deployment, master| {
        for framing in ["Content-Length: 1000\r\n", "Transfer-Encoding: chunked\r\n"] {
            let mut attacker = deployment.connect_http("master").await;
            let since = Instant::now();
            attacker.say_bytes(&request(framing, "")).await;
            let dripping = async {
                loop {
                    attacker.say_bytes(if framing.contains("chunked") { b"1\r\n \r\n" } else { b" " }).await;
                    sleep(Duration::from_secs(1)).await;
                    if since.elapsed() > BODY_TIMEOUT {
                        return;
                    }
                }
            };
            dripping.await;
            let answer = attacker.text_to_end().await;
            assert_eq!(statuses(&answer), [408], "{answer}");
            assert!(answer.contains("did not arrive within"), "{answer}");
        }
        master.serves_others(&deployment).await;
    });
}

#[test]
fn a_body_that_is_too_long_is_refused_before_it_is_buffered() {
    on_master(async |deployment, master| {
        // If the server trusted this length, it would wait for the body.
        let watch = Watch::begin();
        let answer = answer_to(&deployment, &request(&format!("Content-Length: {}\r\n", u64::MAX / 2), "{")).await;
        assert_eq!(statuses(&answer), [413], "{answer}");
        watch.assert_below(CONNECTION_BYTES_MAX, "memory");

        let watch = Watch::begin();
        let chunk = [format!("{:x}\r\n", 1024 * 1024).as_bytes(), &vec![b' '; 1024 * 1024], b"\r\n"].concat();
        let mut attacker = deployment.connect_http("master").await;
        attacker.say_bytes(&request("Transfer-Encoding: chunked\r\n", "")).await;
        for _ in 0..4 * BODY_BYTES_MAX / (1024 * 1024) {
            attacker.say_bytes(&chunk).await;
        }
        let answer = attacker.text_to_end().await;
        assert_eq!(statuses(&answer), [413], "{answer}");
        // The body is held in the pieces in which it arrived, which are not full.
        let bound = 3 * BODY_BYTES_MAX;
        watch.assert_below(bound, "memory");
        master.serves_others(&deployment).await;
    });
}

#[test]
fn without_the_secret_no_body_is_read() {
    on_master(async |deployment, master| {
        let body = format!("{{\"a\":\"{}\"}}", "x".repeat(1024 * 1024));
        let path = format!("POST {EDU}");
        let watch = Watch::begin();
        for authorization in [None, Some("Bearer wrong"), Some("Basic cmVwbA==")] {
            let (answered, answer) = ask(&deployment, "master", &path, authorization, Some(&body)).await;
            assert_eq!(answered, 401, "{answer}");
        }
        let bound = 2 * body.len() + CONNECTION_BYTES_MAX;
        watch.assert_below(bound, "memory");
        master.serves_others(&deployment).await;
    });
}

#[test]
fn json_nested_too_deep_is_refused_and_does_not_exhaust_the_stack() {
    on_master(async |deployment, master| {
        for levels in [1_000, 1_000_000] {
            let deep = format!("{{\"content\":{}}}", nested(levels));
            let (status, answer) = post(&deployment, "master", EDU, &deep).await;
            assert_eq!(status, 400, "{answer}");
            assert!(answer.contains("M_NOT_JSON"), "{answer}");
        }
        master.serves_others(&deployment).await;
    });
}

#[test]
fn a_thousand_silent_clients_use_little_memory_and_time_out() {
    on_master(async |deployment, master| {
        let mut follower = Follower::join(&deployment).await;
        let watch = Watch::begin();
        let mut idle = Vec::new();
        for _ in 0..1_000 {
            idle.push(deployment.connect_http("master").await);
        }
        master.serves_others(&deployment).await;
        follower.gets_a_row(&master.instance).await;
        sleep(HEAD_TIMEOUT + Duration::from_secs(1)).await;
        for attacker in idle {
            assert_eq!(attacker.text_to_end().await, "");
        }
        let bound = 1_000 * CONNECTION_BYTES_MAX;
        watch.assert_below(bound, "memory");
    });
}

#[test]
fn a_connection_beyond_the_maximum_is_refused_until_another_closes() {
    on_master(async |deployment, master| {
        let mut idle = Vec::new();
        for _ in 0..HTTP_CONNECTIONS_MAX {
            idle.push(deployment.connect_http("master").await);
        }
        let answer = deployment.connect_http("master").await.text_to_end().await;
        assert_eq!(statuses(&answer), [503], "{answer}");
        assert_eq!(master.reported(&["too many connections"]), 1);
        idle.pop();
        sleep(Duration::from_millis(1)).await;
        master.serves_others(&deployment).await;
    });
}

#[test]
fn a_client_that_reads_no_response_is_disconnected() {
    on_master(async |deployment, master| {
        let mut attacker: Peer = deployment.connect_http("master").await;
        let request = b"GET /nothing HTTP/1.1\r\nHost: master\r\n\r\n";
        let since = Instant::now();
        let watch = Watch::begin();
        let asking = async {
            loop {
                attacker.say_bytes(request).await;
                if master.reported(&["an HTTP client"]) > 0 {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(300), asking)
            .await
            .expect("a client that reads nothing is disconnected");
        assert!(since.elapsed() < 2 * HEAD_TIMEOUT, "after {:?}", since.elapsed());
        watch.assert_below(CONNECTION_BYTES_MAX, "memory");
        master.serves_others(&deployment).await;
    });
}

/// Sends a request to a server that sends this response, and returns the client's error.
async fn error_for_response(answer: Vec<u8>) -> UpdateError {
    let deployment = Deployment::new();
    let mut port = deployment.play_http("writer1").await;
    let answering = tokio::task::spawn_local(async move {
        loop {
            let mut client = Peer::new(port.accept().await.unwrap());
            let answer = answer.clone();
            tokio::task::spawn_local(async move {
                client.say_bytes(&answer).await;
                client.text_to_end().await;
            });
        }
    });
    let addresses = deployment.config().http_addresses();
    let client = HttpClient::new(deployment.env("worker1"), "worker1".into(), addresses, SECRET.into());
    let updates = client.updates(&"writer1".into(), &"events".into(), Token(1), Token(2)).await;
    answering.abort();
    updates.map(|_| ()).unwrap_err()
}

#[test]
fn a_malformed_response_is_an_error_and_is_not_buffered() {
    run(async {
        let answer = |head: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{head}\r\n{body}").into_bytes();
        let of = |body: &str| answer(&format!("Content-Length: {}\r\n", body.len()), body);
        let deep = nested(1_000);
        let updates = |row: &str| format!(r#"{{"updates":[[2,{row}]],"upto_token":2,"limited":false}}"#);
        let long = answer("", &"x".repeat(2 * ANSWER_BYTES_MAX));
        let refusal = [b"HTTP/1.1 500 no\r\nContent-Length: 1000000\r\n\r\n", &vec![b'x'; 1_000_000][..]].concat();
        for (what, answer, why) in [
            ("garbage", b"SERVER squall.test\nPING 1\n".to_vec(), "invalid HTTP version"),
            ("no JSON", of("no JSON"), "the response is invalid"),
            ("nested too deep", of(&updates(&deep)), "recursion limit exceeded"),
            ("a number no column holds", of(&updates("123456789012345678901234567890")), "not fit into 64 bits"),
            ("the end too early", answer("Content-Length: 10\r\n", "{"), "no response from"),
            ("nothing", Vec::new(), "no response from"),
            ("two lengths", answer("Content-Length: 1\r\nContent-Length: 2\r\n", "12"), "content-length"),
            (
                "a head without end",
                format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(1024 * 1024)).into_bytes(),
                "too large",
            ),
            ("a body without end", long, "the response of"),
            ("a long refusal", refusal, "answered 500"),
        ] {
            let bound = 3 * ANSWER_BYTES_MAX + 2 * answer.len();
            let watch = Watch::begin();
            let error = error_for_response(answer).await;
            let error_text = with_causes(&*error);
            assert!(error_text.contains(why) && error_text.len() < 2_000, "{what}: {error_text}");
            watch.assert_below(bound, what);
        }
    });
}
