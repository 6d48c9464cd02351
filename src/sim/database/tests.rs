//! The course of a transaction in the simulated database, and the reports of its effects.

use std::future::Future;
use std::sync::Arc;

use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::store::events::{mark_ex_outlier, persist};
use crate::store::{Database, IdGenerator, IdGeneratorOptions};
use squall_protocol::rows::events::{EventRow, StateRow};
use squall_protocol::{InstanceName, Token};

type Committed = Rc<RefCell<Vec<CommittedRow>>>;

/// A tap that keeps the committed rows.
struct Diary(Committed);

impl DatabaseTap for Diary {
    fn committed(&self, row: CommittedRow) {
        self.0.borrow_mut().push(row);
    }
}

/// Runs `test` with a database of its own and the rows that it reports.
fn in_world<F: Future<Output = ()>>(test: impl FnOnce(SimDatabase, Committed) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let committed = Committed::default();
        let (database, run) = SimDatabase::open(Rc::new(Diary(committed.clone()))).unwrap();
        tokio::task::spawn_local(run);
        test(database, committed).await;
    });
}

/// Returns a handle whose transactions take 10 ms to commit and 20 ms to be answered.
fn handle(database: &SimDatabase, boot: u64) -> SimDatabaseHandle {
    let timing = DatabaseTiming { before_us: 10_000..=10_000, after_us: 20_000..=20_000, rollback_per_mille: 0 };
    database.handle(SeedTree::from_seed(7).child(boot), timing, Rc::default())
}

async fn session(handle: &SimDatabaseHandle) -> Database {
    Database::new(Rc::new(handle.clone())).begin_session(&"writer".into()).await.unwrap()
}

fn event(event_id: &str) -> EventRow {
    EventRow {
        event_id: event_id.into(),
        room_id: "!room".into(),
        kind: "m.room.member".into(),
        state_key: Some("@user".into()),
        redacts: None,
        relates_to: None,
        membership: Some("join".into()),
        rejected: false,
        outlier: false,
    }
}

async fn insert(database: Database, token: i64) -> Result<(), DatabaseError> {
    let events = [(Token(token), event(&format!("$event{token}")))];
    database.transaction("insert", move |tx| persist(tx, &"writer".into(), &events, &[])).await
}

fn tokens(committed: &Committed) -> Vec<i64> {
    committed.borrow().iter().map(|row| row.token.0).collect()
}

#[test]
fn a_transaction_takes_effect_before_its_caller_knows() {
    in_world(|database, committed| async move {
        let writer = session(&handle(&database, 1)).await;
        let began = Instant::now();
        let inserting = tokio::task::spawn_local(insert(writer, 2));
        tokio::time::sleep(Duration::from_millis(9)).await;
        assert!(committed.borrow().is_empty());
        tokio::time::sleep(Duration::from_millis(3)).await;
        assert_eq!(tokens(&committed), [2]);
        inserting.await.unwrap().unwrap();
        assert!(began.elapsed() >= Duration::from_millis(30));
    });
}

#[test]
fn a_transaction_of_a_dead_host_still_commits() {
    in_world(|database, committed| async move {
        let handle = handle(&database, 1);
        let inserting = tokio::task::spawn_local(insert(session(&handle).await, 2));
        tokio::time::sleep(Duration::from_millis(5)).await;
        handle.silence();
        inserting.abort();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(tokens(&committed), [2]);
    });
}

#[test]
fn a_transaction_of_a_dead_host_does_not_commit_once_the_host_is_back() {
    in_world(|database, committed| async move {
        let slow = DatabaseTiming { before_us: 500_000..=500_000, ..DatabaseTiming::default() };
        let slow = database.handle(SeedTree::from_seed(7), slow, Rc::default());
        let late = tokio::task::spawn_local(insert(session(&slow).await, 2));
        tokio::time::sleep(Duration::from_millis(5)).await;
        slow.silence();
        let back = session(&handle(&database, 2)).await;
        insert(back, 3).await.unwrap();
        let fenced = late.await.unwrap();
        assert!(matches!(fenced, Err(DatabaseError::Fenced { boot: 1, .. })), "{fenced:?}");
        assert_eq!(tokens(&committed), [3]);
    });
}

#[test]
fn a_gagged_host_can_ask_for_nothing() {
    in_world(|database, committed| async move {
        let handle = handle(&database, 1);
        let writer = session(&handle).await;
        handle.silence();
        assert!(matches!(insert(writer, 2).await, Err(DatabaseError::Closed)));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(committed.borrow().is_empty());
    });
}

#[test]
fn a_transaction_that_fails_to_serialize_runs_again_and_takes_effect_once() {
    in_world(|database, committed| async move {
        let timing = DatabaseTiming { rollback_per_mille: 1_000, ..DatabaseTiming::default() };
        let handle = database.handle(SeedTree::from_seed(7), timing, Rc::default());
        let runs = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = runs.clone();
        let writer = session(&handle).await;
        assert_eq!(writer.session().map(|session| session.boot), Some(1));
        let events = [(Token(2), event("$a"))];
        let insert = move |tx: &rusqlite::Transaction<'_>| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            persist(tx, &"writer".into(), &events, &[])
        };
        writer.transaction("insert", insert).await.unwrap();
        assert_eq!(runs.load(std::sync::atomic::Ordering::Relaxed), 2);
        assert_eq!(handle.rolled_back(), 3, "with the two that began the session");
        assert_eq!(tokens(&committed), [2]);
    });
}

#[test]
fn the_witness_is_silent_on_what_was_rolled_back() {
    in_world(|database, committed| async move {
        let writer = session(&handle(&database, 1)).await;
        insert(writer.clone(), 2).await.unwrap();
        // The third event is the first again, so the whole transaction fails.
        let events = [(Token(3), event("$b")), (Token(4), event("$event2"))];
        let failed = writer.transaction("insert", move |tx| persist(tx, &"writer".into(), &events, &[])).await;
        assert!(matches!(failed, Err(DatabaseError::Sqlite { transaction: "insert", .. })), "{failed:?}");
        insert(writer, 5).await.unwrap();
        assert_eq!(tokens(&committed), [2, 5]);
    });
}

#[test]
fn the_witness_tells_each_row_as_it_stands_on_the_wire() {
    in_world(|database, committed| async move {
        let writer = session(&handle(&database, 1)).await;
        let persisting = |tx: &rusqlite::Transaction<'_>| {
            let outlier = EventRow { outlier: true, state_key: None, membership: None, ..event("$outlier") };
            let events = [(Token(3), event("$join")), (Token(2), outlier), (Token(-4), event("$backfilled"))];
            let delta = StateRow {
                room_id: "!room".into(),
                kind: "m.room.member".into(),
                state_key: "@user".into(),
                event_id: None,
            };
            persist(tx, &"writer".into(), &events, &[(Token(3), delta)])
        };
        writer.transaction("persist", persisting).await.unwrap();
        let mark =
            |tx: &rusqlite::Transaction<'_>| mark_ex_outlier(tx, &"writer".into(), Token(4), "$outlier").map(drop);
        writer.transaction("mark", mark).await.unwrap();
        let kind = "m.room.member";
        let expected = [
            (2, json!(["ev", ["$outlier", "!room", kind, null, null, null, null, false, true]])),
            (3, json!(["ev", ["$join", "!room", kind, "@user", null, null, "join", false, false]])),
            (3, json!(["state", ["!room", kind, "@user", null]])),
            (4, json!(["ev", ["$outlier", "!room", kind, null, null, null, null, false, false]])),
        ];
        let expected = expected.map(|(token, row)| CommittedRow {
            stream: "events".into(),
            writer: "writer".into(),
            token: Token(token),
            row,
        });
        assert_eq!(*committed.borrow(), expected);
    });
}

#[test]
fn the_same_chance_gives_every_transaction_the_same_fate() {
    let fates = |seed| {
        let mut ends = Vec::new();
        in_world(|database, _| {
            let ends = &mut ends;
            async move {
                let handle = database.handle(SeedTree::from_seed(seed), DatabaseTiming::default(), Rc::default());
                let writer = session(&handle).await;
                let began = Instant::now();
                for token in 2..12 {
                    insert(writer.clone(), token).await.unwrap();
                    ends.push(began.elapsed());
                }
            }
        });
        ends
    };
    assert_eq!(fates(7), fates(7));
    assert_ne!(fates(7), fates(8));
}

async fn generator(database: Database) -> Rc<IdGenerator> {
    let writer = InstanceName::from("writer");
    let options = IdGeneratorOptions {
        stream: "events".into(),
        instance: writer.clone(),
        writers: vec![writer],
        sequence: "events_stream_seq",
        tables: &[("events", "stream_ordering")],
        shares_database: true,
        poke: Arc::default(),
    };
    IdGenerator::load(database, options).await.unwrap()
}

#[test]
fn an_allocation_cancelled_at_any_moment_leaves_nothing_outstanding() {
    in_world(|database, _| async move {
        let generator = generator(session(&handle(&database, 1)).await).await;
        for wait_ms in [0, 5, 15, 25, 40] {
            let allocating = generator.clone();
            let allocating = tokio::task::spawn_local(async move { allocating.allocate(2).await.map(drop) });
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            allocating.abort();
            let _ = allocating.await;
            let allocation = generator.allocate(1).await.unwrap();
            let id = allocation.ids()[0];
            assert!(generator.current_token() < id);
            drop(allocation);
            assert_eq!(generator.current_token(), id, "cancelled after {wait_ms} ms");
        }
    });
}

#[test]
fn ids_moved_into_a_transaction_stay_outstanding_when_its_caller_is_gone() {
    in_world(|database, committed| async move {
        let writer = session(&handle(&database, 1)).await;
        let generator = generator(writer.clone()).await;
        let allocation = generator.allocate(1).await.unwrap();
        let writing = tokio::task::spawn_local(async move {
            let insert = move |tx: &rusqlite::Transaction<'_>| {
                let events = [(allocation.ids()[0], event("$a"))];
                persist(tx, &"writer".into(), &events, &[])
            };
            writer.transaction("insert", insert).await
        });
        tokio::time::sleep(Duration::from_millis(5)).await;
        writing.abort();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!((tokens(&committed).len(), generator.current_token()), (0, Token(1)));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!((tokens(&committed), generator.current_token()), (vec![2], Token(2)));
    });
}
