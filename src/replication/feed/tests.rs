//! Which rows count, what a position makes a follower fetch, and in which order it learns.

mod catch_up;
mod memory;

use super::*;
use crate::replication::testing::{Answer, FakeStream, Journal, SECOND, link, on_paused_clock, row, settle};

/// An instance that follows the writers `a` and `b` of one stream, both from 10.
struct Follower {
    stream: Rc<FakeStream>,
    a: Rc<Feed>,
    b: Rc<Feed>,
    journal: Journal,
}

fn follow(promise: Promise) -> Follower {
    let journal = Journal::default();
    let env = journal.env();
    let stream = FakeStream::new("events", promise, &["a", "b"], &journal);
    let feed = |writer: &str| {
        let feed = Rc::new(Feed::new(stream.clone(), writer.into(), journal.consumers(), env.clone()));
        env.tasks.spawn("feed", Rc::clone(&feed).run());
        feed
    };
    let (a, b) = (feed("a"), feed("b"));
    Follower { stream, a, b, journal }
}

impl Feed {
    fn row(&self, link: &Rc<Link>, token: i64, name: &str) {
        self.rows(link, Token(token), vec![row(name)]);
    }

    fn at(&self, link: &Rc<Link>, prev: i64, new: i64) {
        self.position(link, Token(prev), Token(new));
    }
}

impl Follower {
    fn position(&self) -> i64 {
        self.stream.position(&"a".into()).0
    }
}

#[test]
fn a_feed_tells_where_it_begins() {
    on_paused_clock(async {
        let Follower { journal, .. } = follow(Promise::Log);
        assert_eq!(journal.story("a"), ["tell beginning 10"]);
    });
}

#[test]
fn rows_before_the_writers_position_are_dropped() {
    on_paused_clock(async {
        let Follower { a, journal, .. } = follow(Promise::Log);
        let link = link(1);
        a.row(&link, 11, "early");
        a.at(&link, 10, 10);
        a.row(&link, 12, "late");
        settle().await;
        assert_eq!(journal.applied("a"), ["12: late"]);
    });
}

#[test]
fn rows_of_another_connection_are_dropped() {
    on_paused_clock(async {
        let Follower { a, journal, .. } = follow(Promise::Log);
        let (one, other) = (link(1), link(2));
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
        let Follower { a, b, journal, .. } = follow(Promise::Log);
        let link = link(1);
        a.at(&link, 10, 10);
        settle().await;
        b.row(&link, 11, "b");
        a.row(&link, 12, "a");
        settle().await;
        assert!(journal.applied("b").is_empty());
        assert_eq!(journal.applied("a"), ["12: a"]);
    });
}

#[test]
fn a_position_that_spans_the_followers_own_fetches_nothing() {
    for (prev, new) in [(10, 10), (10, 12), (8, 10), (8, 12)] {
        on_paused_clock(async {
            let follower = follow(Promise::Log);
            follower.stream.commit("a", 11, &["not to be asked for"]);
            follower.a.at(&link(1), prev, new);
            settle().await;
            assert_eq!(follower.journal.asked("a"), [], "POSITION {prev} {new}");
            assert_eq!(follower.position(), new);
            assert_eq!(follower.journal.story("a").last().unwrap(), &format!("tell position {new}"));
        });
    }
}

#[test]
fn any_other_position_ahead_fetches_exactly_what_is_missing() {
    for (prev, new) in [(11, 13), (12, 13), (13, 13)] {
        on_paused_clock(async {
            let follower = follow(Promise::Log);
            follower.stream.commit("a", 10, &["known"]);
            follower.stream.commit("a", 11, &["missed"]);
            follower.stream.commit("a", 13, &["missed too"]);
            follower.stream.commit("a", 14, &["not announced yet"]);
            follower.a.at(&link(1), prev, new);
            settle().await;
            assert_eq!(follower.journal.asked("a"), [(10, 13)], "POSITION {prev} {new}");
            assert_eq!(follower.journal.applied("a"), ["11: missed", "13: missed too"]);
            assert_eq!(follower.position(), 13);
        });
    }
}

#[test]
fn a_position_behind_the_follower_changes_nothing() {
    on_paused_clock(async {
        let follower = follow(Promise::Log);
        let link = link(1);
        follower.a.at(&link, 5, 5);
        follower.a.row(&link, 11, "new");
        settle().await;
        let told = ["tell beginning 10", "advance 5", "tell position 10", "take 11: new", "advance 11", "tell 11: new"];
        assert_eq!(follower.journal.story("a"), told);
    });
}

#[test]
fn each_caught_up_row_is_applied_with_its_own_token() {
    on_paused_clock(async {
        let Follower { stream, a, journal, .. } = follow(Promise::Log);
        stream.commit("a", 11, &["p", "q"]);
        stream.commit("a", 12, &["r"]);
        stream.commit("a", 15, &["s", "t"]);
        journal.clear();
        a.at(&link(1), 20, 20);
        settle().await;
        let expected = [
            "ask (10, 20]",
            "take 11: p q",
            "advance 11",
            "tell 11: p q",
            "take 12: r",
            "advance 12",
            "tell 12: r",
            "take 15: s t",
            "advance 15",
            "tell 15: s t",
            "advance 20",
            "tell position 20",
        ];
        assert_eq!(journal.story("a"), expected);
    });
}

#[test]
fn rows_are_taken_in_before_the_position_moves_and_before_anybody_is_told() {
    on_paused_clock(async {
        let Follower { a, journal, .. } = follow(Promise::Log);
        let link = link(1);
        a.at(&link, 10, 10);
        settle().await;
        journal.clear();
        a.rows(&link, Token(11), vec![row("x"), row("y")]);
        settle().await;
        assert_eq!(journal.story("a"), ["take 11: x y", "advance 11", "tell 11: x y"]);
    });
}

#[test]
fn rows_at_or_below_the_position_are_old_news() {
    on_paused_clock(async {
        let Follower { a, journal, .. } = follow(Promise::Log);
        let link = link(1);
        a.at(&link, 10, 10);
        for token in [9, 10, 11, 11, 10] {
            a.row(&link, token, "x");
        }
        settle().await;
        assert_eq!(journal.applied("a"), ["11: x"]);
    });
}

#[test]
fn a_connection_is_set_up_when_its_stream_is_caught_up_and_no_sooner() {
    on_paused_clock(async {
        let Follower { stream, a, .. } = follow(Promise::Log);
        let link = link(1);
        stream.answer("a", [Answer::Late(SECOND)]);
        a.at(&link, 20, 20);
        tokio::time::sleep(SECOND / 2).await;
        assert!(!link.was_set_up());
        tokio::time::sleep(SECOND).await;
        assert!(link.was_set_up());
    });
}

#[test]
fn rows_that_came_before_their_connection_closed_still_count() {
    on_paused_clock(async {
        let Follower { a, journal, .. } = follow(Promise::Log);
        let link = link(1);
        a.at(&link, 10, 10);
        a.row(&link, 11, "committed");
        link.closed();
        settle().await;
        assert_eq!(journal.applied("a"), ["11: committed"]);
    });
}
