//! The rate at which an instance tries to connect.

use std::time::Duration;

use squall::replication::backoff::JITTER;
use squall_env::Listener;
use tokio::time::Instant;

use crate::deployment::{Deployment, MASTER_POSITIONS};
use crate::peer::Peer;
use crate::run;

/// Checks that the next connection is attempted `nominal_ms` from `since`, give or take the jitter.
async fn accept_after(port: &mut dyn Listener, since: Instant, nominal_ms: u32) -> Peer {
    let peer = Peer::new(port.accept().await.unwrap());
    let waited_ms = since.elapsed().as_secs_f64() * 1000.0;
    let nominal_ms = f64::from(nominal_ms);
    // The clock of tokio has milliseconds.
    let range = nominal_ms * (1.0 - JITTER)..=nominal_ms * (1.0 + JITTER) + 1.0;
    assert!(range.contains(&waited_ms), "tried again after {waited_ms} ms instead of {nominal_ms} ms");
    peer
}

#[test]
fn the_delay_grows_if_connections_are_closed_at_once() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play("master").await;
        let _worker = deployment.start("worker1").await;
        drop(port.accept().await.unwrap());
        for nominal_ms in [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000] {
            drop(accept_after(&mut *port, Instant::now(), nominal_ms).await);
        }
    });
}

#[test]
fn refused_connections_are_retried_with_the_same_delays() {
    run(async {
        let deployment = Deployment::new();
        let _worker = deployment.start("worker1").await;
        // The seventh attempt comes after 0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 3.2 = 6.3 s, at 7.06 s with all the jitter, the
        // eighth 5 s later.
        tokio::time::sleep(Duration::from_millis(7100)).await;
        let opened = Instant::now();
        let mut port = deployment.play("master").await;
        drop(port.accept().await.unwrap());
        assert!(opened.elapsed() > Duration::from_secs(2), "tried again after {:?}", opened.elapsed());
        drop(accept_after(&mut *port, Instant::now(), 5000).await);
    });
}

#[test]
fn only_a_connection_that_was_set_up_resets_the_delay() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play("master").await;
        let worker = deployment.start("worker1").await;
        let mut server = Peer::new(port.accept().await.unwrap());
        // Neither connecting nor the greeting nor all streams but one are enough (Synapse #4749).
        let mut nominal_ms = 100;
        let greeting = ["SERVER squall.test"];
        for (greeting, positions) in [(&[][..], 0), (&greeting, 0), (&greeting, 1), (&greeting, 6)] {
            for line in greeting.iter().chain(&MASTER_POSITIONS[..positions]) {
                server.say(line).await;
            }
            server.lines_for(Duration::from_secs(1)).await;
            drop(server);
            server = accept_after(&mut *port, Instant::now(), nominal_ms).await;
            nominal_ms *= 2;
        }
        // In Synapse's form: no server listens on the master's HTTP port.
        for line in greeting.iter().chain(&MASTER_POSITIONS[..6]).chain(&["POSITION typing master 0 0"]) {
            server.say(line).await;
        }
        server.lines_for(Duration::from_secs(1)).await;
        assert!(worker.handler().connections()[0].was_set_up());
        drop(server);
        for nominal_ms in [100, 200] {
            drop(accept_after(&mut *port, Instant::now(), nominal_ms).await);
        }
    });
}

#[test]
fn a_stream_that_cannot_be_caught_up_with_leaves_the_connection_unset() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play("master").await;
        let worker = deployment.start("worker1").await;
        let mut server = Peer::new(port.accept().await.unwrap());
        // Typing is at 7, but no server listens on the master's HTTP port.
        let positions = MASTER_POSITIONS[..6].iter().chain(&["POSITION typing master 7 7"]);
        for line in ["SERVER squall.test"].iter().chain(positions) {
            server.say(line).await;
        }
        for _ in 0..3 {
            server.lines_for(Duration::from_secs(10)).await;
            server.say("PING 1").await; // otherwise the connection would time out
        }
        assert!(!worker.handler().connections()[0].was_set_up());
    });
}
