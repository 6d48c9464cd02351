//! What commands mean: whose rows they bring, which of them belong together, and which are nobody's.

use super::*;
use crate::protocol::Command;
use crate::replication::testing::{Answer, FakeStream, Journal, SECOND, on_paused_clock, settle};
use crate::streams::Promise;

/// The instance `me`, which writes `events` together with `a` and `b` and follows these two from 10.
struct Instance {
    handler: Rc<CommandHandler>,
    stream: Rc<FakeStream>,
    journal: Journal,
}

fn instance(name: &str) -> Instance {
    let journal = Journal::default();
    let stream = FakeStream::new("events", Promise::Log, &["a", "b", name], &journal);
    let streams: Vec<Rc<dyn Stream>> = vec![stream.clone()];
    let handler = CommandHandler::new(name.into(), "squall.test".into(), streams, journal.consumers(), journal.env());
    Instance { handler, stream, journal }
}

impl Instance {
    /// A connection to `target` that has been greeted.
    async fn connect(&self, target: &str) -> Rc<Link> {
        let link = self.handler.opened(Some(&target.into()));
        sent(&link).await;
        link
    }

    /// A connection that was accepted and greeted.
    async fn accept(&self) -> Rc<Link> {
        let link = self.handler.opened(None);
        sent(&link).await;
        link
    }

    fn receive(&self, link: &Rc<Link>, lines: &[&str]) {
        for line in lines {
            self.handler.received(link, Command::parse(line).unwrap());
        }
    }
}

/// The line of a row called `name`; its token is a number or `batch`.
fn rdata(writer: &str, token: &str, name: &str) -> String {
    format!(r#"RDATA events {writer} {token} ["state-all",["{name}"]]"#)
}

async fn sent(link: &Link) -> Vec<String> {
    settle().await;
    let lines = tokio::time::timeout(std::time::Duration::ZERO, link.outgoing()).await.ok().flatten();
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
        assert_eq!(me.handler.links().len(), 2);
    });
}

#[test]
fn batches_of_two_writers_do_not_mix() {
    on_paused_clock(async {
        let me = instance("me");
        let link = me.connect("a").await;
        me.receive(&link, &["POSITION events a 10 10", "POSITION events b 10 10"]);
        me.receive(
            &link,
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
        let (one, other) = (me.connect("a").await, me.connect("a").await);
        me.receive(&one, &["POSITION events a 10 10", &rdata("a", "batch", "x")]);
        me.receive(&other, &[&rdata("a", "batch", "of the other")]);
        me.receive(&one, &[&rdata("a", "11", "y")]);
        settle().await;
        assert_eq!(me.journal.applied("a"), ["11: x y"]);
    });
}

#[test]
fn half_a_batch_is_forgotten_with_its_connection_and_no_other_is() {
    on_paused_clock(async {
        let me = instance("me");
        let (one, other) = (me.connect("a").await, me.connect("b").await);
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
        assert!(me.handler.batches.borrow().is_empty());
        assert_eq!(me.handler.links().len(), 2);
    });
}

#[test]
fn half_a_batch_is_forgotten_by_a_position_of_its_writer_alone() {
    on_paused_clock(async {
        let me = instance("me");
        let link = me.connect("a").await;
        me.receive(&link, &["POSITION events a 10 10", "POSITION events b 10 10"]);
        me.receive(&link, &[&rdata("a", "batch", "half"), &rdata("b", "batch", "kept")]);
        me.receive(&link, &["POSITION events a 10 10"]);
        me.receive(&link, &[&rdata("a", "11", "whole"), &rdata("b", "12", "last")]);
        settle().await;
        assert_eq!(me.journal.applied("a"), ["11: whole"]);
        assert_eq!(me.journal.applied("b"), ["12: kept last"]);
    });
}

#[test]
fn a_row_that_is_not_understood_is_reported_and_fetched_and_later_rows_wait_for_it() {
    on_paused_clock(async {
        let me = instance("me");
        let link = me.connect("a").await;
        me.stream.commit("a", 11, &["from the source"]);
        me.stream.answer("a", [Answer::Failure]);
        me.receive(&link, &["POSITION events a 10 10", r#"RDATA events a 11 ["hail",[]]"#, &rdata("a", "12", "x")]);
        tokio::time::sleep(SECOND).await;
        assert_eq!(me.journal.times("events", "trouble: row").len(), 1);
        assert_eq!(me.journal.asked("a"), [(10, 11), (10, 11)]);
        assert_eq!(me.journal.applied("a"), ["11: from the source", "12: x"]);
        assert!(link.is_open());
    });
}

#[test]
fn all_of_a_batch_is_fetched_if_one_row_of_it_is_not_understood() {
    on_paused_clock(async {
        let me = instance("me");
        let link = me.connect("a").await;
        me.stream.commit("a", 11, &["x", "y", "z"]);
        me.receive(&link, &["POSITION events a 10 10"]);
        me.receive(&link, &[&rdata("a", "batch", "x"), r#"RDATA events a batch {}"#, &rdata("a", "11", "z")]);
        me.receive(&link, &[&rdata("a", "batch", "next"), &rdata("a", "12", "last")]);
        settle().await;
        assert_eq!(me.journal.asked("a"), [(10, 11)]);
        assert_eq!(me.journal.applied("a"), ["11: x y z", "12: next last"]);
    });
}

#[test]
fn what_is_nobodys_is_ignored_and_harms_nothing_else() {
    on_paused_clock(async {
        let me = instance("me");
        let link = me.connect("a").await;
        me.receive(&link, &["POSITION events a 10 10", &rdata("a", "batch", "x")]);
        me.journal.clear();
        me.receive(
            &link,
            &[
                "POSITION to_come a 3 9",
                "RDATA to_come a 9 [1]",
                "POSITION events nobody 3 9",
                r#"RDATA events nobody 9 ["hail",[]]"#,
                "POSITION events me 3 99",
                &rdata("me", "99", "echo"),
            ],
        );
        settle().await;
        assert!(me.journal.story("me").is_empty() && me.journal.story("events").is_empty());
        assert!(link.is_open());
        me.receive(&link, &[&rdata("a", "11", "y")]);
        settle().await;
        assert_eq!(me.journal.applied("a"), ["11: x y"]);
    });
}

#[test]
fn replicate_is_answered_and_then_own_rows_follow() {
    on_paused_clock(async {
        let me = instance("me");
        let link = me.accept().await;
        me.receive(&link, &["REPLICATE"]);
        assert_eq!(sent(&link).await, ["POSITION events me 10 10"]);
        me.stream.commit("me", 11, &["x"]);
        me.stream.move_to("me", 11);
        me.handler.poke("events");
        assert_eq!(sent(&link).await, [rdata("me", "11", "x")]);
    });
}

#[test]
fn a_connection_is_set_up_once_the_streams_of_its_target_are() {
    on_paused_clock(async {
        let me = instance("me");
        let (link, other) = (me.connect("a").await, me.connect("b").await);
        assert!(!link.was_set_up());
        me.receive(&link, &["POSITION events a 10 10"]);
        settle().await;
        assert!(link.was_set_up() && !other.was_set_up());
    });
}

#[test]
fn a_greeting_sets_up_only_a_connection_to_an_instance_that_writes_nothing() {
    on_paused_clock(async {
        let me = instance("me");
        let (bystander, writer) = (me.connect("bystander").await, me.connect("a").await);
        assert!(!bystander.was_set_up());
        me.receive(&bystander, &["SERVER squall.test"]);
        me.receive(&writer, &["SERVER squall.test"]);
        assert!(bystander.was_set_up() && !writer.was_set_up());
    });
}

#[test]
fn another_server_is_told_so_and_left() {
    on_paused_clock(async {
        let me = instance("me");
        let link = me.connect("a").await;
        me.receive(&link, &["SERVER squall.test"]);
        assert!(link.is_open());
        me.receive(&link, &["SERVER elsewhere.test"]);
        assert_eq!(sent(&link).await, ["ERROR Wrong remote"]);
        assert!(!link.is_open() && !link.was_set_up());
    });
}

#[test]
fn a_complaint_is_reported_under_the_name_the_peer_gave() {
    on_paused_clock(async {
        let me = instance("me");
        let link = me.accept().await;
        me.receive(&link, &["NAME worker7", "ERROR no such thing"]);
        assert_eq!(me.journal.story("worker7"), ["trouble: connection"]);
        assert!(link.is_open());
    });
}

#[test]
fn the_master_passes_on_what_concerns_everybody_to_all_but_who_said_it() {
    on_paused_clock(async {
        for (name, passed_on) in [("master", vec!["REMOTE_SERVER_UP example.org"]), ("me", vec![])] {
            let one = instance(name);
            let (sayer, other, server) = (one.accept().await, one.accept().await, one.connect("a").await);
            one.receive(&sayer, &["REMOTE_SERVER_UP example.org"]);
            assert_eq!(sent(&other).await, passed_on, "by {name}");
            assert!(sent(&sayer).await.is_empty() && sent(&server).await.is_empty());
        }
    });
}

#[test]
fn whoever_has_subscribed_asks_for_everybodys_positions() {
    on_paused_clock(async {
        let me = instance("me");
        let publisher = me.handler.publishing();
        assert_eq!(sent(&publisher).await, ["POSITION events me 10 10"], "before any row");
        let subscription = me.handler.subscribed();
        assert_eq!(sent(&publisher).await, ["REPLICATE"]);
        me.receive(&subscription, &["REPLICATE"]);
        assert_eq!(sent(&publisher).await, ["POSITION events me 10 10"]);
        assert!(subscription.is_working());
        assert_eq!(sent(&subscription).await, [""; 0], "nothing is said there");
    });
}

#[test]
fn what_is_asked_is_asked_again_where_it_may_have_been_lost() {
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
fn what_is_published_on_a_new_connection_begins_with_the_position_and_what_came_between_is_left_to_be_fetched() {
    on_paused_clock(async {
        let me = instance("me");
        let first = me.handler.publishing();
        sent(&first).await;
        let write = |token: i64, name: &str| {
            me.stream.commit("me", token, &[name]);
            me.stream.move_to("me", token);
            me.handler.poke("events");
        };
        write(11, "lost");
        settle().await;
        first.closed();
        me.handler.lost(&first);
        write(12, "unheard");
        settle().await;
        let second = me.handler.publishing();
        write(13, "heard");
        let sent = sent(&second).await;
        assert_eq!(sent, ["POSITION events me 12 12".to_owned(), rdata("me", "13", "heard")]);
    });
}

#[test]
fn rows_of_a_writer_that_has_not_answered_are_fetched_and_not_believed() {
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
fn what_everybody_hears_by_way_of_a_broker_is_said_once() {
    on_paused_clock(async {
        let master = instance("master");
        let (publisher, subscription) = (master.handler.publishing(), master.handler.subscribed());
        sent(&publisher).await;
        master.handler.remote_server_up("matrix.org");
        assert_eq!(sent(&publisher).await, ["REMOTE_SERVER_UP matrix.org"]);
        master.receive(&subscription, &["REMOTE_SERVER_UP matrix.org", "REMOTE_SERVER_UP example.org"]);
        assert_eq!(sent(&publisher).await, [""; 0]);
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
        assert!(!subscription.settle(), "a's has still to be");
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
