//! Input that costs a peer its connection: it is sent one line with the reason, and its further input is ignored.

use squall_protocol::LINE_BYTES_MAX;

use crate::deployment::Deployment;
use crate::peer::Peer;
use crate::run;

/// Sends `bytes` to the master, followed by commands that it would answer, and returns the lines that it sends.
async fn refused_by_server(bytes: &[u8]) -> Vec<String> {
    let deployment = Deployment::new();
    let _master = deployment.start("master").await;
    let mut client = deployment.join("master").await;
    client.say_bytes(&[bytes, b"REPLICATE\n"].concat()).await;
    client.lines_to_end().await
}

/// Sends `bytes` to a worker, as its master.
async fn refused_by_client(bytes: &[u8]) -> Vec<String> {
    let deployment = Deployment::new();
    let mut port = deployment.play("master").await;
    let _worker = deployment.start("worker1").await;
    let mut server = Peer::new(port.accept().await.unwrap());
    server.hear("REPLICATE").await;
    server.say_bytes(bytes).await;
    server.lines_to_end().await
}

fn assert_refused(lines: &[String], why: &str) {
    match lines {
        [error] => assert!(error.starts_with("ERROR ") && error.contains(why), "expected {why:?}, not {error:?}"),
        lines => panic!("expected one ERROR with {why:?}, not {lines:?}"),
    }
}

/// A command of `length` bytes without its line break.
fn ping_of(length: usize) -> String {
    format!("PING {}", "x".repeat(length - "PING ".len()))
}

#[test]
fn an_invalid_command_is_refused() {
    run(async {
        for (line, why) in [
            ("ping 1", "ping"),
            (" PING 1", "unknown command"),
            ("REPLICATE\r", "unknown command"),
            ("USER_SYNC inst1 @a:old.test - foo 15", "neither start nor end"),
            ("USER_IP @probe:old.test [tok", "bad JSON"),
            ("LOCK_RELEASED 1", "expected 3 JSON values"),
        ] {
            assert_refused(&refused_by_server(format!("{line}\n").as_bytes()).await, why);
        }
        assert_refused(&refused_by_client(b"RDATA events master 5 [\n").await, "bad JSON");
        assert_refused(&refused_by_client(b"POSITION events master 5 x\n").await, "not an integer");
    });
}

#[test]
fn a_command_against_its_direction_is_refused() {
    run(async {
        for line in ["RDATA events master 5 []", "POSITION events master 5 5", "SERVER squall.test"] {
            let name = line.split(' ').next().unwrap();
            assert_refused(&refused_by_server(format!("{line}\n").as_bytes()).await, name);
        }
        for line in ["NAME a", "REPLICATE", "CLEAR_USER_SYNC a", "FEDERATION_ACK a 5"] {
            let name = line.split(' ').next().unwrap();
            assert_refused(&refused_by_client(format!("{line}\n").as_bytes()).await, name);
        }
    });
}

#[test]
fn a_command_for_redis_alone_is_refused_both_ways() {
    run(async {
        for name in ["NEW_ACTIVE_TASK", "CANCEL_TASK"] {
            let line = format!("{name} task1\n");
            assert_refused(&refused_by_server(line.as_bytes()).await, name);
            assert_refused(&refused_by_client(line.as_bytes()).await, name);
        }
    });
}

#[test]
fn invalid_utf_8_is_refused() {
    run(async {
        assert_refused(&refused_by_server(b"PING \xff\xfe\n").await, "not UTF-8");
        assert_refused(&refused_by_client(b"SERVER \xc3(\n").await, "not UTF-8");
    });
}

#[test]
fn a_line_over_the_limit_is_refused_even_before_it_ends() {
    run(async {
        let too_long = ping_of(LINE_BYTES_MAX + 1);
        assert_eq!(refused_by_server(format!("{too_long}\n").as_bytes()).await, ["ERROR Line length exceeded"]);
        assert_eq!(refused_by_client(too_long.as_bytes()).await, ["ERROR Line length exceeded"]);
    });
}

#[test]
fn a_line_at_the_limit_and_a_blank_line_are_not_refused() {
    run(async {
        let deployment = Deployment::new();
        let _master = deployment.start("master").await;
        let mut client = deployment.join("master").await;
        client.say(&ping_of(LINE_BYTES_MAX)).await;
        client.say_bytes(b"\n  \n\t\r\n").await;
        client.say("REPLICATE").await;
        client.hear("POSITION ").await;
    });
}

#[test]
fn the_input_of_a_peer_cannot_break_its_error_line() {
    run(async {
        let lines = refused_by_server(format!("{}\r\u{1b}\n", "é".repeat(5000)).as_bytes()).await;
        assert_refused(&lines, "unknown command");
        assert!(lines[0].len() < 2000 && !lines[0].contains(char::is_control), "{:?}", lines[0]);
    });
}
