//! Caches are fresh after a wait.
//!
//! Two rules for what a client reads through an instance, by the highest token of its parts:
//!
//! 1. A read that begins when the instance's position of (stream, writer) is P reflects every row of that writer up to P.
//!    Synapse moved the position first and invalidated its caches then (#14723); a load that an invalidation overtakes,
//!    and that is kept all the same, breaks it too.
//! 2. A read that begins after the instance told a client that its write is done reflects the write. Whoever had the
//!    write done elsewhere must have waited for it (#7542), and for the position of its writer and no other's (#14856).
//!    On the writer itself, whose position nobody is told, this is the only rule.
//!
//! Both outlive the process: what an instance was seen to have passed, or told to be done, was committed by then, and
//! the next process under its name begins with nothing in its memory, so that it reads it from the database.
//!
//! No false alarm: what counts is what was known when the read began, and a read that fails owes nothing. In a keyed
//! stream a row that was overwritten is told by nobody any more; whoever has passed its token may not know of it, and
//! owes the row that took its place once that is passed. Only the writer itself, which tells its own caches of each of
//! its rows, owes one that it told to be done whatever came after. An event is one thing, whose last commit is what there
//! is: where two requests persist one event, and the one with the lower token commits last, nobody owes the higher one.
//! (This once went by tokens alone, and accused a worker that read just what the database held.)

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::caches::Cached;
use crate::judge::observation::{Moment, Observation};
use crate::judge::reads::changed_by;
use crate::judge::topology::Feed;
use crate::judge::violation::Violation;
use crate::protocol::{InstanceName, Token};
use crate::streams::{EventsRow, Row, account_data, events, receipts};

/// The streams whose rows change what clients read.
const STREAMS: [&str; 3] = [events::NAME, receipts::NAME, account_data::NAME];

/// Judges what clients read against what was committed, passed and told to be done before they asked.
#[derive(Debug, Default)]
pub struct CachesFreshAfterWait {
    /// Who changed what.
    changes: BTreeMap<Cached, BTreeMap<InstanceName, Changes>>,
    /// The highest position that anybody was told.
    passed: BTreeMap<Feed, Token>,
    /// Which writes of what an instance has told to be done, with their writers.
    answered: BTreeMap<(InstanceName, Cached), BTreeMap<Token, InstanceName>>,
    /// What the reads under way must reflect.
    reads: BTreeMap<u64, Option<Owed>>,
    judged: u64,
}

/// One writer's changes of one thing.
#[derive(Debug, Default)]
struct Changes {
    /// Those that everybody who has passed them must reflect.
    standing: BTreeSet<Token>,
    /// Those whose row was overwritten.
    overwritten: BTreeSet<Token>,
    /// The newest by key, in a keyed stream.
    newest: BTreeMap<String, Token>,
    /// Those of one event that one with a lower token was committed over.
    undone: BTreeSet<Token>,
}

/// What a read must reflect, and why.
#[derive(Debug)]
struct Owed {
    feed: Feed,
    what: Cached,
    token: Token,
    /// The position that had passed it; none if it was told to be done.
    position: Option<Token>,
}

impl Changes {
    fn add(&mut self, token: Token, row: &Row) {
        let Some(key) = row.key() else {
            if let Row::Events(EventsRow::Event(_)) = row {
                let lower = self.standing.range(..token).copied().collect();
                self.undone.extend(std::mem::replace(&mut self.standing, lower));
            }
            self.standing.insert(token);
            return;
        };
        // Transactions may commit in another order than their tokens have.
        let newest = self.newest.entry(key).or_insert(token);
        let overwritten = token.min(*newest);
        *newest = token.max(*newest);
        self.standing.insert(*newest);
        if overwritten < *newest {
            self.standing.remove(&overwritten);
            self.overwritten.insert(overwritten);
        }
    }
}

impl CachesFreshAfterWait {
    fn committed(&mut self, writer: &InstanceName, token: Token, row: &Row) {
        if let Some(what) = changed_by(row) {
            self.changes.entry(what).or_default().entry(writer.clone()).or_default().add(token, row);
        }
    }

    fn passed(&mut self, feed: Feed, position: Token) {
        let passed = self.passed.entry(feed).or_default();
        *passed = position.max(*passed);
    }

    /// The newest of what a read of `what` through `instance` must reflect, if it begins now.
    fn owed(&self, instance: &InstanceName, what: &Cached) -> Option<Owed> {
        let stream = what.stream().into();
        let owed = |writer: &InstanceName, token, position| Owed {
            feed: Feed::new(instance, &stream, writer),
            what: what.clone(),
            token,
            position,
        };
        let passed = self.changes.get(what).into_iter().flatten().filter_map(|(writer, changes)| {
            let position = *self.passed.get(&Feed::new(instance, &stream, writer))?;
            let token = *changes.standing.range(..=position).next_back()?;
            Some(owed(writer, token, Some(position)))
        });
        let answered = self.answered.get(&(instance.clone(), what.clone()));
        let stands = |(token, writer): &(&Token, &InstanceName)| {
            let changes = self.changes.get(what).and_then(|changes| changes.get(*writer));
            let is_undone = changes.is_some_and(|changes| changes.undone.contains(token));
            let is_overwritten = changes.is_some_and(|changes| changes.overwritten.contains(token));
            !is_undone && (*writer == instance || !is_overwritten)
        };
        let answered = answered.into_iter().flat_map(|tokens| tokens.iter().rev().find(stands));
        passed.chain(answered.map(|(token, writer)| owed(writer, *token, None))).max_by_key(|owed| owed.token)
    }

    fn told(&mut self, read: u64, version: Option<Token>) -> Result<(), Violation> {
        let Some(Some(Owed { feed, what, token: owed, position })) = self.reads.remove(&read) else { return Ok(()) };
        self.judged += 1;
        if version.is_some_and(|version| version >= owed) {
            return Ok(());
        }
        let what = Box::new(what);
        Err(match position {
            Some(position) => Violation::Stale { feed, what, version, owed, position },
            None => Violation::WriteUnseen { feed, what, version, owed },
        })
    }
}

impl Invariant for CachesFreshAfterWait {
    fn name(&self) -> &'static str {
        "caches_fresh_after_wait"
    }

    fn observe(&mut self, _at: Moment, observation: &Observation) -> Result<(), Violation> {
        match observation {
            Observation::Committed { writer, token, row, .. } => self.committed(writer, *token, row),
            Observation::Following { instance, stream, writer, position }
            | Observation::Applied { instance, stream, writer, token: position, .. }
            | Observation::Positioned { instance, stream, writer, position }
                if STREAMS.contains(&stream.as_str()) =>
            {
                self.passed(Feed::new(instance, stream, writer), *position);
            }
            Observation::Answered { instance, what, writer, token } => {
                let answered = self.answered.entry((instance.clone(), what.clone())).or_default();
                answered.insert(*token, writer.clone());
            }
            Observation::Asked { instance, read, what } => {
                self.reads.insert(*read, self.owed(instance, what));
            }
            Observation::Told { read, version, .. } => return self.told(*read, *version),
            _ => {}
        }
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests;
