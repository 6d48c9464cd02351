//! Streams that the writer holds in memory: the same numbers may mean other rows.

use super::*;
use crate::replication::testing::Step;

/// A follower whose writer has announced 11 on the first connection and said one row since.
async fn connected(link: &Rc<Link>) -> Follower {
    let follower = follow(Promise::Memory);
    follower.stream.commit("a", 11, &["old"]);
    follower.a.at(link, 11, 11);
    follower.a.row(link, 12, "old too");
    settle().await;
    assert_eq!(follower.journal.applied("a"), ["11: old", "12: old too"]);
    follower.journal.clear();
    follower
}

/// All that the writer has.
const ALL: i64 = EVERYTHING.0;

/// The writer is another process now, with one row.
fn restart(stream: &FakeStream, token: i64) {
    stream.forget("a");
    stream.commit("a", token, &["new"]);
}

/// The number of the `serial`-th change in the `run`-th run of a writer.
fn token(run: i64, serial: i64) -> i64 {
    Token::beginning_of(run).0 + serial
}

#[test]
fn a_new_connection_starts_over() {
    on_paused_clock(async {
        let Follower { stream, a, journal, .. } = connected(&link(1)).await;
        restart(&stream, 12);
        a.at(&link(2), 12, 12);
        settle().await;
        let expected = [
            &*format!("ask (0, {ALL}]"),
            "reset",
            "tell reset",
            "take 12: new",
            "advance 12",
            "tell 12: new",
            "advance 12",
            "advance 12",
            "tell position 12",
        ];
        assert_eq!(journal.story("a"), expected);
    });
}

#[test]
fn a_position_that_goes_back_starts_over() {
    on_paused_clock(async {
        let link = link(1);
        let follower = connected(&link).await;
        restart(&follower.stream, 3);
        follower.a.at(&link, 3, 3);
        settle().await;
        assert_eq!(follower.journal.asked("a"), [(0, ALL)]);
        assert_eq!(follower.journal.applied("a"), ["3: new"]);
        assert_eq!(follower.position(), 3);
    });
}

#[test]
fn a_writer_without_rows_is_not_asked_for_them() {
    on_paused_clock(async {
        let follower = connected(&link(1)).await;
        follower.a.at(&link(2), 0, 0);
        settle().await;
        assert_eq!(follower.journal.story("a"), ["reset", "tell reset", "advance 0", "advance 0", "tell position 0"]);
    });
}

#[test]
fn a_position_on_the_known_connection_does_not_start_over() {
    on_paused_clock(async {
        let link = link(1);
        let Follower { a, journal, .. } = connected(&link).await;
        a.at(&link, 12, 12);
        a.at(&link, 12, 14);
        settle().await;
        assert_eq!(journal.story("a"), ["advance 12", "tell position 12", "advance 14", "tell position 14"]);
    });
}

#[test]
fn a_position_that_was_overtaken_by_rows_loses_none_of_them() {
    on_paused_clock(async {
        let link = link(1);
        let follower = connected(&link).await;
        let Follower { stream, a, journal, .. } = &follower;
        stream.commit("a", 12, &["old too"]);
        a.at(&link, 11, 11);
        a.row(&link, 13, "newer");
        settle().await;
        assert_eq!(journal.asked("a"), [(0, ALL)]);
        assert_eq!(journal.applied("a"), ["11: old", "12: old too", "13: newer"]);
    });
}

#[test]
fn what_a_dead_process_has_said_is_not_mixed_with_what_its_successor_says() {
    on_paused_clock(async {
        let link = link(1);
        let follower = connected(&link).await;
        let Follower { stream, a, journal, .. } = &follower;
        // Something of the old process lies at the broker still, when the new one answers already.
        stream.forget("a");
        stream.commit("a", token(1, 3), &["new"]);
        stream.answer("a", [Answer::Short(Token(token(1, 4)))]);
        a.at(&link, 14, 14);
        a.row(&link, 15, "old and late");
        a.row(&link, token(1, 5), "newer");
        settle().await;
        assert_eq!(journal.times("a", "reset").len(), 1, "nothing of the old one is left");
        assert_eq!(journal.applied("a"), [format!("{}: new", token(1, 3)), format!("{}: newer", token(1, 5))]);
        assert_eq!(follower.position(), token(1, 5));
    });
}

#[test]
fn a_writer_that_is_restarted_between_two_answers_leaves_nothing_of_the_first() {
    on_paused_clock(async {
        let follower = connected(&link(1)).await;
        let Follower { stream, a, journal, .. } = &follower;
        stream.forget("a");
        stream.commit("a", token(1, 1), &["of the first"]);
        stream.commit("a", token(1, 2), &["of the first"]);
        stream.answer("a", [Answer::Limited(1), Answer::Late(SECOND)]);
        a.at(&link(2), token(1, 2), token(1, 2));
        settle().await;
        stream.forget("a");
        stream.commit("a", token(2, 1), &["of the second"]);
        tokio::time::sleep(2 * SECOND).await;
        assert_eq!(journal.applied("a"), [format!("{}: of the second", token(2, 1))]);
    });
}

#[test]
fn nobody_sees_the_state_between_the_old_and_the_new() {
    on_paused_clock(async {
        let follower = connected(&link(1)).await;
        let Follower { stream, a, journal, .. } = &follower;
        restart(stream, 2);
        stream.commit("a", 4, &["new"]);
        stream.answer("a", [Answer::Limited(1), Answer::Failure, Answer::Late(SECOND)]);
        a.at(&link(2), 4, 4);
        tokio::time::sleep(SECOND).await;
        assert_eq!(follower.position(), 12, "the old state stands until all of the new one is there");
        assert!(journal.times("a", "reset").is_empty());
        tokio::time::sleep(SECOND).await;
        assert_eq!(journal.applied("a"), ["2: new", "4: new"]);
        let (reset, told) = (journal.times("a", "reset"), journal.times("a", "tell position 4"));
        assert_eq!(reset, told, "everything between happens at one instant");
        assert_eq!(reset.len(), 1);
    });
}

#[test]
fn a_writer_that_is_behind_what_it_announced_is_asked_again() {
    on_paused_clock(async {
        let follower = connected(&link(1)).await;
        let Follower { stream, a, journal, .. } = &follower;
        let (half_open, next) = (link(2), link(3));
        restart(stream, 3);
        stream.answer("a", std::iter::repeat_n(Answer::Short(Token(3)), 1000));
        a.at(&half_open, 26, 26);
        tokio::time::sleep(10 * SECOND).await;
        assert!(journal.asked("a").len() > 3 && journal.times("a", "reset").is_empty());
        half_open.closed();
        a.at(&next, 3, 3);
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(follower.position(), 3);
        assert_eq!(journal.applied("a"), ["3: new"]);
    });
}

#[test]
fn too_much_that_waits_becomes_one_catch_up_and_nothing_is_lost() {
    on_paused_clock(async {
        let Follower { stream, a, journal, .. } = connected(&link(1)).await;
        let link = link(2);
        stream.forget("a");
        let last = ITEMS_QUEUED_MAX as i64 + 5;
        for token in 1..=last {
            stream.commit("a", token, &["new"]);
        }
        stream.answer("a", [Answer::Late(SECOND)]);
        a.at(&link, 1, 1);
        settle().await;
        for token in 2..=last {
            a.row(&link, token, "new");
        }
        tokio::time::sleep(2 * SECOND).await;
        assert_eq!(journal.asked("a"), [(0, ALL), (0, ALL)]);
        let reset =
            journal.steps("a").iter().rposition(|step| matches!(step, Step::ToldReset)).expect("it starts over");
        let since = journal.steps("a").split_off(reset);
        assert_eq!(since.iter().filter(|step| matches!(step, Step::ToldRows(..))).count() as i64, last);
    });
}

#[test]
fn a_new_connection_whose_position_was_given_up_starts_over_all_the_same() {
    on_paused_clock(async {
        let (old, new) = (link(1), link(2));
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
        assert_eq!(journal.asked("a"), [(0, ALL)]);
        let reset =
            journal.steps("a").iter().rposition(|step| matches!(step, Step::ToldReset)).expect("it starts over");
        let since = journal.steps("a").split_off(reset);
        assert_eq!(since.iter().filter(|step| matches!(step, Step::ToldRows(..))).count() as i64, last);
    });
}
