//! Shared by the tests of this module.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::{PersistPresence, PresenceState, UserPresence};
use crate::observer::Env;
use crate::streams::UpdateError;
use squall_env::network::TokioNetwork;
use squall_env::{Clock, LocalBoxFuture, Noop, SeedTree, TaskSpawner};
use squall_protocol::Token;

/// The wall-clock time at the beginning of every test.
pub(super) const EPOCH_MS: i64 = 1_000_000_000;

/// Runs `test` on a runtime of its own, whose clock moves only when no task can run.
pub(super) fn on_paused_clock<F: Future>(test: impl FnOnce(Env) -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(env()).await })
}

fn env() -> Env {
    Env {
        network: Rc::new(TokioNetwork),
        clock: Rc::new(TestClock(Instant::now())),
        seeds: SeedTree::from_seed(7),
        observer: Rc::new(Noop),
        tasks: TaskSpawner::new(Rc::new(Noop)),
    }
}

/// A wall clock that follows the runtime's paused clock.
struct TestClock(Instant);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        EPOCH_MS as u64 + self.0.elapsed().as_millis() as u64
    }
}

/// Lets this number of seconds pass, and a little more, so that timers at their end have fired.
pub(super) async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_millis(seconds * 1_000 + 5)).await;
}

/// A presence stream that records the rows written to it.
#[derive(Default)]
pub(super) struct Written {
    /// User, state, and the time of the write, in seconds since the test began.
    pub(super) rows: Rc<RefCell<Vec<(String, PresenceState, u64)>>>,
    /// The presence in each of these rows.
    pub(super) presences: Rc<RefCell<Vec<UserPresence>>>,
    /// Duration of each write.
    pub(super) write_time: Cell<Duration>,
    /// Number of writes to come that fail.
    pub(super) failures: Rc<Cell<u32>>,
    began: Cell<Option<Instant>>,
    position: Rc<Cell<i64>>,
}

impl Written {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Written { began: Cell::new(Some(Instant::now())), ..Written::default() })
    }

    /// Returns the rows of one user: state and second.
    pub(super) fn of(&self, user_id: &str) -> Vec<(PresenceState, u64)> {
        let rows = self.rows.borrow();
        rows.iter().filter(|(user, ..)| user == user_id).map(|(_, state, at)| (*state, *at)).collect()
    }
}

impl PersistPresence for Written {
    fn persist(&self, states: Vec<UserPresence>) -> LocalBoxFuture<'static, Result<Token, UpdateError>> {
        let rows = Rc::clone(&self.rows);
        let presences = Rc::clone(&self.presences);
        let position = Rc::clone(&self.position);
        let failures = Rc::clone(&self.failures);
        let write_time = self.write_time.get();
        let began = self.began.get().expect("made by new");
        Box::pin(async move {
            tokio::time::sleep(write_time).await;
            if failures.get() > 0 {
                failures.set(failures.get() - 1);
                return Err("the database cannot be reached".into());
            }
            presences.borrow_mut().extend(states.clone());
            for presence in states {
                position.set(position.get() + 1);
                rows.borrow_mut().push((presence.user_id, presence.state, began.elapsed().as_secs()));
            }
            Ok(Token(position.get()))
        })
    }

    fn position(&self) -> Token {
        Token(self.position.get())
    }
}
