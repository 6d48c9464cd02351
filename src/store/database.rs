//! Transactions on the shared database.
//!
//! A transaction is a synchronous closure that may be run again: it touches nothing outside the database, so that a
//! backend is free to run it on another thread, to roll it back and repeat it, or to finish it after its caller is gone
//! (as Synapse's `runInteraction`).
//!
//! That last freedom is why there are sessions. A process that was killed may have left a transaction behind, which
//! commits after its successor has read where the streams stand. Every transaction of a session therefore checks that
//! its boot number is still the current one for its instance: beginning a session fences out all of the predecessor's.

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use crate::env::LocalBoxFuture;
use crate::protocol::InstanceName;

/// Why a transaction did not commit.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The database refused: a broken constraint, a busy or damaged file.
    #[error("transaction {transaction} failed")]
    Sqlite {
        /// The transaction's name.
        transaction: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A later process has begun a session under this instance's name.
    #[error("boot {boot} of {instance} was superseded by a later process")]
    Fenced {
        /// The instance whose session ended.
        instance: InstanceName,
        /// The boot number that is no longer current; 0 if none was ever given.
        boot: i64,
    },
    /// The database was made by another version of Squall.
    #[error("the database has schema version {found}, expected {expected}")]
    SchemaVersion {
        /// The version in the database.
        found: i64,
        /// The version this build works on.
        expected: i64,
    },
    /// The connection broke before the answer came. The transaction may have committed, may commit yet, or never will;
    /// its closure is dropped once that is settled.
    #[error("the connection to the database was lost; whether {transaction} committed is not known")]
    ConnectionLost {
        /// The transaction's name.
        transaction: &'static str,
    },
    /// The database is shut down, or this process may no longer use it.
    #[error("the database is closed")]
    Closed,
}

/// One process's right to write under an instance's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Whose session it is.
    pub instance: InstanceName,
    /// Counts the sessions of this instance, from 1. Only the highest may commit.
    pub boot: i64,
}

/// The body of a transaction. It may run any number of times and takes effect at most once.
pub type Closure = Box<dyn FnMut(&Transaction<'_>) -> rusqlite::Result<()> + Send>;

/// A transaction on its way to the database.
///
/// Dropping it tells whatever its closure owns that the transaction is settled (committed or never to commit), so a
/// backend drops it before it tells the result, and not earlier. Only where the result is
/// [`ConnectionLost`](DatabaseError::ConnectionLost) may it be dropped later than told.
pub struct Job {
    /// What the transaction does, for errors and logs.
    pub name: &'static str,
    /// The session it belongs to, if any.
    pub session: Option<Session>,
    /// What it does.
    pub closure: Closure,
}

impl Job {
    /// Checks the session and runs the closure, in a transaction that is still open: committing it takes effect,
    /// dropping it rolls back.
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

/// Where transactions are run.
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
    /// A handle without a session: its transactions are not fenced.
    pub fn new(backend: Rc<dyn Backend>) -> Self {
        Database { backend, session: None }
    }

    /// Takes over the name `instance`: from here on no transaction of an earlier session of that name commits.
    /// The handle it returns works in the new session.
    pub async fn begin_session(&self, instance: &InstanceName) -> Result<Database, DatabaseError> {
        self.begin_session_at(instance, 0).await
    }

    /// The same for a process that was started at `started_ms`, in milliseconds since the epoch.
    ///
    /// What a process asked for before it was killed may take effect when its successor has begun: its beginning too, and
    /// that would fence out the successor, for ever. So a session is refused if a later process has one.
    pub async fn begin_session_at(&self, instance: &InstanceName, started_ms: i64) -> Result<Database, DatabaseError> {
        let instance = instance.clone();
        let name = instance.clone();
        let raise = move |tx: &Transaction<'_>| raise_boot(tx, &name, started_ms);
        let boot = Database::new(self.backend.clone()).transaction("begin_session", raise).await?;
        let Some(boot) = boot else { return Err(DatabaseError::Fenced { instance, boot: 0 }) };
        Ok(Database { backend: self.backend.clone(), session: Some(Session { instance, boot }) })
    }

    /// The session this handle works in, if one was begun.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Runs `closure` in one immediate transaction and gives what its last run returned.
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

/// The next boot number of `instance`; none if a process that was started later has one.
fn raise_boot(tx: &Transaction<'_>, instance: &InstanceName, started_ms: i64) -> rusqlite::Result<Option<i64>> {
    tx.prepare_cached(
        "INSERT INTO sessions (instance_name, boot, started_ts) VALUES (?1, 1, ?2)
         ON CONFLICT (instance_name) DO UPDATE SET boot = sessions.boot + 1, started_ts = excluded.started_ts
         WHERE sessions.started_ts <= excluded.started_ts RETURNING boot",
    )?
    .query_row((instance.as_str(), started_ms), |row| row.get(0))
    .optional()
}
