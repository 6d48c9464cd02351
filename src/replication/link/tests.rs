//! What is sent over a connection until its end, and when it counts as set up.

use std::time::Duration;

use super::*;
use crate::protocol::{EncodeError, LINE_BYTES_MAX};
use crate::replication::testing::on_paused_clock;

fn link(awaited: &[&str]) -> Link {
    Link::new(1, Side::Client, "writer", awaited.iter().map(|stream| StreamName::from(*stream)).collect())
}

fn ping(text: &str) -> Command {
    Command::Ping(text.into())
}

/// Everything in the outbox, or none if the connection is to be closed.
async fn outgoing(link: &Link) -> Option<Vec<String>> {
    let lines = link.outgoing().await?;
    Some(lines.iter().map(|line| String::from_utf8(line.to_vec()).unwrap()).collect())
}

#[test]
fn commands_go_out_in_their_order() {
    on_paused_clock(async {
        let link = link(&[]);
        link.send(&ping("1")).unwrap();
        link.send(&ping("2")).unwrap();
        assert_eq!(outgoing(&link).await.unwrap(), ["PING 1\n", "PING 2\n"]);
    });
}

#[test]
fn a_sender_that_waits_is_woken() {
    on_paused_clock(async {
        let link = link(&[]);
        // Given up once while waiting: nothing may be lost by that.
        assert!(tokio::time::timeout(Duration::from_secs(1), link.outgoing()).await.is_err());
        let (lines, ()) = tokio::join!(outgoing(&link), async { link.send(&ping("1")).unwrap() });
        assert_eq!(lines.unwrap(), ["PING 1\n"]);
        let (lines, ()) = tokio::join!(outgoing(&link), async { link.close() });
        assert_eq!(lines, None);
    });
}

#[test]
fn what_was_sent_before_the_end_goes_out_and_nothing_after_it() {
    on_paused_clock(async {
        let link = link(&[]);
        link.send(&ping("before")).unwrap();
        link.close_with_error("enough");
        link.send(&ping("after")).unwrap();
        assert!(!link.is_open());
        assert_eq!(outgoing(&link).await.unwrap(), ["PING before\n", "ERROR enough\n"]);
        assert_eq!(outgoing(&link).await, None);
    });
}

#[test]
fn a_closed_connection_does_not_open_again() {
    on_paused_clock(async {
        let link = link(&[]);
        link.send(&ping("unsent")).unwrap();
        link.closed();
        link.close();
        link.send(&ping("late")).unwrap();
        assert!(!link.is_open());
        assert_eq!(outgoing(&link).await, None);
    });
}

#[test]
fn a_peer_that_does_not_keep_up_is_told_and_dropped() {
    on_paused_clock(async {
        let link = link(&[]);
        for _ in 0..COMMANDS_QUEUED_MAX {
            link.send(&ping("x")).unwrap();
        }
        assert!(link.is_open());
        link.send(&ping("one too many")).unwrap();
        assert!(!link.is_open());
        assert_eq!(outgoing(&link).await.unwrap(), ["ERROR Failed to keep up\n"]);
        assert_eq!(outgoing(&link).await, None);
    });
}

#[test]
fn a_reason_that_would_break_the_line_is_made_to_fit() {
    on_paused_clock(async {
        let link = link(&[]);
        link.close_with_error(&format!("bad\nPOSITION events a 1 1\r{}", "é".repeat(LINE_BYTES_MAX)));
        let lines = outgoing(&link).await.unwrap();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("ERROR badPOSITION events a 1 1é"), "{}", lines[0]);
        assert_eq!(lines[0].trim_end().chars().count(), "ERROR ".len() + 500);
    });
}

#[test]
fn a_command_that_no_line_can_carry_is_refused() {
    on_paused_clock(async {
        let link = link(&[]);
        let too_long = link.send(&ping(&"x".repeat(LINE_BYTES_MAX)));
        assert_eq!(too_long, Err(EncodeError::TooLong { command: "PING", bytes: LINE_BYTES_MAX + 5 }));
        assert!(matches!(link.send(&ping("a\nb")), Err(EncodeError::LineBreak(_))));
        assert!(link.is_open());
    });
}

#[test]
fn a_connection_is_set_up_once_when_every_awaited_stream_is_caught_up() {
    on_paused_clock(async {
        let link = link(&["events", "typing"]);
        assert!(!link.greeted());
        for stream in ["typing", "typing", "receipts"] {
            assert!(!link.caught_up(&stream.into()));
        }
        assert!(!link.was_set_up());
        assert!(link.caught_up(&"events".into()));
        assert!(!link.caught_up(&"events".into()), "it is set up already");
        link.closed();
        assert!(link.was_set_up(), "it was, whatever came later");
    });
}

#[test]
fn where_no_stream_is_awaited_the_greeting_sets_a_connection_up() {
    on_paused_clock(async {
        let link = link(&[]);
        assert!(!link.was_set_up());
        assert!(link.greeted() && link.was_set_up());
        assert!(!link.greeted(), "it is set up already");
    });
}

#[test]
fn only_what_is_taken_counts_as_sent() {
    on_paused_clock(async {
        let link = link(&[]);
        let opened = link.last_sent();
        tokio::time::advance(Duration::from_secs(1)).await;
        link.send(&ping("x")).unwrap();
        let sent = link.last_sent();
        assert_eq!(sent - opened, Duration::from_secs(1));
        link.close();
        tokio::time::advance(Duration::from_secs(1)).await;
        link.send(&ping("dropped")).unwrap();
        assert_eq!(link.last_sent(), sent);
    });
}

/// A connection to a broker, as old as it has to be to count as set up.
async fn broker(side: Side) -> Link {
    let link = Link::new(1, side, "the broker", BTreeSet::new());
    tokio::time::sleep(QUIET_UNTIL_SET_UP).await;
    link
}

#[test]
fn a_connection_to_a_broker_is_set_up_once_it_has_worked_for_a_while_without_trouble() {
    on_paused_clock(async {
        let link = broker(Side::Subscriber).await;
        assert!(!link.greeted() && !link.caught_up(&"events".into()), "nobody there says what is to come");
        assert!(!link.settle(), "it has not been seen to work");
        link.works();
        link.position_came();
        assert!(!link.settle(), "a position is not caught up with");
        link.troubled();
        link.position_done();
        tokio::time::sleep(QUIET_UNTIL_SET_UP - Duration::from_millis(1)).await;
        assert!(!link.settle() && !link.was_set_up(), "the trouble was not long ago");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(link.settle() && link.was_set_up());
        assert!(!link.settle(), "it is told once");
    });
}

#[test]
fn a_broker_is_told_payloads_and_no_errors() {
    on_paused_clock(async {
        let link = broker(Side::Publisher).await;
        let long = "x".repeat(LINE_BYTES_MAX);
        link.send(&ping(&long)).unwrap();
        link.close_with_error("everybody would hear it");
        assert_eq!(outgoing(&link).await.unwrap(), [format!("PING {long}")]);
        assert_eq!(outgoing(&link).await, None);
    });
}
