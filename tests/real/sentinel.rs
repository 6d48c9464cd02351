//! Instances that ask real sentinels for their broker.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use squall::transport::{RedisConfig, SentinelConfig};
use squall_env::Address;
use squall_protocol::rows::events;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::deployment::{Deployment, PATIENCE, Scratch, ids};
use crate::ports::free_port;
use crate::run;
use crate::server::{Kind, Server};

const MASTER: &str = "squall";

/// A running sentinel. Dropping it ends it.
struct Sentinel {
    child: Child,
    port: u16,
    _files: Scratch,
}

impl Sentinel {
    /// Starts a sentinel that watches the master at `port`, and waits until it knows a replica.
    async fn start(test: &str, master: u16) -> Self {
        let files = Scratch::new(test);
        let port = free_port().local_addr().unwrap().port();
        let path = files.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor {MASTER} 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 3000\n"
        );
        std::fs::write(&path, text).unwrap();
        let mut command = Command::new("redis-server");
        let child = command.arg(&path).arg("--sentinel").stdout(Stdio::null()).spawn().unwrap();
        replies(port, "SENTINEL masters", "num-slaves\r\n$1\r\n1\r\n").await;
        Sentinel { child, port, _files: files }
    }

    fn config(&self) -> RedisConfig {
        // The first one does not run.
        let dead = free_port().local_addr().unwrap().port();
        let addresses = [dead, self.port].map(|port| Address::new("127.0.0.1", port)).into();
        let sentinel = SentinelConfig { master: MASTER.into(), addresses, password: None };
        RedisConfig { sentinel: Some(sentinel), ..RedisConfig::at("", 0) }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a command again and again, until the reply contains `expected`.
async fn replies(port: u16, command: &str, expected: &str) {
    let replied = async {
        loop {
            if reply(port, command).await.is_ok_and(|reply| reply.contains(expected)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let is_in_time = tokio::time::timeout(PATIENCE, replied).await.is_ok();
    assert!(is_in_time, "{command}: {:?} without {expected:?}", reply(port, command).await);
}

/// Returns the beginning of the reply to one command.
async fn reply(port: u16, command: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(format!("{command}\r\n").as_bytes()).await?;
    let mut reply = vec![0; 16 * 1024];
    let length = stream.read(&mut reply).await?;
    Ok(String::from_utf8_lossy(&reply[..length]).into_owned())
}

/// Starts a master and its replica.
async fn start_servers() -> (Server, Server) {
    let first = Server::start(Kind::Real, None).await;
    let second = Server::start(Kind::Real, None).await;
    // Otherwise the master waits five seconds for more replicas.
    replies(first.port, "CONFIG SET repl-diskless-sync-delay 0", "+OK").await;
    replies(second.port, &format!("REPLICAOF 127.0.0.1 {}", first.port), "+OK").await;
    replies(first.port, "INFO replication", "state=online").await;
    (first, second)
}

#[test]
fn instances_leave_a_master_that_lives_on_as_a_replica() {
    run(async {
        let (first, second) = start_servers().await;
        let sentinel = Sentinel::start("sentinel-switch-files", first.port).await;
        let deployment = Deployment::new("sentinel-switch", Some(sentinel.config()));
        let writer1 = deployment.start("writer1").await;
        replies(sentinel.port, &format!("SENTINEL FAILOVER {MASTER}"), "+OK").await;
        replies(sentinel.port, &format!("SENTINEL GET-MASTER-ADDR-BY-NAME {MASTER}"), &second.port.to_string()).await;
        // It connects to the new master alone.
        let worker = deployment.start("worker").await;
        let token = writer1.persist(ids("switch", 3)).await;
        worker.follower.reaches(events::NAME, "writer1", token).await;
    });
}

#[test]
fn instances_follow_the_sentinels_to_the_next_master() {
    run(async {
        let (mut first, second) = start_servers().await;
        let sentinel = Sentinel::start("sentinel-files", first.port).await;

        let deployment = Deployment::new("sentinel", Some(sentinel.config()));
        let writer1 = deployment.start("writer1").await;
        let worker = deployment.start("worker").await;
        let token = writer1.persist(ids("before", 3)).await;
        worker.follower.reaches(events::NAME, "writer1", token).await;

        first.kill().await;
        replies(second.port, "ROLE", "master").await;
        let token = writer1.persist(ids("after", 3)).await;
        worker.follower.reaches(events::NAME, "writer1", token).await;
    });
}

#[test]
fn a_master_that_no_sentinel_knows_is_reported_with_the_reason_of_each() {
    run(async {
        let (first, _second) = start_servers().await;
        let sentinel = Sentinel::start("sentinel-unknown-files", first.port).await;
        let mut config = sentinel.config();
        config.sentinel.as_mut().unwrap().master = "another".into();
        let errors = crate::tls::errors_of_master("sentinel-unknown", config).await;
        for error in errors {
            let both = error.contains("Connection refused") && error.contains("does not know it");
            assert!(error.starts_with("no sentinel names the master another (127.0.0.1:") && both, "{error}");
        }
    });
}
