//! The effect of each fault on the transactions that it hits, and on no other ones.

use std::future::Future;

use tokio::time::Instant;

use super::super::{DatabaseTap, DatabaseTiming, RareEnd, SimDatabase, SimDatabaseHandle};
use super::*;
use crate::sim::database::CommittedRow;
use crate::store::events::persist;
use crate::store::{Database, DatabaseError, IdGenerator, IdGeneratorOptions};
use squall_protocol::rows::events::EventRow;
use squall_protocol::{InstanceName, Token};

const SECOND: Duration = Duration::from_secs(1);

/// A database with one host, and the effects that it reported.
struct Here {
    database: SimDatabase,
    faults: Rc<DatabaseFaults>,
    committed: Rc<RefCell<Vec<i64>>>,
    rare: Rc<RefCell<Vec<RareEnd>>>,
}

/// A tap that keeps the effects.
struct Diary {
    committed: Rc<RefCell<Vec<i64>>>,
    rare: Rc<RefCell<Vec<RareEnd>>>,
}

impl DatabaseTap for Diary {
    fn committed(&self, row: CommittedRow) {
        self.committed.borrow_mut().push(row.token.0);
    }

    fn rare_end(&self, end: RareEnd) {
        self.rare.borrow_mut().push(end);
    }
}

fn here<F: Future<Output = ()>>(test: impl FnOnce(Here) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (committed, rare) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new())));
        let diary = Diary { committed: Rc::clone(&committed), rare: Rc::clone(&rare) };
        let (database, run) = SimDatabase::open(Rc::new(diary)).unwrap();
        tokio::task::spawn_local(run);
        test(Here { database, faults: Rc::default(), committed, rare }).await;
    });
}

impl Here {
    /// Returns a process whose transactions take 10 ms to take effect and 10 ms more to be answered.
    fn boot(&self, boot: u64) -> SimDatabaseHandle {
        let timing = DatabaseTiming { before_us: 10_000..=10_000, after_us: 10_000..=10_000, rollback_per_mille: 0 };
        self.database.handle(SeedTree::from_seed(7).child(boot), timing, Rc::clone(&self.faults))
    }

    async fn writer(&self) -> Database {
        session(&self.boot(1)).await
    }

    fn committed(&self) -> Vec<i64> {
        self.committed.borrow().clone()
    }

    fn rare(&self) -> Vec<RareEnd> {
        self.rare.borrow().clone()
    }
}

fn instance() -> InstanceName {
    "writer".into()
}

async fn session(handle: &SimDatabaseHandle) -> Database {
    Database::new(Rc::new(handle.clone())).begin_session(&instance()).await.unwrap()
}

async fn insert(database: Database, token: i64) -> Result<(), DatabaseError> {
    let events = [(Token(token), EventRow::message(format!("$event{token}"), "!room"))];
    database.transaction("insert", move |tx| persist(tx, &instance(), &events, &[])).await
}

async fn read(database: Database) -> Result<i64, DatabaseError> {
    let count = |tx: &rusqlite::Transaction<'_>| tx.query_row("SELECT COUNT(*) FROM events", (), |row| row.get(0));
    database.transaction("events_updates", count).await
}

async fn generator(database: Database) -> Rc<IdGenerator> {
    let options = IdGeneratorOptions {
        stream: "events".into(),
        instance: instance(),
        writers: vec![instance()],
        sequence: "events_stream_seq",
        tables: &[("events", "stream_ordering")],
        shares_database: true,
        poke: Default::default(),
    };
    IdGenerator::load(database, options).await.unwrap()
}

#[test]
fn a_slow_writer_commits_late_and_out_of_order_but_gets_ids_and_reads_rows_at_once() {
    here(|here| async move {
        let writer = here.writer().await;
        let generator = generator(writer.clone()).await;
        let slow = here.faults.begin(DatabaseFault::SlowWriter { delay_ms: 500..=10_000, rollback_per_mille: 0 });
        let began = Instant::now();
        assert_eq!(generator.allocate(1).await.unwrap().ids(), [Token(2)]);
        assert_eq!(read(writer.clone()).await.unwrap(), 0);
        assert!(began.elapsed() < SECOND / 2);
        assert_eq!(slow.hits(), 0);
        for token in 2..12 {
            tokio::task::spawn_local(insert(writer.clone(), token));
        }
        tokio::time::sleep(SECOND / 2).await;
        assert_eq!((slow.hits(), here.committed()), (10, Vec::new()));
        assert!(here.database.has_rows_in_flight());
        drop(slow);
        insert(writer, 12).await.unwrap();
        assert_eq!(here.committed(), [12], "it began when the fault was over");
        tokio::time::sleep(10 * SECOND).await;
        let committed = here.committed();
        assert_eq!(committed.len(), 11);
        assert!(!committed.is_sorted());
        assert!(!here.database.has_rows_in_flight());
    });
}

#[test]
fn only_what_writes_rows_is_slow_at_a_slow_writer() {
    let rows = ["persist_events", "set_account_data", "send_to_device", "persist_presence"];
    assert!(rows.iter().all(|name| Purpose::of(name) == Purpose::Rows));
    let reads = ["load_id_generators", "load_presence", "read_current_state", "sync", "allocate_ids", "begin_session"];
    assert!(reads.iter().all(|name| Purpose::of(name) == Purpose::Bookkeeping));
    assert_eq!(Purpose::of("receipts_updates"), Purpose::Updates);
}

#[test]
fn a_transaction_rolled_back_for_good_leaves_nothing_and_says_so() {
    here(|here| async move {
        let writer = here.writer().await;
        let _slow = here.faults.begin(DatabaseFault::SlowWriter { delay_ms: 500..=500, rollback_per_mille: 1_000 });
        let began = Instant::now();
        let failed = insert(writer, 2).await;
        assert!(matches!(failed, Err(DatabaseError::Sqlite { transaction: "insert", .. })), "{failed:?}");
        assert!(began.elapsed() >= SECOND / 2);
        assert!(here.committed().is_empty());
    });
}

#[test]
fn a_slow_database_is_slow_on_both_sides() {
    here(|here| async move {
        let writer = here.writer().await;
        let slow = here.faults.begin(DatabaseFault::Slow { extra_ms: 1_000..=1_000 });
        let began = Instant::now();
        let reading = tokio::task::spawn_local(read(writer.clone()));
        insert(writer, 2).await.unwrap();
        reading.await.unwrap().unwrap();
        assert_eq!((began.elapsed().as_millis(), slow.hits()), (2_020, 2));
    });
}

#[test]
fn a_stalled_database_does_nothing_and_answers_nothing_until_it_is_over() {
    here(|here| async move {
        let writer = here.writer().await;
        let taking_effect = tokio::task::spawn_local(insert(writer.clone(), 2));
        tokio::time::sleep(Duration::from_millis(15)).await;
        assert_eq!(here.committed(), [2]);
        let stall = here.faults.begin(DatabaseFault::Stalled);
        let asked_meanwhile = tokio::task::spawn_local(insert(writer, 3));
        tokio::time::sleep(60 * SECOND).await;
        assert_eq!(here.committed(), [2]);
        assert!(!taking_effect.is_finished() && !asked_meanwhile.is_finished());
        assert_eq!(stall.hits(), 2);
        drop(stall);
        taking_effect.await.unwrap().unwrap();
        asked_meanwhile.await.unwrap().unwrap();
        assert_eq!(here.committed(), [2, 3]);
    });
}

#[test]
fn a_stall_is_over_only_when_all_of_them_are() {
    here(|here| async move {
        let writer = here.writer().await;
        let (one, other) = (here.faults.begin(DatabaseFault::Stalled), here.faults.begin(DatabaseFault::Stalled));
        let inserting = tokio::task::spawn_local(insert(writer, 2));
        tokio::time::sleep(SECOND).await;
        drop(one);
        tokio::time::sleep(SECOND).await;
        assert!(!inserting.is_finished());
        drop(other);
        inserting.await.unwrap().unwrap();
    });
}

#[test]
fn a_failing_database_refuses_or_rolls_back() {
    here(|here| async move {
        let writer = here.writer().await;
        let failing = here.faults.begin(DatabaseFault::Failing { scope: Scope::All, per_mille: 1_000 });
        let mut codes = Vec::new();
        for token in 2..22 {
            match insert(writer.clone(), token).await {
                Err(DatabaseError::Sqlite { source, .. }) => codes.extend(source.sqlite_error_code()),
                other => panic!("{other:?}"),
            }
        }
        for code in [rusqlite::ErrorCode::CannotOpen, rusqlite::ErrorCode::SystemIoFailure] {
            assert!(codes.contains(&code), "{codes:?}");
        }
        assert_eq!((codes.len() as u64, here.committed()), (failing.hits(), Vec::new()));
        drop(failing);
        insert(writer, 2).await.unwrap();
    });
}

#[test]
fn failing_handlers_fail_at_reading_rows_and_at_nothing_else() {
    here(|here| async move {
        let failing = here.faults.begin(DatabaseFault::Failing { scope: Scope::Updates, per_mille: 1_000 });
        let writer = here.writer().await;
        insert(writer.clone(), 2).await.unwrap();
        assert!(read(writer).await.is_err());
        assert_eq!(failing.hits(), 1);
    });
}

#[test]
fn a_lost_acknowledgement_is_error_first_or_after_the_commit_that_stands() {
    here(|here| async move {
        let writer = here.writer().await;
        let losing = here.faults.begin(DatabaseFault::LostAcknowledgement { per_mille: 1_000 });
        let mut had_committed = Vec::new();
        for token in 2..22 {
            let lost = insert(writer.clone(), token).await;
            assert!(matches!(lost, Err(DatabaseError::ConnectionLost { transaction: "insert" })), "{lost:?}");
            had_committed.push(here.committed().contains(&token));
        }
        assert!(had_committed.contains(&true) && had_committed.contains(&false), "{had_committed:?}");
        tokio::time::sleep(SECOND).await;
        let mut committed = here.committed();
        committed.sort_unstable();
        assert_eq!(committed, (2..22).collect::<Vec<_>>());
        assert_eq!(here.rare(), vec![RareEnd::AcknowledgementLost { instance: instance() }; 20]);
        assert_eq!(losing.hits(), 20);
    });
}

#[test]
fn ids_stay_outstanding_until_the_transaction_whose_end_is_unknown_has_ended() {
    here(|here| async move {
        let writer = here.writer().await;
        let generator = generator(writer.clone()).await;
        for _ in 0..10 {
            let allocation = generator.allocate(1).await.unwrap();
            let id = allocation.ids()[0];
            let _losing = here.faults.begin(DatabaseFault::LostAcknowledgement { per_mille: 1_000 });
            let insert = move |tx: &rusqlite::Transaction<'_>| {
                let token = allocation.ids()[0];
                let events = [(token, EventRow::message(format!("$event{token}"), "!room"))];
                persist(tx, &instance(), &events, &[])
            };
            assert!(writer.transaction("insert", insert).await.is_err());
            let has_committed = here.committed().contains(&id.0);
            assert_eq!(generator.current_token() >= id, has_committed);
            tokio::time::sleep(SECOND).await;
            assert_eq!((generator.current_token(), here.committed().last()), (id, Some(&id.0)));
        }
    });
}

#[test]
fn rows_that_come_late_are_told_of_and_refused_once_their_host_is_back() {
    here(|here| async move {
        let first = here.boot(1);
        let writer = session(&first).await;
        let slow = here.faults.begin(DatabaseFault::SlowWriter { delay_ms: 1_000..=1_000, rollback_per_mille: 0 });
        let late = tokio::task::spawn_local(insert(writer.clone(), 2));
        tokio::time::sleep(SECOND / 2).await;
        let too_late = tokio::task::spawn_local(insert(writer, 3));
        tokio::time::sleep(SECOND / 4).await;
        drop(slow);
        first.silence();
        late.abort();
        too_late.abort();
        tokio::time::sleep(SECOND / 2).await;
        assert_eq!(here.rare(), [RareEnd::LateCommit { instance: instance() }]);
        session(&here.boot(2)).await;
        tokio::time::sleep(SECOND).await;
        assert_eq!(here.committed(), [2]);
        assert_eq!(here.rare()[1..], [RareEnd::Fenced { instance: instance() }]);
    });
}

#[test]
fn trouble_leaves_the_fates_of_other_transactions_as_they_were() {
    let ends = |with: Option<DatabaseFault>| {
        let ends = Rc::new(RefCell::new(Vec::new()));
        let ends_here = ends.clone();
        here(|here| async move {
            let handle = here.database.handle(SeedTree::from_seed(7), DatabaseTiming::default(), here.faults.clone());
            let writer = session(&handle).await;
            for token in 2..22 {
                let trouble = (token == 5).then(|| with.clone().map(|trouble| here.faults.begin(trouble)));
                let began = Instant::now();
                let _ = insert(writer.clone(), token).await;
                drop(trouble);
                if token != 5 {
                    ends_here.borrow_mut().push(began.elapsed());
                }
            }
        });
        ends.take()
    };
    for trouble in [
        DatabaseFault::SlowWriter { delay_ms: 1..=1_000, rollback_per_mille: 500 },
        DatabaseFault::Slow { extra_ms: 1..=1_000 },
        DatabaseFault::Failing { scope: Scope::All, per_mille: 1_000 },
        DatabaseFault::LostAcknowledgement { per_mille: 1_000 },
    ] {
        assert_eq!(ends(Some(trouble)), ends(None));
    }
}
