//! The first lines of each end, and the answer to `REPLICATE`.

use std::time::Duration;

use crate::deployment::{Deployment, MASTER_POSITIONS};
use crate::peer::Peer;
use crate::run;

/// A time in which no ping and no heartbeat is due.
const MOMENT: Duration = Duration::from_millis(10);

#[test]
fn a_server_sends_its_name_and_a_ping() {
    run(async {
        let deployment = Deployment::new();
        let _master = deployment.start("master").await;
        let mut client = deployment.connect("master").await;
        assert_eq!(client.lines_for(MOMENT).await, ["SERVER squall.test", "PING 1500000000000"]);
    });
}

#[test]
fn a_client_sends_its_name_a_ping_and_replicate() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play("master").await;
        let _worker = deployment.start("worker1").await;
        let mut server = Peer::new(port.accept().await.unwrap());
        // The space after a word without arguments is Synapse's (#7239, #7326).
        assert_eq!(server.lines_for(MOMENT).await, ["NAME worker1", "PING 1500000000000", "REPLICATE "]);
    });
}

#[test]
fn replicate_is_answered_with_a_position_of_each_stream_the_instance_writes() {
    run(async {
        let deployment = Deployment::new();
        let _master = deployment.start("master").await;
        let _writer = deployment.start("writer1").await;
        for (host, positions) in [
            ("master", &MASTER_POSITIONS[..]),
            ("writer1", &["POSITION caches writer1 1 1", "POSITION events writer1 1 1"][..]),
        ] {
            let mut client = deployment.join(host).await;
            let mut other = deployment.join(host).await;
            // Arguments, which named a stream before Synapse #7024, make no difference.
            for replicate in ["REPLICATE", "REPLICATE ", "REPLICATE events 5"] {
                client.say(replicate).await;
                let mut answer = client.lines_for(MOMENT).await;
                answer.sort();
                assert_eq!(answer, positions, "{host} answered {replicate:?}");
            }
            assert_eq!(other.lines_for(MOMENT).await, [""; 0], "only the peer that sent REPLICATE is answered");
        }
    });
}

#[test]
fn a_server_of_another_name_gets_an_error_and_is_ignored() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play("master").await;
        let worker = deployment.start("worker1").await;
        let mut server = Peer::new(port.accept().await.unwrap());
        server.hear("REPLICATE").await;
        server.say_bytes(b"SERVER other.test\nPOSITION events master 0 900\n").await;
        assert_eq!(server.lines_to_end().await, ["ERROR Wrong remote"]);
        // If the position counted, rows of the right server up to 900 would be dropped as old.
        let position = worker.handler().position("events", &"master".into()).unwrap();
        assert!(position.0 < 900, "the position of another server was accepted: {position}");
    });
}
