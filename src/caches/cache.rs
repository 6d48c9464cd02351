//! A read-through cache whose values can be invalidated at any time, also while they are being loaded.
//!
//! What a load brings is as old as the moment at which it looked at the source. So a value is kept only if nothing
//! invalidated its key since its load began: otherwise the invalidation, which came too early to find it, would never
//! take effect (Synapse has the same rule for its deferred caches). And a reader who comes after an invalidation may
//! know of the change that caused it, so it does not join an older load but begins its own.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::error::Error;
use std::rc::Rc;

use tokio::sync::Notify;

use super::kept::Kept;

/// Why a value could not be loaded; shared by all readers of the load.
pub type LoadError = Rc<dyn Error>;

/// Values by key, read through. Whoever holds one clones it, so it should be cheap to clone.
pub struct Cache<K, V> {
    kept: RefCell<Kept<K, V>>,
    /// The loads that a reader who comes now may join, by key.
    loads: RefCell<BTreeMap<K, Rc<Load<V>>>>,
    raced: Cell<u64>,
}

/// One question to the source, asked by one reader and waited for by others.
struct Load<V> {
    /// Nothing if the reader that asked went away before the answer came.
    result: OnceCell<Result<V, LoadError>>,
    ended: Notify,
    has_ended: Cell<bool>,
    /// Its key was invalidated since it began.
    is_void: Cell<bool>,
}

/// What a reader finds.
enum Found<V> {
    Value(V),
    Loading(Rc<Load<V>>),
    Nothing(Rc<Load<V>>),
}

impl<K: Ord + Clone, V: Clone> Cache<K, V> {
    /// An empty cache of at most `entries_max` values.
    pub fn new(entries_max: usize) -> Self {
        Cache { kept: RefCell::new(Kept::new(entries_max)), loads: RefCell::default(), raced: Cell::new(0) }
    }

    /// The value of `key`: kept from before, brought by a load that is under way, or brought by `load`. It reflects
    /// whatever took effect before the last invalidation of the key that came before this call.
    ///
    /// Cancel-safe: a reader who goes away while its own load is under way leaves it to the others to ask again.
    ///
    /// # Errors
    /// What the load failed with. A failure is not kept.
    pub async fn get<E: Error + 'static>(
        &self,
        key: &K,
        load: impl AsyncFnOnce() -> Result<V, E>,
    ) -> Result<V, LoadError> {
        let ours = loop {
            match self.find(key) {
                Found::Value(value) => return Ok(value),
                Found::Nothing(ours) => break ours,
                Found::Loading(others) => {
                    others.ended().await;
                    if let Some(result) = others.result.get() {
                        return result.clone();
                    }
                }
            }
        };
        let _under_way = UnderWay { cache: self, key, load: &ours };
        let result = load().await.map_err(|error| Rc::new(error) as LoadError);
        if let Ok(value) = &result {
            if ours.is_void.get() {
                self.raced.set(self.raced.get() + 1);
            } else {
                self.kept.borrow_mut().insert(key.clone(), value.clone());
            }
        }
        let _ = ours.result.set(result.clone());
        result
    }

    fn find(&self, key: &K) -> Found<V> {
        if let Some(value) = self.kept.borrow_mut().get(key) {
            return Found::Value(value.clone());
        }
        let mut loads = self.loads.borrow_mut();
        if let Some(load) = loads.get(key) {
            return Found::Loading(Rc::clone(load));
        }
        let load = Rc::new(Load {
            result: OnceCell::new(),
            ended: Notify::new(),
            has_ended: Cell::new(false),
            is_void: Cell::new(false),
        });
        loads.insert(key.clone(), Rc::clone(&load));
        Found::Nothing(load)
    }

    /// The value of `key` is no longer to be believed.
    pub fn invalidate(&self, key: &K) {
        self.kept.borrow_mut().remove(key);
        if let Some(load) = self.loads.borrow_mut().remove(key) {
            load.is_void.set(true);
        }
    }

    /// No value whose key `is_stale` is to be believed any longer.
    pub fn invalidate_where(&self, is_stale: impl Fn(&K) -> bool) {
        self.kept.borrow_mut().retain(|key| !is_stale(key));
        self.loads.borrow_mut().retain(|key, load| {
            let stays = !is_stale(key);
            load.is_void.set(load.is_void.get() || !stays);
            stays
        });
    }

    /// No value is to be believed any longer.
    pub fn invalidate_all(&self) {
        self.invalidate_where(|_| true);
    }

    /// Whether the value of `key` is kept. Not a use of it.
    pub fn has(&self, key: &K) -> bool {
        self.kept.borrow().has(key)
    }

    /// How many values are kept.
    pub fn len(&self) -> usize {
        self.kept.borrow().len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many values were not kept because their keys were invalidated while they were loaded.
    pub fn raced(&self) -> u64 {
        self.raced.get()
    }
}

impl<V> Load<V> {
    async fn ended(&self) {
        while !self.has_ended.get() {
            self.ended.notified().await;
        }
    }
}

/// Ends a load, however its reader ends.
struct UnderWay<'a, K: Ord, V> {
    cache: &'a Cache<K, V>,
    key: &'a K,
    load: &'a Rc<Load<V>>,
}

impl<K: Ord, V> Drop for UnderWay<'_, K, V> {
    fn drop(&mut self) {
        let mut loads = self.cache.loads.borrow_mut();
        // After an invalidation there may be a younger load of the same key.
        if loads.get(self.key).is_some_and(|load| Rc::ptr_eq(load, self.load)) {
            loads.remove(self.key);
        }
        drop(loads);
        self.load.has_ended.set(true);
        self.load.ended.notify_waiters();
    }
}

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;
