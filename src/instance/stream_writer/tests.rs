//! What has to hold between a transaction, the tokens it uses, and what is kept in memory.

use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::env::network::TokioNetwork;
use crate::env::{Chance, LocalBoxFuture, Scope, Silent, SystemClock};
use crate::store::account_data::{Datum, set};
use crate::store::database::{Backend, Job};
use crate::store::memory::MemoryBackend;
use crate::store::{DatabaseError, IdGeneratorOptions};
use crate::streams::{AccountDataRow, Keeper, SOURCES, account_data, caches};

/// A database that does what it is asked and then does not say so.
struct Unacknowledged(Rc<MemoryBackend>);

impl Backend for Unacknowledged {
    fn run(&self, job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>> {
        let run = self.0.run(job);
        Box::pin(async move { run.await.and(Err(DatabaseError::Closed)) })
    }
}

/// A database to which the connection is lost at once, and that does what it is asked a second later.
struct Lost(Rc<MemoryBackend>);

impl Backend for Lost {
    fn run(&self, job: Job) -> LocalBoxFuture<'static, Result<(), DatabaseError>> {
        let (database, transaction) = (self.0.clone(), job.name);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            database.run(job).await
        });
        Box::pin(std::future::ready(Err(DatabaseError::ConnectionLost { transaction })))
    }
}

/// Writes down what keepers are told, and where the writer stood at that time.
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

impl Keeper for Diary {
    fn take(&self, token: Token, row: &Row) {
        self.write(&format!("{} {token}", row.stream()));
    }

    fn doubt(&self, stream: &str) {
        self.write(&format!("doubt {stream}"));
    }
}

/// The writers of account data and caches on one instance.
struct Instance {
    account_data: Rc<StreamWriter>,
    caches: Rc<StreamWriter>,
    diary: Rc<Diary>,
}

/// Runs `test` on an instance that is alone. It reads through `database` and writes through `writes`.
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
            chance: Chance::from_seed(7),
            observer: Rc::new(Silent),
            tasks: Scope::new(Rc::new(Silent)),
        };
        let name = InstanceName::from("me");
        let session = database.database().begin_session(&name).await.unwrap();
        let options = [account_data::SOURCE, caches::SOURCE].map(|source| IdGeneratorOptions {
            stream: source.name.into(),
            instance: name.clone(),
            writers: vec![name.clone()],
            sequence: source.sequence,
            tables: source.tables,
            poke: Arc::default(),
        });
        let ids = IdGenerator::load_all(session, options.into()).await.unwrap();
        let keepers = Keepers::default();
        let diary = Rc::new(Diary { ids: ids[0].clone(), entries: RefCell::default() });
        keepers.register(diary.clone());
        let writes = Database::new(writes);
        let writer = |n: usize| StreamWriter::new(ids[n].clone(), writes.clone(), keepers.clone(), env.clone());
        test(Instance { account_data: writer(0), caches: writer(1), diary }).await;
    });
}

fn set_one(tx: &Transaction<'_>, token: Token) -> rusqlite::Result<Written<Token>> {
    let (user_id, kind) = ("@user".to_owned(), "type".to_owned());
    set(
        tx,
        &"me".into(),
        token,
        &Datum { user_id: user_id.clone(), room_id: None, kind: kind.clone(), content: Value::Null },
    )?;
    let row = Row::AccountData(AccountDataRow { user_id, room_id: None, kind });
    Ok(Written { rows: vec![(token, row)], reply: token })
}

#[test]
fn what_is_kept_in_memory_learns_of_a_row_before_the_position_reaches_it() {
    let database = MemoryBackend::open();
    on_instance(&database, database.clone(), |Instance { account_data, diary, .. }| async move {
        let persisted = account_data.persist("set", 1, |tx, tokens| set_one(tx, tokens[0])).await.unwrap();
        assert_eq!(persisted, Token(2));
        assert_eq!(*diary.entries.borrow(), ["account_data 2 at 1"]);
        assert_eq!(diary.ids.current_token_for_writer(&"me".into()), Token(2));
    });
}

#[test]
fn nothing_is_believed_after_a_transaction_of_which_nobody_knows_what_became() {
    let database = MemoryBackend::open();
    let writes = Rc::new(Unacknowledged(database.clone()));
    on_instance(&database, writes, |Instance { account_data, caches, diary }| async move {
        let parts = vec![(account_data, 1), (caches, 2)];
        let failed = persist_together("set", parts, |tx, tokens| set_one(tx, tokens[0][0])).await;
        assert!(matches!(failed, Err(PersistError::Database(DatabaseError::Closed))));
        assert_eq!(*diary.entries.borrow(), ["doubt account_data at 1", "doubt caches at 1"]);
        // It took effect, and the position passes it.
        assert_eq!(diary.ids.current_token_for_writer(&"me".into()), Token(2));
    });
}

#[test]
fn what_is_kept_is_doubted_no_sooner_than_the_rows_are_there() {
    let database = MemoryBackend::open();
    let writes = Rc::new(Lost(database.clone()));
    on_instance(&database.clone(), writes, |Instance { account_data, diary, .. }| async move {
        let ids = Rc::clone(&diary.ids);
        let reading = {
            let (database, diary) = (database.clone(), Rc::clone(&diary));
            async move {
                // Whoever reads and keeps it before the rows are there is told to forget it afterwards.
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
        assert_eq!(*diary.entries.borrow(), ["0 rows at 1", "doubt account_data at 1"]);
        assert_eq!(ids.current_token_for_writer(&"me".into()), Token(2));
    });
}

#[test]
fn a_caller_who_goes_away_leaves_no_token_in_flight() {
    let database = MemoryBackend::open();
    on_instance(&database, database.clone(), |Instance { account_data, diary, .. }| async move {
        for polls in 0..4 {
            let mut asked = Box::pin(account_data.persist("set", 1, |tx, tokens| set_one(tx, tokens[0])));
            for _ in 0..polls {
                let _ = tokio::time::timeout(Duration::ZERO, &mut asked).await;
            }
            drop(asked);
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
