//! The simulated database: the real SQL on an in-memory SQLite, with simulated latency and failures.
//!
//! A transaction takes effect at one instant, a drawn time after it was requested, and its caller gets the result another
//! drawn time later. Between the two the rows are there and their writer does not know it yet; that is where replication goes
//! wrong. The two delays are independent, so transactions overtake each other before and after their commit, as they do on a
//! pool of connections.
//!
//! Transactions run in tasks of the world and not of their host: they outlive a host that is killed. They may commit later,
//! and only a session's fence (see [`Job::run`]) keeps them from committing once the host is back.
//!
//! The database is also the judge's witness of commits: SQLite itself reports the rows that a transaction inserted, and they
//! are read back once it has committed. The stack takes no part in that. The database reports [rare ends](RareEnd) of transactions
//! too, so that a storm without any is noticed.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use rusqlite::{Connection, ffi};
use tokio::sync::{mpsc, oneshot};

use self::commits::{CommitWitness, Effect};
pub(super) use self::commits::{CommittedRow, InboxMessage, UniqueWrite};
pub(super) use self::fate::DatabaseTiming;
use self::fate::{Fate, Outcome, Purpose};
use self::faults::DatabaseFaults;
use crate::store::CHECK;
use crate::store::database::{Backend, DatabaseError, Job};
use crate::store::schema;
use squall_env::{LocalBoxFuture, SeedTree};
use squall_protocol::InstanceName;

mod commits;
mod fate;
pub(super) mod faults;
#[cfg(test)]
mod tests;

/// A rare end of a transaction, which replication has to survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RareEnd {
    /// Rows took effect after their process had ended, or after the request for them was dropped.
    LateCommit {
        /// The writer of the rows.
        instance: InstanceName,
    },
    /// Rows were refused because a later process had begun a session under the same name.
    Fenced {
        /// The writer of the rows.
        instance: InstanceName,
    },
    /// Rows took effect, and the caller got an error.
    AcknowledgementLost {
        /// The writer of the rows.
        instance: InstanceName,
    },
}

/// The database of one simulated world. Cheap to clone.
#[derive(Clone)]
pub(super) struct SimDatabase {
    shared: Rc<Shared>,
    tasks: mpsc::UnboundedSender<LocalBoxFuture<'static, ()>>,
}

struct Shared {
    connection: RefCell<Connection>,
    witness: CommitWitness,
    tap: Rc<dyn DatabaseTap>,
    /// The number of transactions in flight that write rows.
    rows_in_flight: Cell<u64>,
}

/// Rows that an instance read in order to send them or to catch up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fetched {
    /// The reader.
    pub instance: InstanceName,
    /// The name of the transaction.
    pub transaction: &'static str,
    /// The number of rows, over all queries of the transaction.
    pub rows: u64,
}

/// Callbacks for the effects of transactions, called at the simulated instant of each effect.
pub(super) trait DatabaseTap {
    /// Reports that a row of a stream took effect. Rows of one transaction come in the order of their tokens.
    fn committed(&self, row: CommittedRow);
    /// Reports that a message was put into a device's inbox, before the row of the stream.
    fn inbox_message(&self, _message: InboxMessage) {}
    /// Reports that a row of a stream was removed.
    fn removed(&self, _row: CommittedRow) {}
    /// Reports content that only one request of one client writes.
    fn unique_write(&self, _write: UniqueWrite) {}
    /// Reports rows that were read for followers, when the caller gets them.
    fn fetched(&self, _rows: Fetched) {}
    /// Reports a rare end of a transaction that writes rows, before the rows that it commits.
    fn rare_end(&self, _end: RareEnd) {}
}

/// Ignores all effects.
impl DatabaseTap for () {
    fn committed(&self, _row: CommittedRow) {}
}

impl SimDatabase {
    /// Creates an empty database that reports every row of every stream to `tap`, and the future that runs its transactions.
    /// The world must poll the future in a `LocalSet` that outlives every host.
    pub(super) fn open(
        tap: Rc<dyn DatabaseTap>,
    ) -> Result<(SimDatabase, impl Future<Output = ()> + 'static), DatabaseError> {
        let opened = |source| DatabaseError::Sqlite { transaction: "open", source };
        let mut connection = Connection::open_in_memory().map_err(opened)?;
        schema::prepare(&mut connection)?;
        let witness = CommitWitness::attach(&mut connection).map_err(opened)?;
        let (tasks, mut queue) = mpsc::unbounded_channel();
        let run = async move {
            while let Some(task) = queue.recv().await {
                tokio::task::spawn_local(task);
            }
        };
        let shared = Shared { connection: RefCell::new(connection), witness, tap, rows_in_flight: Cell::new(0) };
        Ok((SimDatabase { shared: Rc::new(shared), tasks }, run))
    }

    /// Returns the database for one boot of a host, with the faults that the host's database has. Every draw comes from
    /// `seeds`.
    pub(super) fn handle(
        &self,
        seeds: SeedTree,
        timing: DatabaseTiming,
        faults: Rc<DatabaseFaults>,
    ) -> SimDatabaseHandle {
        let host = Host {
            database: self.clone(),
            check_seeds: seeds.child(CHECK),
            seeds,
            timing,
            faults,
            requests: Cell::new(0),
            checks: Cell::new(0),
            rolled_back: Rc::new(Cell::new(0)),
            silenced: Cell::new(false),
        };
        SimDatabaseHandle { host: Rc::new(host) }
    }

    /// Returns true if transactions that write rows are still in flight, from any host.
    pub(super) fn has_rows_in_flight(&self) -> bool {
        self.shared.rows_in_flight.get() > 0
    }

    /// Runs a query of the world's own, beside all transactions, at this instant.
    pub(super) fn inspect<R>(&self, query: impl FnOnce(&Connection) -> R) -> R {
        query(&self.shared.connection.borrow())
    }
}

/// A transaction in flight. It runs in a task of the world.
struct Pending {
    shared: Rc<Shared>,
    faults: Rc<DatabaseFaults>,
    rolled_back: Rc<Cell<u64>>,
    job: Job,
    purpose: Purpose,
    fate: Fate,
    reply: oneshot::Sender<Result<(), DatabaseError>>,
    in_flight: InFlight,
    /// The number of rows that it read, if it reads rows for followers.
    rows_read: u64,
}

impl Pending {
    async fn run(mut self) {
        let lost = DatabaseError::ConnectionLost { transaction: self.job.name };
        if self.fate.outcome == (Outcome::Unacknowledged { is_error_first: true }) {
            self.wait(self.fate.before / 2).await;
            let (unheard, _) = oneshot::channel();
            // The caller may be gone; the transaction goes on.
            let _ = std::mem::replace(&mut self.reply, unheard).send(Err(lost));
            self.wait(self.fate.before / 2).await;
            let _ = self.take_effect();
            return;
        }
        self.wait(self.fate.before).await;
        let mut result = self.take_effect();
        if result.is_ok() && matches!(self.fate.outcome, Outcome::Unacknowledged { .. }) {
            result = Err(lost);
        }
        let Pending { shared, job, purpose, fate, reply, faults, in_flight, rows_read, .. } = self;
        drop(in_flight);
        tokio::time::sleep(fate.after).await;
        faults.stall().await;
        if result.is_ok()
            && let Some(session) = &job.session
            && purpose == Purpose::Updates
            && !reply.is_closed()
        {
            let instance = session.instance.clone();
            shared.tap.fetched(Fetched { instance, transaction: job.name, rows: rows_read });
        }
        // The job is dropped first, so that the caller finds its effects when it gets the result.
        drop(job);
        let _ = reply.send(result);
    }

    async fn wait(&self, delay: Duration) {
        tokio::time::sleep(delay).await;
        while self.faults.stall().await {
            // Each waits anew: not all take effect at one instant, as if they had been in a queue.
            tokio::time::sleep(delay).await;
        }
    }

    /// Takes effect, and reports that to the tap.
    fn take_effect(&mut self) -> Result<(), DatabaseError> {
        let Effect { committed, messages, removed, unique_writes } = self.execute()?;
        let tap = &self.shared.tap;
        if let Some(session) = &self.job.session
            && !committed.is_empty()
        {
            let instance = session.instance.clone();
            if matches!(self.fate.outcome, Outcome::Unacknowledged { .. }) {
                tap.rare_end(RareEnd::AcknowledgementLost { instance });
            } else if self.reply.is_closed() {
                tap.rare_end(RareEnd::LateCommit { instance });
            }
        }
        for message in messages {
            tap.inbox_message(message);
        }
        for row in committed {
            tap.committed(row);
        }
        for row in removed {
            tap.removed(row);
        }
        for write in unique_writes {
            tap.unique_write(write);
        }
        Ok(())
    }

    /// Runs the transaction. Returns its effect.
    fn execute(&mut self) -> Result<Effect, DatabaseError> {
        let Pending { shared, job, purpose, fate, .. } = self;
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
        let is_fetch = *purpose == Purpose::Updates;
        if is_fetch {
            shared.witness.count_rows_read(&mut connection, true).map_err(witness_failed)?;
        }
        let result = job.execute(&mut connection);
        if is_fetch {
            self.rows_read = shared.witness.rows_read();
            shared.witness.count_rows_read(&mut connection, false).map_err(witness_failed)?;
        }
        if let Err(DatabaseError::Fenced { instance, .. }) = &result
            && *purpose == Purpose::Rows
        {
            shared.tap.rare_end(RareEnd::Fenced { instance: instance.clone() });
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

/// Returns the error of SQLite for `code`.
fn sqlite_error(transaction: &'static str, code: std::ffi::c_int) -> DatabaseError {
    DatabaseError::Sqlite { transaction, source: rusqlite::Error::SqliteFailure(ffi::Error::new(code), None) }
}

/// The count of one transaction that writes rows, while it is in flight.
struct InFlight(Option<Rc<Shared>>);

impl InFlight {
    fn begin(shared: &Rc<Shared>, purpose: Purpose) -> Self {
        if purpose != Purpose::Rows {
            return InFlight(None);
        }
        shared.rows_in_flight.set(shared.rows_in_flight.get() + 1);
        InFlight(Some(Rc::clone(shared)))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.rows_in_flight.set(shared.rows_in_flight.get() - 1);
        }
    }
}

/// The simulated database for one boot of a host. Cheap to clone.
#[derive(Clone)]
pub(super) struct SimDatabaseHandle {
    host: Rc<Host>,
}

struct Host {
    database: SimDatabase,
    seeds: SeedTree,
    /// The seeds of the requests that only check a token.
    check_seeds: SeedTree,
    timing: DatabaseTiming,
    faults: Rc<DatabaseFaults>,
    requests: Cell<u64>,
    /// The number of requests that only check a token.
    checks: Cell<u64>,
    rolled_back: Rc<Cell<u64>>,
    silenced: Cell<bool>,
}

impl Host {
    /// Returns the seeds of the next transaction of this name. Checks of tokens, one for almost each row that arrives, have
    /// seeds of their own: a row more or less changes no other draw.
    fn seeds_of(&self, transaction: &str) -> SeedTree {
        let (seeds, requests) = match transaction {
            CHECK => (&self.check_seeds, &self.checks),
            _ => (&self.seeds, &self.requests),
        };
        requests.set(requests.get() + 1);
        seeds.child(requests.get() - 1)
    }
}

impl SimDatabaseHandle {
    /// Refuses new transactions, because the host is dead. Those in flight go on.
    pub(super) fn silence(&self) {
        self.host.silenced.set(true);
    }

    /// Returns the number of transactions of this boot that were rolled back and run again.
    #[cfg(test)]
    pub(super) fn rolled_back(&self) -> u64 {
        self.host.rolled_back.get()
    }
}

impl Backend for SimDatabaseHandle {
    fn run(&self, job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>> {
        let host = &self.host;
        if host.silenced.get() {
            return Box::pin(std::future::ready(Err(DatabaseError::Closed)));
        }
        let seeds = host.seeds_of(job.name);
        let purpose = Purpose::of(job.name);
        let mut fate = host.timing.draw(&mut seeds.rng());
        host.faults.apply_to(&mut fate, job.name, &seeds);
        let (reply, result) = oneshot::channel();
        let shared = Rc::clone(&host.database.shared);
        let pending = Pending {
            in_flight: InFlight::begin(&shared, purpose),
            shared,
            faults: Rc::clone(&host.faults),
            rolled_back: Rc::clone(&host.rolled_back),
            job,
            purpose,
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
