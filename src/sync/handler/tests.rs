//! The answers of a worker that follows two writers, whose positions and rows arrive as each test chooses.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use rusqlite::Transaction;

use super::*;
use crate::store::SOURCES;
use crate::store::memory::MemoryBackend;
use crate::store::to_device::Message;
use crate::store::{IdGeneratorOptions, events as stored_events, to_device as inbox};
use crate::tasks;
use squall_env::network::TokioNetwork;
use squall_env::{Noop, SeedTree, SystemClock, TaskSpawner};
use squall_protocol::rows::TypingRow;
use squall_protocol::rows::events::EventRow;
use squall_protocol::{InstanceName, Token, VectorPosition};

/// A worker, and the database that it shares with the writers.
struct Worker {
    sync: Rc<SyncHandler>,
    database: Database,
    ids: BTreeMap<String, Rc<IdGenerator>>,
    typing: Rc<TypingHandler>,
    notifier: Rc<Notifier>,
    env: Env,
}

fn on_worker<F: Future<Output = ()>>(test: impl FnOnce(Rc<Worker>) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let env = Env {
            network: Rc::new(TokioNetwork), // nothing here connects to anything
            clock: Rc::new(SystemClock),
            seeds: SeedTree::from_seed(7),
            observer: Rc::new(Noop),
            tasks: TaskSpawner::new(Rc::new(Noop)),
        };
        let database = MemoryBackend::open().database();
        let options = SOURCES.map(|source| IdGeneratorOptions {
            stream: source.name.into(),
            instance: "worker".into(),
            writers: vec!["a".into(), "b".into()],
            sequence: source.sequence,
            tables: source.tables,
            shares_database: true,
            poke: Arc::default(),
        });
        let ids = IdGenerator::load_all(database.clone(), options.into()).await.unwrap();
        let instances = crate::store::instance_map::load(&database, vec!["a".into(), "b".into()]).await.unwrap();
        let (typing, notifier) = (Rc::new(TypingHandler::default()), Rc::new(Notifier::default()));
        let sync = SyncHandler::new(database.clone(), instances, &ids, typing.clone(), notifier.clone(), env.clone());
        let ids = ids.into_iter().map(|ids| (ids.stream().to_string(), ids)).collect();
        test(Rc::new(Worker { sync: Rc::new(sync), database, ids, typing, notifier, env })).await;
    });
}

impl Worker {
    /// `writer` commits an event, which this worker has not received yet.
    async fn commits(&self, writer: &str, token: i64) {
        let name = InstanceName::from(writer);
        let event = EventRow::message(format!("${writer}{token}"), "!room");
        let persist = move |tx: &Transaction<'_>| {
            tx.execute("UPDATE sequences SET last_value = MAX(last_value, ?1)", [token])?;
            stored_events::persist(tx, &name, &[(Token(token), event.clone())], &[])
        };
        self.database.transaction("persist", persist).await.unwrap();
    }

    async fn sends_to_device(&self, token: i64) {
        let add = move |tx: &Transaction<'_>| {
            tx.execute("UPDATE sequences SET last_value = MAX(last_value, ?1)", [token])?;
            let message_id = format!("message{token}");
            let (user_id, device_id) = ("@user".into(), "DEVICE".into());
            let message = Message { user_id, device_id, message_id, content: serde_json::Value::Null };
            inbox::add(tx, &"a".into(), Token(token), &[message])
        };
        self.database.transaction("send_to_device", add).await.unwrap();
    }

    /// This worker receives the position of `writer`.
    fn receives(&self, stream: &str, writer: &str, token: i64) {
        self.ids[stream].advance(&writer.into(), Token(token));
        self.notifier.notify();
    }

    /// This worker receives the positions of both writers.
    fn receives_from_both(&self, stream: &str, token: i64) {
        for writer in ["a", "b"] {
            self.receives(stream, writer, token);
        }
    }

    async fn sync(&self, since: Option<&str>, timeout: Duration) -> SyncResponse {
        self.sync.sync("@user", "DEVICE", since, timeout).await.unwrap()
    }

    /// Syncs without waiting, and returns the events and the next token.
    async fn sync_now(&self, since: &str) -> (Vec<String>, String) {
        let response = self.sync(Some(since), Duration::ZERO).await;
        (events_of(&response), response.next_batch)
    }

    /// Returns the first token of a client.
    async fn begin(&self) -> String {
        self.sync(None, Duration::ZERO).await.next_batch
    }
}

fn events_of(response: &SyncResponse) -> Vec<String> {
    response.news.events.iter().map(|(_, event)| event.event_id.clone()).collect()
}

fn messages_of(response: &SyncResponse) -> Vec<i64> {
    response.news.to_device.iter().map(|(token, _)| token.0).collect()
}

#[test]
fn a_first_sync_has_no_history_but_the_waiting_messages() {
    on_worker(|worker| async move {
        worker.commits("a", 2).await;
        worker.sends_to_device(3).await;
        worker.receives_from_both("events", 2);
        worker.receives_from_both("to_device", 3);
        let response = worker.sync(None, Duration::from_secs(30)).await;
        assert_eq!((events_of(&response), messages_of(&response)), (vec![], vec![3]));
    });
}

#[test]
fn a_slow_writer_does_not_hold_back_the_rows_of_another() {
    on_worker(|worker| async move {
        let since = worker.begin().await;
        worker.commits("a", 3).await;
        worker.receives("events", "a", 3);
        let (events, next) = worker.sync_now(&since).await;
        assert_eq!(events, ["$a3"]);
        assert!(next.starts_with("m1~1.3_"), "{next}");
        // A lower row of the slow writer is new all the same, and no row comes twice.
        worker.commits("b", 2).await;
        worker.receives("events", "b", 2);
        let (events, next) = worker.sync_now(&next).await;
        assert_eq!(events, ["$b2"]);
        assert_eq!(worker.sync_now(&next).await, (vec![], next.clone()));
    });
}

#[test]
fn a_committed_row_above_the_position_waits_for_the_position() {
    on_worker(|worker| async move {
        let since = worker.begin().await;
        worker.commits("a", 2).await;
        assert_eq!(worker.sync_now(&since).await, (vec![], since.clone()));
    });
}

#[test]
fn a_client_that_comes_from_a_faster_worker_waits_until_this_one_has_caught_up() {
    on_worker(|worker| async move {
        let since = worker.begin().await;
        worker.commits("a", 2).await;
        worker.commits("a", 3).await;
        let ahead = since.replacen("s1", "m1~1.2", 1);
        let slow = Rc::clone(&worker);
        worker.env.tasks.spawn(tasks::OPERATION, async move {
            tokio::time::sleep(Duration::from_secs(4)).await;
            slow.receives("events", "a", 3);
        });
        let begun_at = Instant::now();
        let (events, next) = worker.sync_now(&ahead).await;
        assert_eq!((events, begun_at.elapsed()), (vec!["$a3".to_owned()], Duration::from_secs(4)));
        assert!(next.starts_with("m1~1.3_"), "{next}");
    });
}

#[test]
fn a_client_whose_wait_times_out_gets_an_empty_answer_and_keeps_its_token() {
    on_worker(|worker| async move {
        worker.commits("a", 9).await;
        let since = worker.begin().await.replacen("s1", "m1~1.9", 1);
        let begun_at = Instant::now();
        assert_eq!(worker.sync_now(&since).await, (vec![], since.clone()));
        assert_eq!(begun_at.elapsed(), SINCE_WAIT_MAX);
    });
}

#[test]
fn a_stream_that_stays_behind_does_not_hold_back_the_others() {
    on_worker(|worker| async move {
        worker.commits("a", 9).await;
        let since = worker.begin().await.replacen("s1", "m1~1.9", 1);
        worker.sends_to_device(2).await;
        worker.commits("b", 3).await;
        worker.receives_from_both("to_device", 2);
        worker.receives("events", "b", 3);
        let begun_at = Instant::now();
        let answer = worker.sync(Some(&since), Duration::from_secs(30)).await;
        assert_eq!((events_of(&answer), messages_of(&answer)), (vec!["$b3".to_owned()], vec![2]));
        assert_eq!(begun_at.elapsed(), SINCE_WAIT_MAX);
        assert!(answer.next_batch.starts_with("m1~1.9~2.3_"), "{}", answer.next_batch);
        // Once it arrives, that row is returned too.
        worker.receives("events", "a", 9);
        assert_eq!(worker.sync_now(&since).await.0, ["$b3"]);
        assert_eq!(worker.sync_now(&since.replacen("m1~1.9", "s1", 1)).await.0, ["$b3", "$a9"]);
    });
}

#[test]
fn a_token_from_the_future_is_served_from_the_last_id_there_is() {
    on_worker(|worker| async move {
        worker.commits("a", 5).await;
        worker.receives_from_both("events", 5);
        let since = worker.begin().await;
        let future = since.replacen("s5", "m70~2.90", 1);
        assert_eq!(worker.sync_now(&future).await, (vec![], since));
    });
}

#[test]
fn only_new_rows_end_the_wait_before_its_time_out() {
    on_worker(|worker| async move {
        let since = worker.begin().await;
        let writing = Rc::clone(&worker);
        worker.env.tasks.spawn(tasks::OPERATION, async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            writing.receives("events", "a", 2); // only the position
            tokio::time::sleep(Duration::from_secs(4)).await;
            writing.commits("a", 3).await;
            writing.receives("events", "a", 3);
        });
        let begun_at = Instant::now();
        let response = worker.sync(Some(&since), Duration::from_secs(30)).await;
        assert_eq!((events_of(&response), begun_at.elapsed()), (vec!["$a3".to_owned()], Duration::from_secs(7)));
        let begun_at = Instant::now();
        let response = worker.sync(Some(&response.next_batch), Duration::from_secs(30)).await;
        assert!(response.news.is_empty());
        assert_eq!(begun_at.elapsed(), Duration::from_secs(30));
    });
}

#[test]
fn an_instance_that_stops_answers_its_waiting_clients() {
    on_worker(|worker| async move {
        let since = worker.begin().await;
        let stopping = Rc::clone(&worker);
        worker.env.tasks.spawn(tasks::OPERATION, async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            stopping.env.tasks.stop();
            stopping.notifier.notify();
        });
        let begun_at = Instant::now();
        assert_eq!(worker.sync(Some(&since), Duration::from_secs(30)).await.next_batch, since);
        assert_eq!(begun_at.elapsed(), Duration::from_secs(2));
    });
}

#[test]
fn messages_stay_until_the_device_sends_a_token_past_them() {
    on_worker(|worker| async move {
        let first = worker.begin().await;
        worker.sends_to_device(2).await;
        worker.receives_from_both("to_device", 2);
        let answer = worker.sync(Some(&first), Duration::ZERO).await;
        assert_eq!(messages_of(&answer), [2]);
        // That answer never arrived.
        let answer = worker.sync(Some(&first), Duration::ZERO).await;
        assert_eq!(messages_of(&answer), [2]);
        assert_eq!(messages_of(&worker.sync(Some(&answer.next_batch), Duration::ZERO).await), [0i64; 0]);
        let left =
            |tx: &Transaction<'_>| tx.query_row("SELECT COUNT(*) FROM device_inbox", (), |row| row.get::<_, i64>(0));
        assert_eq!(worker.database.transaction("count", left).await.unwrap(), 0);
    });
}

#[test]
fn typing_is_returned_as_it_changes_and_whole_after_a_reset() {
    on_worker(|worker| async move {
        let first = worker.sync(None, Duration::ZERO).await;
        assert!(first.news.typing.is_all, "a first sync returns all rooms");
        let types = |token, users: &[&str]| {
            let user_ids = users.iter().map(|user| user.to_string()).collect();
            worker.typing.apply(Token(token), &TypingRow { room_id: "!room".into(), user_ids });
            worker.typing.advance(Token(token));
        };
        types(1, &["@x"]);
        let answer = worker.sync(Some(&first.next_batch), Duration::ZERO).await;
        assert_eq!((answer.news.typing.is_all, answer.news.typing.rooms.len()), (false, 1));
        let quiet = worker.sync(Some(&answer.next_batch), Duration::ZERO).await;
        assert!(quiet.news.is_empty() && quiet.next_batch == answer.next_batch);
        // A new run that has reached the number of the old one: the number alone would not distinguish them.
        worker.typing.reset();
        types(1, &[]);
        let anew = worker.sync(Some(&answer.next_batch), Duration::ZERO).await;
        assert!(anew.news.typing.is_all);
        assert!(anew.news.typing.rooms.iter().all(|row| row.user_ids.is_empty()));
    });
}

#[test]
fn typing_is_returned_as_it_changes_in_any_run_of_the_writer() {
    on_worker(|worker| async move {
        let begins = |serial: i64, room: &str| {
            let token = Token(Token::beginning_of(3).0 + serial);
            worker.typing.apply(token, &TypingRow { room_id: room.into(), user_ids: vec!["@x".into()] });
            worker.typing.advance(token);
        };
        begins(1, "!one");
        let first = worker.sync(None, Duration::ZERO).await;
        begins(2, "!other");
        let answer = worker.sync(Some(&first.next_batch), Duration::ZERO).await;
        let rooms: Vec<_> = answer.news.typing.rooms.iter().map(|row| row.room_id.as_str()).collect();
        assert_eq!((answer.news.typing.is_all, &rooms[..]), (false, &["!other"][..]));
    });
}

#[test]
fn a_token_that_cannot_be_parsed_is_answered_with_an_error() {
    on_worker(|worker| async move {
        let error = worker.sync.sync("@user", "DEVICE", Some("m5~9.7"), Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, SyncError::Token(_)), "{error}");
    });
}

#[test]
fn no_position_goes_back_behind_the_clients_token() {
    on_worker(|worker| async move {
        worker.commits("a", 9).await;
        worker.receives_from_both("events", 4);
        worker.receives("events", "a", 9);
        let since = SyncToken { events: VectorPosition::new(Token(2), BTreeMap::new()), ..worker.sync.now() };
        let since = since.render(&worker.sync.instances);
        let (events, next) = worker.sync_now(&since).await;
        assert_eq!(events, ["$a9"]);
        assert!(next.starts_with("m4~1.9_"), "{next}");
    });
}
