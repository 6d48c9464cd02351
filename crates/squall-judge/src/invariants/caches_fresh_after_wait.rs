//! Caches are fresh after a wait.
//!
//! Two rules for a client's read through an instance, by the highest token of the parts that it returns:
//!
//! 1. A read that begins at the instance's position P of (stream, writer) reflects every row of that writer up to P.
//!    Synapse moved the position first and invalidated its caches afterwards (#14723). A load that an invalidation
//!    overtakes, and whose result is kept all the same, breaks this rule too.
//! 2. A read that begins after the instance acknowledged a write reflects that write. If another instance did the write,
//!    this one must have waited for it (#7542), and for the position of that writer (#14856). On the writer itself, which
//!    has no position of its own rows, this is the only rule.
//!
//! Both rules outlive the process: every row that an instance had passed or acknowledged was committed by then, and the
//! next process of the same name starts with empty caches, so that it reads the row from the database.
//!
//! No false alarm:
//!
//! - The positions and acknowledgements at the beginning of the read count. A read that fails owes nothing.
//! - In a keyed stream a row that was overwritten is sent by no writer any more. A follower that has passed its token may
//!   not know of it, and owes the row that replaced it, once it has passed that. The writer itself invalidates its own
//!   caches for each of its rows, and owes one that it acknowledged although it was overwritten.
//! - An event is one value, and its last commit counts. If two requests persist one event, and the one with the lower
//!   token commits last, no instance owes the higher token. (This once went by tokens alone, and accused a worker that
//!   read exactly what the database held.)

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use thiserror::Error;

use crate::due::{Key, key, stream_of};
use crate::invariant::Invariant;
use crate::names::{Follower, Followers};
use crate::observation::{Kind, Observation, SimTime};
use crate::reads::changed_by;
use crate::scene::Scene;
use crate::topology::{FollowerKey, Topology};
use squall_protocol::Cached;
use squall_protocol::rows::{EventsRow, Row};
use squall_protocol::{InstanceName, Token};

/// A read of an old value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A client read a value older than a change that the instance's position had passed.
    #[error(
        "{follower}: at position {position} {what} was read {}, without the change of {owed}",
        version_text(.version)
    )]
    Stale {
        #[serde(flatten)]
        follower: FollowerKey,
        what: Box<Cached>,
        version: Option<Token>,
        owed: Token,
        position: Token,
    },
    /// A client read a value older than a write that the instance had acknowledged.
    #[error(
        "{follower}: {what} was read {}, after {} had acknowledged the write {owed}",
        version_text(.version), .follower.instance
    )]
    WriteUnseen {
        #[serde(flatten)]
        follower: FollowerKey,
        what: Box<Cached>,
        version: Option<Token>,
        owed: Token,
    },
}

fn version_text(version: &Option<Token>) -> String {
    version.map_or_else(|| "empty".to_owned(), |version| format!("as of {version}"))
}

/// Checks the values that clients read against the rows committed, passed and acknowledged before the read.
#[derive(Debug, Default)]
pub struct CachesFreshAfterWait {
    /// The changes of each value, by writer.
    changes: BTreeMap<Cached, BTreeMap<InstanceName, Changes>>,
    /// The highest position of each follower, over all processes.
    passed: Followers<Token>,
    /// The writes of each value that an instance has acknowledged, with their writers.
    acknowledged: BTreeMap<(InstanceName, Cached), BTreeMap<Token, InstanceName>>,
    /// The change that each unfinished read must reflect.
    reads: BTreeMap<u64, Option<Owed>>,
    judged: u64,
}

/// One writer's changes of one value.
#[derive(Debug, Default)]
struct Changes {
    /// The changes that every instance that has passed them must reflect.
    standing: BTreeSet<Token>,
    /// The changes whose row was overwritten.
    overwritten: BTreeSet<Token>,
    /// The newest change of each key, in a keyed stream.
    newest: BTreeMap<Key, Token>,
    /// The changes of an event over which one with a lower token was committed.
    undone: BTreeSet<Token>,
}

/// A change that a read must reflect.
#[derive(Debug)]
struct Owed {
    follower: FollowerKey,
    what: Cached,
    token: Token,
    /// The position that had passed it; none if the write was acknowledged.
    position: Option<Token>,
}

impl Changes {
    fn add(&mut self, token: Token, row: &Row) {
        let Some(key) = key(row) else {
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

    fn passed(&mut self, follower: Follower, position: Token) {
        let passed = self.passed.or_default(follower);
        *passed = position.max(*passed);
    }

    /// Returns the newest change that a read of `what` through `instance` must reflect if it begins now.
    fn owed(&self, instance: &InstanceName, what: &Cached, scene: &Scene) -> Option<Owed> {
        let stream = stream_of(what).into();
        let owed = |writer: &InstanceName, token, position| Owed {
            follower: FollowerKey::new(instance, &stream, writer),
            what: what.clone(),
            token,
            position,
        };
        let passed = self.changes.get(what).into_iter().flatten().filter_map(|(writer, changes)| {
            let source = scene.names.find(stream_of(what), writer)?;
            let position = *self.passed.get(Follower { source, instance: scene.instance() })?;
            let token = *changes.standing.range(..=position).next_back()?;
            Some(owed(writer, token, Some(position)))
        });
        let acknowledged = self.acknowledged.get(&(instance.clone(), what.clone()));
        let still_counts = |(token, writer): &(&Token, &InstanceName)| {
            let changes = self.changes.get(what).and_then(|changes| changes.get(*writer));
            let is_undone = changes.is_some_and(|changes| changes.undone.contains(token));
            let is_overwritten = changes.is_some_and(|changes| changes.overwritten.contains(token));
            !is_undone && (*writer == instance || !is_overwritten)
        };
        let acknowledged = acknowledged.into_iter().flat_map(|tokens| tokens.iter().rev().find(still_counts));
        passed.chain(acknowledged.map(|(token, writer)| owed(writer, *token, None))).max_by_key(|owed| owed.token)
    }

    fn returned(&mut self, read: u64, version: Option<Token>) -> Result<(), Violation> {
        let Some(Some(Owed { follower, what, token: owed, position })) = self.reads.remove(&read) else {
            return Ok(());
        };
        self.judged += 1;
        if version.is_some_and(|version| version >= owed) {
            return Ok(());
        }
        let what = Box::new(what);
        Err(match position {
            Some(position) => Violation::Stale { follower, what, version, owed, position },
            None => Violation::WriteUnseen { follower, what, version, owed },
        })
    }
}

impl Invariant for CachesFreshAfterWait {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[
        Kind::Committed,
        Kind::Following,
        Kind::Applied,
        Kind::Positioned,
        Kind::ReadStarted,
        Kind::ReadReturned,
        Kind::WriteAcked,
    ];

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::Committed { writer, token, row, .. } => self.committed(writer, *token, row),
            Observation::Following { position, .. }
            | Observation::Applied { token: position, .. }
            | Observation::Positioned { position, .. } => self.passed(scene.follower(), *position),
            Observation::WriteAcked { instance, what, writer, token } => {
                let acknowledged = self.acknowledged.entry((instance.clone(), what.clone())).or_default();
                acknowledged.insert(*token, writer.clone());
            }
            Observation::ReadStarted { instance, read, what } => {
                self.reads.insert(*read, self.owed(instance, what, scene));
            }
            Observation::ReadReturned { read, version, .. } => return self.returned(*read, *version),
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
