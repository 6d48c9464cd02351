//! The promise of a log stream: every committed row, once per follower boot, in order, whole tokens at a time.
//!
//! Rows were lost at the limit of one query (Synapse #7337, #7358), applied under the token of others (#7286), mixed
//! with another writer's, announced away (#19795), and passed by a position while their id was in flight (#11045).
//!
//! An update may put one `state-all` row, at the highest of their tokens, in the place of all its state rows of a room
//! (#16510). State rows left out of an earlier token are *owed*: a `state-all` row of the room pays. It fails to come
//! if the position is confirmed first or if the room's state rows go on at a later token, because an update is applied
//! in one go and leaves out all of them or none.
//!
//! An event that ceases to be an outlier is told under a token of its own, and whoever fetches the event's first row from
//! then on finds it changed; see [`Outliers`].
//!
//! No false alarm: nothing at or below the position where a follower's boot began is asked for; a writer commits every
//! row of a token before it tells of any; and what is owed is let be as long as a later committed token could pay.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};

use super::Rows;
use super::outliers::Outliers;
use super::token_rows::{compare, state_all_room, state_room};
use crate::judge::pending::Lack;
use crate::judge::topology::Feed;
use crate::judge::violation::Violation;
use crate::protocol::{InstanceName, StreamName, Token};
use crate::streams::Row;

/// What one writer committed to one log stream, and how far each instance has followed.
pub(super) struct Log {
    stream: StreamName,
    writer: InstanceName,
    /// The rows of each token, in order.
    rows: BTreeMap<Token, Vec<Row>>,
    /// The highest token with state rows, by room.
    state_upto: BTreeMap<String, Token>,
    outliers: Outliers,
    followers: BTreeMap<InstanceName, Follower>,
}

struct Follower {
    position: Token,
    /// The first token on which state rows were left out, by room.
    owed: BTreeMap<String, Token>,
}

impl Log {
    /// An empty log.
    pub fn new(stream: &StreamName, writer: &InstanceName) -> Self {
        let (rows, state_upto, outliers, followers) = Default::default();
        Log { stream: stream.clone(), writer: writer.clone(), rows, state_upto, outliers, followers }
    }
}

impl Rows for Log {
    fn begun(&mut self, _boot: u64) {}

    fn written(&mut self, _boot: u64, token: Token, row: &Row) -> Result<(), Violation> {
        if let Some(room) = state_room(row) {
            let upto = self.state_upto.entry(room.to_owned()).or_insert(token);
            *upto = token.max(*upto);
        }
        self.outliers.written(row);
        let rows = self.rows.entry(token).or_default();
        rows.insert(rows.partition_point(|other| other <= row), row.clone());

        let passed = self.followers.iter().find(|(_, follower)| follower.position >= token);
        passed.map_or(Ok(()), |(instance, follower)| {
            let feed = Feed::new(instance, &self.stream, &self.writer);
            Err(Violation::CommittedBehind { feed, token, position: follower.position })
        })
    }

    fn highest(&self) -> Option<Token> {
        self.rows.last_key_value().map(|(token, _)| *token)
    }

    fn following(&mut self, instance: &InstanceName, position: Token) {
        self.followers.insert(instance.clone(), Follower { position, owed: BTreeMap::new() });
    }

    fn gone(&mut self, instance: &InstanceName) {
        self.followers.remove(instance);
    }

    fn applied(&mut self, feed: &Feed, token: Token, rows: &[Row]) -> Result<(), Violation> {
        let Some(follower) = self.followers.get_mut(&feed.instance) else { return Ok(()) };
        let from = follower.position;
        if token <= from {
            return Err(Violation::Repeated { feed: feed.clone(), token, position: from });
        }
        follower.position = token;

        let mut missed = BTreeSet::new();
        for (skipped, rows) in self.rows.range((Excluded(from), Excluded(token))) {
            if rows.iter().all(|row| state_room(row).is_some()) {
                rows.iter().filter_map(state_room).for_each(|room| follower.owe(room, *skipped));
            } else {
                missed.insert(*skipped);
            }
        }
        let Some(committed) = self.rows.get(&token) else {
            return Err(Violation::NotCommitted { feed: feed.clone(), token });
        };
        let may_come = |room: &str| self.state_upto.get(room).is_some_and(|upto| *upto > token);
        let rows = &*self.outliers.as_committed(committed, rows);
        let left_out = compare(committed, rows, may_come).map_err(|differs| {
            let (committed, applied) = (committed.len(), rows.len());
            Violation::WrongRows { feed: feed.clone(), token, committed, applied, differs }
        })?;

        missed.extend(rows.iter().filter_map(state_room).filter_map(|room| follower.owed.remove(room)));
        left_out.into_iter().for_each(|room| follower.owe(room, token));
        for room in rows.iter().filter_map(state_all_room) {
            follower.owed.remove(room);
        }
        missed.extend(follower.owed.iter().filter(|(room, _)| !may_come(room)).map(|(_, token)| *token));
        follower.owed.retain(|room, _| may_come(room));
        none_missed(feed, missed, from, token)
    }

    fn positioned(&mut self, feed: &Feed, position: Token) -> Result<(), Violation> {
        let Some(follower) = self.followers.get_mut(&feed.instance) else { return Ok(()) };
        let from = follower.position;
        if position < from {
            return Err(Violation::WentBack { feed: feed.clone(), from, to: position });
        }
        follower.position = position;
        let mut missed: BTreeSet<Token> = std::mem::take(&mut follower.owed).into_values().collect();
        missed.extend(self.rows.range((Excluded(from), Included(position))).map(|(token, _)| *token));
        none_missed(feed, missed, from, position)
    }

    /// A log never begins anew: this is a position like any other.
    fn reset(&mut self, feed: &Feed, position: Token) -> Result<(), Violation> {
        self.positioned(feed, position)
    }

    fn lack(&self, instance: &InstanceName, highest: Option<Token>) -> Option<Lack> {
        let Some(Follower { position, owed }) = self.followers.get(instance) else { return Some(Lack::Following) };
        let beyond = self.rows.range((Excluded(position), Unbounded)).map(|(token, _)| *token);
        let tokens: BTreeSet<Token> = owed.values().copied().chain(beyond).collect();
        if !tokens.is_empty() {
            return Some(Lack::Tokens { tokens: tokens.into_iter().collect(), position: *position });
        }
        let expected = highest.filter(|highest| position < highest)?;
        Some(Lack::Position { position: *position, expected })
    }
}

impl Follower {
    fn owe(&mut self, room: &str, token: Token) {
        self.owed.entry(room.to_owned()).or_insert(token);
    }
}

fn none_missed(feed: &Feed, missed: BTreeSet<Token>, from: Token, to: Token) -> Result<(), Violation> {
    if missed.is_empty() {
        return Ok(());
    }
    Err(Violation::Missed { feed: feed.clone(), tokens: missed.into_iter().collect(), from, to })
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{event, state, state_all};
    use super::*;

    fn feed() -> Feed {
        Feed::new(&"worker".into(), &"events".into(), &"writer".into())
    }

    /// A log with these rows committed, and a worker that follows it from 0.
    fn followed(committed: &[(i64, Row)]) -> Log {
        let mut log = Log::new(&"events".into(), &"writer".into());
        log.following(&"worker".into(), Token(0));
        committed.iter().for_each(|(token, row)| log.written(0, Token(*token), row).unwrap());
        log
    }

    fn kind(result: Result<(), Violation>) -> &'static str {
        result.map_or_else(|violation| violation.kind(), |()| "none")
    }

    fn missed(result: Result<(), Violation>) -> Vec<Token> {
        match result {
            Err(Violation::Missed { tokens, .. }) => tokens,
            other => panic!("not missed: {other:?}"),
        }
    }

    #[test]
    fn every_row_in_order_is_well() {
        let mut log = followed(&[(2, event("a")), (2, state("room", "x")), (5, event("b"))]);
        assert_eq!(log.applied(&feed(), Token(2), &[event("a"), state("room", "x")]), Ok(()));
        assert_eq!(log.applied(&feed(), Token(5), &[event("b")]), Ok(()));
        assert_eq!(log.positioned(&feed(), Token(9)), Ok(()));
        assert_eq!(log.positioned(&feed(), Token(9)), Ok(()));
        assert_eq!(log.lack(&"worker".into(), Some(Token(5))), None);
    }

    #[test]
    fn a_token_that_was_skipped_is_missed() {
        let mut log = followed(&[(2, event("a")), (3, event("b")), (4, event("c"))]);
        assert_eq!(missed(log.applied(&feed(), Token(4), &[event("c")])), [Token(2), Token(3)]);
    }

    #[test]
    fn a_position_over_committed_rows_is_missed_rows() {
        let mut log = followed(&[(2, event("a")), (3, event("b"))]);
        assert_eq!(missed(log.positioned(&feed(), Token(2))), [Token(2)]);
    }

    #[test]
    fn a_token_applied_twice_is_repeated() {
        let mut log = followed(&[(2, event("a"))]);
        assert_eq!(log.applied(&feed(), Token(2), &[event("a")]), Ok(()));
        assert_eq!(kind(log.applied(&feed(), Token(2), &[event("a")])), "repeated");
    }

    #[test]
    fn a_token_that_lost_a_row_at_the_limit_has_wrong_rows() {
        let mut log = followed(&[(2, state("room", "x")), (2, state("room", "y"))]);
        assert_eq!(kind(log.applied(&feed(), Token(2), &[state("room", "x")])), "wrong_rows");
    }

    #[test]
    fn a_token_that_nobody_committed_is_not_committed() {
        let mut log = followed(&[(2, event("a"))]);
        assert_eq!(kind(log.applied(&feed(), Token(1), &[event("z")])), "not_committed");
    }

    #[test]
    fn a_row_committed_behind_a_position_was_passed_by_it() {
        let mut log = followed(&[]);
        assert_eq!(log.positioned(&feed(), Token(4)), Ok(()));
        assert_eq!(kind(log.written(0, Token(4), &event("a"))), "committed_behind");
        assert_eq!(log.written(0, Token(5), &event("b")), Ok(()));
    }

    #[test]
    fn a_row_committed_behind_a_position_of_a_process_that_is_gone_was_not() {
        let mut log = followed(&[]);
        assert_eq!(log.positioned(&feed(), Token(4)), Ok(()));
        log.gone(&"worker".into());
        assert_eq!(log.written(0, Token(4), &event("a")), Ok(()));
    }

    #[test]
    fn a_position_never_goes_back() {
        let mut log = followed(&[]);
        assert_eq!(log.positioned(&feed(), Token(4)), Ok(()));
        assert_eq!(kind(log.positioned(&feed(), Token(3))), "went_back");
    }

    #[test]
    fn a_new_boot_starts_where_it_says_and_owes_nothing_before() {
        let mut log = followed(&[(2, event("a")), (3, event("b"))]);
        log.gone(&"worker".into());
        log.following(&"worker".into(), Token(2));
        assert_eq!(log.applied(&feed(), Token(3), &[event("b")]), Ok(()));
    }

    #[test]
    fn a_state_all_row_covers_the_room_on_the_tokens_before_it() {
        let rows = [(2, state("room", "x")), (3, event("a")), (3, state("room", "y")), (4, state("room", "z"))];
        let mut log = followed(&rows);
        assert_eq!(log.applied(&feed(), Token(3), &[event("a")]), Ok(()));
        let pending = Lack::Tokens { tokens: vec![Token(2), Token(4)], position: Token(3) };
        assert_eq!(log.lack(&"worker".into(), None), Some(pending));
        assert_eq!(log.applied(&feed(), Token(4), &[state_all("room")]), Ok(()));
        assert_eq!(log.positioned(&feed(), Token(4)), Ok(()));
        assert_eq!(log.lack(&"worker".into(), None), None);
    }

    #[test]
    fn a_state_all_row_of_another_room_covers_nothing() {
        let mut log = followed(&[(2, state("room", "x")), (3, state("other", "x"))]);
        assert_eq!(missed(log.applied(&feed(), Token(3), &[state_all("other")])), [Token(2)]);
    }

    #[test]
    fn state_rows_left_out_are_missed_once_the_room_goes_on_without_them() {
        let mut log = followed(&[(2, event("a")), (2, state("room", "x")), (3, state("room", "y"))]);
        assert_eq!(log.applied(&feed(), Token(2), &[event("a")]), Ok(()));
        assert_eq!(missed(log.applied(&feed(), Token(3), &[state("room", "y")])), [Token(2)]);
    }

    #[test]
    fn state_rows_left_out_are_missed_once_the_position_is_confirmed() {
        let mut log = followed(&[(2, event("a")), (2, state("room", "x")), (3, state("room", "y"))]);
        assert_eq!(log.applied(&feed(), Token(2), &[event("a")]), Ok(()));
        assert_eq!(missed(log.positioned(&feed(), Token(2))), [Token(2)]);
    }

    #[test]
    fn an_idle_writers_position_has_to_reach_the_other_writers_tokens() {
        let log = followed(&[]);
        let behind = Lack::Position { position: Token(0), expected: Token(7) };
        assert_eq!(log.lack(&"worker".into(), Some(Token(7))), Some(behind));
        assert_eq!(log.lack(&"worker2".into(), Some(Token(7))), Some(Lack::Following));
    }
}
