//! The rules of the generator, one test each. Many restate a test of Synapse (tests/storage/test_id_generators.py).

use super::*;

/// Returns the state of `local` where no position, that of the sequence included, is above the highest of `positions`.
fn starting(local: &str, positions: &[(&str, i64)], committed: &[i64]) -> IdState {
    let positions: BTreeMap<InstanceName, Token> =
        positions.iter().map(|&(writer, token)| (writer.into(), Token(token))).collect();
    let committed: BTreeSet<Token> = committed.iter().copied().map(Token).collect();
    let max_allocated = positions.values().chain(&committed).copied().max().unwrap();
    let persisted_upto = positions.values().copied().min().unwrap();
    IdState::new(
        local.into(),
        StartingPoint { positions, persisted_upto, max_allocated, committed, unclaimed: Vec::new() },
    )
}

fn reserve(state: &mut IdState, ids: &[i64]) {
    let fetch = state.begin_fetch();
    state.allocated(fetch, &tokens(ids)).unwrap();
}

fn tokens(ids: &[i64]) -> Vec<Token> {
    ids.iter().copied().map(Token).collect()
}

fn own(state: &IdState) -> Token {
    state.current_token_for_writer(&state.local)
}

#[test]
fn the_position_follows_upstreams_table() {
    let mut state = starting("a", &[("a", 1)], &[]);
    reserve(&mut state, &[2, 3]);
    let mut complete = |reserved: &[i64], id: i64| {
        if !reserved.is_empty() {
            reserve(&mut state, reserved);
        }
        state.finish(&[Token(id)]);
        (state.current_token().0, own(&state).0)
    };
    assert_eq!(complete(&[], 3), (1, 1));
    assert_eq!(complete(&[], 2), (3, 3));
    assert_eq!(complete(&[4, 5, 6], 5), (3, 3));
    assert_eq!(complete(&[], 4), (5, 5));
    assert_eq!(complete(&[], 6), (6, 6));
}

#[test]
fn ids_that_finish_out_of_order_wait_for_the_lowest() {
    let mut state = starting("a", &[("a", 7)], &[]);
    reserve(&mut state, &[8, 9, 10, 11]);
    for (finished, current) in [(9, 7), (11, 7), (8, 9), (10, 11)] {
        state.finish(&[Token(finished)]);
        assert_eq!(own(&state), Token(current), "after {finished}");
    }
}

#[test]
fn an_id_that_is_not_known_yet_holds_the_position() {
    let mut state = starting("a", &[("a", 7), ("b", 7)], &[]);
    let fetch = state.begin_fetch();
    reserve(&mut state, &[9]);
    state.finish(&[Token(9)]);
    state.advance(&"b".into(), Token(10));
    assert_eq!((own(&state), state.current_token()), (Token(7), Token(7)));
    state.allocated(fetch, &[Token(8)]).unwrap();
    assert_eq!(own(&state), Token(7));
    state.finish(&[Token(8)]);
    assert_eq!((own(&state), state.current_token()), (Token(10), Token(10)));
}

#[test]
fn ids_at_or_below_what_was_heard_before_are_refused() {
    let mut state = starting("a", &[("a", 1), ("b", 1)], &[]);
    state.advance(&"b".into(), Token(40));
    let fetch = state.begin_fetch();
    assert_eq!(state.allocated(fetch, &tokens(&[40, 41])), Err(Token(40)));
    assert_eq!((own(&state), state.last_own_token()), (Token(40), Token(1)), "no id is outstanding, none is used");
    reserve(&mut state, &[41]);
    state.finish(&[Token(41)]);
    assert_eq!(own(&state), Token(41));
}

#[test]
fn ids_above_what_was_known_at_the_request_are_used_though_higher_ones_are_heard_meanwhile() {
    let mut state = starting("a", &[("a", 5), ("b", 5)], &[]);
    let fetch = state.begin_fetch();
    state.advance(&"b".into(), Token(7));
    assert_eq!(state.allocated(fetch, &tokens(&[6])), Ok(()));
    assert!(state.is_outstanding(Token(6)));
}

#[test]
fn an_abandoned_fetch_releases_the_position() {
    let mut state = starting("a", &[("a", 7)], &[]);
    let fetch = state.begin_fetch();
    reserve(&mut state, &[9]);
    state.finish(&[Token(9)]);
    assert_eq!(own(&state), Token(7));
    state.abandon_fetch(fetch);
    assert_eq!((own(&state), state.minimal_local_current_token()), (Token(9), Token(9)));
}

#[test]
fn all_writers_are_complete_up_to_the_lowest_and_through_unbroken_rows_from_there() {
    let mut state = starting("reader", &[("a", 3), ("b", 5)], &[5]);
    let mut row = |writer: &str, token| {
        state.advance_by_row(&writer.into(), Token(token));
        state.current_token().0
    };
    assert_eq!(row("a", 6), 6, "5 is the lowest, and 6 follows it");
    assert_eq!(row("b", 7), 7);
    assert_eq!(row("b", 9), 7, "8 may be outstanding");
    assert_eq!(row("a", 8), 9);
    assert_eq!(row("a", 11), 9);
    assert_eq!(row("b", 15), 11, "10 belongs to neither");
}

#[test]
fn own_ids_and_rows_of_others_make_one_unbroken_run() {
    let mut state = starting("a", &[("a", 5), ("b", 5)], &[]);
    reserve(&mut state, &[6]);
    assert_eq!(state.current_token(), Token(5));
    state.advance_by_row(&"b".into(), Token(7));
    assert_eq!(state.current_token(), Token(5));
    state.finish(&[Token(6)]);
    assert_eq!(state.current_token(), Token(7));
}

#[test]
fn a_position_does_not_prove_that_its_number_is_a_row() {
    // `a` has just started: the sequence's last id is 8, and that is `b`'s, which is still writing it.
    let mut reader = starting("reader", &[("a", 7), ("b", 7)], &[]);
    reader.advance(&"a".into(), Token(8));
    assert_eq!((reader.current_token(), reader.current_token_for_writer(&"b".into())), (Token(7), Token(7)));
    reader.advance_by_row(&"b".into(), Token(8));
    assert_eq!(reader.current_token(), Token(8));
}

#[test]
fn an_idle_writer_stands_at_the_highest_id_it_has_seen() {
    let mut state = starting("second", &[("first", 3), ("second", 3), ("third", 3)], &[]);
    state.advance(&"first".into(), Token(4));
    assert_eq!(own(&state), Token(4));
    reserve(&mut state, &[6]);
    state.advance(&"third".into(), Token(7));
    assert_eq!(own(&state), Token(5), "6 is outstanding");
    state.finish(&[Token(6)]);
    assert_eq!(own(&state), Token(7));
}

#[test]
fn the_minimal_token_is_the_last_own_write() {
    let mut state = starting("first", &[("first", 3), ("second", 4)], &[]);
    assert_eq!(state.minimal_local_current_token(), Token(3));
    state.advance(&"second".into(), Token(6));
    assert_eq!((own(&state), state.minimal_local_current_token()), (Token(6), Token(3)));
    reserve(&mut state, &[7, 8]);
    state.finish(&[Token(7)]);
    assert_eq!(state.minimal_local_current_token(), Token(7));
}

#[test]
fn nothing_goes_backwards_on_an_old_message_or_an_echo() {
    let mut state = starting("a", &[("a", 7), ("b", 7)], &[]);
    state.advance(&"b".into(), Token(12));
    reserve(&mut state, &[13]);
    let before = state.vector();
    state.advance(&"b".into(), Token(9));
    state.advance(&"a".into(), Token(20));
    assert_eq!(state.vector(), before);
}

#[test]
fn the_vector_names_the_writers_that_are_further_than_all() {
    let mut state = starting("reader", &[("a", 7), ("b", 7), ("c", 7)], &[]);
    state.advance_by_row(&"b".into(), Token(9));
    state.advance_by_row(&"c".into(), Token(11));
    let ahead = [("b".into(), Token(9)), ("c".into(), Token(11))].into();
    assert_eq!(state.vector(), VectorPosition::new(Token(7), ahead));
    state.advance(&"a".into(), Token(11));
    let ahead = [("a".into(), Token(11)), ("c".into(), Token(11))].into();
    assert_eq!(state.vector(), VectorPosition::new(Token(9), ahead));
}

#[test]
fn a_row_the_position_was_carried_over_is_not_beyond_the_last_own_token() {
    let mut state = starting("a", &[("a", 5), ("b", 5)], &[]);
    let late = state.begin_fetch(); // requested while 5 was the highest known: its ids may be 6 or more
    reserve(&mut state, &[6]);
    state.finish(&[Token(6)]);
    // All writers are settled up to 6, although the ids of the first request are not known yet.
    assert_eq!((own(&state), state.minimal_local_current_token()), (Token(6), Token(5)));
    assert_eq!(state.last_own_token(), Token(6));
    state.abandon_fetch(late);
    assert_eq!(state.minimal_local_current_token(), Token(6));
}

#[test]
fn a_row_found_at_the_start_is_still_to_come_from_its_writer() {
    // 7 was already in the database at the start, 6 was not.
    let mut state = starting("reader", &[("a", 5), ("b", 5)], &[7]);
    state.advance_by_row(&"a".into(), Token(6));
    assert_eq!(state.current_token(), Token(7), "nothing is missing in the database up to 7");
    assert_eq!(state.received_position(&"a".into()), Token(6), "but 7 has not arrived");
}
