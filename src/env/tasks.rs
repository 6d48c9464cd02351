//! The tasks of one instance.
//!
//! An instance is a single-threaded reactor: all its tasks run on one `LocalSet` and are spawned through its
//! [`Scope`], so that they can be counted, timed, asked to stop, and dropped together.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deferral::Deferral;
use super::observer::Observer;

tokio::task_local! {
    static CURRENT: &'static str;
}

/// Spawns an instance's tasks and can ask all of them to stop. Cheap to clone.
#[derive(Clone)]
pub struct Scope {
    shared: Rc<Shared>,
}

struct Shared {
    stop: CancellationToken,
    observer: Rc<dyn Observer>,
    deferral: Option<Deferral>,
    tallies: RefCell<BTreeMap<&'static str, Tally>>,
}

/// How often tasks of one name ran, and for how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tasks started.
    pub started: u64,
    /// Tasks that ended, by completing or by being dropped.
    pub ended: u64,
    /// Time between start and end, over all ended tasks.
    pub took: Duration,
}

impl Scope {
    /// A scope whose tasks report their end to `observer`.
    pub fn new(observer: Rc<dyn Observer>) -> Self {
        Self::with_deferral(observer, None)
    }

    /// The same, with polls of its tasks put off as `deferral` says; none at all without one.
    pub fn with_deferral(observer: Rc<dyn Observer>, deferral: Option<Deferral>) -> Self {
        let shared = Shared { stop: CancellationToken::new(), observer, deferral, tallies: RefCell::default() };
        Scope { shared: Rc::new(shared) }
    }

    /// Runs `future` as a background task called `name`. It is dropped when the instance is.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let timing = Timing::start(self, name);
        let ordinal = self.started(name);
        let task = CURRENT.scope(name, async move {
            let _timing = timing;
            future.await
        });
        match &self.shared.deferral {
            Some(deferral) => tokio::task::spawn_local(deferral.defer(name, ordinal, task)),
            None => tokio::task::spawn_local(task),
        }
    }

    /// Counts and times a part of a task under a name of its own.
    pub async fn timed<F: Future>(&self, name: &'static str, future: F) -> F::Output {
        let _timing = Timing::start(self, name);
        future.await
    }

    /// The name of the task that is being polled, for whoever watches from below what it does; none outside of scopes.
    pub fn current_task() -> Option<&'static str> {
        CURRENT.try_with(|name| *name).ok()
    }

    /// How many tasks of that name were started.
    fn started(&self, name: &'static str) -> u64 {
        self.shared.tallies.borrow().get(name).map_or(0, |tally| tally.started)
    }

    /// Asks every task to come to an end.
    pub fn stop(&self) {
        self.shared.stop.cancel();
    }

    /// Completes once [`stop`](Self::stop) was called.
    pub async fn stopped(&self) {
        self.shared.stop.cancelled().await;
    }

    /// Whether [`stop`](Self::stop) was called.
    pub fn is_stopped(&self) -> bool {
        self.shared.stop.is_cancelled()
    }

    /// Counts and durations of the tasks so far, by name.
    pub fn tallies(&self) -> BTreeMap<&'static str, Tally> {
        self.shared.tallies.borrow().clone()
    }
}

/// Counts a task's end, however it ends.
struct Timing {
    scope: Scope,
    name: &'static str,
    since: Instant,
}

impl Timing {
    fn start(scope: &Scope, name: &'static str) -> Self {
        let running = {
            let mut tallies = scope.shared.tallies.borrow_mut();
            let tally = tallies.entry(name).or_default();
            tally.started += 1;
            tally.started - tally.ended
        };
        scope.shared.observer.task_started(name, running);
        Timing { scope: scope.clone(), name, since: Instant::now() }
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        let took = self.since.elapsed();
        let mut tallies = self.scope.shared.tallies.borrow_mut();
        let tally = tallies.entry(self.name).or_default();
        tally.ended += 1;
        tally.took += took;
        drop(tallies);
        self.scope.shared.observer.task_ended(self.name, took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Silent;

    #[test]
    fn tasks_are_counted_and_timed_however_they_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let scope = Scope::new(Rc::new(Silent));
        tokio::task::LocalSet::new().block_on(&runtime, async {
            scope.spawn("catch_up", tokio::time::sleep(Duration::from_secs(2))).await.unwrap();
            let endless = scope.spawn("catch_up", std::future::pending::<()>());
            endless.abort();
            let _ = endless.await;
        });
        let tally = scope.tallies()["catch_up"];
        assert_eq!((tally.started, tally.ended, tally.took), (2, 2, Duration::from_secs(2)));
    }
}
