//! The promise of a keyed stream: for each key the last row up to the position.
//!
//! A row is overwritten by a later one with its key, and may be removed; the follower who asks afterwards never sees it.
//! What is there at the time must have been applied by everybody whose position has passed it. Rows of two tables under
//! one limit (Synapse #7384), and a limit counted in rows that fall together by key (#15349), lost such rows.
//!
//! Messages to devices are never overwritten: an older one of a user stays, and stays due, until its own device has
//! acknowledged it, whatever became of newer ones. But whoever has been told of a newer one looks into the whole inbox, so
//! an answer names each user once, at the last token: what it leaves out before is *owed* until then. A position that is
//! confirmed on the way, because a row in the middle of an answer could not be understood and was fetched, owes it still;
//! what is passed by a position that is confirmed should have been fetched, and is no more owed but missed. (This once
//! asked for what was owed too, when a position was confirmed, and accused a worker whose next row brought it.)
//!
//! No false alarm: nothing at or below the position where a follower's boot began is asked for; a row counts from its
//! commit on; and one that was overwritten or removed may have been applied or not.

use std::collections::{BTreeMap, BTreeSet};

use super::Rows;
use crate::judge::pending::Lack;
use crate::judge::present::Present;
use crate::judge::topology::Feed;
use crate::judge::violation::Violation;
use crate::protocol::{InstanceName, Token};
use crate::streams::Row;

/// What one writer committed to one keyed stream, and how far each instance has followed.
pub(super) struct Keyed {
    present: Present,
    highest: Option<Token>,
    followers: BTreeMap<InstanceName, Follower>,
}

#[derive(Default)]
struct Follower {
    position: Token,
    /// The newest token applied, by key.
    applied: BTreeMap<String, Token>,
    /// What it has passed, and may yet be told of under a later token with the same key.
    owed: BTreeSet<(Token, String)>,
}

impl Keyed {
    /// Nothing written yet: `present` is empty.
    pub fn new(present: Present) -> Self {
        Keyed { present, highest: None, followers: BTreeMap::new() }
    }

    /// The tokens up to `to` of which something is there that `follower` should have applied by now and has not. What may
    /// come under a later token is owed.
    fn missed(&self, follower: &mut Follower, from: Token, to: Token, is_row: bool) -> Vec<Token> {
        let owed_before = std::mem::take(&mut follower.owed);
        let mut due: BTreeSet<(Token, String)> = owed_before.clone();
        due.retain(|(token, key)| self.present.is_there(*token, key));
        let passed = self.present.between(from, to);
        due.extend(passed.flat_map(|(token, keys)| keys.iter().map(move |key| (token, key.clone()))));
        due.retain(|(token, key)| follower.applied.get(key).is_none_or(|applied| applied < token));
        let may_come = |row: &(Token, String)| {
            let is_left_out = (is_row || owed_before.contains(row)) && !self.present.overwrites();
            is_left_out && self.present.newest(&row.1).is_some_and(|newest| newest > to)
        };
        let (owed, missed): (BTreeSet<_>, BTreeSet<_>) = due.into_iter().partition(may_come);
        follower.owed = owed;
        let mut tokens: Vec<Token> = missed.into_iter().map(|(token, _)| token).collect();
        tokens.dedup();
        tokens
    }

    fn moved(&mut self, feed: &Feed, to: Token, is_row: bool) -> Result<(), Violation> {
        let Some(mut follower) = self.followers.remove(&feed.instance) else { return Ok(()) };
        let from = std::mem::replace(&mut follower.position, to);
        let tokens = self.missed(&mut follower, from, to, is_row);
        self.followers.insert(feed.instance.clone(), follower);
        if tokens.is_empty() { Ok(()) } else { Err(Violation::Missed { feed: feed.clone(), tokens, from, to }) }
    }
}

impl Rows for Keyed {
    fn written(&mut self, token: Token, row: &Row) {
        self.highest = self.highest.max(Some(token));
        self.present.written(token, row);
    }

    fn removed(&mut self, token: Token, row: &Row) {
        self.present.removed(token, row);
    }

    fn highest(&self) -> Option<Token> {
        self.highest
    }

    fn following(&mut self, instance: &InstanceName, position: Token) {
        self.followers.insert(instance.clone(), Follower { position, ..Follower::default() });
    }

    fn gone(&mut self, instance: &InstanceName) {
        self.followers.remove(instance);
    }

    fn applied(&mut self, feed: &Feed, token: Token, rows: &[Row]) -> Result<(), Violation> {
        let Some(follower) = self.followers.get_mut(&feed.instance) else { return Ok(()) };
        if token <= follower.position {
            return Ok(());
        }
        follower.applied.extend(rows.iter().filter_map(Row::key).map(|key| (key, token)));
        self.moved(feed, token, true)
    }

    fn positioned(&mut self, feed: &Feed, position: Token) -> Result<(), Violation> {
        self.moved(feed, position, false)
    }

    /// Tokens of a stream in the database never begin anew: this is a position like any other.
    fn reset(&mut self, feed: &Feed, position: Token) -> Result<(), Violation> {
        self.positioned(feed, position)
    }

    fn lack(&self, instance: &InstanceName, highest: Option<Token>) -> Option<Lack> {
        let Some(follower) = self.followers.get(instance) else { return Some(Lack::Following) };
        let position = follower.position;
        let tokens: Vec<Token> = self.present.after(position).collect();
        if !tokens.is_empty() {
            return Some(Lack::Tokens { tokens, position });
        }
        let expected = highest.filter(|highest| position < *highest)?;
        Some(Lack::Position { position, expected })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::{AccountDataRow, ToDeviceRow};

    fn feed() -> Feed {
        Feed::new(&"worker".into(), &"account_data".into(), &"writer".into())
    }

    fn row(kind: &str) -> Row {
        Row::AccountData(AccountDataRow { user_id: "@user".into(), room_id: None, kind: kind.into() })
    }

    fn write(keyed: &mut Keyed, rows: &[(i64, &str)]) {
        rows.iter().for_each(|(token, kind)| keyed.written(Token(*token), &row(kind)));
    }

    /// A stream with these rows committed, and a worker that follows it from 0.
    fn followed(rows: &[(i64, &str)]) -> Keyed {
        let mut keyed = Keyed::new(Present::that(true));
        keyed.following(&"worker".into(), Token(0));
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
    fn the_newest_row_of_each_key_is_enough() {
        let mut keyed = followed(&[(2, "a"), (3, "b"), (4, "a")]);
        assert_eq!(keyed.applied(&feed(), Token(3), &[row("b")]), Ok(()));
        assert_eq!(keyed.applied(&feed(), Token(4), &[row("a")]), Ok(()));
        assert_eq!(keyed.positioned(&feed(), Token(9)), Ok(()));
        assert_eq!(keyed.lack(&"worker".into(), Some(Token(9))), None);
    }

    #[test]
    fn an_overwritten_row_may_be_applied_all_the_same() {
        let mut keyed = followed(&[(2, "a"), (4, "a")]);
        assert_eq!(keyed.applied(&feed(), Token(2), &[row("a")]), Ok(()));
        assert_eq!(keyed.applied(&feed(), Token(4), &[row("a")]), Ok(()));
    }

    #[test]
    fn a_row_that_is_committed_after_a_newer_one_of_its_key_need_not_be_applied() {
        let mut keyed = followed(&[(4, "a"), (2, "a")]);
        assert_eq!(missed(keyed.positioned(&feed(), Token(4))), [Token(4)]);
        let mut keyed = followed(&[(4, "a"), (2, "a")]);
        assert_eq!(keyed.applied(&feed(), Token(4), &[row("a")]), Ok(()));
    }

    #[test]
    fn a_position_over_a_row_that_is_there_misses_it() {
        let mut keyed = followed(&[(2, "a"), (3, "b")]);
        assert_eq!(missed(keyed.applied(&feed(), Token(3), &[row("b")])), [Token(2)]);
        let mut keyed = followed(&[(2, "a"), (3, "b")]);
        assert_eq!(missed(keyed.positioned(&feed(), Token(3))), [Token(2), Token(3)]);
    }

    #[test]
    fn an_old_row_of_a_key_does_not_make_up_for_its_new_one() {
        let mut keyed = followed(&[(2, "a")]);
        assert_eq!(keyed.applied(&feed(), Token(2), &[row("a")]), Ok(()));
        write(&mut keyed, &[(5, "a")]);
        assert_eq!(missed(keyed.positioned(&feed(), Token(5))), [Token(5)]);
    }

    #[test]
    fn a_row_that_was_removed_is_not_missed() {
        let mut keyed = followed(&[(2, "a"), (3, "b")]);
        keyed.removed(Token(2), &row("a"));
        assert_eq!(keyed.applied(&feed(), Token(3), &[row("b")]), Ok(()));
        // Only the row of that token: a newer one of its key stays.
        let mut keyed = followed(&[(2, "a"), (3, "a")]);
        keyed.removed(Token(2), &row("a"));
        assert_eq!(missed(keyed.positioned(&feed(), Token(3))), [Token(3)]);
    }

    #[test]
    fn an_older_message_stays_due_when_a_newer_one_was_acknowledged() {
        let feed = Feed::new(&"worker".into(), &"to_device".into(), &"writer".into());
        let message = || Row::ToDevice(ToDeviceRow { entity: "@user".into() });
        let left = |tokens: &[i64]| {
            let mut keyed = Keyed::new(Present::that(false));
            keyed.following(&feed.instance, Token(0));
            tokens.iter().for_each(|token| keyed.written(Token(*token), &message()));
            keyed
        };
        let mut keyed = left(&[2, 5]);
        keyed.removed(Token(5), &message());
        assert_eq!(missed(keyed.positioned(&feed, Token(5))), [Token(2)]);
        let mut keyed = left(&[2, 5]);
        assert_eq!(missed(keyed.positioned(&feed, Token(3))), [Token(2)], "a newer one is no excuse");
        let mut keyed = left(&[2, 5]);
        assert_eq!(keyed.applied(&feed, Token(5), &[message()]), Ok(()), "who looks finds both");
        let mut keyed = left(&[2, 5]);
        let other = Row::ToDevice(ToDeviceRow { entity: "@other".into() });
        keyed.written(Token(3), &other);
        assert_eq!(
            keyed.applied(&feed, Token(3), std::slice::from_ref(&other)),
            Ok(()),
            "it may come with the newer one"
        );
        assert_eq!(keyed.positioned(&feed, Token(4)), Ok(()), "it may come still");
        assert_eq!(missed(keyed.positioned(&feed, Token(5))), [Token(2), Token(5)], "it has not come");
        let mut keyed = left(&[2, 5]);
        [2, 5].iter().for_each(|token| keyed.removed(Token(*token), &message()));
        assert_eq!(keyed.positioned(&feed, Token(5)), Ok(()));
    }

    #[test]
    fn what_lies_beyond_the_position_is_pending() {
        let mut keyed = followed(&[(2, "a"), (3, "b")]);
        assert_eq!(keyed.applied(&feed(), Token(2), &[row("a")]), Ok(()));
        let lack = Lack::Tokens { tokens: vec![Token(3)], position: Token(2) };
        assert_eq!(keyed.lack(&"worker".into(), Some(Token(3))), Some(lack));
        keyed.removed(Token(3), &row("b"));
        let lack = Lack::Position { position: Token(2), expected: Token(3) };
        assert_eq!(keyed.lack(&"worker".into(), Some(Token(3))), Some(lack));
        assert_eq!(keyed.lack(&"nobody".into(), None), Some(Lack::Following));
    }
}
