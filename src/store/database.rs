//! Transactions on the shared database.
//!
//! A transaction is a synchronous closure that may be run again. It touches nothing outside the database. So a backend
//! may run it on another thread, roll it back and repeat it, or finish it after its caller is gone (as Synapse's
//! `runInteraction`).
//!
//! Because a transaction may outlive its caller, there are sessions. A process that was killed may have left a
//! transaction behind, which would commit after its successor has read the positions of the streams. Every transaction of
//! a session therefore checks that its boot number is still the current one of its instance. Beginning a session fences
//! off all transactions of the predecessor.

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::obstacle::Obstacle;
use squall_env::LocalBoxFuture;
use squall_protocol::InstanceName;

/// Largest number of transactions that wait for the one under way. Another one is refused at once. Every HTTP connection
/// may have one, and so may each follower.
pub const TRANSACTIONS_WAITING_MAX: usize = 4_000;

/// A transaction that did not commit.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The database returned an error: a broken constraint, a busy or damaged file.
    #[error("transaction {transaction} failed: {}", cause(source))]
    Sqlite {
        /// The transaction's name.
        transaction: &'static str,
        /// The error of SQLite.
        source: rusqlite::Error,
    },
    /// A later process has begun a session under the same instance name.
    #[error("boot {boot} of {instance} was superseded by a later process")]
    Fenced {
        /// The instance whose session ended.
        instance: InstanceName,
        /// The boot number that is no longer current; 0 if the process never had one.
        boot: i64,
    },
    /// The database was created by another version of Squall.
    #[error("the database has schema version {found}, expected {expected}")]
    SchemaVersion {
        /// The version in the database.
        found: i64,
        /// The version this build works on.
        expected: i64,
    },
    /// The connection broke before the result arrived. The transaction may have committed, may commit later, or never;
    /// its closure is dropped once that is settled.
    #[error("the connection to the database was lost during {transaction}, which may or may not have committed")]
    ConnectionLost {
        /// The transaction's name.
        transaction: &'static str,
    },
    /// The transaction was not begun, because too many others wait already.
    #[error("transaction {transaction} was refused, because {TRANSACTIONS_WAITING_MAX} others wait: {}",
        obstacle.map_or_else(|| "the database is slow".to_owned(), |obstacle| obstacle.to_string()))]
    TooManyWaiting {
        /// The transaction's name.
        transaction: &'static str,
        /// The obstacle that the others meet, if it is known.
        obstacle: Option<Obstacle>,
    },
    /// The database is shut down, or this process is cut off from it.
    #[error("the database is closed")]
    Closed,
}

/// Returns the cause of an error of SQLite in words.
fn cause(source: &rusqlite::Error) -> String {
    Obstacle::of(source).map_or_else(|| source.to_string(), |obstacle| obstacle.to_string())
}

impl DatabaseError {
    /// Returns the obstacle that the transaction met, if the machine kept it from being written.
    pub fn obstacle(&self) -> Option<Obstacle> {
        match self {
            DatabaseError::Sqlite { source, .. } => Obstacle::of(source),
            DatabaseError::TooManyWaiting { obstacle, .. } => *obstacle,
            _ => None,
        }
    }

    /// Returns true if a later attempt may succeed although nothing in the deployment was changed.
    pub fn is_transient(&self) -> bool {
        let is_overload = matches!(self, DatabaseError::TooManyWaiting { .. } | DatabaseError::ConnectionLost { .. });
        is_overload || self.obstacle().is_some()
    }
}

/// The right of one process to write under an instance's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The instance.
    pub instance: InstanceName,
    /// The number of the session among those of this instance, from 1. Only the highest may commit.
    pub boot: i64,
}

/// The body of a transaction. It may run any number of times and takes effect at most once.
pub type Closure = Box<dyn FnMut(&Transaction<'_>) -> rusqlite::Result<()> + Send>;

/// A transaction on its way to the database.
///
/// Dropping it signals to the values its closure owns that the transaction is settled: it has committed, or never will. So
/// a backend drops it once that is true, and before it returns the result. Only after
/// [`ConnectionLost`](DatabaseError::ConnectionLost) may it be dropped later than the result is returned.
pub struct Job {
    /// The name of the transaction, for errors and logs.
    pub name: &'static str,
    /// The session it belongs to, if any.
    pub session: Option<Session>,
    /// The body.
    pub closure: Closure,
}

impl Job {
    /// Checks the session and runs the closure. Returns the open transaction, for the caller to commit; dropping it rolls
    /// back.
    pub fn run<'c>(&mut self, connection: &'c mut Connection) -> Result<Transaction<'c>, DatabaseError> {
        let name = self.name;
        let failed = |source| DatabaseError::Sqlite { transaction: name, source };
        // Immediate: a deferred transaction that reads before it writes fails half-way when another process wrote.
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        if let Some(session) = &self.session
            && !is_current(&tx, session).map_err(failed)?
        {
            return Err(DatabaseError::Fenced { instance: session.instance.clone(), boot: session.boot });
        }
        (self.closure)(&tx).map_err(failed)?;
        Ok(tx)
    }

    /// Runs the transaction and commits it.
    pub fn execute(&mut self, connection: &mut Connection) -> Result<(), DatabaseError> {
        let name = self.name;
        let tx = self.run(connection)?;
        tx.commit().map_err(|source| DatabaseError::Sqlite { transaction: name, source })
    }
}

fn is_current(tx: &Transaction<'_>, session: &Session) -> rusqlite::Result<bool> {
    tx.prepare_cached("SELECT 1 FROM sessions WHERE instance_name = ?1 AND boot = ?2")?
        .exists((session.instance.as_str(), session.boot))
}

/// A database that runs transactions.
pub trait Backend {
    /// Runs `job` to its end. Once this was called the transaction may take effect, even if the future is dropped.
    fn run(&self, job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>>;
}

/// A handle on the shared database. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    backend: Rc<dyn Backend>,
    session: Option<Session>,
}

impl Database {
    /// Creates a handle without a session: its transactions are not fenced.
    pub fn new(backend: Rc<dyn Backend>) -> Self {
        Database { backend, session: None }
    }

    /// Begins a session of `instance` and returns a handle that works in it. From here on no transaction of an earlier
    /// session of that instance commits.
    ///
    /// A request of a killed process may take effect after its successor has begun. If that request begins a session, it
    /// must not fence off the successor. So it names the session that was the last one when its process asked. The time of
    /// day would not do: it may go back between the two processes.
    pub async fn begin_session(&self, instance: &InstanceName) -> Result<Database, DatabaseError> {
        let database = Database::new(self.backend.clone());
        loop {
            let name = instance.clone();
            let last = database.transaction("begin_session", move |tx| last_boot(tx, &name)).await?;
            let name = instance.clone();
            let begin = move |tx: &Transaction<'_>| begin_after(tx, &name, last);
            if database.transaction("begin_session", begin).await? {
                let session = Session { instance: instance.clone(), boot: last + 1 };
                return Ok(Database { backend: self.backend.clone(), session: Some(session) });
            }
        }
    }

    /// Returns the session this handle works in, if one was begun.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Runs `closure` in one immediate transaction and returns the result of its last run.
    ///
    /// The closure may run several times and must touch nothing outside the database. It is dropped once the
    /// transaction is settled. A caller that stops waiting does not stop the transaction.
    pub async fn transaction<R: Send + 'static>(
        &self,
        name: &'static str,
        mut closure: impl FnMut(&Transaction<'_>) -> Result<R, rusqlite::Error> + Send + 'static,
    ) -> Result<R, DatabaseError> {
        let result = Arc::new(Mutex::new(None));
        let slot = result.clone();
        let closure: Closure = Box::new(move |tx| {
            let value = closure(tx)?;
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            Ok(())
        });
        self.backend.run(Job { name, session: self.session.clone(), closure }).await?;
        let value = result.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(value.expect("a transaction that committed has run its closure"))
    }
}

/// Returns the boot number of the last session of `instance`: 0 if there was none.
fn last_boot(tx: &Transaction<'_>, instance: &InstanceName) -> rusqlite::Result<i64> {
    let boot = tx
        .prepare_cached("SELECT boot FROM sessions WHERE instance_name = ?1")?
        .query_row([instance.as_str()], |row| row.get(0))
        .optional()?;
    Ok(boot.unwrap_or(0))
}

/// Begins the session of `instance` that comes after the session `last`. Returns false if another one came first.
pub(super) fn begin_after(tx: &Transaction<'_>, instance: &InstanceName, last: i64) -> rusqlite::Result<bool> {
    let begun = tx
        .prepare_cached(
            "INSERT INTO sessions (instance_name, boot) SELECT ?1, ?2 + 1
             WHERE ?2 = COALESCE((SELECT boot FROM sessions WHERE instance_name = ?1), 0)
             ON CONFLICT (instance_name) DO UPDATE SET boot = excluded.boot",
        )?
        .execute((instance.as_str(), last))?;
    Ok(begun == 1)
}
