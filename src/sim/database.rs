//! The storm's database: the real SQL on an in-memory SQLite, with simulated latency and failures.
//!
//! A transaction takes effect at one instant, at a drawn distance from the moment it was asked for, and its result is
//! told at another drawn distance from that. Between the two the rows are there and their writer does not know it yet;
//! that is where replication goes wrong. The two delays are independent, so transactions overtake each other on either
//! side of their commit, as they do on a pool of connections.
//!
//! Transactions run in tasks of the world and not of their host: killing the host does not stop what it has already
//! asked for. It may commit later, and only a session's fence (see [`Job::run`]) keeps it from doing so once the host is
//! back.
//!
//! The database is also the judge's witness of what was committed: SQLite itself tells which rows a transaction
//! inserted, and they are read back once it has committed. The stack is not asked.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use rand::{Rng, RngExt};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::witness::{CommittedRow, Effect, Said, Witness};
use crate::env::{Chance, LocalBoxFuture};
use crate::store::database::{Backend, DatabaseError, Job};
use crate::store::schema;

#[cfg(test)]
mod tests;

/// How fast and how reliable the database is to one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseTiming {
    /// Microseconds from the request to the instant it takes effect. tokio's timers round up to a millisecond.
    pub before_us: RangeInclusive<u64>,
    /// Microseconds from that instant to the caller's hearing of it.
    pub after_us: RangeInclusive<u64>,
    /// How many of a thousand transactions fail to serialize: they are rolled back after their closure ran, and run
    /// again at the same instant.
    pub rollback_per_mille: u32,
}

impl Default for DatabaseTiming {
    fn default() -> Self {
        DatabaseTiming { before_us: 500..=5_000, after_us: 500..=5_000, rollback_per_mille: 20 }
    }
}

/// What happens to one transaction.
#[derive(Debug)]
struct Fate {
    before: Duration,
    after: Duration,
    rolled_back: bool,
}

impl DatabaseTiming {
    fn draw(&self, rng: &mut impl Rng) -> Fate {
        Fate {
            before: Duration::from_micros(rng.random_range(self.before_us.clone())),
            after: Duration::from_micros(rng.random_range(self.after_us.clone())),
            rolled_back: rng.random_range(0..1_000) < self.rollback_per_mille,
        }
    }
}

/// The database of one simulated world. Cheap to clone.
#[derive(Clone)]
pub struct SimDatabase {
    shared: Rc<Shared>,
    tasks: mpsc::UnboundedSender<LocalBoxFuture<'static, ()>>,
}

struct Shared {
    connection: RefCell<Connection>,
    witness: Witness,
    tap: Rc<dyn DatabaseTap>,
}

/// Is told of what transactions do, synchronously, at the simulated instant it happens.
pub trait DatabaseTap {
    /// A row of a stream took effect. Rows of one transaction come in the order of their tokens.
    fn committed(&self, row: CommittedRow);
    /// A row of a stream was removed.
    fn removed(&self, _row: CommittedRow) {}
    /// Something was written that only one request of one client says.
    fn said(&self, _said: Said) {}
}

impl SimDatabase {
    /// An empty database that tells `tap` of every row of every stream, and the future that runs its transactions: the
    /// world must poll it in a `LocalSet` that outlives every host.
    pub fn open(tap: Rc<dyn DatabaseTap>) -> Result<(SimDatabase, impl Future<Output = ()> + 'static), DatabaseError> {
        let opened = |source| DatabaseError::Sqlite { transaction: "open", source };
        let mut connection = Connection::open_in_memory().map_err(opened)?;
        schema::prepare(&mut connection)?;
        let witness = Witness::attach(&mut connection).map_err(opened)?;
        let (tasks, mut queue) = mpsc::unbounded_channel();
        let run = async move {
            while let Some(task) = queue.recv().await {
                tokio::task::spawn_local(task);
            }
        };
        let shared = Shared { connection: RefCell::new(connection), witness, tap };
        Ok((SimDatabase { shared: Rc::new(shared), tasks }, run))
    }

    /// The database as one boot of a host has it. Every draw comes from `chance`.
    pub fn handle(&self, chance: Chance, timing: DatabaseTiming) -> SimDatabaseHandle {
        let host = Host {
            database: self.clone(),
            chance,
            timing,
            asked: Cell::new(0),
            rolled_back: Rc::new(Cell::new(0)),
            gagged: Cell::new(false),
        };
        SimDatabaseHandle { host: Rc::new(host) }
    }

    /// Runs `query` beside all transactions, at this instant: for the world's own questions.
    pub fn inspect<R>(&self, query: impl FnOnce(&Connection) -> R) -> R {
        query(&self.shared.connection.borrow())
    }
}

/// Listens to nothing.
impl DatabaseTap for () {
    fn committed(&self, _row: CommittedRow) {}
}

impl Shared {
    /// The instant at which `job` takes effect.
    fn execute(&self, job: &mut Job, fate: &Fate, rolled_back: &Cell<u64>) -> Result<(), DatabaseError> {
        let mut connection = self.connection.borrow_mut();
        if fate.rolled_back {
            let undone = job.run(&mut connection).map(drop);
            self.witness.forget();
            undone?;
            rolled_back.set(rolled_back.get() + 1);
        }
        let result = job.execute(&mut connection);
        if result.is_err() {
            self.witness.forget();
            return result;
        }
        let effect = self.witness.effect(&connection);
        drop(connection);
        let effect = effect.map_err(|source| DatabaseError::Sqlite { transaction: "witness", source })?;
        let Effect { committed, removed, said } = effect;
        committed.into_iter().for_each(|row| self.tap.committed(row));
        removed.into_iter().for_each(|row| self.tap.removed(row));
        said.into_iter().for_each(|said| self.tap.said(said));
        Ok(())
    }
}

/// The storm's database as one boot of a host has it. Cheap to clone.
#[derive(Clone)]
pub struct SimDatabaseHandle {
    host: Rc<Host>,
}

struct Host {
    database: SimDatabase,
    chance: Chance,
    timing: DatabaseTiming,
    asked: Cell<u64>,
    rolled_back: Rc<Cell<u64>>,
    gagged: Cell<bool>,
}

impl SimDatabaseHandle {
    /// The host is dead: from here on it can ask for nothing. What it has asked for goes on.
    pub fn gag(&self) {
        self.host.gagged.set(true);
    }

    /// How many transactions of this boot were rolled back and run again.
    pub fn rolled_back(&self) -> u64 {
        self.host.rolled_back.get()
    }
}

impl Backend for SimDatabaseHandle {
    fn run(&self, mut job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>> {
        let host = &self.host;
        if host.gagged.get() {
            return Box::pin(std::future::ready(Err(DatabaseError::Closed)));
        }
        let fate = host.timing.draw(&mut host.chance.of(host.asked.get()).rng());
        host.asked.set(host.asked.get() + 1);
        let (reply, result) = oneshot::channel();
        let (shared, rolled_back) = (host.database.shared.clone(), host.rolled_back.clone());
        let sent = host.database.tasks.send(Box::pin(async move {
            tokio::time::sleep(fate.before).await;
            let result = shared.execute(&mut job, &fate, &rolled_back);
            tokio::time::sleep(fate.after).await;
            // First the job: whoever learns the result then also sees what settling it changed.
            drop(job);
            // The caller may be gone; the transaction stands all the same.
            let _ = reply.send(result);
        }));
        Box::pin(async move {
            sent.map_err(|_| DatabaseError::Closed)?;
            result.await.map_err(|_| DatabaseError::Closed)?
        })
    }
}
