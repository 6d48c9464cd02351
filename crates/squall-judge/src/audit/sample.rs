//! The first things of each kind, and the number of those left out.

use std::collections::BTreeMap;

/// Things of many kinds, of which the first of each kind are kept.
#[derive(Debug)]
pub(super) struct Sample<K, T> {
    /// Number of things of one kind that are kept.
    kept_max: u64,
    kept: Vec<T>,
    counts: BTreeMap<K, u64>,
}

impl<K: Ord, T> Sample<K, T> {
    /// Returns a sample that keeps so many things of each kind.
    pub(super) fn new(kept_max: u64) -> Self {
        Sample { kept_max, kept: Vec::new(), counts: BTreeMap::new() }
    }

    /// Counts a thing, and keeps it if it is among the first of its kind.
    pub(super) fn add(&mut self, kind: K, thing: T) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= self.kept_max {
            self.kept.push(thing);
        }
    }

    /// Returns the things that were kept, in their order, and the number of the others of each kind.
    pub(super) fn into_parts(self) -> (Vec<T>, BTreeMap<K, u64>) {
        let kept_max = self.kept_max;
        let left_out = self.counts.into_iter().filter(|(_, count)| *count > kept_max);
        (self.kept, left_out.map(|(kind, count)| (kind, count - kept_max)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_kind_are_kept_and_the_others_counted() {
        let mut sample = Sample::new(2);
        for (number, kind) in ["a", "b", "a", "a", "a", "b"].into_iter().enumerate() {
            sample.add(kind, number);
        }
        assert_eq!(sample.into_parts(), (vec![0, 1, 2, 5], BTreeMap::from([("a", 2)])));
    }
}
