//! The promise of an in-memory stream: for each room the last row up to the position, within one run of the writer.
//!
//! The writer numbers its changes from a new beginning at every start: a *run*. A follower that takes the new numbers for
//! a continuation of the old ones keeps the rows of the old process for ever (Synapse #4127, #7907, #8524).
//!
//! No false alarm: a room that changed again after the follower's position may be out of date or absent, because the
//! writer keeps only the newest row of each room. Lines of a dead process may still arrive; a follower whose position is
//! of that run is compared with that run. (Every run once began at 1. Then a row that had been delayed in the network
//! looked like a new one, and far less could be judged.)

use std::collections::{BTreeMap, BTreeSet};

use super::rows::{Place, Rows};
use super::violation::Violation;
use crate::due::{Key, beginning_of_run, key, run_of};
use crate::names::{Instance, Table};
use crate::pending::PendingReason;
use squall_protocol::Token;
use squall_protocol::rows::{Row, TypingRow};

/// The rows of each run of one writer, and the rows that each follower holds.
#[derive(Default)]
pub(super) struct Memory {
    runs: BTreeMap<i64, Truth>,
    /// True if the current process has sent no row yet.
    is_silent: bool,
    followers: Table<Instance, View>,
}

/// The rows that one process of the writer sent.
#[derive(Default)]
struct Truth {
    rows: BTreeMap<Token, TypingRow>,
    /// The token of each room's newest row.
    newest: BTreeMap<Key, Token>,
}

/// The rows that a follower has applied since the last reset, by room.
struct View {
    position: Token,
    rooms: BTreeMap<Key, (Token, TypingRow)>,
}

impl View {
    fn users(&self, room: Key) -> &[String] {
        self.rooms.get(&room).map_or(&[], |(_, row)| &row.user_ids)
    }

    fn apply(&mut self, token: Token, rows: &[Row]) {
        self.rooms.extend(rows.iter().filter_map(typing_row).map(|(room, row)| (room, (token, row.clone()))));
    }
}

impl Truth {
    fn newest(&self, room: Key) -> Option<&TypingRow> {
        self.newest.get(&room).and_then(|token| self.rows.get(token))
    }

    fn users(&self, room: Key) -> &[String] {
        self.newest(room).map_or(&[], |row| &row.user_ids)
    }

    fn last(&self) -> Token {
        self.rows.last_key_value().map_or(Token(0), |(token, _)| *token)
    }

    /// Returns the first room for which `view` differs from the rows of this process, with its name.
    fn difference<'a>(&'a self, view: &'a View) -> Option<(Key, &'a String)> {
        let sent = self.newest.iter().filter(|(room, newest)| {
            if **newest <= view.position {
                return view.users(**room) != self.users(**room);
            }
            // It changed again.
            view.rooms.get(room).is_some_and(|(token, row)| self.rows.get(token) != Some(row))
        });
        let sent = sent.filter_map(|(room, newest)| Some((*room, &self.rows.get(newest)?.room_id)));
        let held =
            view.rooms.iter().filter(|(room, (_, row))| !self.newest.contains_key(room) && !row.user_ids.is_empty());
        let held = held.map(|(room, (_, row))| (*room, &row.room_id));
        let first = |one: (Key, &'a String), other: (Key, &'a String)| if other.1 < one.1 { other } else { one };
        sent.reduce(first).or_else(|| held.reduce(first))
    }
}

impl Memory {
    /// Compares the rows that `key` holds with the run that its position belongs to.
    fn compare(&self, at: &Place<'_>) -> Result<(), Violation> {
        let Some(view) = self.followers.get(at.follower.instance) else { return Ok(()) };
        let nothing = Truth::default();
        let truth = self.runs.get(&run_of(view.position)).unwrap_or(&nothing);
        let Some((key, room)) = truth.difference(view) else { return Ok(()) };
        Err(Violation::WrongView {
            follower: at.key(),
            position: view.position,
            room: room.clone(),
            held: view.users(key).into(),
            truth: truth.users(key).into(),
        })
    }

    /// Moves the position of `key`, and returns its rows.
    fn advance(&mut self, at: &Place<'_>, to: Token) -> Option<&mut View> {
        let view = self.followers.get_mut(at.follower.instance)?;
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
        let truth = self.runs.entry(run_of(token)).or_default();
        if let Some((room, row)) = typing_row(row) {
            truth.newest.insert(room, token);
            truth.rows.insert(token, row.clone());
        }
    }

    fn highest(&self) -> Option<Token> {
        self.runs.last_key_value().map(|(_, truth)| truth.last())
    }

    fn following(&mut self, instance: Instance, position: Token) {
        self.followers.insert(instance, View { position, rooms: BTreeMap::new() });
    }

    fn gone(&mut self, instance: Instance) {
        self.followers.remove(instance);
    }

    fn applied(&mut self, at: &Place<'_>, token: Token, rows: &[Row]) -> Result<(), Violation> {
        if let Some(view) = self.advance(at, token) {
            view.apply(token, rows);
        }
        self.compare(at)
    }

    fn positioned(&mut self, at: &Place<'_>, position: Token) -> Result<(), Violation> {
        self.advance(at, position);
        self.compare(at)
    }

    fn reset(&mut self, at: &Place<'_>, position: Token) -> Result<(), Violation> {
        if let Some(view) = self.followers.get_mut(at.follower.instance) {
            view.rooms.clear();
            view.position = position;
        }
        self.compare(at)
    }

    fn lack(&self, instance: Instance, _highest: Option<Token>) -> Option<PendingReason> {
        let Some(view) = self.followers.get(instance) else { return Some(PendingReason::Following) };
        let (last_run, last) = self.runs.last_key_value()?;
        let nothing = Truth::default();
        let truth = if self.is_silent { &nothing } else { last };
        let position = view.position;
        let sent = truth.newest.keys().filter_map(|room| Some((*room, &truth.newest(*room)?.room_id)));
        let held = view.rooms.iter().map(|(room, (_, row))| (*room, &row.room_id));
        let wrong = sent.chain(held).filter(|(room, _)| view.users(*room) != truth.users(*room));
        let wrong: BTreeSet<&String> = wrong.map(|(_, name)| name).collect();
        let rooms: Vec<String> = wrong.into_iter().cloned().collect();
        if !rooms.is_empty() {
            return Some(PendingReason::Rooms { rooms, position });
        }
        if self.is_silent {
            // This is the least: there may have been other silent runs.
            let expected = beginning_of_run(last_run + 1);
            return (position < expected).then_some(PendingReason::Position { position, expected });
        }
        (position != truth.last()).then(|| PendingReason::Position { position, expected: truth.last() })
    }
}

/// Returns the room of a row of typing users, and the row.
fn typing_row(row: &Row) -> Option<(Key, &TypingRow)> {
    let Row::Typing(typing) = row else { return None };
    Some((key(row)?, typing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::made_up::typing;
    use crate::names::Number;
    use squall_protocol::Delivery;

    fn key() -> Place<'static> {
        Place::made_up("typing", Delivery::Memory)
    }

    /// The token of the `serial`-th change in the `run`-th run.
    fn token(run: i64, serial: i64) -> Token {
        Token(beginning_of_run(run).0 + serial)
    }

    /// A writer in its first run, which sent these rows, and a worker that follows it from 0.
    fn followed(rows: &[(i64, Row)]) -> Memory {
        let mut memory = Memory::default();
        memory.following(key().follower.instance, Token(0));
        begin(&mut memory, 1, rows);
        memory
    }

    fn begin(memory: &mut Memory, run: i64, rows: &[(i64, Row)]) {
        memory.begun();
        for (serial, row) in rows {
            memory.written(token(run, *serial), row);
        }
    }

    fn apply(memory: &mut Memory, at: Token, row: Row) -> Result<(), Violation> {
        memory.applied(&key(), at, &[row])
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
        assert_eq!(memory.positioned(&key(), token(1, 3)), Ok(()));
        assert_eq!(memory.lack(key().follower.instance, None), None);
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
        assert_eq!(wrong_room(memory.positioned(&key(), token(1, 3))), "a");
    }

    #[test]
    fn a_row_that_was_never_sent_is_wrong_even_in_a_room_that_changed_again() {
        let mut memory = followed(&[(1, typing("a", &["x"])), (2, typing("a", &["y"]))]);
        assert_eq!(wrong_room(apply(&mut memory, token(1, 1), typing("a", &["z"]))), "a");
        let mut memory = followed(&[]);
        assert_eq!(wrong_room(apply(&mut memory, token(1, 1), typing("nowhere", &["z"]))), "nowhere");
    }

    #[test]
    fn after_a_reset_all_of_it_comes_again() {
        let mut memory = followed(&[(1, typing("a", &["x"]))]);
        assert_eq!(apply(&mut memory, token(1, 1), typing("a", &["x"])), Ok(()));
        assert_eq!(memory.reset(&key(), Token(0)), Ok(()));
        assert_eq!(apply(&mut memory, token(1, 1), typing("a", &["x"])), Ok(()));
    }

    #[test]
    fn a_reset_that_keeps_its_position_has_dropped_rows() {
        let mut memory = followed(&[(1, typing("a", &["x"]))]);
        assert_eq!(apply(&mut memory, token(1, 1), typing("a", &["x"])), Ok(()));
        assert_eq!(wrong_room(memory.reset(&key(), token(1, 1))), "a");
    }

    #[test]
    fn a_run_that_is_over_may_be_held_until_it_is_mixed_with_the_next() {
        let mut memory = followed(&[(1, typing("a", &["x"])), (2, typing("d", &["x"]))]);
        assert_eq!(apply(&mut memory, token(1, 1), typing("a", &["x"])), Ok(()));
        begin(&mut memory, 2, &[(1, typing("c", &[])), (2, typing("b", &["y"]))]);
        assert_eq!(memory.positioned(&key(), token(1, 1)), Ok(()));
        assert_eq!(apply(&mut memory, token(1, 2), typing("d", &["x"])), Ok(()), "it was delayed in the network");
        assert_eq!(wrong_room(apply(&mut memory, token(2, 2), typing("b", &["y"]))), "a");
    }

    #[test]
    fn a_row_of_a_dead_process_is_mixed_with_nothing_of_its_successor() {
        let mut memory = followed(&[(1, typing("a", &["x"])), (2, typing("b", &["x"]))]);
        begin(&mut memory, 2, &[]);
        assert_eq!(memory.positioned(&key(), token(2, 0)), Ok(()));
        assert_eq!(wrong_room(apply(&mut memory, token(1, 2), typing("b", &["x"]))), "a");
    }

    #[test]
    fn the_rows_of_the_newest_run_are_pending_until_they_are_held() {
        let lack = |memory: &Memory| memory.lack(key().follower.instance, None);
        let mut memory = followed(&[(1, typing("a", &["x"]))]);
        assert_eq!(apply(&mut memory, token(1, 1), typing("a", &["x"])), Ok(()));
        begin(&mut memory, 2, &[]);
        let rooms = PendingReason::Rooms { rooms: vec!["a".to_owned()], position: token(1, 1) };
        assert_eq!(lack(&memory), Some(rooms.clone()), "the new process has no typing users");
        memory.written(token(2, 1), &typing("b", &[]));
        assert_eq!(lack(&memory), Some(rooms));
        assert_eq!(memory.reset(&key(), Token(0)), Ok(()));
        let position = PendingReason::Position { position: Token(0), expected: token(2, 1) };
        assert_eq!(lack(&memory), Some(position));
        assert_eq!(apply(&mut memory, token(2, 1), typing("b", &[])), Ok(()));
        assert_eq!(lack(&memory), None);
        assert_eq!(memory.lack(Instance::at(9), None), Some(PendingReason::Following));
    }

    #[test]
    fn a_run_without_rows_is_pending_until_its_numbers_are_reached() {
        let mut memory = followed(&[(1, typing("a", &[]))]);
        assert_eq!(apply(&mut memory, token(1, 1), typing("a", &[])), Ok(()));
        begin(&mut memory, 3, &[]);
        let position = PendingReason::Position { position: token(1, 1), expected: token(2, 0) };
        assert_eq!(memory.lack(key().follower.instance, None), Some(position));
        assert_eq!(memory.reset(&key(), Token(0)), Ok(()));
        assert_eq!(memory.positioned(&key(), token(3, 0)), Ok(()));
        assert_eq!(memory.lack(key().follower.instance, None), None);
    }
}
