//! Catching up: failures, limits, and rows that wait meanwhile.

use std::iter::repeat_n;
use std::time::Duration;

use super::*;
use crate::replication::backoff::{JITTER, nominal_delay};

#[test]
fn a_failed_catch_up_is_tried_again_with_growing_delays_until_it_works() {
    on_paused_clock(async {
        let Follower { stream, a, journal, .. } = follow(Delivery::Log);
        stream.commit("a", 11, &["x"]);
        stream.answer("a", repeat_n(Answer::Failure, 5));
        a.at(&connection(1), 11, 11);
        tokio::time::sleep(60 * SECOND).await;
        let fetches = journal.times("a", "fetch");
        assert_eq!(fetches.len(), 6, "five failures and a success");
        for (failures, pair) in fetches.windows(2).enumerate() {
            let nominal = nominal_delay(failures as u32).as_secs_f64();
            let delay = (pair[1] - pair[0]).as_secs_f64();
            assert!((delay / nominal - 1.0).abs() <= JITTER + 0.02, "{delay} s after {failures} failures");
        }
        assert_eq!(journal.times("a", "event: catch-up").len(), 5);
        assert_eq!(journal.applied("a"), ["11: x"]);
    });
}

#[test]
fn rows_behind_a_catch_up_wait_for_it() {
    on_paused_clock(async {
        let Follower { stream, a, journal, .. } = follow(Delivery::Log);
        let connection = connection(1);
        stream.commit("a", 11, &["missed"]);
        stream.answer("a", [Answer::Failure, Answer::Late(SECOND)]);
        a.at(&connection, 11, 11);
        settle().await;
        a.row(&connection, 12, "behind");
        tokio::time::sleep(SECOND / 2).await;
        assert!(journal.applied("a").is_empty());
        tokio::time::sleep(SECOND).await;
        assert_eq!(journal.applied("a"), ["11: missed", "12: behind"]);
    });
}

#[test]
fn a_catch_up_is_abandoned_when_its_connection_closes() {
    on_paused_clock(async {
        let Follower { stream, a, journal, .. } = follow(Delivery::Log);
        let dead = connection(1);
        let next = connection(2);
        a.at(&dead, 10, 10);
        settle().await;
        stream.commit("a", 11, &["missed"]);
        stream.answer("a", repeat_n(Answer::Failure, 1000));
        a.at(&dead, 11, 11);
        a.row(&dead, 12, "void: what came before it is missing");
        tokio::time::sleep(10 * SECOND).await;
        dead.closed();
        tokio::time::sleep(6 * SECOND).await;
        let fetches = journal.fetched("a").len();
        tokio::time::sleep(60 * SECOND).await;
        assert_eq!(journal.fetched("a").len(), fetches, "nothing is fetched for a dead connection");
        assert!(journal.applied("a").is_empty());
        stream.answer_well("a");
        stream.commit("a", 12, &["fetched"]);
        a.at(&next, 12, 12);
        settle().await;
        assert_eq!(journal.applied("a"), ["11: missed", "12: fetched"]);
    });
}

#[test]
fn one_followers_failing_catch_up_does_not_delay_another() {
    on_paused_clock(async {
        let Follower { stream, a, b, journal } = follow(Delivery::Log);
        let connection = connection(1);
        stream.commit("b", 11, &["b"]);
        stream.answer("a", repeat_n(Answer::Failure, 1000));
        a.at(&connection, 20, 20);
        b.at(&connection, 11, 11);
        b.row(&connection, 12, "b");
        settle().await;
        assert_eq!(journal.applied("b"), ["11: b", "12: b"]);
    });
}

#[test]
fn a_limited_answer_is_followed_by_the_rest() {
    on_paused_clock(async {
        let Follower { stream, a, journal, .. } = follow(Delivery::Log);
        for token in [11, 13, 14] {
            stream.commit("a", token, &["x"]);
        }
        stream.answer("a", [Answer::Limited(1), Answer::Limited(1)]);
        a.at(&connection(1), 20, 20);
        settle().await;
        assert_eq!(journal.fetched("a"), [(10, 20), (11, 20), (13, 20)]);
        assert_eq!(journal.applied("a"), ["11: x", "13: x", "14: x"]);
    });
}

#[test]
fn a_fetch_that_falls_short_of_the_announced_position_is_retried() {
    on_paused_clock(async {
        let follower = follow(Delivery::Log);
        let Follower { stream, a, journal, .. } = &follower;
        stream.commit("a", 11, &["x"]);
        stream.commit("a", 12, &["y"]);
        stream.answer("a", [Answer::Short(Token(11))]);
        a.at(&connection(1), 12, 12);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(follower.position(), 10, "the answer ended before the announced position");
        tokio::time::sleep(SECOND).await;
        assert_eq!(journal.fetched("a"), [(10, 12), (10, 12)]);
        assert_eq!(journal.applied("a"), ["11: x", "12: y"]);
    });
}

#[test]
fn a_fetch_that_makes_no_progress_is_not_retried_at_once() {
    on_paused_clock(async {
        let Follower { stream, a, journal, .. } = follow(Delivery::Log);
        stream.commit("a", 11, &["x"]);
        stream.answer("a", repeat_n(Answer::Nothing, 20));
        a.at(&connection(1), 11, 11);
        tokio::time::sleep(SECOND).await;
        assert!(journal.fetched("a").len() <= 5, "fetched {} times in a second", journal.fetched("a").len());
        tokio::time::sleep(120 * SECOND).await;
        assert_eq!(journal.applied("a"), ["11: x"]);
    });
}

#[test]
fn an_overlong_queue_becomes_one_catch_up_and_nothing_is_lost() {
    on_paused_clock(async {
        let Follower { stream, a, journal, .. } = follow(Delivery::Log);
        let connection = connection(1);
        let last = 11 + ITEMS_QUEUED_MAX as i64 + 5;
        for token in 11..=last {
            stream.commit("a", token, &["x"]);
        }
        stream.answer("a", [Answer::Late(SECOND)]);
        a.at(&connection, 11, 11);
        settle().await;
        for token in 12..=last {
            a.row(&connection, token, "x");
        }
        assert_eq!(a.queue.borrow().len(), 5, "one position, and the rows that came after it");
        tokio::time::sleep(2 * SECOND).await;
        assert_eq!(journal.fetched("a"), [(10, 11), (11, last - 4)]);
        assert_eq!(journal.applied("a"), stream.committed("a"));
    });
}
