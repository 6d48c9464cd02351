//! The end of a connection that this end closes: the lines still sent, and the time allowed for them.

use std::time::Duration;

use squall::instance::{STOP_GRACE, Write};
use squall::limits::COMMANDS_QUEUED_MAX;
use squall::transport::tcp::{CLOSE_GRACE, PING_INTERVAL};
use squall_protocol::Command;
use squall_protocol::rows::events::EventRow;
use tokio::time::{Instant, sleep, timeout};

use crate::deployment::Deployment;
use crate::peer::Peer;
use crate::run;

/// Number of commands that is far more than a pipe holds.
const MANY: usize = 2_000;

fn numbered(number: usize) -> Command {
    Command::RemoteServerUp(number.to_string())
}

fn numbered_lines(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("REMOTE_SERVER_UP {number}")).collect()
}

#[test]
fn a_graceful_stop_sends_what_is_queued() {
    run(async {
        let deployment = Deployment::new();
        let master = deployment.start("master").await;
        let client = deployment.join("master").await;
        let connection = master.handler().connections().remove(0);
        for number in 0..MANY {
            connection.send(&numbered(number)).unwrap();
        }
        let (lines, ()) = tokio::join!(client.lines_to_end(), master.stop());
        assert_eq!(lines, numbered_lines(MANY));
    });
}

#[test]
fn a_graceful_stop_sends_the_rows_that_have_yet_to_be_read_from_the_database() {
    run(async {
        let deployment = Deployment::new();
        let master = deployment.start("master").await;
        let mut client = deployment.join("master").await;
        client.say("REPLICATE").await;
        client.hear("POSITION typing ").await;
        deployment.set_database_delay(Duration::from_millis(500));
        let event = EventRow::message("$last", "!room:squall.test");
        master.events().unwrap().persist(vec![Write { event: Some(event), state: Vec::new() }]).await.unwrap();
        let (lines, ()) = tokio::join!(client.lines_to_end(), master.stop());
        assert!(lines.iter().any(|line| line.starts_with("RDATA events master 2 ")), "{lines:?}");
    });
}

#[test]
fn a_graceful_stop_does_not_wait_for_ever() {
    run(async {
        let deployment = Deployment::new();
        let master = deployment.start("master").await;
        let _client = deployment.join("master").await;
        let connection = master.handler().connections().remove(0);
        for number in 0..MANY {
            connection.send(&numbered(number)).unwrap();
        }
        let began = Instant::now();
        master.stop().await;
        assert_eq!(began.elapsed(), STOP_GRACE);
    });
}

#[test]
fn a_stopped_instance_takes_and_makes_no_more_connections() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play("writer1").await;
        let master = deployment.start("master").await;
        let server = Peer::new(port.accept().await.unwrap());
        assert!(deployment.is_listening("master").await);
        tokio::join!(master.stop(), server.lines_to_end());
        assert!(!deployment.is_listening("master").await);
        assert!(timeout(Duration::from_secs(60), port.accept()).await.is_err());
    });
}

#[test]
fn a_peer_with_too_much_waiting_is_dropped() {
    run(async {
        let deployment = Deployment::new();
        let master = deployment.start("master").await;
        let mut patient = deployment.join("master").await;
        let client = deployment.join("master").await;
        let connection = master.handler().connections().remove(1);
        for number in 0..COMMANDS_QUEUED_MAX {
            connection.send(&numbered(number)).unwrap();
        }
        assert!(connection.is_open());
        connection.send(&numbered(COMMANDS_QUEUED_MAX)).unwrap();
        assert!(!connection.is_open());
        assert_eq!(client.lines_to_end().await, ["ERROR Failed to keep up"]);
        patient.hear("PING ").await;
    });
}

#[test]
fn a_slow_peer_sees_no_gap_before_it_is_dropped() {
    run(async {
        let deployment = Deployment::new();
        let _master = deployment.start("master").await;
        let slow = deployment.join("master").await;
        let mut sender = deployment.join("master").await;
        for number in 0..2 * COMMANDS_QUEUED_MAX {
            sender.say(&numbered(number).to_line().unwrap()).await;
        }
        // The lines that were sent before the rest was dropped arrive complete and in order.
        let mut lines = slow.lines_to_end().await;
        assert_eq!(lines.pop().as_deref(), Some("ERROR Failed to keep up"));
        assert!(!lines.is_empty() && lines.len() < COMMANDS_QUEUED_MAX, "{} lines", lines.len());
        assert_eq!(lines, numbered_lines(lines.len()));
    });
}

#[test]
fn a_peer_that_never_takes_its_error_is_closed_all_the_same() {
    run(async {
        let deployment = Deployment::new();
        let master = deployment.start("master").await;
        let mut client = deployment.join("master").await;
        let connection = master.handler().connections().remove(0);
        for number in 0..MANY {
            connection.send(&numbered(number)).unwrap();
        }
        client.say("nosuch").await;
        sleep(CLOSE_GRACE - PING_INTERVAL).await;
        assert_eq!(master.handler().connections().len(), 1, "the peer still has time to read");
        sleep(3 * PING_INTERVAL).await;
        assert_eq!(master.handler().connections().len(), 0);
    });
}
