//! Streams that the writer holds in memory: after a restart the same tokens may belong to other rows.

use super::*;
use crate::replication::testing::Step;

/// Returns a follower whose writer has announced 11 on `connection` and sent one row since.
async fn connected(connection: &Rc<Connection>) -> Follower {
    let follower = follow(Delivery::Memory);
    follower.stream.commit("a", 11, &["old"]);
    follower.a.at(connection, 11, 11);
    follower.a.row(connection, 12, "old too");
    settle().await;
    assert_eq!(follower.journal.applied("a"), ["11: old", "12: old too"]);
    follower.journal.clear();
    follower
}

/// The end of a range that covers all of the writer's rows.
const ALL: i64 = EVERYTHING.0;

/// Restarts the writer as another process with one row.
fn restart(stream: &FakeStream, token: i64) {
    stream.forget("a");
    stream.commit("a", token, &["new"]);
}

/// Returns the token of the `serial`-th change in the `run`-th run of a writer.
fn token(run: i64, serial: i64) -> i64 {
    Token::beginning_of(run).0 + serial
}

#[test]
fn a_new_connection_starts_over() {
    on_paused_clock(async {
        let Follower { stream, a, journal, .. } = connected(&connection(1)).await;
        restart(&stream, 12);
        a.at(&connection(2), 12, 12);
        settle().await;
        let expected = [
            &*format!("fetch (0, {ALL}]"),
            "reset",
            "notify reset",
            "apply 12: new",
            "advance 12",
            "notify 12: new",
            "advance 12",
            "notify position 12",
        ];
        assert_eq!(journal.story("a"), expected);
    });
}

#[test]
fn a_position_that_goes_back_starts_over() {
    on_paused_clock(async {
        let connection = connection(1);
        let follower = connected(&connection).await;
        restart(&follower.stream, 3);
        follower.a.at(&connection, 3, 3);
        settle().await;
        assert_eq!(follower.journal.fetched("a"), [(0, ALL)]);
        assert_eq!(follower.journal.applied("a"), ["3: new"]);
        assert_eq!(follower.position(), 3);
    });
}

#[test]
fn nothing_is_fetched_from_a_writer_without_rows() {
    on_paused_clock(async {
        let follower = connected(&connection(1)).await;
        follower.a.at(&connection(2), 0, 0);
        settle().await;
        assert_eq!(follower.journal.story("a"), ["reset", "notify reset", "advance 0", "notify position 0"]);
    });
}

#[test]
fn a_position_on_the_known_connection_does_not_start_over() {
    on_paused_clock(async {
        let connection = connection(1);
        let Follower { a, journal, .. } = connected(&connection).await;
        a.at(&connection, 12, 12);
        a.at(&connection, 5, 12);
        settle().await;
        assert_eq!(journal.story("a"), ["advance 12", "notify position 12", "advance 12", "notify position 12"]);
    });
}

#[test]
fn a_position_that_was_overtaken_by_rows_loses_none_of_them() {
    on_paused_clock(async {
        let connection = connection(1);
        let follower = connected(&connection).await;
        let Follower { stream, a, journal, .. } = &follower;
        stream.commit("a", 12, &["old too"]);
        a.at(&connection, 11, 11);
        a.row(&connection, 13, "newer");
        settle().await;
        assert_eq!(journal.fetched("a"), [(0, ALL)]);
        assert_eq!(journal.applied("a"), ["11: old", "12: old too", "13: newer"]);
    });
}

#[test]
fn rows_of_an_ended_process_are_not_mixed_with_those_of_its_successor() {
    on_paused_clock(async {
        let connection = connection(1);
        let follower = connected(&connection).await;
        let Follower { stream, a, journal, .. } = &follower;
        // Messages of the old process are still at the broker when the new one already answers.
        stream.forget("a");
        stream.commit("a", token(1, 3), &["new"]);
        stream.answer("a", [Answer::Short(Token(token(1, 4)))]);
        a.at(&connection, 14, 14);
        a.row(&connection, 15, "old and late");
        a.row(&connection, token(1, 5), "newer");
        settle().await;
        assert_eq!(journal.times("a", "reset").len(), 1, "no row of the old process is left");
        assert_eq!(journal.applied("a"), [format!("{}: new", token(1, 3)), format!("{}: newer", token(1, 5))]);
        assert_eq!(follower.position(), token(1, 5));
    });
}

#[test]
fn a_row_whose_successor_the_writer_has_forgotten_does_not_stay() {
    on_paused_clock(async {
        let connection = connection(1);
        let Follower { stream, a, journal, .. } = connected(&connection).await;
        // The room's empty row was lost, and the writer keeps no empty rooms for ever.
        stream.forget("a");
        stream.answer("a", [Answer::Short(Token(20))]);
        a.at(&connection, 20, 20);
        settle().await;
        assert_eq!(journal.fetched("a"), [(0, ALL)], "an answer from the own position would not show it");
        assert_eq!(journal.times("a", "reset").len(), 1);
    });
}

#[test]
fn a_writer_that_is_restarted_between_two_answers_leaves_no_row_of_the_first() {
    on_paused_clock(async {
        let follower = connected(&connection(1)).await;
        let Follower { stream, a, journal, .. } = &follower;
        stream.forget("a");
        stream.commit("a", token(1, 1), &["of the first"]);
        stream.commit("a", token(1, 2), &["of the first"]);
        stream.answer("a", [Answer::Limited(1), Answer::Late(SECOND)]);
        a.at(&connection(2), token(1, 2), token(1, 2));
        settle().await;
        stream.forget("a");
        stream.commit("a", token(2, 1), &["of the second"]);
        tokio::time::sleep(2 * SECOND).await;
        assert_eq!(journal.applied("a"), [format!("{}: of the second", token(2, 1))]);
    });
}

#[test]
fn no_reader_sees_the_state_between_the_old_and_the_new() {
    on_paused_clock(async {
        let follower = connected(&connection(1)).await;
        let Follower { stream, a, journal, .. } = &follower;
        restart(stream, 2);
        stream.commit("a", 4, &["new"]);
        stream.answer("a", [Answer::Limited(1), Answer::Failure, Answer::Late(SECOND)]);
        a.at(&connection(2), 4, 4);
        tokio::time::sleep(SECOND).await;
        assert_eq!(follower.position(), 12, "the old state stands until all of the new one is there");
        assert!(journal.times("a", "reset").is_empty());
        tokio::time::sleep(SECOND).await;
        assert_eq!(journal.applied("a"), ["2: new", "4: new"]);
        let reset = journal.times("a", "reset");
        let notified = journal.times("a", "notify position 4");
        assert_eq!(reset, notified, "all steps in between happen at one instant");
        assert_eq!(reset.len(), 1);
    });
}

#[test]
fn a_writer_that_is_behind_its_announced_position_is_asked_three_times_and_then_believed() {
    on_paused_clock(async {
        let follower = connected(&connection(1)).await;
        let Follower { stream, a, journal, .. } = &follower;
        restart(stream, 3);
        stream.answer("a", std::iter::repeat_n(Answer::Short(Token(3)), 1000));
        a.at(&connection(2), 26, 26);
        settle().await;
        assert_eq!(journal.fetched("a").len(), 1);
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(journal.fetched("a").len(), 3);
        assert_eq!((follower.position(), journal.applied("a")), (3, vec!["3: new".to_owned()]));
        assert_eq!(journal.times("a", "event: not allocated").len(), 1, "something else sent the position");
    });
}

#[test]
fn an_overlong_queue_becomes_one_catch_up_and_nothing_is_lost() {
    on_paused_clock(async {
        let Follower { stream, a, journal, .. } = connected(&connection(1)).await;
        let connection = connection(2);
        stream.forget("a");
        let last = ITEMS_QUEUED_MAX as i64 + 5;
        for token in 1..=last {
            stream.commit("a", token, &["new"]);
        }
        stream.answer("a", [Answer::Late(SECOND)]);
        a.at(&connection, 1, 1);
        settle().await;
        for token in 2..=last {
            a.row(&connection, token, "new");
        }
        tokio::time::sleep(2 * SECOND).await;
        assert_eq!(journal.fetched("a"), [(0, ALL), (0, ALL)]);
        let reset =
            journal.steps("a").iter().rposition(|step| matches!(step, Step::NotifiedReset)).expect("it starts over");
        let since = journal.steps("a").split_off(reset);
        assert_eq!(since.iter().filter(|step| matches!(step, Step::NotifiedRows(..))).count() as i64, last);
    });
}

#[test]
fn a_new_connection_whose_position_was_discarded_starts_over_all_the_same() {
    on_paused_clock(async {
        let old = connection(1);
        let new = connection(2);
        let Follower { stream, a, journal, .. } = connected(&old).await;
        stream.answer("a", [Answer::Late(SECOND)]);
        a.at(&old, 20, 20);
        settle().await;
        stream.forget("a");
        let last = 21 + ITEMS_QUEUED_MAX as i64;
        for token in 1..=last {
            stream.commit("a", token, &["new"]);
        }
        journal.clear();
        a.at(&new, 20, 20);
        for token in 21..=last {
            a.row(&new, token, "new");
        }
        tokio::time::sleep(2 * SECOND).await;
        assert_eq!(journal.fetched("a"), [(0, ALL)]);
        let reset =
            journal.steps("a").iter().rposition(|step| matches!(step, Step::NotifiedReset)).expect("it starts over");
        let since = journal.steps("a").split_off(reset);
        assert_eq!(since.iter().filter(|step| matches!(step, Step::NotifiedRows(..))).count() as i64, last);
    });
}

#[test]
fn a_position_that_moved_without_a_row_is_looked_up_at_the_writer() {
    on_paused_clock(async {
        let connection = connection(1);
        let follower = connected(&connection).await;
        follower.stream.commit("a", 12, &["old too"]);
        follower.stream.answer("a", std::iter::repeat_n(Answer::Short(Token(12)), 3));
        follower.a.at(&connection, 3, i64::MAX);
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(follower.position(), 12, "the writer knows nothing of it");
    });
}
