//! The tasks of one process.
//!
//! A process is a single-threaded reactor: all its tasks run on one `LocalSet` and are spawned through its
//! [`TaskSpawner`], so that they can be counted, timed, asked to stop, and dropped together. Every task has a
//! [`TaskKind`], by which observers and the simulator recognise it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::poll_delay::PollDelay;
use super::task_kind::TaskKind;

/// Receives the beginning and the end of every task. Every method does nothing unless implemented.
pub trait TaskObserver {
    /// A task began, and now `_running` of its kind are under way.
    fn task_started(&self, _kind: TaskKind, _running: u64) {}
    /// A task ended after `_took`, by completing or by being dropped.
    fn task_ended(&self, _kind: TaskKind, _took: Duration) {}
}

/// An observer that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Noop;

impl TaskObserver for Noop {}

tokio::task_local! {
    static CURRENT: TaskKind;
}

/// Spawns the tasks of a process and can ask all of them to stop. Cheap to clone.
#[derive(Clone)]
pub struct TaskSpawner {
    shared: Rc<Shared>,
}

struct Shared {
    stop: CancellationToken,
    observer: Rc<dyn TaskObserver>,
    poll_delay: Option<PollDelay>,
    tallies: RefCell<BTreeMap<TaskKind, Tally>>,
}

/// The number of tasks of one kind, and the time they took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tasks started.
    pub started: u64,
    /// Tasks that ended, by completing or by being dropped.
    pub ended: u64,
    /// Time between start and end, over all ended tasks.
    pub took: Duration,
}

impl TaskSpawner {
    /// A spawner whose tasks are reported to `observer`.
    pub fn new(observer: Rc<dyn TaskObserver>) -> Self {
        Self::with_poll_delay(observer, None)
    }

    /// A spawner that also delays polls of its tasks as `poll_delay` says.
    pub fn with_poll_delay(observer: Rc<dyn TaskObserver>, poll_delay: Option<PollDelay>) -> Self {
        let shared = Shared { stop: CancellationToken::new(), observer, poll_delay, tallies: RefCell::default() };
        TaskSpawner { shared: Rc::new(shared) }
    }

    /// Runs `future` as a background task. It is dropped with the process.
    pub fn spawn<F>(&self, kind: TaskKind, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let timing = Timing::start(self, kind);
        let ordinal = self.started(kind);
        let task = CURRENT.scope(kind, async move {
            let _timing = timing;
            future.await
        });
        match &self.shared.poll_delay {
            Some(poll_delay) => tokio::task::spawn_local(poll_delay.delay(kind, ordinal, task)),
            None => tokio::task::spawn_local(task),
        }
    }

    /// Counts and times a part of a task under a kind of its own.
    pub async fn timed<F: Future>(&self, kind: TaskKind, future: F) -> F::Output {
        let _timing = Timing::start(self, kind);
        future.await
    }

    /// Returns the kind of the task that is being polled, for layers below it that watch its work; none outside of tasks.
    pub fn current_task() -> Option<TaskKind> {
        CURRENT.try_with(|kind| *kind).ok()
    }

    /// The number of tasks of this kind started so far.
    fn started(&self, kind: TaskKind) -> u64 {
        self.shared.tallies.borrow().get(&kind).map_or(0, |tally| tally.started)
    }

    /// Asks every task to end.
    pub fn stop(&self) {
        self.shared.stop.cancel();
    }

    /// Completes after [`stop`](Self::stop) was called.
    pub async fn stopped(&self) {
        self.shared.stop.cancelled().await;
    }

    /// Returns true if [`stop`](Self::stop) was called.
    pub fn is_stopped(&self) -> bool {
        self.shared.stop.is_cancelled()
    }

    /// Returns the counts and durations of the tasks so far, by kind.
    pub fn tallies(&self) -> BTreeMap<TaskKind, Tally> {
        self.shared.tallies.borrow().clone()
    }
}

/// Counts the end of a task, by completion or by drop.
struct Timing {
    spawner: TaskSpawner,
    kind: TaskKind,
    since: Instant,
}

impl Timing {
    fn start(spawner: &TaskSpawner, kind: TaskKind) -> Self {
        let running = {
            let mut tallies = spawner.shared.tallies.borrow_mut();
            let tally = tallies.entry(kind).or_default();
            tally.started += 1;
            tally.started - tally.ended
        };
        spawner.shared.observer.task_started(kind, running);
        Timing { spawner: spawner.clone(), kind, since: Instant::now() }
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        let took = self.since.elapsed();
        let mut tallies = self.spawner.shared.tallies.borrow_mut();
        let tally = tallies.entry(self.kind).or_default();
        tally.ended += 1;
        tally.took += took;
        drop(tallies);
        self.spawner.shared.observer.task_ended(self.kind, took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CATCH_UP: TaskKind = TaskKind::new("catch_up");

    #[test]
    fn completed_and_dropped_tasks_are_counted_and_timed() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let spawner = TaskSpawner::new(Rc::new(Noop));
        tokio::task::LocalSet::new().block_on(&runtime, async {
            spawner.spawn(CATCH_UP, tokio::time::sleep(Duration::from_secs(2))).await.unwrap();
            let endless = spawner.spawn(CATCH_UP, std::future::pending::<()>());
            endless.abort();
            let _ = endless.await;
        });
        let tally = spawner.tallies()[&CATCH_UP];
        assert_eq!((tally.started, tally.ended, tally.took), (2, 2, Duration::from_secs(2)));
    }

    #[test]
    fn a_task_knows_its_own_kind() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let spawner = TaskSpawner::new(Rc::new(Noop));
        let kind = async { TaskSpawner::current_task() };
        let of_task = tokio::task::LocalSet::new().block_on(&runtime, async { spawner.spawn(CATCH_UP, kind).await });
        assert_eq!(of_task.unwrap(), Some(CATCH_UP));
        assert_eq!(TaskSpawner::current_task(), None);
    }
}
