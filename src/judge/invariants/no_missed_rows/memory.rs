//! The promise of an in-memory stream: for each room the last row up to the position, within one run of the writer.
//!
//! The writer numbers its changes anew at every start, and [`Token::run`] tells which start a number is of. A follower that
//! takes the new numbers for a continuation of the old ones keeps what the old process said, for ever (Synapse #4127,
//! #7907, #8524).
//!
//! No false alarm: a room that changed again after the follower's position may be out of date or absent, because the
//! writer keeps only the newest row of each. Bytes of a dead process may still arrive; as long as the position is its, so is
//! the view. (Every run once began at 1. Then whatever any run could have said was good enough, and at a broker not even
//! that was asked for at each row, because what had lain in the network could not be told from what was new.)

use std::collections::BTreeMap;

use super::Rows;
use crate::judge::pending::Lack;
use crate::judge::topology::Feed;
use crate::judge::violation::Violation;
use crate::protocol::{InstanceName, Token};
use crate::streams::{Row, TypingRow};

/// What one writer said in each of its runs, and what each instance holds of it.
#[derive(Default)]
pub(super) struct Memory {
    runs: BTreeMap<i64, Truth>,
    /// Whether the present process has said nothing yet.
    is_silent: bool,
    followers: BTreeMap<InstanceName, View>,
}

/// What one process of the writer said.
#[derive(Default)]
struct Truth {
    rows: BTreeMap<Token, TypingRow>,
    /// The token of each room's newest row.
    newest: BTreeMap<String, Token>,
}

/// What a follower holds: the rows applied since the last reset, by room.
struct View {
    position: Token,
    rooms: BTreeMap<String, (Token, TypingRow)>,
}

impl View {
    fn users(&self, room: &str) -> &[String] {
        self.rooms.get(room).map_or(&[], |(_, row)| &row.user_ids)
    }

    fn apply(&mut self, token: Token, rows: &[Row]) {
        let typing = rows.iter().filter_map(typing_row);
        self.rooms.extend(typing.map(|row| (row.room_id.clone(), (token, row.clone()))));
    }
}

impl Truth {
    fn users(&self, room: &str) -> &[String] {
        let newest = self.newest.get(room).and_then(|token| self.rows.get(token));
        newest.map_or(&[], |row| &row.user_ids)
    }

    fn last(&self) -> Token {
        self.rows.last_key_value().map_or(Token(0), |(token, _)| *token)
    }

    /// The first room on which `view` is not what this process said.
    fn difference<'a>(&'a self, view: &'a View) -> Option<&'a String> {
        let differs = |room: &str| {
            let changed_again = self.newest.get(room).is_some_and(|newest| *newest > view.position);
            if !changed_again {
                return view.users(room) != self.users(room);
            }
            view.rooms.get(room).is_some_and(|(token, row)| self.rows.get(token) != Some(row))
        };
        self.newest.keys().chain(view.rooms.keys()).find(|room| differs(room))
    }
}

impl Memory {
    /// Compares what `feed` holds with what the run said that its position is of.
    fn compare(&self, feed: &Feed) -> Result<(), Violation> {
        let Some(view) = self.followers.get(&feed.instance) else { return Ok(()) };
        let nothing = Truth::default();
        let truth = self.runs.get(&view.position.run()).unwrap_or(&nothing);
        let Some(room) = truth.difference(view) else { return Ok(()) };
        let (held, truth) = (view.users(room).into(), truth.users(room).into());
        Err(Violation::WrongView { feed: feed.clone(), position: view.position, room: room.clone(), held, truth })
    }

    /// Moves the position of `feed`.
    fn advance(&mut self, feed: &Feed, to: Token) -> Option<&mut View> {
        let view = self.followers.get_mut(&feed.instance)?;
        view.position = to;
        Some(view)
    }
}

impl Rows for Memory {
    fn begun(&mut self) {
        self.is_silent = true;
    }

    fn written(&mut self, token: Token, row: &Row) {
        self.is_silent = false;
        let truth = self.runs.entry(token.run()).or_default();
        if let Some(row) = typing_row(row) {
            truth.newest.insert(row.room_id.clone(), token);
            truth.rows.insert(token, row.clone());
        }
    }

    fn highest(&self) -> Option<Token> {
        self.runs.last_key_value().map(|(_, truth)| truth.last())
    }

    fn following(&mut self, instance: &InstanceName, position: Token) {
        self.followers.insert(instance.clone(), View { position, rooms: BTreeMap::new() });
    }

    fn gone(&mut self, instance: &InstanceName) {
        self.followers.remove(instance);
    }

    fn applied(&mut self, feed: &Feed, token: Token, rows: &[Row]) -> Result<(), Violation> {
        if let Some(view) = self.advance(feed, token) {
            view.apply(token, rows);
        }
        self.compare(feed)
    }

    fn positioned(&mut self, feed: &Feed, position: Token) -> Result<(), Violation> {
        self.advance(feed, position);
        self.compare(feed)
    }

    fn reset(&mut self, feed: &Feed, position: Token) -> Result<(), Violation> {
        if let Some(view) = self.followers.get_mut(&feed.instance) {
            view.rooms.clear();
            view.position = position;
        }
        self.compare(feed)
    }

    fn lack(&self, instance: &InstanceName, _highest: Option<Token>) -> Option<Lack> {
        let Some(view) = self.followers.get(instance) else { return Some(Lack::Following) };
        let (last_run, last) = self.runs.last_key_value()?;
        let nothing = Truth::default();
        let truth = if self.is_silent { &nothing } else { last };
        let position = view.position;
        let mut rooms: Vec<String> = truth.newest.keys().chain(view.rooms.keys()).cloned().collect();
        rooms.retain(|room| view.users(room) != truth.users(room));
        rooms.sort();
        rooms.dedup();
        if !rooms.is_empty() {
            return Some(Lack::Rooms { rooms, position });
        }
        if self.is_silent {
            // At least: there may have been other silent runs.
            let expected = Token::beginning_of(last_run + 1);
            return (position < expected).then_some(Lack::Position { position, expected });
        }
        (position != truth.last()).then(|| Lack::Position { position, expected: truth.last() })
    }
}

fn typing_row(row: &Row) -> Option<&TypingRow> {
    match row {
        Row::Typing(row) => Some(row),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::invariants::made_up::typing;

    fn feed() -> Feed {
        Feed::new(&"worker".into(), &"typing".into(), &"master".into())
    }

    /// The number of the `serial`-th change in the `run`-th run.
    fn token(run: i64, serial: i64) -> Token {
        Token(Token::beginning_of(run).0 + serial)
    }

    /// A writer in its first run, which said these rows, and a worker that follows it from 0.
    fn followed(rows: &[(i64, Row)]) -> Memory {
        let mut memory = Memory::default();
        memory.following(&"worker".into(), Token(0));
        begin(&mut memory, 1, rows);
        memory
    }

    fn begin(memory: &mut Memory, run: i64, rows: &[(i64, Row)]) {
        memory.begun();
        rows.iter().for_each(|(serial, row)| memory.written(token(run, *serial), row));
    }

    fn apply(memory: &mut Memory, at: Token, row: Row) -> Result<(), Violation> {
        memory.applied(&feed(), at, &[row])
    }

    fn wrong_room(result: Result<(), Violation>) -> String {
        match result {
            Err(Violation::WrongView { room, .. }) => room,
            other => panic!("not a wrong view: {other:?}"),
        }
    }

    #[test]
    fn the_newest_row_of_each_room_is_enough() {
        let mut memory = followed(&[(1, typing("a", &["x"])), (2, typing("b", &["x"])), (3, typing("a", &[]))]);
        assert_eq!(apply(&mut memory, token(1, 2), typing("b", &["x"])), Ok(()));
        assert_eq!(apply(&mut memory, token(1, 3), typing("a", &[])), Ok(()));
        assert_eq!(memory.positioned(&feed(), token(1, 3)), Ok(()));
        assert_eq!(memory.lack(&"worker".into(), None), None);
    }

    #[test]
    fn a_room_that_was_passed_over_is_missing() {
        let mut memory = followed(&[(1, typing("a", &["x"])), (2, typing("b", &["x"]))]);
        assert_eq!(wrong_room(apply(&mut memory, token(1, 2), typing("b", &["x"]))), "a");
    }

    #[test]
    fn a_room_that_changed_again_may_be_out_of_date_until_the_position_reaches_it() {
        let mut memory = followed(&[(1, typing("a", &["x"])), (2, typing("b", &["x"])), (3, typing("a", &["y"]))]);
        assert_eq!(apply(&mut memory, token(1, 1), typing("a", &["x"])), Ok(()));
        assert_eq!(apply(&mut memory, token(1, 2), typing("b", &["x"])), Ok(()));
        assert_eq!(wrong_room(memory.positioned(&feed(), token(1, 3))), "a");
    }

    #[test]
    fn a_row_that_nobody_said_is_wrong_even_in_a_room_that_changed_again() {
        let mut memory = followed(&[(1, typing("a", &["x"])), (2, typing("a", &["y"]))]);
        assert_eq!(wrong_room(apply(&mut memory, token(1, 1), typing("a", &["z"]))), "a");
        let mut memory = followed(&[]);
        assert_eq!(wrong_room(apply(&mut memory, token(1, 1), typing("nowhere", &["z"]))), "nowhere");
    }

    #[test]
    fn after_a_reset_all_of_it_comes_again() {
        let mut memory = followed(&[(1, typing("a", &["x"]))]);
        assert_eq!(apply(&mut memory, token(1, 1), typing("a", &["x"])), Ok(()));
        assert_eq!(memory.reset(&feed(), Token(0)), Ok(()));
        assert_eq!(apply(&mut memory, token(1, 1), typing("a", &["x"])), Ok(()));
    }

    #[test]
    fn a_reset_that_keeps_its_position_has_dropped_rows() {
        let mut memory = followed(&[(1, typing("a", &["x"]))]);
        assert_eq!(apply(&mut memory, token(1, 1), typing("a", &["x"])), Ok(()));
        assert_eq!(wrong_room(memory.reset(&feed(), token(1, 1))), "a");
    }

    #[test]
    fn a_run_that_is_over_may_be_held_until_it_is_mixed_with_the_next() {
        let mut memory = followed(&[(1, typing("a", &["x"])), (2, typing("d", &["x"]))]);
        assert_eq!(apply(&mut memory, token(1, 1), typing("a", &["x"])), Ok(()));
        begin(&mut memory, 2, &[(1, typing("c", &[])), (2, typing("b", &["y"]))]);
        assert_eq!(memory.positioned(&feed(), token(1, 1)), Ok(()));
        assert_eq!(apply(&mut memory, token(1, 2), typing("d", &["x"])), Ok(()), "it was long on its way");
        assert_eq!(wrong_room(apply(&mut memory, token(2, 2), typing("b", &["y"]))), "a");
    }

    #[test]
    fn a_row_of_a_dead_process_is_mixed_with_nothing_of_its_successor() {
        let mut memory = followed(&[(1, typing("a", &["x"])), (2, typing("b", &["x"]))]);
        begin(&mut memory, 2, &[]);
        assert_eq!(memory.positioned(&feed(), token(2, 0)), Ok(()));
        assert_eq!(wrong_room(apply(&mut memory, token(1, 2), typing("b", &["x"]))), "a");
    }

    #[test]
    fn what_the_newest_run_says_is_pending_until_it_is_held() {
        let lack = |memory: &Memory| memory.lack(&"worker".into(), None);
        let mut memory = followed(&[(1, typing("a", &["x"]))]);
        assert_eq!(apply(&mut memory, token(1, 1), typing("a", &["x"])), Ok(()));
        begin(&mut memory, 2, &[]);
        let rooms = Lack::Rooms { rooms: vec!["a".to_owned()], position: token(1, 1) };
        assert_eq!(lack(&memory), Some(rooms.clone()), "the new process knows of nobody");
        memory.written(token(2, 1), &typing("b", &[]));
        assert_eq!(lack(&memory), Some(rooms));
        assert_eq!(memory.reset(&feed(), Token(0)), Ok(()));
        let position = Lack::Position { position: Token(0), expected: token(2, 1) };
        assert_eq!(lack(&memory), Some(position));
        assert_eq!(apply(&mut memory, token(2, 1), typing("b", &[])), Ok(()));
        assert_eq!(lack(&memory), None);
        assert_eq!(memory.lack(&"worker2".into(), None), Some(Lack::Following));
    }

    #[test]
    fn a_run_that_has_said_nothing_is_pending_until_its_numbers_are_reached() {
        let mut memory = followed(&[(1, typing("a", &[]))]);
        assert_eq!(apply(&mut memory, token(1, 1), typing("a", &[])), Ok(()));
        begin(&mut memory, 3, &[]);
        let position = Lack::Position { position: token(1, 1), expected: token(2, 0) };
        assert_eq!(memory.lack(&"worker".into(), None), Some(position));
        assert_eq!(memory.reset(&feed(), Token(0)), Ok(()));
        assert_eq!(memory.positioned(&feed(), token(3, 0)), Ok(()));
        assert_eq!(memory.lack(&"worker".into(), None), None);
    }
}
