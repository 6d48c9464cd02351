//! The promise of a keyed stream: for each key the last row up to the position.
//!
//! A later row with the same key overwrites a row, and a row may be removed; a follower that fetches afterwards never sees
//! it. A follower must have applied every remaining row that its position has passed. Rows of two tables under one limit
//! (Synapse #7384), and a limit counted in rows that share a key (#15349), lost such rows.
//!
//! Messages to devices are never overwritten. An older message of a user stays due until its own device has acknowledged
//! it, even if newer ones were removed. But a follower that learns of a newer message reads the whole inbox, so an answer
//! names each user once, at the last token, and the older tokens that it leaves out are *owed* until then. A position may
//! be confirmed on the way, because a row in the middle of an answer was not understood and was fetched; rows that were
//! owed before stay owed. Other rows that a confirmed position passes should have been fetched, and are missed. (This
//! once demanded the owed rows when a position was confirmed, and accused a worker whose next row brought them.)
//!
//! No false alarm: rows at or below the position at which a follower's process began are not demanded. A row counts from
//! its commit. A row that was overwritten or removed may have been applied or not, and the row that overwrote it may be
//! another writer's. (This once demanded the overwritten row, because a room's receipts had one writer. When a writer is
//! added, they get another one: seed 1000241 of `redis_swarm`.)

use std::collections::{BTreeMap, BTreeSet};

use super::rows::{Place, Rows};
use super::violation::Violation;
use crate::due::{Key, key as key_of};
use crate::names::{Instance, Table};
use crate::pending::PendingReason;
use crate::present::Present;
use squall_protocol::Token;
use squall_protocol::rows::Row;

/// The rows that one writer committed to one keyed stream, and the progress of each follower.
pub(super) struct Keyed {
    present: Present,
    highest: Option<Token>,
    followers: Table<Instance, Follower>,
}

#[derive(Default)]
struct Follower {
    position: Token,
    /// The newest token applied, by key.
    applied: BTreeMap<Option<Key>, Token>,
    /// The rows that it has passed, and may yet receive under a later token with the same key.
    owed: BTreeSet<(Token, Option<Key>)>,
}

impl Keyed {
    /// Returns an empty stream. `present` is empty too.
    pub(super) fn new(present: Present) -> Self {
        Keyed { present, highest: None, followers: Table::default() }
    }

    /// Returns the tokens up to `to` with remaining rows that `follower` should have applied by now. Records the rows that
    /// may come under a later token as owed.
    fn missed(&self, follower: &mut Follower, from: Token, to: Token, is_row: bool) -> Vec<Token> {
        let owed_before = std::mem::take(&mut follower.owed);
        let mut due: BTreeSet<(Token, Option<Key>)> = owed_before.clone();
        due.retain(|(token, key)| self.present.exists(*token, *key));
        let passed = self.present.between(from, to);
        due.extend(passed.flat_map(|(token, keys)| keys.iter().map(move |key| (token, *key))));
        due.retain(|(token, key)| follower.applied.get(key).is_none_or(|applied| applied < token));
        let may_come = |row: &(Token, Option<Key>)| {
            let is_left_out = (is_row || owed_before.contains(row)) && !self.present.overwrites();
            is_left_out && self.present.newest(row.1).is_some_and(|newest| newest > to)
        };
        follower.owed = due.iter().filter(|row| may_come(row)).copied().collect();
        let missed = due.difference(&follower.owed);
        let mut tokens: Vec<Token> = missed.map(|(token, _)| *token).collect();
        tokens.dedup();
        tokens
    }

    fn moved(&mut self, at: &Place<'_>, to: Token, is_row: bool) -> Result<(), Violation> {
        let Some(mut follower) = self.followers.remove(at.follower.instance) else { return Ok(()) };
        let from = std::mem::replace(&mut follower.position, to);
        let tokens = self.missed(&mut follower, from, to, is_row);
        self.followers.insert(at.follower.instance, follower);
        if tokens.is_empty() { Ok(()) } else { Err(Violation::Missed { follower: at.key(), tokens, from, to }) }
    }
}

impl Rows for Keyed {
    fn written(&mut self, token: Token, row: &Row) {
        self.highest = self.highest.max(Some(token));
        self.present.written(token, row);
    }

    fn written_by_another(&mut self, token: Token, row: &Row) {
        self.present.overwritten(token, row);
    }

    fn removed(&mut self, token: Token, row: &Row) {
        self.present.removed(token, row);
    }

    fn highest(&self) -> Option<Token> {
        self.highest
    }

    fn following(&mut self, instance: Instance, position: Token) {
        self.followers.insert(instance, Follower { position, ..Follower::default() });
    }

    fn gone(&mut self, instance: Instance) {
        self.followers.remove(instance);
    }

    fn applied(&mut self, at: &Place<'_>, token: Token, rows: &[Row]) -> Result<(), Violation> {
        let Some(follower) = self.followers.get_mut(at.follower.instance) else { return Ok(()) };
        if token <= follower.position {
            return Ok(());
        }
        follower.applied.extend(rows.iter().map(|row| (key_of(row), token)));
        self.moved(at, token, true)
    }

    fn positioned(&mut self, at: &Place<'_>, position: Token) -> Result<(), Violation> {
        self.moved(at, position, false)
    }

    /// Tokens of a stream in the database never start again: this is a position like any other.
    fn reset(&mut self, at: &Place<'_>, position: Token) -> Result<(), Violation> {
        self.positioned(at, position)
    }

    fn lack(&self, instance: Instance, highest: Option<Token>) -> Option<PendingReason> {
        let Some(follower) = self.followers.get(instance) else { return Some(PendingReason::Following) };
        let position = follower.position;
        let tokens: Vec<Token> = self.present.after(position).collect();
        if !tokens.is_empty() {
            return Some(PendingReason::Tokens { tokens, position });
        }
        let expected = highest.filter(|highest| position < *highest)?;
        Some(PendingReason::Position { position, expected })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Number;
    use squall_protocol::Delivery;
    use squall_protocol::rows::{AccountDataRow, ToDeviceRow};

    fn key() -> Place<'static> {
        Place::made_up("account_data", Delivery::Keyed)
    }

    fn row(kind: &str) -> Row {
        Row::AccountData(AccountDataRow { user_id: "@user".into(), room_id: None, kind: kind.into() })
    }

    fn write(keyed: &mut Keyed, rows: &[(i64, &str)]) {
        for (token, kind) in rows {
            keyed.written(Token(*token), &row(kind));
        }
    }

    /// A stream with these rows committed, and a worker that follows it from 0.
    fn followed(rows: &[(i64, &str)]) -> Keyed {
        let mut keyed = Keyed::new(Present::with_overwriting(true));
        keyed.following(key().follower.instance, Token(0));
        write(&mut keyed, rows);
        keyed
    }

    fn missed(result: Result<(), Violation>) -> Vec<Token> {
        match result {
            Err(Violation::Missed { tokens, .. }) => tokens,
            other => panic!("not missed: {other:?}"),
        }
    }

    #[test]
    fn a_row_that_another_writer_has_overwritten_is_not_demanded_and_one_that_it_has_not_is() {
        let passing = |token, kind| {
            let mut keyed = followed(&[(2, "a")]);
            keyed.written_by_another(Token(token), &row(kind));
            keyed.positioned(&key(), Token(4))
        };
        assert_eq!(passing(3, "a"), Ok(()));
        assert_eq!(missed(passing(3, "b")), [Token(2)]);
        assert_eq!(missed(passing(1, "a")), [Token(2)], "it came before");
    }

    #[test]
    fn the_newest_row_of_each_key_is_enough() {
        let mut keyed = followed(&[(2, "a"), (3, "b"), (4, "a")]);
        assert_eq!(keyed.applied(&key(), Token(3), &[row("b")]), Ok(()));
        assert_eq!(keyed.applied(&key(), Token(4), &[row("a")]), Ok(()));
        assert_eq!(keyed.positioned(&key(), Token(9)), Ok(()));
        assert_eq!(keyed.lack(key().follower.instance, Some(Token(9))), None);
    }

    #[test]
    fn an_overwritten_row_may_be_applied_all_the_same() {
        let mut keyed = followed(&[(2, "a"), (4, "a")]);
        assert_eq!(keyed.applied(&key(), Token(2), &[row("a")]), Ok(()));
        assert_eq!(keyed.applied(&key(), Token(4), &[row("a")]), Ok(()));
    }

    #[test]
    fn a_row_that_is_committed_after_a_newer_one_of_its_key_need_not_be_applied() {
        let mut keyed = followed(&[(4, "a"), (2, "a")]);
        assert_eq!(missed(keyed.positioned(&key(), Token(4))), [Token(4)]);
        let mut keyed = followed(&[(4, "a"), (2, "a")]);
        assert_eq!(keyed.applied(&key(), Token(4), &[row("a")]), Ok(()));
    }

    #[test]
    fn a_position_over_a_row_that_is_there_misses_it() {
        let mut keyed = followed(&[(2, "a"), (3, "b")]);
        assert_eq!(missed(keyed.applied(&key(), Token(3), &[row("b")])), [Token(2)]);
        let mut keyed = followed(&[(2, "a"), (3, "b")]);
        assert_eq!(missed(keyed.positioned(&key(), Token(3))), [Token(2), Token(3)]);
    }

    #[test]
    fn an_old_row_of_a_key_does_not_make_up_for_its_new_one() {
        let mut keyed = followed(&[(2, "a")]);
        assert_eq!(keyed.applied(&key(), Token(2), &[row("a")]), Ok(()));
        write(&mut keyed, &[(5, "a")]);
        assert_eq!(missed(keyed.positioned(&key(), Token(5))), [Token(5)]);
    }

    #[test]
    fn a_row_that_was_removed_is_not_missed() {
        let mut keyed = followed(&[(2, "a"), (3, "b")]);
        keyed.removed(Token(2), &row("a"));
        assert_eq!(keyed.applied(&key(), Token(3), &[row("b")]), Ok(()));
        // Only the row of that token: a newer one of its key stays.
        let mut keyed = followed(&[(2, "a"), (3, "a")]);
        keyed.removed(Token(2), &row("a"));
        assert_eq!(missed(keyed.positioned(&key(), Token(3))), [Token(3)]);
    }

    #[test]
    fn an_older_message_stays_due_when_a_newer_one_was_acknowledged() {
        let key = Place::made_up("to_device", Delivery::Keyed);
        let message = || Row::ToDevice(ToDeviceRow { entity: "@user".into() });
        let left = |tokens: &[i64]| {
            let mut keyed = Keyed::new(Present::with_overwriting(false));
            keyed.following(key.follower.instance, Token(0));
            for token in tokens {
                keyed.written(Token(*token), &message());
            }
            keyed
        };
        let mut keyed = left(&[2, 5]);
        keyed.removed(Token(5), &message());
        assert_eq!(missed(keyed.positioned(&key, Token(5))), [Token(2)]);
        let mut keyed = left(&[2, 5]);
        assert_eq!(missed(keyed.positioned(&key, Token(3))), [Token(2)], "a newer one is no excuse");
        let mut keyed = left(&[2, 5]);
        assert_eq!(keyed.applied(&key, Token(5), &[message()]), Ok(()), "the inbox has both");
        let mut keyed = left(&[2, 5]);
        let other = Row::ToDevice(ToDeviceRow { entity: "@other".into() });
        keyed.written(Token(3), &other);
        assert_eq!(
            keyed.applied(&key, Token(3), std::slice::from_ref(&other)),
            Ok(()),
            "it may come with the newer one"
        );
        assert_eq!(keyed.positioned(&key, Token(4)), Ok(()), "it may come still");
        assert_eq!(missed(keyed.positioned(&key, Token(5))), [Token(2), Token(5)], "it has not come");
        let mut keyed = left(&[2, 5]);
        for token in [2, 5] {
            keyed.removed(Token(token), &message());
        }
        assert_eq!(keyed.positioned(&key, Token(5)), Ok(()));
    }

    #[test]
    fn what_lies_beyond_the_position_is_pending() {
        let mut keyed = followed(&[(2, "a"), (3, "b")]);
        assert_eq!(keyed.applied(&key(), Token(2), &[row("a")]), Ok(()));
        let lack = PendingReason::Tokens { tokens: vec![Token(3)], position: Token(2) };
        assert_eq!(keyed.lack(key().follower.instance, Some(Token(3))), Some(lack));
        keyed.removed(Token(3), &row("b"));
        let lack = PendingReason::Position { position: Token(2), expected: Token(3) };
        assert_eq!(keyed.lack(key().follower.instance, Some(Token(3))), Some(lack));
        assert_eq!(keyed.lack(Instance::at(9), None), Some(PendingReason::Following));
    }
}
