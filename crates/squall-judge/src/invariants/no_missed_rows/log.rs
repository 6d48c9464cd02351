//! The promise of a log stream: every committed row, once per follower boot, in order, whole tokens at a time.
//!
//! Rows were lost at the limit of one query (Synapse #7337, #7358), skipped by a position (#19795), and never sent at all.
//! Whole tokens, positions that do not go back, and commits behind a position are properties of their own. Here every
//! token that a position has passed was applied.
//!
//! An update may replace all its state rows of a room by one `state-all` row, at the highest of their tokens (#16510).
//! State rows left out of an earlier token are *owed* until the `state-all` row of the room comes. They are missed if the
//! position is confirmed first, or if a later token has state rows of the room, because an update is applied at once and
//! leaves out all of them or none.
//!
//! No false alarm: rows at or below the position at which a follower's process began are not demanded. A writer commits
//! every row of a token before it sends any. Owed rows are not missed while a later committed token may bring them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};

use super::rows::{Place, Rows};
use super::violation::Violation;
use crate::due::{state_all_room, state_room};
use crate::names::{Instance, Table};
use crate::pending::PendingReason;
use squall_protocol::Token;
use squall_protocol::rows::Row;

/// The rows that one writer committed to one log stream, and the progress of each follower.
#[derive(Default)]
pub(super) struct Log {
    tokens: BTreeMap<Token, UnderToken>,
    /// The highest token with state rows, by room.
    state_upto: BTreeMap<String, Token>,
    followers: Table<Instance, Follower>,
}

/// The rows under one token.
#[derive(Default)]
struct UnderToken {
    /// The rooms that have state rows.
    state_rooms: BTreeSet<String>,
    /// True if there are other rows, which no other row can replace.
    has_others: bool,
}

struct Follower {
    position: Token,
    /// The first token on which state rows were left out, by room.
    owed: BTreeMap<String, Token>,
}

impl Rows for Log {
    fn written(&mut self, token: Token, row: &Row) {
        let rows = self.tokens.entry(token).or_default();
        let Some(room) = state_room(row) else {
            rows.has_others = true;
            return;
        };
        rows.state_rooms.insert(room.to_owned());
        let upto = self.state_upto.entry(room.to_owned()).or_insert(token);
        *upto = token.max(*upto);
    }

    fn highest(&self) -> Option<Token> {
        self.tokens.last_key_value().map(|(token, _)| *token)
    }

    fn following(&mut self, instance: Instance, position: Token) {
        self.followers.insert(instance, Follower { position, owed: BTreeMap::new() });
    }

    fn gone(&mut self, instance: Instance) {
        self.followers.remove(instance);
    }

    fn applied(&mut self, at: &Place<'_>, token: Token, rows: &[Row]) -> Result<(), Violation> {
        let Some(follower) = self.followers.get_mut(at.follower.instance) else { return Ok(()) };
        let from = follower.position;
        if token <= from {
            return Ok(());
        }
        follower.position = token;

        let mut missed = BTreeSet::new();
        for (skipped, rows) in self.tokens.range((Excluded(from), Excluded(token))) {
            if rows.has_others {
                missed.insert(*skipped);
            } else {
                for room in &rows.state_rooms {
                    follower.owe(room, *skipped);
                }
            }
        }
        let came: BTreeSet<&str> = rows.iter().filter_map(state_room).collect();
        missed.extend(came.iter().filter_map(|room| follower.owed.remove(*room)));
        let committed = self.tokens.get(&token).into_iter().flat_map(|rows| &rows.state_rooms);
        for room in committed.filter(|room| !came.contains(room.as_str())) {
            follower.owe(room, token);
        }
        for room in rows.iter().filter_map(state_all_room) {
            follower.owed.remove(room);
        }
        let may_come = |room: &str| self.state_upto.get(room).is_some_and(|upto| *upto > token);
        missed.extend(follower.owed.iter().filter(|(room, _)| !may_come(room)).map(|(_, token)| *token));
        follower.owed.retain(|room, _| may_come(room));
        none_missed(at, missed, from, token)
    }

    fn positioned(&mut self, at: &Place<'_>, position: Token) -> Result<(), Violation> {
        let Some(follower) = self.followers.get_mut(at.follower.instance) else { return Ok(()) };
        let from = follower.position;
        follower.position = position;
        if position < from {
            return Ok(());
        }
        let mut missed: BTreeSet<Token> = std::mem::take(&mut follower.owed).into_values().collect();
        missed.extend(self.tokens.range((Excluded(from), Included(position))).map(|(token, _)| *token));
        none_missed(at, missed, from, position)
    }

    /// A log never starts again: this is a position like any other.
    fn reset(&mut self, at: &Place<'_>, position: Token) -> Result<(), Violation> {
        self.positioned(at, position)
    }

    fn lack(&self, instance: Instance, highest: Option<Token>) -> Option<PendingReason> {
        let Some(Follower { position, owed }) = self.followers.get(instance) else {
            return Some(PendingReason::Following);
        };
        let beyond = self.tokens.range((Excluded(position), Unbounded)).map(|(token, _)| *token);
        let tokens: BTreeSet<Token> = owed.values().copied().chain(beyond).collect();
        if !tokens.is_empty() {
            return Some(PendingReason::Tokens { tokens: tokens.into_iter().collect(), position: *position });
        }
        let expected = highest.filter(|highest| position < highest)?;
        Some(PendingReason::Position { position: *position, expected })
    }
}

impl Follower {
    fn owe(&mut self, room: &str, token: Token) {
        self.owed.entry(room.to_owned()).or_insert(token);
    }
}

fn none_missed(at: &Place<'_>, missed: BTreeSet<Token>, from: Token, to: Token) -> Result<(), Violation> {
    if missed.is_empty() {
        return Ok(());
    }
    Err(Violation::Missed { follower: at.key(), tokens: missed.into_iter().collect(), from, to })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::made_up::{event, state, state_all};
    use crate::names::Number;
    use squall_protocol::Delivery;

    fn key() -> Place<'static> {
        Place::made_up("events", Delivery::Log)
    }

    /// A log with these rows committed, and a worker that follows it from 0.
    fn followed(committed: &[(i64, Row)]) -> Log {
        let mut log = Log::default();
        log.following(key().follower.instance, Token(0));
        for (token, row) in committed {
            log.written(Token(*token), row);
        }
        log
    }

    fn missed(result: Result<(), Violation>) -> Vec<Token> {
        match result {
            Err(Violation::Missed { tokens, .. }) => tokens,
            other => panic!("not missed: {other:?}"),
        }
    }

    #[test]
    fn every_row_in_order_is_enough() {
        let mut log = followed(&[(2, event("a")), (2, state("room", "x")), (5, event("b"))]);
        assert_eq!(log.applied(&key(), Token(2), &[event("a"), state("room", "x")]), Ok(()));
        assert_eq!(log.applied(&key(), Token(5), &[event("b")]), Ok(()));
        assert_eq!(log.positioned(&key(), Token(9)), Ok(()));
        assert_eq!(log.positioned(&key(), Token(9)), Ok(()));
        assert_eq!(log.lack(key().follower.instance, Some(Token(5))), None);
    }

    #[test]
    fn a_token_that_was_skipped_is_missed() {
        let mut log = followed(&[(2, event("a")), (3, event("b")), (4, event("c"))]);
        assert_eq!(missed(log.applied(&key(), Token(4), &[event("c")])), [Token(2), Token(3)]);
    }

    #[test]
    fn a_position_over_committed_rows_is_missed_rows() {
        let mut log = followed(&[(2, event("a")), (3, event("b"))]);
        assert_eq!(missed(log.positioned(&key(), Token(2))), [Token(2)]);
    }

    #[test]
    fn a_token_that_came_without_its_state_rows_misses_them() {
        let mut log = followed(&[(2, event("a")), (2, state("room", "x"))]);
        assert_eq!(missed(log.applied(&key(), Token(2), &[event("a")])), [Token(2)]);
    }

    #[test]
    fn a_new_boot_starts_where_it_says_and_owes_nothing_before() {
        let mut log = followed(&[(2, event("a")), (3, event("b"))]);
        log.gone(key().follower.instance);
        log.following(key().follower.instance, Token(2));
        assert_eq!(log.applied(&key(), Token(3), &[event("b")]), Ok(()));
    }

    #[test]
    fn a_state_all_row_covers_the_room_on_the_tokens_before_it() {
        let rows = [(2, state("room", "x")), (3, event("a")), (3, state("room", "y")), (4, state("room", "z"))];
        let mut log = followed(&rows);
        assert_eq!(log.applied(&key(), Token(3), &[event("a")]), Ok(()));
        let pending = PendingReason::Tokens { tokens: vec![Token(2), Token(4)], position: Token(3) };
        assert_eq!(log.lack(key().follower.instance, None), Some(pending));
        assert_eq!(log.applied(&key(), Token(4), &[state_all("room")]), Ok(()));
        assert_eq!(log.positioned(&key(), Token(4)), Ok(()));
        assert_eq!(log.lack(key().follower.instance, None), None);
    }

    #[test]
    fn a_state_all_row_of_another_room_covers_nothing() {
        let mut log = followed(&[(2, state("room", "x")), (3, state("other", "x"))]);
        assert_eq!(missed(log.applied(&key(), Token(3), &[state_all("other")])), [Token(2)]);
    }

    #[test]
    fn state_rows_left_out_are_missed_once_the_room_goes_on_without_them() {
        let mut log = followed(&[(2, event("a")), (2, state("room", "x")), (3, state("room", "y"))]);
        assert_eq!(log.applied(&key(), Token(2), &[event("a")]), Ok(()));
        assert_eq!(missed(log.applied(&key(), Token(3), &[state("room", "y")])), [Token(2)]);
    }

    #[test]
    fn state_rows_left_out_are_missed_once_the_position_is_confirmed() {
        let mut log = followed(&[(2, event("a")), (2, state("room", "x")), (3, state("room", "y"))]);
        assert_eq!(log.applied(&key(), Token(2), &[event("a")]), Ok(()));
        assert_eq!(missed(log.positioned(&key(), Token(2))), [Token(2)]);
    }

    #[test]
    fn an_idle_writers_position_has_to_reach_the_other_writers_tokens() {
        let log = followed(&[]);
        let behind = PendingReason::Position { position: Token(0), expected: Token(7) };
        assert_eq!(log.lack(key().follower.instance, Some(Token(7))), Some(behind));
        assert_eq!(log.lack(Instance::at(9), Some(Token(7))), Some(PendingReason::Following));
    }
}
