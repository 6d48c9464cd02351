//! The order of commands until a connection closes, and the conditions under which it counts as set up.

use std::time::Duration;

use super::*;
use crate::replication::testing::on_paused_clock;
use squall_env::TaskObserver;
use squall_protocol::{EncodeError, LINE_BYTES_MAX};

/// The number of overflows of an outbox that were reported.
#[derive(Default)]
struct Overflows(Cell<usize>);

impl TaskObserver for Overflows {}

impl Observer for Overflows {
    fn limit_hit(&self, limit: LimitHit) {
        assert_eq!(limit, LimitHit::OutboxOverflowed);
        self.0.set(self.0.get() + 1);
    }
}

fn connection(awaited: &[&str]) -> Connection {
    Connection::new(1, Role::Client, "writer", awaited.iter().map(|stream| StreamName::from(*stream)).collect())
}

fn ping(text: &str) -> Command {
    Command::Ping(text.into())
}

/// Returns everything in the outbox, or none if the connection is to be closed.
async fn outgoing(connection: &Connection) -> Option<Vec<String>> {
    let lines = connection.outgoing().await?;
    Some(lines.iter().map(|line| String::from_utf8(line.to_vec()).unwrap()).collect())
}

#[test]
fn commands_go_out_in_their_order() {
    on_paused_clock(async {
        let connection = connection(&[]);
        connection.send(&ping("1")).unwrap();
        connection.send(&ping("2")).unwrap();
        assert_eq!(outgoing(&connection).await.unwrap(), ["PING 1\n", "PING 2\n"]);
    });
}

#[test]
fn a_sender_that_waits_is_woken() {
    on_paused_clock(async {
        let connection = connection(&[]);
        // Cancelled once while waiting, which must not lose anything.
        assert!(tokio::time::timeout(Duration::from_secs(1), connection.outgoing()).await.is_err());
        let (lines, ()) = tokio::join!(outgoing(&connection), async { connection.send(&ping("1")).unwrap() });
        assert_eq!(lines.unwrap(), ["PING 1\n"]);
        let (lines, ()) = tokio::join!(outgoing(&connection), async { connection.close() });
        assert_eq!(lines, None);
    });
}

#[test]
fn commands_before_the_close_are_sent_and_none_after_it() {
    on_paused_clock(async {
        let connection = connection(&[]);
        connection.send(&ping("before")).unwrap();
        connection.close_with_error("enough");
        connection.send(&ping("after")).unwrap();
        assert!(!connection.is_open());
        assert_eq!(outgoing(&connection).await.unwrap(), ["PING before\n", "ERROR enough\n"]);
        assert_eq!(outgoing(&connection).await, None);
    });
}

#[test]
fn a_closed_connection_does_not_open_again() {
    on_paused_clock(async {
        let connection = connection(&[]);
        connection.send(&ping("unsent")).unwrap();
        connection.closed();
        connection.close();
        connection.send(&ping("late")).unwrap();
        assert!(!connection.is_open());
        assert_eq!(outgoing(&connection).await, None);
    });
}

#[test]
fn a_peer_that_does_not_keep_up_is_sent_an_error_and_dropped() {
    on_paused_clock(async {
        let connection = connection(&[]);
        for _ in 0..COMMANDS_QUEUED_MAX {
            connection.send(&ping("x")).unwrap();
        }
        assert!(connection.is_open());
        connection.send(&ping("one too many")).unwrap();
        assert!(!connection.is_open());
        assert_eq!(outgoing(&connection).await.unwrap(), ["ERROR Failed to keep up\n"]);
        assert_eq!(outgoing(&connection).await, None);
    });
}

#[test]
fn an_overflow_discards_nothing_once_the_instance_stops() {
    on_paused_clock(async {
        let overflows = Rc::new(Overflows::default());
        let connection = connection(&[]).with_outbox(3, overflows.clone());
        for text in ["1", "2", "3"] {
            connection.send(&ping(text)).unwrap();
        }
        connection.begin_finishing();
        for text in ["last", "of", "all"] {
            connection.send(&ping(text)).unwrap();
            assert!(connection.is_open());
        }
        assert_eq!(overflows.0.get(), 0);
        connection.send(&ping("one too many")).unwrap();
        assert_eq!((connection.is_open(), overflows.0.get()), (false, 1));
        connection.send(&ping("another")).unwrap();
        let all = ["1", "2", "3", "last", "of", "all", "one too many"];
        assert_eq!(outgoing(&connection).await.unwrap(), all.map(line));
        assert_eq!(outgoing(&connection).await, None);
    });
}

#[test]
fn the_last_command_goes_out_on_a_connection_that_an_overflow_is_closing_and_on_none_that_is_closed() {
    on_paused_clock(async {
        let connection = Connection::new(1, Role::Publisher, "the broker", BTreeSet::new());
        let connection = connection.with_outbox(1, Rc::new(Overflows::default()));
        for text in ["1", "2"] {
            connection.send(&ping(text)).unwrap();
        }
        assert!(!connection.is_open());
        connection.begin_finishing();
        connection.send(&ping("another")).unwrap();
        connection.send_last(&ping("last")).unwrap();
        assert_eq!(outgoing(&connection).await.unwrap(), ["PING last"]);
        assert_eq!(outgoing(&connection).await, None);
        connection.closed();
        connection.send_last(&ping("late")).unwrap();
        assert_eq!(outgoing(&connection).await, None);
    });
}

fn line(text: &str) -> String {
    format!("PING {text}\n")
}

#[test]
fn a_reason_that_would_break_the_line_is_made_to_fit() {
    on_paused_clock(async {
        let connection = connection(&[]);
        connection.close_with_error(&format!("bad\nPOSITION events a 1 1\r{}", "é".repeat(LINE_BYTES_MAX)));
        let lines = outgoing(&connection).await.unwrap();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("ERROR badPOSITION events a 1 1é"), "{}", lines[0]);
        assert_eq!(lines[0].trim_end().chars().count(), "ERROR ".len() + 500);
    });
}

#[test]
fn a_command_that_no_line_can_carry_is_refused() {
    on_paused_clock(async {
        let connection = connection(&[]);
        let too_long = connection.send(&ping(&"x".repeat(LINE_BYTES_MAX)));
        assert_eq!(too_long, Err(EncodeError::TooLong { command: "PING", bytes: LINE_BYTES_MAX + 5 }));
        assert!(matches!(connection.send(&ping("a\nb")), Err(EncodeError::LineBreak(_))));
        assert!(connection.is_open());
    });
}

#[test]
fn a_connection_is_set_up_once_when_every_awaited_stream_is_caught_up() {
    on_paused_clock(async {
        let connection = connection(&["events", "typing"]);
        assert!(!connection.greeted());
        for stream in ["typing", "typing", "receipts"] {
            assert!(!connection.caught_up(&stream.into()));
        }
        assert!(!connection.was_set_up());
        assert!(connection.caught_up(&"events".into()));
        assert!(!connection.caught_up(&"events".into()), "it is set up already");
        connection.closed();
        assert!(connection.was_set_up(), "a later close does not change that");
    });
}

#[test]
fn where_no_stream_is_awaited_the_greeting_sets_a_connection_up() {
    on_paused_clock(async {
        let connection = connection(&[]);
        assert!(!connection.was_set_up());
        assert!(connection.greeted() && connection.was_set_up());
        assert!(!connection.greeted(), "it is set up already");
    });
}

#[test]
fn only_accepted_commands_count_as_sent() {
    on_paused_clock(async {
        let connection = connection(&[]);
        let opened = connection.last_sent();
        tokio::time::advance(Duration::from_secs(1)).await;
        connection.send(&ping("x")).unwrap();
        let sent = connection.last_sent();
        assert_eq!(sent - opened, Duration::from_secs(1));
        connection.close();
        tokio::time::advance(Duration::from_secs(1)).await;
        connection.send(&ping("dropped")).unwrap();
        assert_eq!(connection.last_sent(), sent);
    });
}

/// Returns a connection to a broker, old enough to count as set up.
async fn broker(role: Role) -> Connection {
    let connection = Connection::new(1, role, "the broker", BTreeSet::new());
    tokio::time::sleep(QUIET_UNTIL_SET_UP).await;
    connection
}

#[test]
fn a_connection_to_a_broker_is_set_up_once_it_works_and_has_not_failed_for_a_while() {
    on_paused_clock(async {
        let connection = broker(Role::Subscriber).await;
        assert!(
            !connection.greeted() && !connection.caught_up(&"events".into()),
            "a broker does not say which positions will come"
        );
        assert!(!connection.settle(), "it has not been seen to work");
        connection.mark_working();
        connection.position_pending();
        assert!(!connection.settle(), "a position is not caught up with");
        connection.catch_up_failed();
        connection.position_handled();
        tokio::time::sleep(QUIET_UNTIL_SET_UP - Duration::from_millis(1)).await;
        assert!(!connection.settle() && !connection.was_set_up(), "the failure was not long ago");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(connection.settle() && connection.was_set_up());
        assert!(!connection.settle(), "it is reported once");
    });
}

#[test]
fn a_broker_is_sent_payloads_and_no_errors() {
    on_paused_clock(async {
        let connection = broker(Role::Publisher).await;
        let long = "x".repeat(LINE_BYTES_MAX);
        connection.send(&ping(&long)).unwrap();
        connection.close_with_error("every instance would receive it");
        assert_eq!(outgoing(&connection).await.unwrap(), [format!("PING {long}")]);
        assert_eq!(outgoing(&connection).await, None);
    });
}
