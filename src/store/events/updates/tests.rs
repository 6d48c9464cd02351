//! The catch-up query against a simple model: all rows in a list.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rusqlite::Connection;

use super::*;
use crate::store::{events, schema};
use squall_protocol::rows::ROWS_TARGET;

/// The rows of one token.
#[derive(Debug, Clone)]
struct Group {
    writer: &'static str,
    has_event: bool,
    was_outlier: bool,
    state_rows: usize,
    room: u8,
}

/// A database with groups at the tokens 2, 3, ..., and all of its rows.
struct Given {
    database: Connection,
    rows: Vec<(Token, &'static str, EventsRow)>,
    last: Token,
}

fn given(groups: &[Group]) -> Given {
    let mut database = Connection::open_in_memory().unwrap();
    schema::prepare(&mut database).unwrap();
    let mut rows = Vec::new();
    let mut token = Token(1);
    for group in groups {
        token = token.next();
        let writer = InstanceName::from(group.writer);
        let tx = database.transaction().unwrap();
        let room_id = format!("!{}", group.room);
        if group.has_event {
            let event = EventRow { outlier: group.was_outlier, ..message(token, &room_id) };
            events::persist(&tx, &writer, &[(token, event)], &[]).unwrap();
            rows.push((token, group.writer, event_row_of(token, &room_id)));
            if group.was_outlier {
                let event_id = format!("$e{token}");
                token = token.next();
                events::mark_ex_outlier(&tx, &writer, token, &event_id).unwrap();
                rows.push((token, group.writer, event_row_of(token.prev(), &room_id)));
            }
        }
        for n in 0..group.state_rows {
            let (kind, state_key) = ("m.room.member".to_owned(), format!("@u{n}"));
            let delta = StateRow { room_id: room_id.clone(), kind, state_key, event_id: None };
            rows.push((token, group.writer, EventsRow::State(delta.clone())));
            events::persist(&tx, &writer, &[], &[(token, delta)]).unwrap();
        }
        tx.commit().unwrap();
    }
    rows.sort();
    Given { database, rows, last: token }
}

fn message(token: Token, room_id: &str) -> EventRow {
    EventRow::message(format!("$e{token}"), room_id)
}

fn event_row_of(token: Token, room_id: &str) -> EventsRow {
    EventsRow::Event(message(token, room_id))
}

impl Given {
    fn updates(&self, writer: &str, from: Token, upto: Token) -> Updates {
        let query = UpdatesQuery { writer: &writer.into(), from, upto, rows_max: ROWS_TARGET };
        updates(&self.database, query).unwrap()
    }

    /// Returns the rows of `writer` that a follower must get after `from`, up to `upto`, if large changes of a room at one
    /// token are collapsed.
    fn expected(&self, writer: &str, from: Token, upto: Token) -> Vec<(Token, EventsRow)> {
        let in_range = |(token, by, _): &&(Token, &str, EventsRow)| *by == writer && from < *token && *token <= upto;
        let mut by_token: BTreeMap<Token, Vec<EventsRow>> = BTreeMap::new();
        for (token, _, row) in self.rows.iter().filter(in_range) {
            by_token.entry(*token).or_default().push(row.clone());
        }
        let collapsed = by_token
            .into_iter()
            .flat_map(|(token, rows)| collapse_large_changes(rows.into_iter().map(|row| (token, row)).collect()));
        let mut rows: Vec<_> = collapsed.collect();
        rows.sort();
        rows
    }

    /// Queries until the answer is complete, and checks the contract of every answer.
    fn walk(&self, writer: &str, from: Token, upto: Token) -> Vec<(Token, EventsRow)> {
        let mut all = Vec::new();
        let mut position = from;
        loop {
            let answer = self.updates(writer, position, upto);
            let rows: Vec<_> = answer.rows.into_iter().map(|(token, row)| (token, unwrap(row))).collect();
            assert!(rows.is_sorted(), "rows ascend");
            assert!(rows.iter().all(|(token, _)| position < *token && *token <= answer.upto), "none outside the range");
            assert_eq!(rows, self.expected(writer, position, answer.upto), "complete up to the returned token");
            all.extend(rows);
            if !answer.limited {
                assert_eq!(answer.upto, upto.max(position));
                return all;
            }
            assert!(answer.upto > position, "a limited answer makes progress");
            assert!(answer.upto <= upto);
            position = answer.upto;
        }
    }
}

fn unwrap(row: Row) -> EventsRow {
    match row {
        Row::Events(row) => row,
        other => panic!("a row of another stream: {other:?}"),
    }
}

fn events_only(count: usize) -> Vec<Group> {
    vec![Group { writer: "a", has_event: true, was_outlier: false, state_rows: 0, room: 0 }; count]
}

fn state_only(counts: &[usize]) -> Vec<Group> {
    let group = |&state_rows| Group { writer: "a", has_event: false, was_outlier: false, state_rows, room: 0 };
    counts.iter().map(group).collect()
}

/// Returns the number of answers until all rows are read, and the number of rows.
fn answers(groups: &[Group]) -> (usize, usize) {
    let given = given(groups);
    let rows = given.walk("a", Token(1), given.last).len();
    let mut position = Token(1);
    let mut answers = 0;
    while position < given.last {
        position = given.updates("a", position, given.last).upto;
        answers += 1;
    }
    (answers, rows)
}

#[test]
fn a_row_past_the_limit_is_not_lost() {
    for (events, expected) in [(49, 1), (50, 1), (51, 2), (99, 2), (100, 2), (101, 3)] {
        assert_eq!(answers(&events_only(events)), (expected, events), "{events} events");
    }
}

#[test]
fn a_state_row_past_the_limit_is_not_lost() {
    for rows in [49, 50, 51, 99, 100, 101] {
        assert_eq!(answers(&state_only(&vec![1; rows])).1, rows, "{rows} state rows on as many tokens");
        assert_eq!(answers(&state_only(&[rows])), (1, rows), "{rows} state rows on one token");
        assert_eq!(answers(&state_only(&[30, rows, 30])).1, rows + 60, "{rows} state rows between others");
    }
}

#[test]
fn a_huge_change_of_one_room_becomes_one_row() {
    assert_eq!(answers(&state_only(&[149])), (1, 149));
    assert_eq!(answers(&state_only(&[150])), (1, 1));
    let given = given(&state_only(&[1, 150, 1]));
    let all = given.walk("a", Token(1), given.last);
    assert_eq!(all[1], (Token(3), EventsRow::StateAll(StateAllRow { room_id: "!0".into() })));
}

#[test]
fn events_and_state_are_cut_at_the_same_token() {
    // Sixty tokens with an event and two state rows each: the state rows hit their limit first.
    let group = Group { writer: "a", has_event: true, was_outlier: false, state_rows: 2, room: 0 };
    let given = given(&vec![group; 60]);
    let first = given.updates("a", Token(1), given.last);
    assert_eq!((first.upto, first.rows.len(), first.limited), (Token(25), 24 * 3, true));
}

#[test]
fn other_writers_rows_are_left_out() {
    let mut groups = events_only(3);
    groups[1].writer = "b";
    let given = given(&groups);
    assert_eq!(given.walk("a", Token(1), given.last).len(), 2);
    assert_eq!(given.walk("b", Token(1), given.last).len(), 1);
}

#[test]
fn a_range_without_tokens_has_no_rows() {
    let given = given(&events_only(3));
    for (from, upto) in [(3, 3), (4, 2)] {
        let answer = given.updates("a", Token(from), Token(upto));
        assert_eq!(answer, Updates::empty(Token(upto)));
    }
}

/// Groups of every size around the limits, some of them many rows on one token.
fn groups() -> impl Strategy<Value = Vec<Group>> {
    let state_rows = prop_oneof![
        6 => Just(0_usize),
        6 => 1_usize..4,
        1 => prop::sample::select(vec![49, 50, 51, 99, 100, 101, 149, 150, 151]),
    ];
    let group = (prop::bool::weighted(0.8), any::<bool>(), prop::bool::weighted(0.05), state_rows, 0_u8..2).prop_map(
        |(is_a, has_event, was_outlier, state_rows, room)| {
            let writer = if is_a { "a" } else { "b" };
            Group { writer, has_event: has_event || state_rows == 0, was_outlier, state_rows, room }
        },
    );
    let count = prop_oneof![0_usize..20, prop::sample::select(vec![49, 50, 51, 99, 100, 101, 120])];
    count.prop_flat_map(move |count| prop::collection::vec(group.clone(), count))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn walking_the_updates_gives_every_row_once(groups in groups(), from in 1_i64..40) {
        let given = given(&groups);
        for writer in ["a", "b"] {
            let from = Token(from).min(given.last);
            let walked = given.walk(writer, from, given.last);
            prop_assert_eq!(walked, given.expected(writer, from, given.last));
        }
    }
}
