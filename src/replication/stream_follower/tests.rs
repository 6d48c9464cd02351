//! The rows that a follower applies, the ranges that it fetches, and the order of its steps.

mod catch_up;
mod checks;
mod memory;

use super::*;
use crate::replication::testing::{Answer, FakeStream, Journal, SECOND, connection, on_paused_clock, row, settle};
use crate::tasks;

/// An instance that follows the writers `a` and `b` of one stream, both from 10.
struct Follower {
    stream: Rc<FakeStream>,
    a: Rc<StreamFollower>,
    b: Rc<StreamFollower>,
    journal: Journal,
}

fn follow(delivery: Delivery) -> Follower {
    let journal = Journal::default();
    let env = journal.env();
    let stream = FakeStream::new("events", delivery, &["a", "b"], &journal);
    let follower = |writer: &str| {
        let follower = Rc::new(StreamFollower::new(stream.clone(), writer.into(), journal.consumers(), env.clone()));
        env.tasks.spawn(tasks::STREAM_FOLLOWER, Rc::clone(&follower).run());
        follower
    };
    let a = follower("a");
    let b = follower("b");
    Follower { stream, a, b, journal }
}

impl StreamFollower {
    fn row(&self, connection: &Rc<Connection>, token: i64, name: &str) {
        self.rows(connection, Token(token), vec![row(name)], 0);
    }

    fn at(&self, connection: &Rc<Connection>, prev: i64, new: i64) {
        self.position(connection, Token(prev), Token(new));
    }
}

impl Follower {
    fn position(&self) -> i64 {
        self.stream.position(&"a".into()).0
    }
}

#[test]
fn a_follower_notifies_its_first_position() {
    on_paused_clock(async {
        let Follower { journal, .. } = follow(Delivery::Log);
        assert_eq!(journal.story("a"), ["notify following 10"]);
    });
}

#[test]
fn rows_before_the_writers_position_are_dropped() {
    on_paused_clock(async {
        let Follower { a, journal, .. } = follow(Delivery::Log);
        let connection = connection(1);
        a.row(&connection, 11, "early");
        a.at(&connection, 10, 10);
        a.row(&connection, 12, "late");
        settle().await;
        assert_eq!(journal.applied("a"), ["12: late"]);
    });
}

#[test]
fn rows_of_another_connection_are_dropped() {
    on_paused_clock(async {
        let Follower { a, journal, .. } = follow(Delivery::Log);
        let one = connection(1);
        let other = connection(2);
        a.at(&one, 10, 10);
        a.row(&other, 11, "other");
        a.row(&one, 12, "one");
        a.at(&other, 12, 12);
        a.row(&one, 13, "one");
        a.row(&other, 14, "other");
        settle().await;
        assert_eq!(journal.applied("a"), ["12: one", "14: other"]);
    });
}

#[test]
fn one_writers_position_does_not_make_anothers_rows_acceptable() {
    on_paused_clock(async {
        let Follower { a, b, journal, .. } = follow(Delivery::Log);
        let connection = connection(1);
        a.at(&connection, 10, 10);
        settle().await;
        b.row(&connection, 11, "b");
        a.row(&connection, 12, "a");
        settle().await;
        assert!(journal.applied("b").is_empty());
        assert_eq!(journal.applied("a"), ["12: a"]);
    });
}

#[test]
fn a_position_that_spans_the_followers_own_fetches_nothing() {
    for (prev, new) in [(10, 10), (10, 12), (8, 10), (8, 12)] {
        on_paused_clock(async {
            let follower = follow(Delivery::Log);
            follower.stream.commit("a", 11, &["not to be fetched"]);
            follower.a.at(&connection(1), prev, new);
            settle().await;
            assert_eq!(follower.journal.fetched("a"), [], "POSITION {prev} {new}");
            assert_eq!(follower.position(), new);
            assert_eq!(follower.journal.story("a").last().unwrap(), &format!("notify position {new}"));
        });
    }
}

#[test]
fn any_other_position_ahead_fetches_exactly_what_is_missing() {
    for (prev, new) in [(11, 13), (12, 13), (13, 13)] {
        on_paused_clock(async {
            let follower = follow(Delivery::Log);
            follower.stream.commit("a", 10, &["known"]);
            follower.stream.commit("a", 11, &["missed"]);
            follower.stream.commit("a", 13, &["missed too"]);
            follower.stream.commit("a", 14, &["not announced yet"]);
            follower.a.at(&connection(1), prev, new);
            settle().await;
            assert_eq!(follower.journal.fetched("a"), [(10, 13)], "POSITION {prev} {new}");
            assert_eq!(follower.journal.applied("a"), ["11: missed", "13: missed too"]);
            assert_eq!(follower.position(), 13);
        });
    }
}

#[test]
fn a_position_behind_the_follower_changes_nothing() {
    on_paused_clock(async {
        let follower = follow(Delivery::Log);
        let connection = connection(1);
        follower.a.at(&connection, 5, 5);
        follower.a.row(&connection, 11, "new");
        settle().await;
        let steps =
            ["notify following 10", "advance 5", "notify position 10", "apply 11: new", "advance 11", "notify 11: new"];
        assert_eq!(follower.journal.story("a"), steps);
    });
}

#[test]
fn each_caught_up_row_is_applied_with_its_own_token() {
    on_paused_clock(async {
        let Follower { stream, a, journal, .. } = follow(Delivery::Log);
        stream.commit("a", 11, &["p", "q"]);
        stream.commit("a", 12, &["r"]);
        stream.commit("a", 15, &["s", "t"]);
        journal.clear();
        a.at(&connection(1), 20, 20);
        settle().await;
        let expected = [
            "fetch (10, 20]",
            "apply 11: p q",
            "advance 11",
            "notify 11: p q",
            "apply 12: r",
            "advance 12",
            "notify 12: r",
            "apply 15: s t",
            "advance 15",
            "notify 15: s t",
            "advance 20",
            "notify position 20",
        ];
        assert_eq!(journal.story("a"), expected);
    });
}

#[test]
fn rows_are_applied_before_the_position_moves_and_before_consumers_are_notified() {
    on_paused_clock(async {
        let Follower { a, journal, .. } = follow(Delivery::Log);
        let connection = connection(1);
        a.at(&connection, 10, 10);
        settle().await;
        journal.clear();
        a.rows(&connection, Token(11), vec![row("x"), row("y")], 0);
        settle().await;
        assert_eq!(journal.story("a"), ["apply 11: x y", "advance 11", "notify 11: x y"]);
    });
}

#[test]
fn rows_at_or_below_the_position_are_ignored() {
    on_paused_clock(async {
        let Follower { a, journal, .. } = follow(Delivery::Log);
        let connection = connection(1);
        a.at(&connection, 10, 10);
        for token in [9, 10, 11, 11, 10] {
            a.row(&connection, token, "x");
        }
        settle().await;
        assert_eq!(journal.applied("a"), ["11: x"]);
    });
}

#[test]
fn a_connection_is_set_up_when_its_stream_is_caught_up_and_no_sooner() {
    on_paused_clock(async {
        let Follower { stream, a, .. } = follow(Delivery::Log);
        let connection = connection(1);
        stream.answer("a", [Answer::Late(SECOND)]);
        a.at(&connection, 20, 20);
        tokio::time::sleep(SECOND / 2).await;
        assert!(!connection.was_set_up());
        tokio::time::sleep(SECOND).await;
        assert!(connection.was_set_up());
    });
}

#[test]
fn rows_that_arrived_before_their_connection_closed_are_applied() {
    on_paused_clock(async {
        let Follower { a, journal, .. } = follow(Delivery::Log);
        let connection = connection(1);
        a.at(&connection, 10, 10);
        a.row(&connection, 11, "committed");
        connection.closed();
        settle().await;
        assert_eq!(journal.applied("a"), ["11: committed"]);
    });
}
