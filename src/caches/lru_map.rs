//! A bounded map that evicts the least recently used entry.

use std::collections::BTreeMap;

/// A bounded map that evicts the least recently used entry. The choice depends only on the calls made.
#[derive(Debug)]
pub(super) struct LruMap<K, V> {
    entries_max: usize,
    entries: BTreeMap<K, Entry<V>>,
    /// The keys, by the number of their last use.
    by_use: BTreeMap<u64, K>,
    uses: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    used: u64,
}

impl<K: Ord + Clone, V> LruMap<K, V> {
    /// Creates an empty map for `entries_max` values.
    pub(super) fn new(entries_max: usize) -> Self {
        LruMap { entries_max, entries: BTreeMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    /// Returns the value of `key`, and counts as a use of it.
    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        let entry = self.entries.get_mut(key)?;
        let key = self.by_use.remove(&entry.used)?;
        self.uses += 1;
        entry.used = self.uses;
        self.by_use.insert(self.uses, key);
        Some(&entry.value)
    }

    /// Inserts `value`. Evicts the least recently used value if there are too many, and then returns true.
    pub(super) fn insert(&mut self, key: K, value: V) -> bool {
        self.remove(&key);
        self.uses += 1;
        self.by_use.insert(self.uses, key.clone());
        self.entries.insert(key, Entry { value, used: self.uses });
        if self.entries.len() <= self.entries_max {
            return false;
        }
        let (_, oldest) = self.by_use.pop_first().expect("every entry has its last use");
        self.entries.remove(&oldest);
        true
    }

    /// Removes the value of `key`.
    pub(super) fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_use.remove(&entry.used);
        }
    }

    /// Removes every value for whose key `stays` returns false.
    pub(super) fn retain(&mut self, stays: impl Fn(&K) -> bool) {
        self.entries.retain(|key, _| stays(key));
        self.by_use.retain(|_, key| stays(key));
    }

    /// Returns true if there is a value of `key`.
    pub(super) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// Returns the number of values.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(map: &LruMap<&'static str, u32>) -> Vec<&'static str> {
        assert_eq!(map.by_use.len(), map.entries.len());
        map.entries.keys().copied().collect()
    }

    #[test]
    fn the_least_recently_used_entry_is_evicted_first() {
        let mut map = LruMap::new(2);
        map.insert("a", 1);
        map.insert("b", 2);
        assert_eq!(map.get(&"a"), Some(&1));
        map.insert("c", 3);
        assert_eq!(keys(&map), ["a", "c"]);
        map.insert("a", 4);
        map.insert("d", 5);
        assert_eq!(keys(&map), ["a", "d"]);
        assert_eq!(map.len(), 2);
        assert_eq!(map.get(&"a"), Some(&4));
    }

    #[test]
    fn a_removed_key_leaves_nothing_behind() {
        let mut map = LruMap::new(9);
        for key in ["a", "b", "c"] {
            map.insert(key, 0);
        }
        map.remove(&"b");
        map.remove(&"z");
        assert_eq!(keys(&map), ["a", "c"]);
        map.retain(|key| *key != "a");
        assert_eq!(keys(&map), ["c"]);
    }
}
