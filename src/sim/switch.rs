//! A switch for faults that hit some of the actions of one host: it says which fault is on, and counts the hits of each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The faults of one kind on one host. They outlive the host's processes. Cheap to clone.
///
/// It is `Send`, because connections are.
#[derive(Debug, Clone, Default)]
pub(super) struct Switch(Arc<Mutex<Vec<Arc<Rate>>>>);

/// One fault that is on.
#[derive(Debug)]
pub(super) struct Rate {
    per_mille: u32,
    hits: AtomicU64,
}

impl Switch {
    /// Turns on a fault that hits `per_mille` of a thousand, until the guard is dropped.
    pub(super) fn begin(&self, per_mille: u32) -> SwitchGuard {
        let rate = Arc::new(Rate { per_mille, hits: AtomicU64::new(0) });
        self.rates().push(Arc::clone(&rate));
        SwitchGuard { switch: self.clone(), rate }
    }

    /// Returns the fault that was turned on first; none if all are off.
    pub(super) fn first(&self) -> Option<Arc<Rate>> {
        self.rates().first().cloned()
    }

    /// Returns the first fault that hits a draw from 0 to 999.
    pub(super) fn hit_by(&self, drawn: u32) -> Option<Arc<Rate>> {
        self.rates().iter().find(|rate| rate.is_hit(drawn)).cloned()
    }

    /// Locks the faults, also after a panic.
    fn rates(&self) -> MutexGuard<'_, Vec<Arc<Rate>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rate {
    /// Returns true if the fault hits a draw from 0 to 999.
    pub(super) fn is_hit(&self, drawn: u32) -> bool {
        drawn < self.per_mille
    }

    /// Counts a hit.
    pub(super) fn count(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }
}

/// A fault that is on until this guard is dropped.
pub(super) struct SwitchGuard {
    switch: Switch,
    rate: Arc<Rate>,
}

impl SwitchGuard {
    /// Returns the number of hits. The fault took effect if it is not 0.
    pub(super) fn hits(&self) -> u64 {
        self.rate.hits.load(Ordering::Relaxed)
    }
}

impl Drop for SwitchGuard {
    fn drop(&mut self) {
        self.switch.rates().retain(|rate| !Arc::ptr_eq(rate, &self.rate));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_on_until_its_guard_is_dropped_and_counts_its_own_hits() {
        let switch = Switch::default();
        assert!(switch.first().is_none() && switch.hit_by(0).is_none());
        let rare = switch.begin(10);
        let frequent = switch.begin(500);
        switch.hit_by(499).unwrap().count();
        assert_eq!((rare.hits(), frequent.hits()), (0, 1), "the first one does not hit 499");
        switch.hit_by(9).unwrap().count();
        assert_eq!((rare.hits(), frequent.hits()), (1, 1));
        assert!(switch.hit_by(500).is_none());
        drop(rare);
        assert!(switch.first().unwrap().is_hit(499));
        drop(frequent);
        assert!(switch.first().is_none());
    }
}
