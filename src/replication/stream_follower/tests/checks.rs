//! Tokens that the database has not allocated, and checks that fail.

use super::*;

#[test]
fn a_token_that_is_not_allocated_changes_nothing() {
    on_paused_clock(async {
        let follower = follow(Delivery::Log);
        let Follower { stream, a, journal, .. } = &follower;
        let connection = connection(1);
        stream.allocate_upto(20);
        a.at(&connection, 10, 10);
        a.at(&connection, 5, 1_000_000);
        a.row(&connection, i64::MAX, "forged");
        settle().await;
        assert_eq!(follower.position(), 10);
        a.row(&connection, 11, "x");
        a.at(&connection, 11, 20);
        settle().await;
        assert_eq!((follower.position(), journal.applied("a")), (20, vec!["11: x".to_owned()]));
        assert_eq!((journal.fetched("a"), journal.times("a", "event: not allocated").len()), (vec![], 2));
    });
}

#[test]
fn a_row_waits_for_its_check_and_the_rows_behind_it_too() {
    on_paused_clock(async {
        let Follower { stream, a, journal, .. } = follow(Delivery::Log);
        let connection = connection(1);
        a.at(&connection, 10, 10);
        settle().await;
        stream.fail_checks(3);
        a.row(&connection, 11, "x");
        a.row(&connection, 12, "y");
        settle().await;
        assert!(journal.applied("a").is_empty());
        tokio::time::sleep(5 * SECOND).await;
        assert_eq!(journal.applied("a"), ["11: x", "12: y"]);
    });
}

#[test]
fn the_rows_behind_one_whose_check_was_abandoned_are_fetched_on_the_next_connection() {
    on_paused_clock(async {
        let Follower { stream, a, journal, .. } = follow(Delivery::Log);
        let (lost, next) = (connection(1), connection(2));
        a.at(&lost, 10, 10);
        settle().await;
        stream.commit("a", 11, &["x"]);
        stream.commit("a", 12, &["y"]);
        stream.fail_checks(1);
        a.row(&lost, 11, "x");
        a.row(&lost, 12, "y");
        settle().await;
        lost.closed();
        tokio::time::sleep(5 * SECOND).await;
        assert!(journal.applied("a").is_empty(), "the second row would hide the first one");
        a.at(&next, 12, 12);
        settle().await;
        assert_eq!(journal.applied("a"), ["11: x", "12: y"]);
    });
}

#[test]
fn rows_that_were_discarded_for_a_token_that_is_not_allocated_are_fetched() {
    on_paused_clock(async {
        let Follower { stream, a, journal, .. } = follow(Delivery::Log);
        let connection = connection(1);
        a.at(&connection, 10, 10);
        settle().await;
        let last = 10 + ITEMS_QUEUED_MAX as i64;
        stream.allocate_upto(last + 1);
        for token in 11..=last {
            stream.commit("a", token, &["x"]);
            a.row(&connection, token, "x");
        }
        a.at(&connection, 10, 1_000_000); // one more than the queue holds
        settle().await;
        assert!(journal.applied("a").is_empty());
        stream.commit("a", last + 1, &["y"]);
        a.row(&connection, last + 1, "y");
        a.at(&connection, last + 1, last + 1);
        settle().await;
        assert_eq!(journal.applied("a"), stream.committed("a"));
    });
}

#[test]
fn a_position_that_was_under_way_does_not_stand_for_rows_that_were_discarded_after_it() {
    on_paused_clock(async {
        let Follower { stream, a, journal, .. } = follow(Delivery::Log);
        let connection = connection(1);
        let last = 12 + ITEMS_QUEUED_MAX as i64;
        stream.allocate_upto(last + 1);
        for token in 11..=last + 1 {
            stream.commit("a", token, &["x"]);
        }
        stream.answer("a", [Answer::Late(SECOND)]);
        a.at(&connection, 11, 11);
        settle().await;
        for token in 12..last {
            a.row(&connection, token, "x");
        }
        a.at(&connection, 10, 1_000_000);
        tokio::time::sleep(2 * SECOND).await;
        a.row(&connection, last + 1, "x");
        a.at(&connection, last + 1, last + 1);
        settle().await;
        assert_eq!(journal.applied("a"), stream.committed("a"));
    });
}
