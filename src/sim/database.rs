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
//! inserted, and they are read back once it has committed. The stack is not asked. It tells of [rare](Rare) ends of
//! transactions too, so that a storm in which none occurs can be seen.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use rand::{Rng, RngExt};
use rusqlite::{Connection, ffi};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use self::faults::{DatabaseFaults, Outcome, Purpose};
use super::witness::{CommittedRow, Effect, LeftMessage, Said, Witness};
use crate::env::{Chance, LocalBoxFuture};
use crate::protocol::InstanceName;
use crate::store::database::{Backend, DatabaseError, Job};
use crate::store::schema;

pub mod faults;
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
    fails_to_serialize: bool,
    outcome: Outcome,
}

impl Fate {
    fn worsen(&mut self, outcome: Outcome) {
        self.outcome = self.outcome.max(outcome);
    }
}

/// The rare ends of a transaction that replication has to survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rare {
    /// Rows took effect when nobody waited for them any more: their process had ended, or its request was dropped.
    LateCommit {
        /// Whose rows.
        instance: InstanceName,
    },
    /// Rows that would have taken effect after a later process began a session under the same name were refused.
    Fenced {
        /// Whose rows.
        instance: InstanceName,
    },
    /// Rows took effect, and whoever waited for that was told an error.
    AcknowledgementLost {
        /// Whose rows.
        instance: InstanceName,
    },
}

impl DatabaseTiming {
    fn draw(&self, rng: &mut impl Rng) -> Fate {
        Fate {
            before: Duration::from_micros(rng.random_range(self.before_us.clone())),
            after: Duration::from_micros(rng.random_range(self.after_us.clone())),
            fails_to_serialize: rng.random_range(0..1_000) < self.rollback_per_mille,
            outcome: Outcome::Committed,
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
    /// How many transactions that write rows are on their way.
    rows_in_flight: Cell<u64>,
}

/// Rows that an instance read in order to send them or to catch up, and was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Who read them.
    pub instance: InstanceName,
    /// The transaction in which it did.
    pub transaction: &'static str,
    /// How many there were, in all its queries.
    pub rows: u64,
}

/// Is told of what transactions do, synchronously, at the simulated instant it happens.
pub trait DatabaseTap {
    /// A row of a stream took effect. Rows of one transaction come in the order of their tokens.
    fn committed(&self, row: CommittedRow);
    /// A message was put into a device's inbox. Comes before the row that says so.
    fn left(&self, _message: LeftMessage) {}
    /// A row of a stream was removed.
    fn removed(&self, _row: CommittedRow) {}
    /// Something was written that only one request of one client says.
    fn said(&self, _said: Said) {}
    /// Rows were read that followers must see. Comes when whoever asked for them is told.
    fn fetched(&self, _rows: Fetched) {}
    /// A transaction that writes rows ended as few do. Rows that it commits all the same come next.
    fn rare(&self, _end: Rare) {}
}

/// Listens to nothing.
impl DatabaseTap for () {
    fn committed(&self, _row: CommittedRow) {}
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
        let shared = Shared { connection: RefCell::new(connection), witness, tap, rows_in_flight: Cell::new(0) };
        Ok((SimDatabase { shared: Rc::new(shared), tasks }, run))
    }

    /// The database as one boot of a host has it, with the trouble that the host has with it. Every draw comes from
    /// `chance`.
    pub fn handle(&self, chance: Chance, timing: DatabaseTiming, faults: Rc<DatabaseFaults>) -> SimDatabaseHandle {
        let host = Host {
            database: self.clone(),
            chance,
            timing,
            faults,
            asked: Cell::new(0),
            rolled_back: Rc::new(Cell::new(0)),
            gagged: Cell::new(false),
        };
        SimDatabaseHandle { host: Rc::new(host) }
    }

    /// Whether transactions that write rows are still on their way, whoever asked for them.
    pub fn has_rows_in_flight(&self) -> bool {
        self.shared.rows_in_flight.get() > 0
    }

    /// Runs `query` beside all transactions, at this instant: for the world's own questions.
    pub fn inspect<R>(&self, query: impl FnOnce(&Connection) -> R) -> R {
        query(&self.shared.connection.borrow())
    }
}

/// A transaction that was asked for. It runs in a task of the world.
struct Pending {
    shared: Rc<Shared>,
    faults: Rc<DatabaseFaults>,
    rolled_back: Rc<Cell<u64>>,
    job: Job,
    fate: Fate,
    reply: oneshot::Sender<Result<(), DatabaseError>>,
    in_flight: InFlight,
    /// How many rows it was given, if it reads rows that followers must see.
    rows_read: u64,
}

impl Pending {
    async fn run(mut self) {
        let lost = DatabaseError::ConnectionLost { transaction: self.job.name };
        if self.fate.outcome == (Outcome::Unacknowledged { is_told_before: true }) {
            self.wait(self.fate.before / 2).await;
            let (told, _) = oneshot::channel();
            // The caller may be gone; the transaction stands all the same.
            let _ = std::mem::replace(&mut self.reply, told).send(Err(lost));
            self.wait(self.fate.before / 2).await;
            let _ = self.take_effect();
            return;
        }
        self.wait(self.fate.before).await;
        let mut result = self.take_effect();
        if result.is_ok() && matches!(self.fate.outcome, Outcome::Unacknowledged { .. }) {
            result = Err(lost);
        }
        let Pending { shared, job, fate, reply, faults, in_flight, rows_read, .. } = self;
        drop(in_flight);
        tokio::time::sleep(fate.after).await;
        faults.stall().await;
        if result.is_ok()
            && let Some(session) = &job.session
            && Purpose::of(job.name) == Purpose::Updates
            && !reply.is_closed()
        {
            let instance = session.instance.clone();
            shared.tap.fetched(Fetched { instance, transaction: job.name, rows: rows_read });
        }
        // First the job: whoever learns the result then also sees what settling it changed.
        drop(job);
        let _ = reply.send(result);
    }

    async fn wait(&self, delay: Duration) {
        tokio::time::sleep(delay).await;
        while self.faults.stall().await {
            // Not all at one instant, as if they had stood in a queue: each goes its way anew.
            tokio::time::sleep(delay).await;
        }
    }

    /// The instant at which it does.
    fn take_effect(&mut self) -> Result<(), DatabaseError> {
        let Effect { committed, messages, removed, said } = self.execute()?;
        let tap = &self.shared.tap;
        if let Some(session) = &self.job.session
            && !committed.is_empty()
        {
            let instance = session.instance.clone();
            if matches!(self.fate.outcome, Outcome::Unacknowledged { .. }) {
                tap.rare(Rare::AcknowledgementLost { instance });
            } else if self.reply.is_closed() {
                tap.rare(Rare::LateCommit { instance });
            }
        }
        messages.into_iter().for_each(|message| tap.left(message));
        committed.into_iter().for_each(|row| tap.committed(row));
        removed.into_iter().for_each(|row| tap.removed(row));
        said.into_iter().for_each(|said| tap.said(said));
        Ok(())
    }

    /// Gives the rows that are there now, and those that are gone.
    fn execute(&mut self) -> Result<Effect, DatabaseError> {
        let Pending { shared, job, fate, .. } = self;
        if fate.outcome == Outcome::Refused {
            return Err(sqlite_error(job.name, ffi::SQLITE_CANTOPEN));
        }
        let mut connection = shared.connection.borrow_mut();
        if fate.fails_to_serialize || fate.outcome == Outcome::RolledBack {
            let undone = job.run(&mut connection).map(drop);
            shared.witness.forget();
            undone?;
            self.rolled_back.set(self.rolled_back.get() + 1);
        }
        if fate.outcome == Outcome::RolledBack {
            return Err(sqlite_error(job.name, ffi::SQLITE_IOERR));
        }
        let is_fetch = Purpose::of(job.name) == Purpose::Updates;
        if is_fetch {
            shared.witness.count_rows_read(&mut connection, true).map_err(witness_failed)?;
        }
        let result = job.execute(&mut connection);
        if is_fetch {
            self.rows_read = shared.witness.rows_read();
            shared.witness.count_rows_read(&mut connection, false).map_err(witness_failed)?;
        }
        if let Err(DatabaseError::Fenced { instance, .. }) = &result
            && Purpose::of(job.name) == Purpose::Rows
        {
            shared.tap.rare(Rare::Fenced { instance: instance.clone() });
        }
        if let Err(error) = result {
            shared.witness.forget();
            return Err(error);
        }
        shared.witness.effect(&connection).map_err(witness_failed)
    }
}

fn witness_failed(source: rusqlite::Error) -> DatabaseError {
    DatabaseError::Sqlite { transaction: "witness", source }
}

/// What SQLite says if it fails with `code`.
fn sqlite_error(transaction: &'static str, code: std::ffi::c_int) -> DatabaseError {
    DatabaseError::Sqlite { transaction, source: rusqlite::Error::SqliteFailure(ffi::Error::new(code), None) }
}

/// Counts a transaction that writes rows for as long as it is on its way.
struct InFlight(Option<Rc<Shared>>);

impl InFlight {
    fn begin(shared: &Rc<Shared>, purpose: Purpose) -> Self {
        let counted = (purpose == Purpose::Rows).then(|| Rc::clone(shared));
        counted.iter().for_each(|shared| shared.rows_in_flight.set(shared.rows_in_flight.get() + 1));
        InFlight(counted)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.iter().for_each(|shared| shared.rows_in_flight.set(shared.rows_in_flight.get() - 1));
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
    faults: Rc<DatabaseFaults>,
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
    fn run(&self, job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>> {
        let host = &self.host;
        if host.gagged.get() {
            return Box::pin(std::future::ready(Err(DatabaseError::Closed)));
        }
        let chance = host.chance.of(host.asked.get());
        host.asked.set(host.asked.get() + 1);
        let purpose = Purpose::of(job.name);
        let mut fate = host.timing.draw(&mut chance.rng());
        host.faults.bear_on(&mut fate, job.name, &chance);
        let (reply, result) = oneshot::channel();
        let shared = Rc::clone(&host.database.shared);
        let pending = Pending {
            in_flight: InFlight::begin(&shared, purpose),
            shared,
            faults: Rc::clone(&host.faults),
            rolled_back: Rc::clone(&host.rolled_back),
            job,
            fate,
            reply,
            rows_read: 0,
        };
        let sent = host.database.tasks.send(Box::pin(pending.run()));
        Box::pin(async move {
            sent.map_err(|_| DatabaseError::Closed)?;
            result.await.map_err(|_| DatabaseError::Closed)?
        })
    }
}
