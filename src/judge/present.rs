//! What a writer's rows of a stream are at a time: those that a later one has overwritten, and those that were removed,
//! are not among them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};

use super::topology::Topology;
use crate::protocol::{StreamName, Token};
use crate::streams::{Promise, Row, to_device};

/// The rows of one writer of one stream that are there now, by their tokens.
pub(super) struct Present {
    /// Whether a row takes the place of the one before with its key.
    overwrites: bool,
    /// The newest row of each key.
    newest: BTreeMap<String, Token>,
    /// The keys under each token.
    keys: BTreeMap<Token, BTreeSet<String>>,
}

impl Present {
    /// Nothing written yet. Rows of a log and messages to devices are never overwritten.
    pub fn new(stream: &StreamName, topology: &Topology) -> Self {
        let is_keyed = topology.promise(stream) == Some(Promise::Keyed);
        Present::that(is_keyed && stream.as_str() != to_device::NAME)
    }

    /// Nothing written yet; rows overwrite others or not.
    pub fn that(overwrites: bool) -> Self {
        Present { overwrites, newest: BTreeMap::new(), keys: BTreeMap::new() }
    }

    /// A row was committed. Transactions may commit in another order than their tokens have.
    pub fn written(&mut self, token: Token, row: &Row) {
        let key = row.key().unwrap_or_default();
        let before = self.newest.get(&key).copied();
        let is_newest = before.is_none_or(|before| before < token);
        if is_newest {
            if let Some(before) = before.filter(|_| self.overwrites) {
                self.take_away(&key, before);
            }
            self.newest.insert(key.clone(), token);
        }
        if is_newest || !self.overwrites {
            self.keys.entry(token).or_default().insert(key);
        }
    }

    /// A row was removed.
    pub fn removed(&mut self, token: Token, row: &Row) {
        let key = row.key().unwrap_or_default();
        if self.overwrites && self.newest.get(&key) == Some(&token) {
            self.newest.remove(&key);
        }
        self.take_away(&key, token);
    }

    fn take_away(&mut self, key: &str, token: Token) {
        if let Some(keys) = self.keys.get_mut(&token) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(&token);
            }
        }
    }

    /// Whether a row of `key` is there under `token`.
    pub fn is_there(&self, token: Token, key: &str) -> bool {
        self.keys.get(&token).is_some_and(|keys| keys.contains(key))
    }

    /// The newest token that `key` ever had.
    pub fn newest(&self, key: &str) -> Option<Token> {
        self.newest.get(key).copied()
    }

    /// Whether rows overwrite others.
    pub fn overwrites(&self) -> bool {
        self.overwrites
    }

    /// What is there in `(from, to]`: each token with its keys.
    pub fn between(&self, from: Token, to: Token) -> impl Iterator<Item = (Token, &BTreeSet<String>)> {
        let to = to.max(from);
        self.keys.range((Excluded(from), Included(to))).map(|(token, keys)| (*token, keys))
    }

    /// The tokens after `from` under which something is there.
    pub fn after(&self, from: Token) -> impl Iterator<Item = Token> {
        self.keys.range((Excluded(from), Unbounded)).map(|(token, _)| *token)
    }
}
