//! The order of a transaction, the release of its tokens, and the update of views in memory.

use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::store::account_data::{Datum, set};
use crate::store::database::{Backend, Job};
use crate::store::memory::MemoryBackend;
use crate::store::{DatabaseError, IdGeneratorOptions, SOURCES, account_data, caches};
use crate::streams::CacheView;
use squall_env::network::TokioNetwork;
use squall_env::{LocalBoxFuture, Noop, SeedTree, SystemClock, TaskSpawner};
use squall_protocol::rows::AccountDataRow;

/// A database that commits and then does not acknowledge it.
struct Unacknowledged(Rc<MemoryBackend>);

impl Backend for Unacknowledged {
    fn run(&self, job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>> {
        let run = self.0.run(job);
        Box::pin(async move { run.await.and(Err(DatabaseError::Closed)) })
    }
}

/// A database that loses the connection at once, and commits a second later.
struct Lost(Rc<MemoryBackend>);

impl Backend for Lost {
    fn run(&self, job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>> {
        let database = self.0.clone();
        let transaction = job.name;
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            database.run(job).await
        });
        Box::pin(std::future::ready(Err(DatabaseError::ConnectionLost { transaction })))
    }
}

/// A database that answers transactions called `slow` a second after it has committed them.
struct Slow(Rc<MemoryBackend>);

impl Backend for Slow {
    fn run(&self, job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>> {
        let is_slow = job.name == "slow";
        let run = self.0.run(job);
        Box::pin(async move {
            let committed = run.await;
            if is_slow {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            committed
        })
    }
}

/// A cache view that records each call, with the writer's position at that time.
struct Diary {
    ids: Rc<IdGenerator>,
    entries: RefCell<Vec<String>>,
}

impl Diary {
    fn write(&self, what: &str) {
        let position = self.ids.current_token_for_writer(self.ids.instance());
        self.entries.borrow_mut().push(format!("{what} at {position}"));
    }
}

impl CacheView for Diary {
    fn apply(&self, token: Token, row: &Row) {
        self.write(&format!("{} {token}", row.stream()));
    }

    fn invalidate_stream(&self, stream: &str) {
        self.write(&format!("invalidate {stream}"));
    }
}

/// The writers of account data and caches on one instance.
struct Instance {
    account_data: Rc<StreamWriter>,
    caches: Rc<StreamWriter>,
    diary: Rc<Diary>,
}

/// Runs `test` on an instance without peers. It reads through `database` and writes through `writes`.
fn on_instance<F: Future<Output = ()>>(
    database: &Rc<MemoryBackend>,
    writes: Rc<dyn Backend>,
    test: impl FnOnce(Instance) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let env = Env {
            network: Rc::new(TokioNetwork), // nothing here connects to anything
            clock: Rc::new(SystemClock),
            seeds: SeedTree::from_seed(7),
            observer: Rc::new(Noop),
            tasks: TaskSpawner::new(Rc::new(Noop)),
        };
        let name = InstanceName::from("me");
        let session = database.database().begin_session(&name).await.unwrap();
        let options = [account_data::SOURCE, caches::SOURCE].map(|source| IdGeneratorOptions {
            stream: source.name.into(),
            instance: name.clone(),
            writers: vec![name.clone()],
            sequence: source.sequence,
            tables: source.tables,
            shares_database: true,
            poke: Arc::default(),
        });
        let ids = IdGenerator::load_all(session, options.into()).await.unwrap();
        let cache_views = CacheViews::default();
        let diary = Rc::new(Diary { ids: ids[0].clone(), entries: RefCell::default() });
        cache_views.register(&diary);
        let writes = Database::new(writes);
        let writer = |n: usize| StreamWriter::new(ids[n].clone(), writes.clone(), cache_views.clone(), env.clone());
        test(Instance { account_data: writer(0), caches: writer(1), diary }).await;
    });
}

fn set_one(tx: &Transaction<'_>, token: Token) -> rusqlite::Result<Written<Token>> {
    let user_id = "@user".to_owned();
    let kind = "type".to_owned();
    set(
        tx,
        &"me".into(),
        token,
        &Datum { user_id: user_id.clone(), room_id: None, kind: kind.clone(), content: Value::Null },
    )?;
    let row = Row::AccountData(AccountDataRow { user_id, room_id: None, kind });
    Ok(Written::new(vec![(token, row)], token))
}

#[test]
fn views_in_memory_apply_a_row_before_the_position_reaches_it() {
    let database = MemoryBackend::open();
    on_instance(&database, database.clone(), |Instance { account_data, diary, .. }| async move {
        let persisted = account_data.persist("set", 1, |tx, tokens| set_one(tx, tokens[0])).await.unwrap();
        assert_eq!(persisted, Token(2));
        assert_eq!(*diary.entries.borrow(), ["account_data 2 at 1"]);
        assert_eq!(diary.ids.current_token_for_writer(&"me".into()), Token(2));
    });
}

#[test]
fn views_are_invalidated_after_a_transaction_with_an_unknown_result() {
    let database = MemoryBackend::open();
    let writes = Rc::new(Unacknowledged(database.clone()));
    on_instance(&database, writes, |Instance { account_data, caches, diary }| async move {
        let parts = vec![(account_data, 1), (caches, 2)];
        let failed = persist_together("set", parts, |tx, tokens| set_one(tx, tokens[0][0])).await;
        assert!(matches!(failed, Err(PersistError::Database(DatabaseError::Closed))));
        assert_eq!(*diary.entries.borrow(), ["invalidate account_data at 1", "invalidate caches at 1"]);
        // It took effect, and the position passes it.
        assert_eq!(diary.ids.current_token_for_writer(&"me".into()), Token(2));
    });
}

#[test]
fn views_are_invalidated_only_after_the_rows_are_committed() {
    let database = MemoryBackend::open();
    let writes = Rc::new(Lost(database.clone()));
    on_instance(&database.clone(), writes, |Instance { account_data, diary, .. }| async move {
        let ids = Rc::clone(&diary.ids);
        let reading = {
            let database = database.clone();
            let diary = Rc::clone(&diary);
            async move {
                // A view that reads before the rows are committed is invalidated afterwards.
                tokio::time::sleep(Duration::from_millis(500)).await;
                let count =
                    |tx: &Transaction<'_>| tx.query_row("SELECT COUNT(*) FROM account_data", (), |row| row.get(0));
                let rows: i64 = database.database().transaction("read", count).await.unwrap();
                diary.write(&format!("{rows} rows"));
            }
        };
        let persisting = account_data.persist("set", 1, |tx, tokens| set_one(tx, tokens[0]));
        let (failed, ()) = tokio::join!(persisting, reading);
        assert!(matches!(failed, Err(PersistError::Database(DatabaseError::ConnectionLost { transaction: "set" }))));
        assert_eq!(*diary.entries.borrow(), ["0 rows at 1", "invalidate account_data at 1"]);
        assert_eq!(ids.current_token_for_writer(&"me".into()), Token(2));
    });
}

#[test]
fn a_refusal_lasts_until_the_database_has_allocated_enough() {
    let database = MemoryBackend::open();
    on_instance(&database.clone(), database.clone(), |Instance { account_data, diary, .. }| async move {
        let write = |count| account_data.persist("set", count, |tx, tokens| set_one(tx, *tokens.last().unwrap()));
        diary.ids.advance(&"other".into(), Token(50));
        for _ in 0..2 {
            let refused = write(30).await;
            let is_foreign = matches!(
                &refused,
                Err(PersistError::Allocate(AllocateError::ForeignDatabase { heard: Token(50), .. }))
            );
            assert!(is_foreign && account_data.refusal().is_some(), "{refused:?}");
        }
        assert_eq!(write(1).await.unwrap(), Token(62), "60 were allocated in vain");
        assert_eq!(account_data.refusal(), None);
    });
}

#[test]
fn a_database_that_fails_does_not_end_a_refusal() {
    let database = MemoryBackend::open();
    on_instance(&database.clone(), database.clone(), |Instance { account_data, diary, .. }| async move {
        let write = || account_data.persist("set", 1, |tx, tokens| set_one(tx, tokens[0]));
        diary.ids.advance(&"other".into(), Token(50));
        assert!(write().await.is_err());
        database.database().begin_session(&"me".into()).await.unwrap();
        let fenced = write().await;
        assert!(matches!(fenced, Err(PersistError::Allocate(AllocateError::Database(_)))), "{fenced:?}");
        assert!(account_data.refusal().is_some());
    });
}

#[test]
fn a_write_that_an_earlier_one_stands_for_is_answered_once_that_one_is_shown() {
    let database = MemoryBackend::open();
    on_instance(&database.clone(), Rc::new(Slow(database)), |Instance { account_data, diary, .. }| async move {
        let first = account_data.persist("slow", 1, |tx, tokens| set_one(tx, tokens[0]));
        let repeated = async {
            let earlier = account_data
                .persist("set", 1, |_, _| Ok(Written { rows: Vec::new(), reply: Token(2), earlier: vec![Token(2)] }));
            assert_eq!(earlier.await.unwrap(), Token(2));
            diary.write("repeated");
        };
        let other = async {
            account_data.persist("set", 1, |tx, tokens| set_one(tx, tokens[0])).await.unwrap();
            diary.write("other");
        };
        let (first, (), ()) = tokio::join!(first, repeated, other);
        assert_eq!(first.unwrap(), Token(2));
        // A write that nothing else stands for waits for no other one.
        let expected = ["account_data 4 at 1", "other at 1", "account_data 2 at 1", "repeated at 4"];
        assert_eq!(*diary.entries.borrow(), expected);
    });
}

#[test]
fn a_cancelled_caller_leaves_no_token_in_flight() {
    let database = MemoryBackend::open();
    on_instance(&database, database.clone(), |Instance { account_data, diary, .. }| async move {
        for polls in 0..4 {
            let mut persisting = Box::pin(account_data.persist("set", 1, |tx, tokens| set_one(tx, tokens[0])));
            for _ in 0..polls {
                let _ = tokio::time::timeout(Duration::ZERO, &mut persisting).await;
            }
            drop(persisting);
            account_data.idle().await;
        }
        assert_eq!(account_data.in_flight.get(), 0);
        let persisted = account_data.persist("set", 1, |tx, tokens| set_one(tx, tokens[0])).await.unwrap();
        assert_eq!(diary.ids.current_token_for_writer(&"me".into()), persisted);
    });
}

#[test]
fn every_stream_in_the_database_has_a_sequence_of_its_own() {
    let mut sequences: Vec<_> = SOURCES.iter().map(|source| source.sequence).collect();
    sequences.sort_unstable();
    sequences.dedup();
    assert_eq!(sequences.len(), SOURCES.len());
}
