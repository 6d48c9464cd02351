//! The effect of each command: rows and batches by writer, broadcasts, and commands that are ignored.

use super::*;
use crate::limits::BATCH_ROWS_MAX;
use crate::replication::testing::{Answer, FakeStream, Journal, SECOND, on_paused_clock, settle};
use squall_protocol::{Command, Delivery};

mod broadcasts;

/// The instance `me`, which writes `events` together with `a` and `b` and follows these two from 10.
struct Instance {
    handler: Rc<CommandHandler>,
    stream: Rc<FakeStream>,
    journal: Journal,
}

fn instance(name: &str) -> Instance {
    instance_with(name, Limits::default())
}

fn instance_with(name: &str, limits: Limits) -> Instance {
    let journal = Journal::default();
    let stream = FakeStream::new("events", Delivery::Log, &["a", "b", name], &journal);
    let streams: Vec<Rc<dyn Stream>> = vec![stream.clone()];
    let handler =
        CommandHandler::new(name.into(), "squall.test".into(), streams, journal.consumers(), limits, journal.env());
    Instance { handler, stream, journal }
}

impl Instance {
    /// Returns a connection to `target` that has been greeted.
    async fn connect(&self, target: &str) -> Rc<Connection> {
        let connection = self.handler.opened(Some(&target.into()));
        sent(&connection).await;
        connection
    }

    /// Returns a connection that was accepted and greeted.
    async fn accept(&self) -> Rc<Connection> {
        let connection = self.handler.opened(None);
        sent(&connection).await;
        connection
    }

    /// Wakes the streamer of `events`, as its writer does after a commit.
    fn poke(&self) {
        let stream: Rc<dyn Stream> = self.stream.clone();
        self.handler.streamer_of(&stream).expect("this instance writes the stream").poke();
    }

    fn receive(&self, connection: &Rc<Connection>, lines: &[&str]) {
        for line in lines {
            let row = RdataHeader::of(line);
            if row.is_none_or(|header| !self.handler.received_row(connection, &header)) {
                self.handler.received(connection, Command::parse(line).unwrap());
            }
        }
    }
}

/// Returns the line of a row called `name`. Its token is a number or `batch`.
fn rdata(writer: &str, token: &str, name: &str) -> String {
    format!(r#"RDATA events {writer} {token} ["state-all",["{name}"]]"#)
}

/// Returns the lines sent since the last call.
async fn sent(connection: &Connection) -> Vec<String> {
    settle().await;
    let lines = tokio::time::timeout(std::time::Duration::ZERO, connection.outgoing()).await.ok().flatten();
    let text = |line: &bytes::Bytes| String::from_utf8(line.to_vec()).unwrap().trim_end().to_owned();
    lines.unwrap_or_default().iter().map(text).collect()
}

#[test]
fn each_end_greets_the_other() {
    on_paused_clock(async {
        let me = instance("me");
        let client = me.handler.opened(Some(&"a".into()));
        assert_eq!(sent(&client).await, ["NAME me", "PING 1200", "REPLICATE"]);
        let server = me.handler.opened(None);
        assert_eq!(sent(&server).await, ["SERVER squall.test", "PING 1200"]);
        assert_ne!(client.id(), server.id());
        assert_eq!(me.handler.connections().len(), 2);
    });
}

#[test]
fn batches_of_two_writers_do_not_mix() {
    on_paused_clock(async {
        let me = instance("me");
        let connection = me.connect("a").await;
        me.receive(&connection, &["POSITION events a 10 10", "POSITION events b 10 10"]);
        me.receive(
            &connection,
            &[
                &rdata("a", "batch", "a1"),
                &rdata("b", "batch", "b1"),
                &rdata("a", "batch", "a2"),
                &rdata("b", "12", "b2"),
                &rdata("a", "11", "a3"),
            ],
        );
        settle().await;
        assert_eq!(me.journal.applied("a"), ["11: a1 a2 a3"]);
        assert_eq!(me.journal.applied("b"), ["12: b1 b2"]);
    });
}

#[test]
fn batches_of_two_connections_do_not_mix() {
    on_paused_clock(async {
        let me = instance("me");
        let one = me.connect("a").await;
        let other = me.connect("a").await;
        me.receive(&one, &["POSITION events a 10 10", &rdata("a", "batch", "x")]);
        me.receive(&other, &[&rdata("a", "batch", "of the other")]);
        me.receive(&one, &[&rdata("a", "11", "y")]);
        settle().await;
        assert_eq!(me.journal.applied("a"), ["11: x y"]);
    });
}

#[test]
fn an_incomplete_batch_is_discarded_with_its_connection_and_no_other_is() {
    on_paused_clock(async {
        let me = instance("me");
        let one = me.connect("a").await;
        let other = me.connect("b").await;
        me.receive(&other, &["POSITION events b 10 10", &rdata("b", "batch", "kept")]);
        me.receive(&one, &["POSITION events a 10 10", &rdata("a", "batch", "half")]);
        one.closed();
        me.handler.lost(&one);
        let again = me.connect("a").await;
        me.receive(&again, &["POSITION events a 10 10", &rdata("a", "11", "whole")]);
        me.receive(&other, &[&rdata("b", "12", "last")]);
        settle().await;
        assert_eq!(me.journal.applied("a"), ["11: whole"]);
        assert_eq!(me.journal.applied("b"), ["12: kept last"]);
        assert!(me.handler.batches.held.borrow().is_empty());
        assert_eq!(me.handler.connections().len(), 2);
    });
}

#[test]
fn a_position_amid_a_batch_of_its_own_writer_makes_the_batch_be_fetched_and_no_other() {
    on_paused_clock(async {
        let me = instance("me");
        let connection = me.connect("a").await;
        me.receive(&connection, &["POSITION events a 10 10", "POSITION events b 10 10"]);
        me.receive(&connection, &[&rdata("a", "batch", "first"), &rdata("b", "batch", "kept")]);
        me.receive(&connection, &["POSITION events a 10 10"]);
        me.stream.commit("a", 11, &["first", "last"]);
        me.receive(&connection, &[&rdata("a", "11", "last"), &rdata("b", "12", "last")]);
        me.receive(&connection, &[&rdata("a", "12", "whole")]);
        settle().await;
        // If something else sent the position, the rows before it belong to the token; and if not, to none.
        assert_eq!(me.journal.applied("a"), ["11: first last", "12: whole"]);
        assert_eq!(me.journal.applied("b"), ["12: kept last"]);
    });
}

#[test]
fn a_row_that_cannot_be_parsed_is_reported_and_fetched_and_later_rows_wait_for_it() {
    on_paused_clock(async {
        let me = instance("me");
        let connection = me.connect("a").await;
        me.stream.commit("a", 11, &["from the source"]);
        me.stream.answer("a", [Answer::Failure]);
        me.receive(
            &connection,
            &["POSITION events a 10 10", r#"RDATA events a 11 ["hail",[]]"#, &rdata("a", "12", "x")],
        );
        tokio::time::sleep(SECOND).await;
        assert_eq!(me.journal.times("events", "event: row").len(), 1);
        assert_eq!(me.journal.fetched("a"), [(10, 11), (10, 11)]);
        assert_eq!(me.journal.applied("a"), ["11: from the source", "12: x"]);
        assert!(connection.is_open());
    });
}

#[test]
fn the_whole_batch_is_fetched_if_one_of_its_rows_cannot_be_parsed() {
    on_paused_clock(async {
        let me = instance("me");
        let connection = me.connect("a").await;
        me.stream.commit("a", 11, &["x", "y", "z"]);
        me.receive(&connection, &["POSITION events a 10 10"]);
        me.receive(&connection, &[&rdata("a", "batch", "x"), r#"RDATA events a batch {}"#, &rdata("a", "11", "z")]);
        me.receive(&connection, &[&rdata("a", "batch", "next"), &rdata("a", "12", "last")]);
        settle().await;
        assert_eq!(me.journal.fetched("a"), [(10, 11)]);
        assert_eq!(me.journal.applied("a"), ["11: x y z", "12: next last"]);
    });
}

#[test]
fn a_batch_of_more_rows_than_the_limit_is_fetched() {
    on_paused_clock(async {
        let me = instance_with("me", Limits { batch_rows_max: 2, ..Limits::default() });
        let connection = me.connect("a").await;
        me.stream.commit("a", 11, &["x", "y", "z"]);
        me.receive(&connection, &["POSITION events a 10 10"]);
        me.receive(&connection, &[&rdata("a", "batch", "x"), &rdata("a", "batch", "y"), &rdata("a", "11", "z")]);
        me.receive(&connection, &[&rdata("a", "batch", "as many"), &rdata("a", "12", "as allowed")]);
        settle().await;
        assert_eq!(me.journal.fetched("a"), [(10, 11)]);
        assert_eq!(me.journal.applied("a"), ["11: x y z", "12: as many as allowed"]);
    });
}

#[test]
fn a_batch_of_more_bytes_than_the_limit_is_fetched() {
    on_paused_clock(async {
        let me = instance("me");
        let connection = me.connect("a").await;
        me.stream.commit("a", 11, &["x", "y", "z"]);
        me.receive(&connection, &["POSITION events a 10 10"]);
        let half = "x".repeat(ROWS_BYTES_MAX / 2);
        me.receive(&connection, &[&rdata("a", "batch", &half), &rdata("a", "batch", &half), &rdata("a", "11", "z")]);
        me.receive(&connection, &[&rdata("a", "batch", "few"), &rdata("a", "12", "bytes")]);
        settle().await;
        assert_eq!(me.journal.fetched("a"), [(10, 11)]);
        assert_eq!(me.journal.applied("a"), ["11: x y z", "12: few bytes"]);
    });
}

#[test]
fn as_many_events_as_a_batch_may_have_are_not_too_many_bytes() {
    let id = |sigil: &str| format!("{sigil}{}:matrix.squall.test", "x".repeat(43));
    let row = serde_json::json!(["ev", [id("$"), id("!"), "m.room.message", null, null, id("$"), null, false, false]]);
    let bytes = json::held_bytes(&row);
    assert!(bytes * BATCH_ROWS_MAX < ROWS_BYTES_MAX, "{bytes} bytes");
    assert!(bytes > 400, "the text and the values: {bytes} bytes");
}

#[test]
fn rows_of_more_bytes_than_the_queue_of_their_follower_holds_are_fetched() {
    on_paused_clock(async {
        let me = instance("me");
        let connection = me.connect("a").await;
        me.receive(&connection, &["POSITION events a 10 10"]);
        settle().await;
        let most = "x".repeat(ROWS_BYTES_MAX * 3 / 4);
        for (token, name) in [(11, "x"), (12, "y")] {
            me.stream.commit("a", token, &[name]);
            me.receive(&connection, &[&rdata("a", &token.to_string(), &most)]);
        }
        me.receive(&connection, &[&rdata("a", "13", "next")]);
        settle().await;
        // As many bytes again fit once those before have been handled.
        for token in ["14", "15"] {
            me.receive(&connection, &[&rdata("a", token, &most)]);
            settle().await;
        }
        assert_eq!(me.journal.fetched("a"), [(10, 12)]);
        let applied = me.journal.applied("a");
        assert_eq!((applied.len(), &*applied[0], &*applied[2]), (5, "11: x", "13: next"));
    });
}

#[test]
fn rows_that_do_not_fit_into_the_queue_of_their_follower_are_fetched() {
    on_paused_clock(async {
        let limits = Limits { items_queued_max: 2, ..Limits::default() };
        let me = instance_with("me", limits);
        assert_eq!(me.handler.limits(), &limits);
        let connection = me.connect("a").await;
        me.receive(&connection, &["POSITION events a 10 10"]);
        settle().await;
        for (token, name) in [(11, "x"), (12, "y"), (13, "z")] {
            me.stream.commit("a", token, &[name]);
            me.receive(&connection, &[&rdata("a", &token.to_string(), name)]);
        }
        me.receive(&connection, &[&rdata("a", "14", "last")]);
        settle().await;
        assert_eq!(me.journal.fetched("a"), [(10, 13)]);
        assert_eq!(me.journal.applied("a"), ["11: x", "12: y", "13: z", "14: last"]);
    });
}

#[test]
fn a_row_from_the_broker_that_is_not_json_is_reported_and_fetched_with_its_batch() {
    on_paused_clock(async {
        let me = instance("me");
        let subscription = me.handler.subscribed();
        let unreadable = |token| {
            let header = RdataHeader { stream: "events", writer: "a", token, row: "not JSON" };
            me.handler.unreadable(&subscription, header, &PeerError("not JSON".into()));
        };
        me.receive(&subscription, &["POSITION events a 10 10"]);
        me.stream.commit("a", 11, &["alone"]);
        unreadable(Some(Token(11)));
        settle().await;
        assert_eq!(me.journal.fetched("a"), [(10, 11)]);
        me.stream.commit("a", 12, &["first", "of two"]);
        unreadable(None);
        me.receive(&subscription, &[&rdata("a", "12", "of two")]);
        settle().await;
        me.stream.commit("a", 13, &["begun", "ended"]);
        me.receive(&subscription, &[&rdata("a", "batch", "begun")]);
        unreadable(Some(Token(13)));
        me.receive(&subscription, &[&rdata("a", "14", "next")]);
        settle().await;
        assert_eq!(me.journal.fetched("a"), [(10, 11), (11, 12), (12, 13)]);
        assert_eq!(me.journal.applied("a"), ["11: alone", "12: first of two", "13: begun ended", "14: next"]);
        assert_eq!(me.journal.times("events", "event: row").len(), 3);
    });
}

#[test]
fn unknown_streams_and_writers_and_own_rows_are_ignored() {
    on_paused_clock(async {
        let me = instance("me");
        let connection = me.connect("a").await;
        me.receive(&connection, &["POSITION events a 10 10", &rdata("a", "batch", "x")]);
        me.journal.clear();
        me.receive(
            &connection,
            &[
                "POSITION to_come a 3 9",
                "RDATA to_come a 9 [1]",
                "POSITION events stranger 3 9",
                r#"RDATA events stranger 9 ["hail",[]]"#,
                "POSITION events me 3 99",
                &rdata("me", "99", "echo"),
            ],
        );
        settle().await;
        assert!(me.journal.story("me").is_empty() && me.journal.story("events").is_empty());
        assert!(connection.is_open());
        me.receive(&connection, &[&rdata("a", "11", "y")]);
        settle().await;
        assert_eq!(me.journal.applied("a"), ["11: x y"]);
    });
}

#[test]
fn replicate_is_answered_with_the_position_and_later_rows_follow() {
    on_paused_clock(async {
        let me = instance("me");
        let connection = me.accept().await;
        me.receive(&connection, &["REPLICATE"]);
        assert_eq!(sent(&connection).await, ["POSITION events me 10 10"]);
        me.stream.commit("me", 11, &["x"]);
        me.stream.move_to("me", 11);
        me.poke();
        assert_eq!(sent(&connection).await, [rdata("me", "11", "x")]);
    });
}

#[test]
fn a_connection_is_set_up_once_the_streams_of_its_target_are() {
    on_paused_clock(async {
        let me = instance("me");
        let connection = me.connect("a").await;
        let other = me.connect("b").await;
        assert!(!connection.was_set_up());
        me.receive(&connection, &["POSITION events a 10 10"]);
        settle().await;
        assert!(connection.was_set_up() && !other.was_set_up());
    });
}

#[test]
fn a_greeting_sets_up_only_a_connection_to_an_instance_that_writes_nothing() {
    on_paused_clock(async {
        let me = instance("me");
        let bystander = me.connect("bystander").await;
        let writer = me.connect("a").await;
        assert!(!bystander.was_set_up());
        me.receive(&bystander, &["SERVER squall.test"]);
        me.receive(&writer, &["SERVER squall.test"]);
        assert!(bystander.was_set_up() && !writer.was_set_up());
    });
}

#[test]
fn a_connection_to_another_homeserver_is_closed_with_an_error() {
    on_paused_clock(async {
        let me = instance("me");
        let connection = me.connect("a").await;
        me.receive(&connection, &["SERVER squall.test"]);
        assert!(connection.is_open());
        me.receive(&connection, &["SERVER elsewhere.test"]);
        assert_eq!(sent(&connection).await, ["ERROR Wrong remote"]);
        assert!(!connection.is_open() && !connection.was_set_up());
    });
}

#[test]
fn an_error_from_a_peer_is_reported_under_the_name_that_it_sent() {
    on_paused_clock(async {
        let me = instance("me");
        let connection = me.accept().await;
        me.receive(&connection, &["NAME worker7", "ERROR no such thing"]);
        assert_eq!(me.journal.story("worker7"), ["event: connection"]);
        assert!(connection.is_open());
    });
}

#[test]
fn a_subscriber_asks_every_instance_for_its_positions() {
    on_paused_clock(async {
        let me = instance("me");
        let publisher = me.handler.publishing();
        assert_eq!(sent(&publisher).await, ["POSITION events me 10 10"], "before any row");
        let subscription = me.handler.subscribed();
        assert_eq!(sent(&publisher).await, ["REPLICATE"]);
        me.receive(&subscription, &["REPLICATE"]);
        assert_eq!(sent(&publisher).await, ["POSITION events me 10 10"]);
        assert!(subscription.is_working());
        assert_eq!(sent(&subscription).await, [""; 0], "nothing is sent on it");
    });
}

#[test]
fn a_replicate_that_may_have_been_lost_is_sent_again() {
    on_paused_clock(async {
        let me = instance("me");
        let subscription = me.handler.subscribed();
        for _ in 0..2 {
            let publisher = me.handler.publishing();
            assert_eq!(sent(&publisher).await, ["REPLICATE", "POSITION events me 10 10"]);
            publisher.closed();
            me.handler.lost(&publisher);
        }
        me.receive(&subscription, &["REPLICATE"]);
        let publisher = me.handler.publishing();
        assert_eq!(sent(&publisher).await, ["POSITION events me 10 10"], "it came back");
    });
}

#[test]
fn publishing_on_a_new_connection_begins_with_the_position_and_earlier_rows_are_left_to_be_fetched() {
    on_paused_clock(async {
        let me = instance("me");
        let first = me.handler.publishing();
        sent(&first).await;
        let write = |token: i64, name: &str| {
            me.stream.commit("me", token, &[name]);
            me.stream.move_to("me", token);
            me.poke();
        };
        write(11, "lost");
        settle().await;
        first.closed();
        me.handler.lost(&first);
        write(12, "not published");
        settle().await;
        let second = me.handler.publishing();
        write(13, "published");
        let sent = sent(&second).await;
        assert_eq!(sent, ["POSITION events me 12 12".to_owned(), rdata("me", "13", "published")]);
    });
}

#[test]
fn rows_of_a_writer_that_has_not_announced_its_position_are_not_applied_but_fetched() {
    on_paused_clock(async {
        let me = instance("me");
        let subscription = me.handler.subscribed();
        me.receive(
            &subscription,
            &["POSITION events a 10 10", &rdata("a", "11", "x"), &rdata("b", "12", "after a gap")],
        );
        settle().await;
        assert_eq!(me.journal.applied("a"), ["11: x"]);
        assert!(me.journal.applied("b").is_empty(), "a's position says nothing of b's rows");
        me.stream.commit("b", 11, &["the gap"]);
        me.stream.commit("b", 12, &["after a gap"]);
        me.receive(&subscription, &["POSITION events b 12 12", &rdata("me", "13", "an echo")]);
        settle().await;
        assert_eq!(me.journal.applied("b"), ["11: the gap", "12: after a gap"]);
        assert!(me.journal.applied("me").is_empty());
    });
}

#[test]
fn a_subscription_is_not_set_up_before_every_position_is_caught_up_with() {
    on_paused_clock(async {
        let me = instance("me");
        let subscription = me.handler.subscribed();
        me.stream.commit("a", 12, &["x"]);
        me.stream.answer("a", [Answer::Late(20 * SECOND)]);
        me.receive(&subscription, &["REPLICATE", "POSITION events b 10 10", "POSITION events a 12 12"]);
        tokio::time::sleep(19 * SECOND).await;
        assert!(!subscription.settle(), "a's position is still to be caught up with");
        tokio::time::sleep(2 * SECOND).await;
        assert!(subscription.settle());
    });
}

#[test]
fn a_subscription_is_not_set_up_soon_after_a_position_could_not_be_caught_up_with() {
    on_paused_clock(async {
        let me = instance("me");
        let subscription = me.handler.subscribed();
        me.receive(&subscription, &["REPLICATE"]);
        tokio::time::sleep(6 * SECOND).await;
        me.stream.commit("a", 12, &["x"]);
        me.stream.answer("a", [Answer::Failure]);
        me.receive(&subscription, &["POSITION events a 12 12"]);
        tokio::time::sleep(4 * SECOND).await;
        assert!(!subscription.settle());
        tokio::time::sleep(2 * SECOND).await;
        assert!(subscription.settle());
    });
}
