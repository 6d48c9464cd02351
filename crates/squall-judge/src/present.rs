//! The rows of one writer that exist at a time: without those that were overwritten by a later row, or removed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};

use super::due::{Key, key};
use super::names::{Names, Source};
use squall_protocol::Delivery;
use squall_protocol::Token;
use squall_protocol::rows::{Row, to_device};

/// The existing rows of one writer of one stream, by their tokens.
pub(super) struct Present {
    /// True if a row replaces the earlier one with its key.
    overwrites: bool,
    /// The newest token of each key.
    newest: BTreeMap<Option<Key>, Token>,
    /// The keys under each token.
    keys: BTreeMap<Token, BTreeSet<Option<Key>>>,
}

impl Present {
    /// Returns an empty stream. Rows of a log and messages to devices are never overwritten.
    pub(crate) fn new(names: &Names, source: Source) -> Self {
        let is_keyed = names.delivery_of(source) == Some(Delivery::Keyed);
        Present::with_overwriting(is_keyed && names.stream_name_of(source).as_str() != to_device::NAME)
    }

    /// Returns an empty stream, whose rows overwrite earlier ones of their key or not.
    pub(crate) fn with_overwriting(overwrites: bool) -> Self {
        Present { overwrites, newest: BTreeMap::new(), keys: BTreeMap::new() }
    }

    /// Records a committed row. Transactions may commit in another order than their tokens.
    pub(crate) fn written(&mut self, token: Token, row: &Row) {
        let key = key(row);
        let before = self.newest.get(&key).copied();
        let is_newest = before.is_none_or(|before| before < token);
        if is_newest {
            if let Some(before) = before.filter(|_| self.overwrites) {
                self.remove_key(key, before);
            }
            self.newest.insert(key, token);
        }
        if is_newest || !self.overwrites {
            self.keys.entry(token).or_default().insert(key);
        }
    }

    /// Records a row that another writer committed, which overwrites an earlier one of its key: a room's writer changes when
    /// a writer is added to the deployment.
    pub(crate) fn overwritten(&mut self, token: Token, row: &Row) {
        let key = key(row);
        if self.overwrites
            && let Some(before) = self.newest.get(&key).copied().filter(|before| *before < token)
        {
            self.newest.remove(&key);
            self.remove_key(key, before);
        }
    }

    /// Records a removed row.
    pub(crate) fn removed(&mut self, token: Token, row: &Row) {
        let key = key(row);
        if self.overwrites && self.newest.get(&key) == Some(&token) {
            self.newest.remove(&key);
        }
        self.remove_key(key, token);
    }

    fn remove_key(&mut self, key: Option<Key>, token: Token) {
        if let Some(keys) = self.keys.get_mut(&token) {
            keys.remove(&key);
            if keys.is_empty() {
                self.keys.remove(&token);
            }
        }
    }

    /// Returns true if a row of `key` exists under `token`.
    pub(crate) fn exists(&self, token: Token, key: Option<Key>) -> bool {
        self.keys.get(&token).is_some_and(|keys| keys.contains(&key))
    }

    /// Returns the newest token that `key` ever had.
    pub(crate) fn newest(&self, key: Option<Key>) -> Option<Token> {
        self.newest.get(&key).copied()
    }

    /// Returns true if rows overwrite earlier ones of their key.
    pub(crate) fn overwrites(&self) -> bool {
        self.overwrites
    }

    /// Returns the tokens in `(from, to]` under which rows exist, with their keys.
    pub(crate) fn between(&self, from: Token, to: Token) -> impl Iterator<Item = (Token, &BTreeSet<Option<Key>>)> {
        let to = to.max(from);
        self.keys.range((Excluded(from), Included(to))).map(|(token, keys)| (*token, keys))
    }

    /// Returns the tokens after `from` under which rows exist.
    pub(crate) fn after(&self, from: Token) -> impl Iterator<Item = Token> {
        self.keys.range((Excluded(from), Unbounded)).map(|(token, _)| *token)
    }
}
