//! What the tests of this module share.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::{PersistPresence, PresenceState, UserPresence};
use crate::env::network::TokioNetwork;
use crate::env::{Chance, Clock, Env, LocalBoxFuture, Scope, Silent};
use crate::protocol::Token;
use crate::streams::UpdateError;

/// When every test begins.
pub(super) const EPOCH_MS: i64 = 1_000_000_000;

/// Runs `test` in a world of its own, whose clock moves only when there is nothing else to do.
pub(super) fn on_paused_clock<F: Future>(test: impl FnOnce(Env) -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(env()).await })
}

fn env() -> Env {
    Env {
        network: Rc::new(TokioNetwork),
        clock: Rc::new(TestClock(Instant::now())),
        chance: Chance::from_seed(7),
        observer: Rc::new(Silent),
        tasks: Scope::new(Rc::new(Silent)),
    }
}

/// Goes with the paused time.
struct TestClock(Instant);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        EPOCH_MS as u64 + self.0.elapsed().as_millis() as u64
    }
}

/// Lets so many seconds pass, and a little more so that what happens at their end has happened.
pub(super) async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_millis(seconds * 1_000 + 5)).await;
}

/// A presence stream in the test's hands.
#[derive(Default)]
pub(super) struct Written {
    /// User, state, and when it was written, in seconds since the test began.
    pub rows: Rc<RefCell<Vec<(String, PresenceState, u64)>>>,
    pub takes: Cell<Duration>,
    pub failures: Rc<Cell<u32>>,
    began: Cell<Option<Instant>>,
    position: Rc<Cell<i64>>,
}

impl Written {
    pub fn new() -> Rc<Self> {
        Rc::new(Written { began: Cell::new(Some(Instant::now())), ..Written::default() })
    }

    /// The rows of one user: state and second.
    pub fn of(&self, user_id: &str) -> Vec<(PresenceState, u64)> {
        let rows = self.rows.borrow();
        rows.iter().filter(|(user, ..)| user == user_id).map(|(_, state, at)| (*state, *at)).collect()
    }
}

impl PersistPresence for Written {
    fn persist(&self, states: Vec<UserPresence>) -> LocalBoxFuture<'static, Result<Token, UpdateError>> {
        let (rows, position, failures, takes) =
            (Rc::clone(&self.rows), Rc::clone(&self.position), Rc::clone(&self.failures), self.takes.get());
        let began = self.began.get().expect("made by new");
        Box::pin(async move {
            tokio::time::sleep(takes).await;
            if failures.get() > 0 {
                failures.set(failures.get() - 1);
                return Err("the database is away".into());
            }
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
