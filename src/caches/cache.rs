//! A read-through cache whose values can be invalidated at any time, also while they are being loaded.
//!
//! A loaded value is as old as the moment at which the load read the source. So a value is cached only if its key was not
//! invalidated since its load began. Otherwise the invalidation, which came before there was a value to drop, would never
//! take effect (Synapse has the same rule for its deferred caches). A reader that comes after an invalidation may know of
//! the change that caused it. So it does not join an older load but begins a new one.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::error::Error;
use std::rc::Rc;

use tokio::sync::Notify;

use super::lru_map::LruMap;
use crate::limits::LimitHit;
use crate::observer::Observer;

/// The error of a failed load, shared by all readers of the load.
pub type LoadError = Rc<dyn Error>;

/// Values by key, read through. Each reader gets a clone, so values should be cheap to clone.
pub struct Cache<K, V> {
    kept: RefCell<LruMap<K, V>>,
    /// The loads that a new reader may join, by key.
    loads: RefCell<BTreeMap<K, Rc<Load<V>>>>,
    raced: Cell<u64>,
    /// The observer of values that are evicted because the cache is full.
    observer: Option<Rc<dyn Observer>>,
}

/// One read of the source, begun by one reader and shared by others.
struct Load<V> {
    /// Empty if the reader that began the load went away before its end.
    result: OnceCell<Result<V, LoadError>>,
    ended: Notify,
    has_ended: Cell<bool>,
    /// True if its key was invalidated since it began.
    is_void: Cell<bool>,
}

/// The result of a look-up.
enum Found<V> {
    Value(V),
    Loading(Rc<Load<V>>),
    Nothing(Rc<Load<V>>),
}

impl<K: Ord + Clone, V: Clone> Cache<K, V> {
    /// Creates an empty cache of at most `entries_max` values.
    pub fn new(entries_max: usize) -> Self {
        let kept = RefCell::new(LruMap::new(entries_max));
        Cache { kept, loads: RefCell::default(), raced: Cell::new(0), observer: None }
    }

    /// Returns the cache. It reports each value that is evicted because the cache is full to `observer`.
    pub fn reporting_to(self, observer: &Rc<dyn Observer>) -> Self {
        Cache { observer: Some(Rc::clone(observer)), ..self }
    }

    /// Returns the value of `key`: the cached one, or that of a load under way, or that of `load`. It reflects every change
    /// that took effect before the last invalidation of the key before this call.
    ///
    /// Cancel-safe: if a reader goes away while its own load is under way, another reader of the load begins a new one.
    ///
    /// # Errors
    /// The load failed. A failure is not cached.
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
                let has_evicted = self.kept.borrow_mut().insert(key.clone(), value.clone());
                if let Some(observer) = self.observer.as_ref().filter(|_| has_evicted) {
                    observer.limit_hit(LimitHit::CachedValueEvicted);
                }
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

    /// Drops the value of `key`.
    pub fn invalidate(&self, key: &K) {
        self.kept.borrow_mut().remove(key);
        if let Some(load) = self.loads.borrow_mut().remove(key) {
            load.is_void.set(true);
        }
    }

    /// Drops every value for whose key `is_stale` returns true.
    pub fn invalidate_where(&self, is_stale: impl Fn(&K) -> bool) {
        self.kept.borrow_mut().retain(|key| !is_stale(key));
        self.loads.borrow_mut().retain(|key, load| {
            let stays = !is_stale(key);
            load.is_void.set(load.is_void.get() || !stays);
            stays
        });
    }

    /// Drops all values.
    pub fn invalidate_all(&self) {
        self.invalidate_where(|_| true);
    }

    /// Returns true if the value of `key` is cached. Does not count as a use of it.
    pub fn contains(&self, key: &K) -> bool {
        self.kept.borrow().contains(key)
    }

    /// Returns the number of cached values.
    pub fn len(&self) -> usize {
        self.kept.borrow().len()
    }

    /// Returns true if no value is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of loaded values that were not cached, because their keys were invalidated during the load.
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

/// Ends a load on drop, also if its reader goes away.
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
