//! The log of a process: its lines as JSON, an orderly stop, and connections of which one end speaks TLS.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::deployment::PATIENCE;
use crate::program::{Program, Site};
use crate::run;
use crate::server::{Kind, Server, on_both};

on_both! {
    an_orderly_stop_has_no_warnings;
}

#[test]
fn an_orderly_stop_has_no_warnings_over_tcp() {
    run(stopped_in_order(Site::new("log-stop-tcp", None), "master"));
}

async fn an_orderly_stop_has_no_warnings(kind: Kind) {
    let server = Server::start(kind, None).await;
    stopped_in_order(Site::new(&format!("log-stop-{kind:?}"), Some(server.config())), "the broker").await;
}

async fn stopped_in_order(site: Site, target: &str) {
    let _listeners = [site.start("master").await, site.start("writer1").await, site.start("writer2").await];
    let mut worker = site.start("worker1").await;
    worker.is_set_up_with(target).await;
    assert_eq!(worker.stop("TERM").await.code(), Some(0), "{}", worker.log());
    let log = worker.log();
    assert!(log.contains("\"stopped\""), "{log}");
    for line in log.lines() {
        serde_json::from_str::<UniqueKeys>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(!line.contains("\"WARN\"") && !line.contains("\"ERROR\""), "{line}");
    }
}

/// A JSON object that has no key twice.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = UniqueKeys;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<UniqueKeys, A::Error> {
                let mut seen = BTreeSet::new();
                while let Some((key, _)) = entries.next_entry::<String, IgnoredAny>()? {
                    if !seen.insert(key.clone()) {
                        return Err(serde::de::Error::custom(format!("{key} twice")));
                    }
                }
                Ok(UniqueKeys)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// The beginning of a client's handshake.
const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

/// Waits until the log has these words.
pub(crate) async fn logs(program: &Program, words: &str) {
    let logged = async {
        while !program.log().contains(words) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let is_logged = tokio::time::timeout(PATIENCE, logged).await.is_ok();
    assert!(is_logged, "{words:?} is not in the log: {}", program.log());
}

#[test]
fn tls_at_the_port_of_the_metrics_is_named() {
    run(async {
        let site = Site::new("log-tls-metrics", None);
        let master = site.start("master").await;
        let mut client = TcpStream::connect(("127.0.0.1", master.metrics_port())).await.unwrap();
        client.write_all(CLIENT_HELLO).await.unwrap();
        let _ = client.read_to_end(&mut Vec::new()).await;
        logs(&master, "a metrics client").await;
        logs(&master, "the client speaks TLS, and this port does not").await;
    });
}

#[test]
fn an_unread_log_stops_neither_the_instance_nor_its_end() {
    run(async {
        let site = Site::new("log-unread", None);
        let (mut master, _unread) = site.start_unread("master").await;
        let dropped = async || master.value("squall_log_lines_dropped_total", &[]).await;
        assert_eq!(dropped().await, 0);
        // Each client costs some lines. The pipe holds some hundred of them, and the queue ten thousand.
        let port = site.replication_port("master");
        let filling = async {
            while dropped().await == 0 {
                for _ in 0..500 {
                    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    client.write_all(b"NOT_A_COMMAND\n").await.unwrap();
                    client.shutdown().await.unwrap();
                    let _ = client.read_to_end(&mut Vec::new()).await;
                }
                assert_eq!(master.get("/health").await.0, 200);
            }
        };
        tokio::time::timeout(3 * PATIENCE, filling).await.expect("the instance goes on");
        assert_eq!(master.stop("TERM").await.code(), Some(0));
    });
}

#[test]
fn a_peer_cannot_make_the_log_grow_by_much_more_than_it_sends() {
    run(async {
        let site = Site::new("log-amplified", None);
        let master = site.start("master").await;
        let before = master.log().len();
        let mut client = TcpStream::connect(("127.0.0.1", site.replication_port("master"))).await.unwrap();
        let (mut reading, mut writing) = client.split();
        let mut sent = format!("NAME {}\u{1b}[2J\n", "B".repeat(16_000));
        sent += &"ERROR x\n".repeat(20_000);
        let mut answers = Vec::new();
        let writing = async {
            writing.write_all(sent.as_bytes()).await.unwrap();
            writing.shutdown().await.unwrap();
        };
        let (read, ()) = tokio::join!(reading.read_to_end(&mut answers), writing);
        read.unwrap();
        logs(&master, "BBBB").await;
        let grown = master.log().len() - before;
        assert!(grown < 20_000, "{grown} bytes for {}", sent.len());
        assert!(!master.log().contains('\u{1b}'));
    });
}

#[cfg(unix)]
#[test]
fn a_configuration_that_every_user_can_read_is_named() {
    run(async {
        let site = Site::new("log-readable", None);
        let master = site.start("master").await;
        assert!(!master.log().contains("can read the configuration"), "{}", master.log());
        drop(master);
        site.let_all_read();
        let master = site.start("master").await;
        logs(&master, "can read the configuration").await;
    });
}
