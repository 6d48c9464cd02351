//! The thread that owns the connection to a SQLite file.
//!
//! It runs transactions one after another, each until its deadline, and notes when the database cannot be written. The note
//! ends with the next transaction that writes. So that it also ends without any, the thread then writes something itself now
//! and then. While the database can be written, the thread only takes the lock now and then: that finds a lock of another
//! process without traffic, and writes nothing. It does not find a full disk. The first write does.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::{Connection, Transaction};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::{BUSY_INTERVAL, BUSY_TIMEOUT};
use crate::store::database::{DatabaseError, Job};
use crate::store::obstacle::{Obstacle, Unwritable};

/// A transaction for the thread.
pub(super) struct Request {
    /// The transaction.
    pub job: Job,
    /// The time until which it waits for other transactions.
    pub deadline: Instant,
    /// The receiver of the result.
    pub reply: oneshot::Sender<Result<(), DatabaseError>>,
}

/// The times that the thread keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Time for which a transaction waits for others, from its request on.
    pub busy_timeout: Duration,
    /// Time after which a lock of another process is noted.
    pub lock_noted_after: Duration,
    /// Time between two probes.
    pub probe_interval: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let (lock_noted_after, probe_interval) = (Duration::from_secs(3), Duration::from_secs(2));
        Times { busy_timeout: BUSY_TIMEOUT, lock_noted_after, probe_interval }
    }
}

/// The thread.
pub(super) struct Worker {
    connection: Connection,
    queue: Receiver<Request>,
    unwritable: watch::Sender<Option<Unwritable>>,
    times: Times,
    next_probe: Instant,
}

impl Worker {
    /// Creates the thread's state. It notes in `unwritable` why the database cannot be written.
    pub(super) fn new(
        connection: Connection,
        queue: Receiver<Request>,
        unwritable: watch::Sender<Option<Unwritable>>,
        times: Times,
    ) -> Self {
        let next_probe = Instant::now() + times.probe_interval;
        Worker { connection, queue, unwritable, times, next_probe }
    }

    /// Runs transactions until no more can be requested.
    pub(super) fn run(mut self) {
        loop {
            match self.queue.recv_timeout(self.next_probe.saturating_duration_since(Instant::now())) {
                Ok(request) => self.answer(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= self.next_probe {
                self.probe();
                self.next_probe = Instant::now() + self.times.probe_interval;
            }
        }
    }

    fn answer(&mut self, Request { mut job, deadline, reply }: Request) {
        let result = self.execute(&mut job, deadline);
        // First the job: a caller that has the result then also sees the effects of settling it.
        drop(job);
        // The caller may have stopped waiting; the transaction has committed all the same.
        let _ = reply.send(result);
    }

    /// Tries if the database can be written. Writes something only if the last attempt to write failed.
    fn probe(&mut self) {
        let is_writing = self.unwritable.borrow().is_some();
        // Leaves nothing, but a page has been changed meanwhile, so SQLite writes it to the disk.
        let touch = move |tx: &Transaction<'_>| match is_writing {
            true => {
                tx.execute("INSERT INTO sequences (name, last_value) VALUES ('probe', 0)", ())?;
                tx.execute("DELETE FROM sequences WHERE name = 'probe'", ()).map(drop)
            }
            false => Ok(()),
        };
        let mut job = Job { name: "probe", session: None, closure: Box::new(touch) };
        let deadline = Instant::now() + self.times.lock_noted_after;
        // The result was noted.
        let _ = self.execute(&mut job, deadline);
    }

    /// Runs a transaction. While another process holds the lock, tries again until `deadline`, and at least once.
    fn execute(&mut self, job: &mut Job, deadline: Instant) -> Result<(), DatabaseError> {
        let began = Instant::now();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let changes = self.connection.total_changes();
            let waiting = self.connection.busy_timeout(left.min(self.times.lock_noted_after));
            waiting.map_err(|source| DatabaseError::Sqlite { transaction: job.name, source })?;
            let result = job.execute(&mut self.connection);
            let obstacle = result.as_ref().err().and_then(DatabaseError::obstacle);
            let has_written = result.is_ok() && self.connection.total_changes() > changes;
            if let Some(obstacle) = obstacle {
                self.note(obstacle, began);
            } else if has_written {
                self.unwritable.send_if_modified(|unwritable| unwritable.take().is_some());
            }
            if obstacle.is_some() || has_written {
                // A probe would say the same, and those that wait would wait for it too.
                self.next_probe = Instant::now() + self.times.probe_interval;
            }
            if obstacle != Some(Obstacle::Locked) || Instant::now() >= deadline {
                return result;
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "a thread of its own, and SQLite does not wait for every lock"
            )]
            std::thread::sleep(BUSY_INTERVAL);
        }
    }

    /// Notes that nothing can be written, since `since` unless it was noted before.
    fn note(&self, obstacle: Obstacle, since: Instant) {
        self.unwritable.send_if_modified(|unwritable| {
            let before = *unwritable;
            let since = before.map_or(since, |before| before.since);
            *unwritable = Some(Unwritable { obstacle, since });
            *unwritable != before
        });
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use futures_util::future::join_all;

    use super::super::SqliteBackend;
    use super::super::tests::{File, run};
    use super::*;
    use crate::store::Database;

    const TIMES: Times = Times {
        busy_timeout: PATIENCE,
        lock_noted_after: Duration::from_millis(200),
        probe_interval: Duration::from_millis(50),
    };
    /// An interval in which no probe comes.
    const NO_PROBE: Times = Times { probe_interval: Duration::from_secs(600), ..TIMES };
    const PATIENCE: Duration = Duration::from_secs(20);

    type Noted = watch::Receiver<Option<Unwritable>>;

    fn open(file: &File, times: Times, waiting_max: usize) -> (Database, Noted) {
        let backend = SqliteBackend::open_with(&file.0, times, waiting_max).unwrap();
        let noted = backend.unwritable();
        (Database::new(Rc::new(backend)), noted)
    }

    fn lock(file: &File) -> Connection {
        let other = Connection::open(&file.0).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        other
    }

    fn write(tx: &Transaction<'_>) -> rusqlite::Result<usize> {
        tx.execute("UPDATE sequences SET last_value = last_value + 1", ())
    }

    /// Writes more than the file may hold.
    fn fill(tx: &Transaction<'_>) -> rusqlite::Result<usize> {
        tx.query_row("PRAGMA max_page_count = 1", (), |_| Ok(()))?;
        tx.execute("INSERT INTO sequences (name, last_value) VALUES (hex(zeroblob(1000000)), 1)", ())
    }

    fn count(tx: &Transaction<'_>) -> rusqlite::Result<i64> {
        tx.query_row("SELECT COUNT(*) FROM sequences", (), |row| row.get(0))
    }

    /// Waits until the obstacle is this one.
    async fn becomes(noted: &mut Noted, obstacle: Option<Obstacle>) {
        let there = noted.wait_for(|noted| noted.map(|unwritable| unwritable.obstacle) == obstacle);
        tokio::time::timeout(PATIENCE, there).await.expect("the note changes in time").unwrap();
    }

    #[test]
    fn the_time_out_counts_from_the_call_and_not_from_the_turn() {
        let file = File::new("deadline");
        run(async {
            let busy_timeout = Duration::from_secs(1);
            let (database, _) = open(&file, Times { busy_timeout, lock_noted_after: busy_timeout, ..TIMES }, 10);
            let other = lock(&file);
            let began = Instant::now();
            let failed = join_all((0..4).map(|_| database.transaction("write", write))).await;
            let took = began.elapsed();
            assert!(took >= busy_timeout && took < 2 * busy_timeout, "{took:?}");
            for failed in failed {
                let error = failed.unwrap_err();
                assert_eq!(error.obstacle(), Some(Obstacle::Locked));
                assert_eq!(error.to_string(), "transaction write failed: another process has locked the database");
            }
            drop(other);
            database.transaction("write", write).await.unwrap();
        });
    }

    #[test]
    fn a_lock_is_noted_without_traffic_and_so_is_its_end() {
        let file = File::new("idle");
        run(async {
            let (database, mut noted) = open(&file, TIMES, 10);
            database.begin_session(&"a".into()).await.unwrap();
            assert_eq!(*noted.borrow(), None);
            let began = Instant::now();
            let other = lock(&file);
            becomes(&mut noted, Some(Obstacle::Locked)).await;
            assert!(began.elapsed() >= TIMES.lock_noted_after, "a short lock is normal: {:?}", began.elapsed());
            drop(other);
            becomes(&mut noted, None).await;
        });
    }

    #[test]
    fn a_lock_is_noted_before_the_transaction_that_waits_for_it_fails() {
        let file = File::new("waiting");
        run(async {
            let (database, mut noted) = open(&file, NO_PROBE, 10);
            let other = lock(&file);
            let (waited, ()) = tokio::join!(database.transaction("begin", write), async {
                becomes(&mut noted, Some(Obstacle::Locked)).await;
                drop(other);
            });
            waited.unwrap();
        });
    }

    #[test]
    fn a_full_disk_is_noted_until_something_was_written() {
        let file = File::new("full");
        run(async {
            let (database, mut noted) = open(&file, NO_PROBE, 10);
            database.begin_session(&"a".into()).await.unwrap();
            let error = database.transaction("fill", fill).await.unwrap_err();
            assert_eq!(error.to_string(), "transaction fill failed: the disk is full");
            becomes(&mut noted, Some(Obstacle::Full)).await;
            let first = *noted.borrow();
            database.transaction("fill", fill).await.unwrap_err();
            assert_eq!(*noted.borrow(), first, "since the first failure");
            database.transaction("count", count).await.unwrap();
            becomes(&mut noted, Some(Obstacle::Full)).await;
            database.begin_session(&"b".into()).await.unwrap();
            becomes(&mut noted, None).await;
        });
    }

    #[test]
    fn the_end_of_a_full_disk_is_noted_without_traffic() {
        let file = File::new("space");
        run(async {
            let (database, mut noted) = open(&file, TIMES, 10);
            database.begin_session(&"a".into()).await.unwrap();
            noted.mark_unchanged();
            database.transaction("fill", fill).await.unwrap_err();
            tokio::time::timeout(PATIENCE, noted.changed()).await.expect("it is noted").unwrap();
            becomes(&mut noted, None).await;
        });
    }

    #[test]
    fn more_transactions_than_may_wait_are_refused_at_once_with_the_cause() {
        let file = File::new("crowd");
        run(async {
            let (database, mut noted) = open(&file, NO_PROBE, 2);
            let other = lock(&file);
            let waiting: Vec<_> = (0..2).map(|_| database.transaction("write", write)).collect();
            let (waited, ()) = tokio::join!(join_all(waiting), async {
                becomes(&mut noted, Some(Obstacle::Locked)).await;
                // The first one is not in the queue any more.
                let mut third = std::pin::pin!(database.transaction("write", write));
                assert!(tokio::time::timeout(Duration::ZERO, &mut third).await.is_err(), "it waits");
                let refused = database.transaction("write", write).await.unwrap_err();
                assert!(matches!(refused, DatabaseError::TooManyWaiting { transaction: "write", .. }), "{refused:?}");
                assert!(refused.to_string().ends_with(": another process has locked the database"), "{refused}");
                drop(other);
                third.await.unwrap();
            });
            assert!(waited.iter().all(Result::is_ok), "{waited:?}");
        });
    }
}
