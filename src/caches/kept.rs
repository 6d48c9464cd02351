//! The values that a cache keeps: so many and no more, and the one that went longest without being asked for goes first.

use std::collections::BTreeMap;

/// A bounded map. Which entry goes depends on nothing but what was done to it.
#[derive(Debug)]
pub(super) struct Kept<K, V> {
    entries_max: usize,
    entries: BTreeMap<K, Entry<V>>,
    /// The keys, by when they were last used.
    by_use: BTreeMap<u64, K>,
    uses: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    used: u64,
}

impl<K: Ord + Clone, V> Kept<K, V> {
    /// Room for `entries_max` values.
    pub fn new(entries_max: usize) -> Self {
        Kept { entries_max, entries: BTreeMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    /// The value of `key`, which counts as a use of it.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        let entry = self.entries.get_mut(key)?;
        let key = self.by_use.remove(&entry.used)?;
        self.uses += 1;
        entry.used = self.uses;
        self.by_use.insert(self.uses, key);
        Some(&entry.value)
    }

    /// Keeps `value`, and drops what was used longest ago if there are too many.
    pub fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        self.uses += 1;
        self.by_use.insert(self.uses, key.clone());
        self.entries.insert(key, Entry { value, used: self.uses });
        if self.entries.len() > self.entries_max
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.entries.remove(&oldest);
        }
    }

    /// Drops the value of `key`.
    pub fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_use.remove(&entry.used);
        }
    }

    /// Drops every value whose key is not to stay.
    pub fn retain(&mut self, stays: impl Fn(&K) -> bool) {
        self.entries.retain(|key, _| stays(key));
        self.by_use.retain(|_, key| stays(key));
    }

    /// Whether there is a value of `key`.
    pub fn has(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(kept: &Kept<&'static str, u32>) -> Vec<&'static str> {
        assert_eq!(kept.by_use.len(), kept.entries.len());
        kept.entries.keys().copied().collect()
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut kept = Kept::new(2);
        kept.insert("a", 1);
        kept.insert("b", 2);
        assert_eq!(kept.get(&"a"), Some(&1));
        kept.insert("c", 3);
        assert_eq!(keys(&kept), ["a", "c"]);
        kept.insert("a", 4);
        kept.insert("d", 5);
        assert_eq!(keys(&kept), ["a", "d"]);
        assert_eq!(kept.len(), 2);
        assert_eq!(kept.get(&"a"), Some(&4));
    }

    #[test]
    fn what_is_dropped_leaves_nothing_behind() {
        let mut kept = Kept::new(9);
        for key in ["a", "b", "c"] {
            kept.insert(key, 0);
        }
        kept.remove(&"b");
        kept.remove(&"z");
        assert_eq!(keys(&kept), ["a", "c"]);
        kept.retain(|key| *key != "a");
        assert_eq!(keys(&kept), ["c"]);
    }
}
