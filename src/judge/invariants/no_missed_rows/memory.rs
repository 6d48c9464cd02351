//! The promise of an in-memory stream: for each room the last row up to the position, within one boot of the writer.
//!
//! The writer numbers its changes from 1 at every start. A follower that takes the new numbers for a continuation of
//! the old ones keeps what the old process said, for ever (Synapse #4127, #7907, #8524).
//!
//! No false alarm: a room that changed again after the follower's position may be out of date or absent, because the
//! writer keeps only the newest row of each. Bytes of a dead process may still arrive, so a follower may hold what any
//! boot said; the only boots ruled out are those before its own start (it cannot have talked to them) and those before
//! the earliest one that could explain what it held at some time since (it cannot go back to them). At a broker a row that
//! a dead process has sent may even arrive after its successor has said that it begins anew, on another connection; a row
//! does not say whose process sent it, and nobody can tell. So where there is a broker, a view need be what some boot said
//! only when a position has confirmed it, which the writer sends every five seconds. (This once held at every row, and
//! accused a worker of what had lain in the network.)

use std::collections::BTreeMap;

use super::Rows;
use crate::judge::pending::Lack;
use crate::judge::topology::Feed;
use crate::judge::violation::Violation;
use crate::protocol::{InstanceName, Token};
use crate::streams::{Row, TypingRow};

/// What one writer said in each of its boots, and what each instance holds of it.
#[derive(Default)]
pub(super) struct Memory {
    /// Whether instances meet at a broker.
    is_brokered: bool,
    boots: BTreeMap<u64, Truth>,
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
    /// The earliest boot of the writer that may have said this.
    boot_min: u64,
}

/// A room on which a view is not what a boot said.
struct Difference {
    room: String,
    held: Box<[String]>,
    truth: Box<[String]>,
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

    /// The first room on which this process does not explain `view`.
    fn difference(&self, view: &View) -> Option<Difference> {
        let differs = |room: &str| {
            let changed_again = self.newest.get(room).is_some_and(|newest| *newest > view.position);
            if !changed_again {
                return view.users(room) != self.users(room);
            }
            view.rooms.get(room).is_some_and(|(token, row)| self.rows.get(token) != Some(row))
        };
        let room = self.newest.keys().chain(view.rooms.keys()).find(|room| differs(room))?;
        let (held, truth) = (view.users(room).into(), self.users(room).into());
        Some(Difference { room: room.clone(), held, truth })
    }
}

impl Memory {
    /// Of a stream that nothing was said of yet.
    pub fn new(is_brokered: bool) -> Self {
        Memory { is_brokered, ..Memory::default() }
    }

    /// Looks for a boot that explains what `feed` holds, and rules out those before it.
    fn explain(&mut self, feed: &Feed) -> Result<(), Violation> {
        let Some(view) = self.followers.get_mut(&feed.instance) else { return Ok(()) };
        let mut newest_differs = None;
        for (boot, truth) in self.boots.range(view.boot_min..) {
            newest_differs = truth.difference(view);
            if newest_differs.is_none() {
                view.boot_min = *boot;
                return Ok(());
            }
        }
        let Some(Difference { room, held, truth }) = newest_differs else { return Ok(()) };
        Err(Violation::WrongView { feed: feed.clone(), position: view.position, room, held, truth })
    }

    /// Moves the position of `feed`.
    fn advance(&mut self, feed: &Feed, to: Token) -> Option<&mut View> {
        let view = self.followers.get_mut(&feed.instance)?;
        view.position = to;
        Some(view)
    }
}

impl Rows for Memory {
    fn begun(&mut self, boot: u64) {
        self.boots.entry(boot).or_default();
    }

    fn written(&mut self, boot: u64, token: Token, row: &Row) {
        let truth = self.boots.entry(boot).or_default();
        if let Some(row) = typing_row(row) {
            truth.newest.insert(row.room_id.clone(), token);
            truth.rows.insert(token, row.clone());
        }
    }

    fn highest(&self) -> Option<Token> {
        self.boots.last_key_value().map(|(_, truth)| truth.last())
    }

    fn following(&mut self, instance: &InstanceName, position: Token) {
        let boot_min = self.boots.last_key_value().map_or(0, |(boot, _)| *boot);
        self.followers.insert(instance.clone(), View { position, rooms: BTreeMap::new(), boot_min });
    }

    fn gone(&mut self, instance: &InstanceName) {
        self.followers.remove(instance);
    }

    fn applied(&mut self, feed: &Feed, token: Token, rows: &[Row]) -> Result<(), Violation> {
        if let Some(view) = self.advance(feed, token) {
            view.apply(token, rows);
        }
        if self.is_brokered { Ok(()) } else { self.explain(feed) }
    }

    fn positioned(&mut self, feed: &Feed, position: Token) -> Result<(), Violation> {
        self.advance(feed, position);
        self.explain(feed)
    }

    fn reset(&mut self, feed: &Feed, position: Token) -> Result<(), Violation> {
        if let Some(view) = self.followers.get_mut(&feed.instance) {
            view.rooms.clear();
            view.position = position;
        }
        self.explain(feed)
    }

    fn lack(&self, instance: &InstanceName, _highest: Option<Token>) -> Option<Lack> {
        let Some(view) = self.followers.get(instance) else { return Some(Lack::Following) };
        let (_, truth) = self.boots.last_key_value()?;
        let position = view.position;
        let mut rooms: Vec<String> = truth.newest.keys().chain(view.rooms.keys()).cloned().collect();
        rooms.retain(|room| view.users(room) != truth.users(room));
        rooms.sort();
        rooms.dedup();
        if !rooms.is_empty() {
            return Some(Lack::Rooms { rooms, position });
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

    /// A writer in its first boot, which said these rows, and a worker that follows it from 0.
    fn followed(rows: &[(i64, Row)]) -> Memory {
        let mut memory = Memory::default();
        begin(&mut memory, 1, &[]);
        memory.following(&"worker".into(), Token(0));
        begin(&mut memory, 1, rows);
        memory
    }

    fn begin(memory: &mut Memory, boot: u64, rows: &[(i64, Row)]) {
        memory.begun(boot);
        rows.iter().for_each(|(token, row)| memory.written(boot, Token(*token), row));
    }

    fn apply(memory: &mut Memory, token: i64, row: Row) -> Result<(), Violation> {
        memory.applied(&feed(), Token(token), &[row])
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
        assert_eq!(apply(&mut memory, 2, typing("b", &["x"])), Ok(()));
        assert_eq!(apply(&mut memory, 3, typing("a", &[])), Ok(()));
        assert_eq!(memory.positioned(&feed(), Token(3)), Ok(()));
        assert_eq!(memory.lack(&"worker".into(), None), None);
    }

    #[test]
    fn at_a_broker_a_late_row_of_a_dead_process_is_confirmed_by_nobody() {
        for is_brokered in [true, false] {
            let mut memory = Memory { is_brokered, ..followed(&[(7, typing("a", &["x"])), (8, typing("b", &["x"]))]) };
            begin(&mut memory, 2, &[]);
            assert_eq!(memory.reset(&feed(), Token(0)), Ok(()));
            assert_eq!(memory.positioned(&feed(), Token(0)), Ok(()));
            let late = apply(&mut memory, 8, typing("b", &["x"]));
            assert_eq!(late.is_ok(), is_brokered, "{late:?}");
            assert_eq!(wrong_room(memory.positioned(&feed(), Token(8))), "b", "nobody ever said that alone");
        }
    }

    #[test]
    fn a_room_that_was_passed_over_is_missing() {
        let mut memory = followed(&[(1, typing("a", &["x"])), (2, typing("b", &["x"]))]);
        assert_eq!(wrong_room(apply(&mut memory, 2, typing("b", &["x"]))), "a");
    }

    #[test]
    fn a_room_that_changed_again_may_be_out_of_date_until_the_position_reaches_it() {
        let mut memory = followed(&[(1, typing("a", &["x"])), (2, typing("b", &["x"])), (3, typing("a", &["y"]))]);
        assert_eq!(apply(&mut memory, 1, typing("a", &["x"])), Ok(()));
        assert_eq!(apply(&mut memory, 2, typing("b", &["x"])), Ok(()));
        assert_eq!(wrong_room(memory.positioned(&feed(), Token(3))), "a");
    }

    #[test]
    fn a_row_that_nobody_said_is_wrong_even_in_a_room_that_changed_again() {
        let mut memory = followed(&[(1, typing("a", &["x"])), (2, typing("a", &["y"]))]);
        assert_eq!(wrong_room(apply(&mut memory, 1, typing("a", &["z"]))), "a");
        let mut memory = followed(&[]);
        assert_eq!(wrong_room(apply(&mut memory, 1, typing("nowhere", &["z"]))), "nowhere");
    }

    #[test]
    fn after_a_reset_the_numbers_begin_anew() {
        let mut memory = followed(&[(1, typing("a", &["x"]))]);
        assert_eq!(apply(&mut memory, 1, typing("a", &["x"])), Ok(()));
        assert_eq!(memory.reset(&feed(), Token(0)), Ok(()));
        assert_eq!(apply(&mut memory, 1, typing("a", &["x"])), Ok(()));
    }

    #[test]
    fn a_reset_that_keeps_its_position_has_dropped_rows() {
        let mut memory = followed(&[(1, typing("a", &["x"]))]);
        assert_eq!(apply(&mut memory, 1, typing("a", &["x"])), Ok(()));
        assert_eq!(wrong_room(memory.reset(&feed(), Token(1))), "a");
    }

    #[test]
    fn a_boot_that_is_over_explains_a_view_until_it_mixes_with_the_next() {
        let mut memory = followed(&[(1, typing("a", &["x"]))]);
        assert_eq!(apply(&mut memory, 1, typing("a", &["x"])), Ok(()));
        begin(&mut memory, 2, &[(1, typing("c", &[])), (2, typing("b", &["y"]))]);
        assert_eq!(memory.positioned(&feed(), Token(1)), Ok(()));
        assert_eq!(wrong_room(apply(&mut memory, 2, typing("b", &["y"]))), "a");
    }

    #[test]
    fn bytes_of_a_dead_writer_may_arrive_after_a_reset() {
        let mut memory = followed(&[(1, typing("a", &["x"]))]);
        begin(&mut memory, 2, &[]);
        assert_eq!(memory.reset(&feed(), Token(0)), Ok(()));
        assert_eq!(apply(&mut memory, 1, typing("a", &["x"])), Ok(()));
    }

    #[test]
    fn a_follower_never_goes_back_to_an_earlier_boot() {
        let mut memory = followed(&[(1, typing("a", &["x"]))]);
        begin(&mut memory, 2, &[(1, typing("b", &["y"]))]);
        assert_eq!(memory.reset(&feed(), Token(0)), Ok(()));
        assert_eq!(apply(&mut memory, 1, typing("b", &["y"])), Ok(()));
        assert_eq!(memory.reset(&feed(), Token(0)), Ok(()));
        assert_eq!(wrong_room(apply(&mut memory, 1, typing("a", &["x"]))), "b");
    }

    #[test]
    fn a_follower_never_talked_to_a_boot_that_was_over_when_it_began() {
        let mut memory = followed(&[(1, typing("a", &["x"]))]);
        begin(&mut memory, 2, &[]);
        memory.following(&"worker".into(), Token(0));
        assert_eq!(wrong_room(apply(&mut memory, 1, typing("a", &["x"]))), "a");
    }

    #[test]
    fn what_the_newest_boot_says_is_pending_until_it_is_held() {
        let mut memory = followed(&[(1, typing("a", &["x"]))]);
        assert_eq!(apply(&mut memory, 1, typing("a", &["x"])), Ok(()));
        begin(&mut memory, 2, &[(1, typing("b", &[]))]);
        let rooms = Lack::Rooms { rooms: vec!["a".to_owned()], position: Token(1) };
        assert_eq!(memory.lack(&"worker".into(), None), Some(rooms));
        assert_eq!(memory.reset(&feed(), Token(0)), Ok(()));
        let position = Lack::Position { position: Token(0), expected: Token(1) };
        assert_eq!(memory.lack(&"worker".into(), None), Some(position));
        assert_eq!(apply(&mut memory, 1, typing("b", &[])), Ok(()));
        assert_eq!(memory.lack(&"worker".into(), None), None);
        assert_eq!(memory.lack(&"worker2".into(), None), Some(Lack::Following));
    }
}
