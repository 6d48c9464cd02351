//! The real database: one SQLite file that several processes share.
//!
//! SQLite blocks, and an instance is a single-threaded reactor. So each process has [one thread](worker) that owns the
//! connection and runs transactions in the order of the calls. One thread is enough: SQLite has a single writer anyway.

mod worker;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use self::worker::{Request, Times, Worker};
use super::database::{Backend, DatabaseError, Job, TRANSACTIONS_WAITING_MAX};
use super::obstacle::Unwritable;
use super::schema;
use crate::private_file;
use squall_env::LocalBoxFuture;

/// Time for which a transaction waits for those before it and for other processes, from the call on, before it fails.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Interval between attempts where SQLite does not wait itself.
const BUSY_INTERVAL: Duration = Duration::from_millis(5);

/// A SQLite file, driven by its own thread. Dropping it ends the thread once the transactions it was given are done.
#[derive(Debug)]
pub struct SqliteBackend {
    requests: SyncSender<Request>,
    unwritable: watch::Receiver<Option<Unwritable>>,
    times: Times,
}

impl SqliteBackend {
    /// Opens the file at `path`, creating it and its tables where there are none.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DatabaseError> {
        Self::open_with(path.as_ref(), Times::default(), TRANSACTIONS_WAITING_MAX)
    }

    /// Opens the file like [`open`](Self::open), on a thread of its own. While another process locks the file, that takes
    /// as long as [`BUSY_TIMEOUT`].
    pub fn opening(path: PathBuf) -> LocalBoxFuture<'static, Result<Self, DatabaseError>> {
        let (reply, opened) = oneshot::channel();
        #[expect(clippy::disallowed_methods, reason = "SQLite blocks, and the instance's own thread must not")]
        std::thread::spawn(move || {
            // The caller may have stopped waiting.
            let _ = reply.send(Self::open(path));
        });
        Box::pin(async move { opened.await.map_err(|_| DatabaseError::Closed)? })
    }

    fn open_with(path: &Path, times: Times, waiting_max: usize) -> Result<Self, DatabaseError> {
        let opened = connect(path);
        let mut connection = opened.map_err(|source| DatabaseError::Sqlite { transaction: "open", source })?;
        schema::prepare(&mut connection)?;
        let (requests, queue) = sync_channel(waiting_max);
        let (noting, unwritable) = watch::channel(None);
        let worker = Worker::new(connection, queue, noting, times);
        #[expect(clippy::disallowed_methods, reason = "SQLite blocks, and the instance's own thread must not")]
        std::thread::spawn(move || worker.run());
        Ok(SqliteBackend { requests, unwritable, times })
    }

    /// Returns the reason why the database cannot be written, as it changes; `None` while it can be written.
    pub fn unwritable(&self) -> watch::Receiver<Option<Unwritable>> {
        self.unwritable.clone()
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // SQLite gives its other files the permissions of this one. If it cannot be created, SQLite says why.
    let _ = private_file::options().write(true).create_new(true).open(path);
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Write-ahead logging: a reader in one process does not block the writer in another. While another process sets it on a
    // new file, SQLite returns "busy" without waiting, because two that waited for each other would wait for ever.
    let mut attempts = BUSY_TIMEOUT.as_millis() / BUSY_INTERVAL.as_millis();
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && attempts > 0 => attempts -= 1,
            set => return set.map(|()| connection),
        }
        #[expect(clippy::disallowed_methods, reason = "nothing runs yet that this could block")]
        std::thread::sleep(BUSY_INTERVAL);
    }
}

impl Backend for SqliteBackend {
    fn run(&self, job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>> {
        let transaction = job.name;
        let (reply, result) = oneshot::channel();
        let deadline = Instant::now() + self.times.busy_timeout;
        let sent = self.requests.try_send(Request { job, deadline, reply }).map_err(|refused| match refused {
            TrySendError::Full(_) => {
                let obstacle = self.unwritable.borrow().map(|unwritable| unwritable.obstacle);
                DatabaseError::TooManyWaiting { transaction, obstacle }
            }
            TrySendError::Disconnected(_) => DatabaseError::Closed,
        });
        Box::pin(async move {
            sent?;
            result.await.map_err(|_| DatabaseError::Closed)?
        })
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::store::database::begin_after;
    use crate::store::{Database, IdGenerator, IdGeneratorOptions};
    use squall_protocol::Token;

    /// A database file that is removed when the test ends.
    pub(super) struct File(pub(super) PathBuf);

    impl File {
        pub(super) fn new(test: &str) -> Self {
            let file = File(std::env::temp_dir().join(format!("squall-{}-{test}.db", std::process::id())));
            file.remove();
            file
        }

        fn remove(&self) {
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{suffix}", self.0.display()));
            }
        }

        fn database(&self) -> Database {
            Database::new(Rc::new(SqliteBackend::open(&self.0).unwrap()))
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            self.remove();
        }
    }

    pub(super) fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test)
    }

    #[cfg(unix)]
    #[test]
    fn a_new_database_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;

        let file = File::new("private");
        run(generator(file.database(), "a"));
        for suffix in ["", "-wal", "-shm"] {
            let path = format!("{}{suffix}", file.0.display());
            if let Ok(metadata) = std::fs::metadata(&path) {
                assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{path}");
            }
        }
    }

    async fn generator(database: Database, instance: &str) -> Rc<IdGenerator> {
        let options = IdGeneratorOptions {
            stream: "events".into(),
            instance: instance.into(),
            writers: vec!["a".into(), "b".into()],
            sequence: "events_stream_seq",
            tables: &[("events", "stream_ordering")],
            shares_database: true,
            poke: Default::default(),
        };
        IdGenerator::load(database.begin_session(&instance.into()).await.unwrap(), options).await.unwrap()
    }

    #[test]
    fn opening_a_new_file_waits_while_another_process_prepares_it() {
        let file = File::new("prepared");
        let other = Connection::open(&file.0).unwrap();
        other.execute_batch("CREATE TABLE other (id); BEGIN IMMEDIATE").unwrap();
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| SqliteBackend::open(&file.0).map(drop).map_err(|error| error.to_string()));
            #[expect(clippy::disallowed_methods, reason = "so that it has begun, on a thread of its own")]
            std::thread::sleep(10 * BUSY_INTERVAL);
            assert!(!opening.is_finished(), "the other process is about to write");
            other.execute_batch("COMMIT").unwrap();
            assert_eq!(opening.join().unwrap(), Ok(()));
        });
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_at_once() {
        let file = File::new("text");
        std::fs::write(&file.0, "not a database, but long enough for the header of one\n".repeat(4)).unwrap();
        let began = tokio::time::Instant::now();
        let refused = SqliteBackend::open(&file.0).unwrap_err();
        assert!(matches!(refused, DatabaseError::Sqlite { transaction: "open", .. }), "{refused:?}");
        assert!(began.elapsed() < BUSY_TIMEOUT / 2, "only a busy database is worth waiting for");
    }

    #[test]
    fn processes_on_one_file_never_get_the_same_id() {
        let file = File::new("processes");
        let mut ids: Vec<Token> = std::thread::scope(|threads| {
            let process = |instance| {
                let file = &file;
                threads.spawn(move || {
                    run(async {
                        let generator = generator(file.database(), instance).await;
                        let mut ids = Vec::new();
                        for _ in 0..20 {
                            ids.extend_from_slice(generator.allocate(2).await.unwrap().ids());
                        }
                        ids
                    })
                })
            };
            let processes = [process("a"), process("b")];
            processes.into_iter().flat_map(|process| process.join().unwrap()).collect()
        });
        ids.sort();
        assert_eq!(ids, (2..82).map(Token).collect::<Vec<_>>());
    }

    #[test]
    fn a_later_process_fences_off_the_earlier_one() {
        let file = File::new("fencing");
        run(async {
            let first = file.database().begin_session(&"a".into()).await.unwrap();
            let second = file.database().begin_session(&"a".into()).await.unwrap();
            let write = |tx: &rusqlite::Transaction<'_>| {
                tx.execute("INSERT INTO sequences (name, last_value) VALUES ('s', 1)", ())
            };
            let refused = first.transaction("write", write).await;
            assert!(matches!(refused, Err(DatabaseError::Fenced { boot: 1, .. })), "{refused:?}");
            assert_eq!(second.transaction("write", write).await.unwrap(), 1);
        });
    }

    #[test]
    fn an_earlier_process_that_begins_late_does_not_fence_off_the_later_one() {
        let file = File::new("late");
        run(async {
            let begin = |after| move |tx: &rusqlite::Transaction<'_>| begin_after(tx, &"a".into(), after);
            let later = file.database().begin_session(&"a".into()).await.unwrap();
            assert!(!file.database().transaction("late", begin(0)).await.unwrap());
            let write = |tx: &rusqlite::Transaction<'_>| {
                tx.execute("INSERT INTO sequences (name, last_value) VALUES ('s', 1)", ())
            };
            assert_eq!(later.transaction("write", write).await.unwrap(), 1);
        });
    }

    #[test]
    fn a_transaction_whose_caller_is_gone_still_commits() {
        let file = File::new("caller");
        run(async {
            let database = file.database();
            let write = |tx: &rusqlite::Transaction<'_>| {
                tx.execute("INSERT INTO sequences (name, last_value) VALUES ('s', 1)", ())
            };
            let mut transaction = Box::pin(database.transaction("write", write));
            let first_poll = tokio::time::timeout(Duration::ZERO, &mut transaction).await;
            drop((first_poll, transaction));
            let count = |tx: &rusqlite::Transaction<'_>| {
                tx.query_row("SELECT COUNT(*) FROM sequences", (), |row| row.get::<_, i64>(0))
            };
            assert_eq!(database.transaction("count", count).await.unwrap(), 1);
        });
    }

    #[test]
    fn a_failed_transaction_is_named_in_its_error_and_leaves_nothing() {
        let file = File::new("failure");
        run(async {
            let database = file.database();
            let write = |tx: &rusqlite::Transaction<'_>| {
                tx.execute("INSERT INTO sequences (name, last_value) VALUES ('s', 1)", ())?;
                tx.execute("INSERT INTO nowhere VALUES (1)", ())
            };
            let failed = database.transaction("write", write).await.unwrap_err();
            assert!(matches!(failed, DatabaseError::Sqlite { transaction: "write", .. }), "{failed:?}");
            let empty = |tx: &rusqlite::Transaction<'_>| {
                tx.query_row("SELECT COUNT(*) FROM sequences", (), |row| row.get::<_, i64>(0))
            };
            assert_eq!(database.transaction("count", empty).await.unwrap(), 0);
        });
    }
}
