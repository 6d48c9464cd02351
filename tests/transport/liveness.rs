//! Pings, and the time-out of silent peers.

use std::time::Duration;

use squall::transport::tcp::{INTRODUCTION_TIMEOUT, LINE_TIMEOUT, PING_INTERVAL, PING_TIMEOUT};
use squall_protocol::Command;
use tokio::time::{Instant, sleep};

use crate::deployment::Deployment;
use crate::peer::Peer;
use crate::run;

const MOMENT: Duration = Duration::from_millis(100);

#[test]
fn an_idle_end_pings_every_five_seconds() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play("writer1").await;
        let _master = deployment.start("master").await;
        let mut client = deployment.join("master").await;
        let mut server = Peer::new(port.accept().await.unwrap());
        server.hear("REPLICATE").await;
        let greeted = Instant::now();
        for end in [&mut client, &mut server] {
            end.hear("PING ").await;
        }
        assert_eq!(greeted.elapsed(), PING_INTERVAL);
        client.hear("PING ").await;
        assert_eq!(greeted.elapsed(), 2 * PING_INTERVAL);
    });
}

#[test]
fn an_end_that_sent_another_command_need_not_ping() {
    run(async {
        let deployment = Deployment::new();
        let master = deployment.start("master").await;
        let mut client = deployment.join("master").await;
        sleep(Duration::from_secs(3)).await;
        let spoke = Instant::now();
        master.handler().connections()[0].send(&Command::RemoteServerUp("matrix.org".into())).unwrap();
        assert_eq!(client.line().await.as_deref(), Some("REMOTE_SERVER_UP matrix.org"));
        client.hear("PING ").await;
        assert_eq!(spoke.elapsed(), PING_INTERVAL);
    });
}

#[test]
fn a_client_that_pinged_and_fell_silent_gets_an_error_and_is_closed() {
    run(async {
        let deployment = Deployment::new();
        let _master = deployment.start("master").await;
        let mut client = deployment.join("master").await;
        client.say("PING 1").await;
        let pinged = Instant::now();
        let lines = client.lines_to_end().await;
        assert_eq!(lines.last().map(String::as_str), Some("ERROR ping timeout"));
        assert_eq!(pinged.elapsed(), PING_TIMEOUT);
    });
}

#[test]
fn a_server_that_pinged_and_fell_silent_gets_an_error_and_is_closed() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play("master").await;
        let _worker = deployment.start("worker1").await;
        let mut server = Peer::new(port.accept().await.unwrap());
        server.say("PING 1").await;
        let pinged = Instant::now();
        let lines = server.lines_to_end().await;
        assert_eq!(lines.last().map(String::as_str), Some("ERROR ping timeout"));
        assert_eq!(pinged.elapsed(), PING_TIMEOUT);
    });
}

#[test]
fn a_server_that_never_sent_a_line_gets_an_error_and_is_closed() {
    run(async {
        let deployment = Deployment::new();
        let mut port = deployment.play("master").await;
        let _worker = deployment.start("worker1").await;
        let server = Peer::new(port.accept().await.unwrap());
        let accepted = Instant::now();
        let lines = server.lines_to_end().await;
        assert_eq!(lines.last().map(String::as_str), Some("ERROR ping timeout"));
        assert_eq!(accepted.elapsed(), PING_TIMEOUT);
    });
}

#[test]
fn any_command_is_a_sign_of_life() {
    run(async {
        let deployment = Deployment::new();
        let master = deployment.start("master").await;
        let mut client = deployment.join("master").await;
        client.say("PING 1").await;
        client.say("REPLICATE").await;
        for command in ["NAME worker1", "CLEAR_USER_SYNC worker1", "ERROR no reason", "FEDERATION_ACK worker1 5"] {
            sleep(PING_TIMEOUT - MOMENT).await;
            client.say(command).await;
        }
        sleep(MOMENT).await;
        assert_eq!(master.handler().connections().len(), 1);
    });
}

#[test]
fn a_client_that_never_pings_or_never_asks_for_rows_is_closed_after_a_minute() {
    for (commands, missing) in [(["NAME a", "REPLICATE"], "PING"), (["PING 1", "NAME b"], "REPLICATE")] {
        run(async {
            let deployment = Deployment::new();
            let master = deployment.start("master").await;
            let mut client = deployment.join("master").await;
            let joined = Instant::now();
            for _ in 0..3 {
                for command in commands {
                    client.say(command).await;
                }
                client.lines_for(INTRODUCTION_TIMEOUT / 3 - MOMENT).await;
            }
            let lines = client.lines_to_end().await;
            assert_eq!(lines.last(), Some(&format!("ERROR no {missing} within 60s")));
            assert_eq!(joined.elapsed(), INTRODUCTION_TIMEOUT);
            sleep(MOMENT).await;
            assert_eq!(master.handler().connections().len(), 0);
        });
    }
}

#[test]
fn a_client_that_sends_no_command_in_time_is_closed_though_it_sends_blank_lines() {
    run(async {
        let deployment = Deployment::new();
        let _master = deployment.start("master").await;
        let mut client = deployment.join("master").await;
        let joined = Instant::now();
        sleep(LINE_TIMEOUT / 2).await;
        client.say("").await;
        let lines = client.lines_to_end().await;
        assert_eq!(lines.last().map(String::as_str), Some("ERROR a line was not complete within 25s"));
        assert_eq!(joined.elapsed(), LINE_TIMEOUT);
    });
}

#[test]
fn a_client_that_does_not_complete_a_line_in_time_is_closed_though_it_sends_a_byte_now_and_then() {
    run(async {
        let deployment = Deployment::new();
        let _master = deployment.start("master").await;
        let mut client = deployment.join("master").await;
        client.say("NAME worker1").await;
        sleep(LINE_TIMEOUT).await;
        let began = Instant::now();
        for byte in [b"P", b"I", b"N", b"G"] {
            client.say_bytes(byte).await;
            sleep(LINE_TIMEOUT / 5).await;
        }
        let lines = client.lines_to_end().await;
        assert_eq!(lines.last().map(String::as_str), Some("ERROR a line was not complete within 25s"));
        assert_eq!(began.elapsed(), LINE_TIMEOUT);
    });
}

#[test]
fn a_line_that_is_completed_in_time_is_no_reason_to_close() {
    run(async {
        let deployment = Deployment::new();
        let master = deployment.start("master").await;
        let mut client = deployment.join("master").await;
        for pieces in [["REPLI", "CATE\n"], ["PI", "NG 1\n"], ["ERR", "OR none\n"]] {
            for piece in pieces {
                sleep(LINE_TIMEOUT / 2 - MOMENT).await;
                client.say_bytes(piece.as_bytes()).await;
            }
        }
        sleep(LINE_TIMEOUT / 2).await;
        client.say("PING 2").await;
        sleep(LINE_TIMEOUT / 2 + MOMENT).await;
        assert_eq!(master.handler().connections().len(), 1);
    });
}
