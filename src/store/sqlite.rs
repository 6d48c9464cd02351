//! The real database: one SQLite file that several processes share.
//!
//! SQLite blocks, and an instance is a single-threaded reactor, so each process has one thread that owns the connection
//! and runs transactions in the order they were asked for. One thread is enough: SQLite has a single writer anyway.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::database::{Backend, DatabaseError, Job};
use super::schema;
use crate::env::LocalBoxFuture;

/// How long a transaction waits for another process's to end before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

type Request = (Job, oneshot::Sender<Result<(), DatabaseError>>);

/// A SQLite file, driven by its own thread. Dropping it ends the thread once the transactions it was given are done.
#[derive(Debug)]
pub struct SqliteBackend {
    requests: mpsc::UnboundedSender<Request>,
}

impl SqliteBackend {
    /// Opens the file at `path`, creating it and its tables where there are none.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DatabaseError> {
        let mut connection =
            connect(path.as_ref()).map_err(|source| DatabaseError::Sqlite { transaction: "open", source })?;
        schema::prepare(&mut connection)?;
        let (requests, queue) = mpsc::unbounded_channel();
        #[expect(clippy::disallowed_methods, reason = "SQLite blocks, and the instance's own thread must not")]
        std::thread::spawn(move || serve(connection, queue));
        Ok(SqliteBackend { requests })
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Write-ahead logging: a reader in one process does not hold up the writer in another.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    Ok(connection)
}

fn serve(mut connection: Connection, mut queue: mpsc::UnboundedReceiver<Request>) {
    while let Some((mut job, reply)) = queue.blocking_recv() {
        let result = job.execute(&mut connection);
        // First the job: whoever learns the result then also sees what settling it changed.
        drop(job);
        // The caller may have stopped waiting; the transaction stands all the same.
        let _ = reply.send(result);
    }
}

impl Backend for SqliteBackend {
    fn run(&self, job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>> {
        let (reply, result) = oneshot::channel();
        let sent = self.requests.send((job, reply));
        Box::pin(async move {
            sent.map_err(|_| DatabaseError::Closed)?;
            result.await.map_err(|_| DatabaseError::Closed)?
        })
    }
}
