//! The rows that invalidate each cached value, and their order with the position.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::{Value, json};

use super::*;
use crate::limits::CACHED_MAX;
use crate::store::account_data;
use crate::store::account_data::Datum;
use crate::store::memory::MemoryBackend;
use crate::store::{IdGenerator, IdGeneratorOptions};
use crate::streams::{CacheView, CacheViews, DatabaseStream, Stream};
use squall_env::TaskObserver;
use squall_protocol::rows::events::{EventRow, StateRow};
use squall_protocol::rows::{self, AccountDataRow, CachesRow, Json, ReceiptsRow, Row};
use squall_protocol::{InstanceName, Token};

/// Records the unknown caches.
#[derive(Default)]
struct Unknown(RefCell<Vec<String>>);

impl TaskObserver for Unknown {}

impl Observer for Unknown {
    fn unknown_cache(&self, name: &str) {
        self.0.borrow_mut().push(name.to_owned());
    }
}

struct World {
    backend: Rc<MemoryBackend>,
    unknown: Rc<Unknown>,
    caches: Rc<Caches>,
}

/// All values that are read in these tests.
const ALL: [&str; 7] =
    ["state a", "state b", "event", "receipts a", "account data x", "room account data x a", "room account data x b"];

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

impl World {
    fn new() -> Self {
        let (backend, unknown) = (MemoryBackend::open(), Rc::new(Unknown::default()));
        let caches = Caches::new(backend.database(), CACHED_MAX, unknown.clone());
        World { backend, unknown, caches }
    }

    /// Creates a world in which every value was read once.
    async fn filled() -> Self {
        let world = World::new();
        for what in ALL {
            world.version(what).await;
        }
        assert_eq!(world.cached(), ALL);
        world
    }

    async fn version(&self, what: &str) -> Option<Token> {
        let caches = &self.caches;
        match what {
            "state a" => caches.current_state("!a").await.unwrap().version,
            "state b" => caches.current_state("!b").await.unwrap().version,
            "event" => caches.event("$e").await.unwrap().version,
            "receipts a" => caches.receipts("!a").await.unwrap().version,
            "account data x" => caches.account_data("@x").await.unwrap().version,
            "room account data x a" => caches.room_account_data("@x", "!a").await.unwrap().version,
            "room account data x b" => caches.room_account_data("@x", "!b").await.unwrap().version,
            other => panic!("{other}"),
        }
    }

    /// Returns the values that are cached.
    fn cached(&self) -> Vec<&'static str> {
        let Caches { state, events, receipts, account_data, room_account_data, .. } = &*self.caches;
        let is_cached = |what: &&str| match *what {
            "state a" => state.contains(&"!a".into()),
            "state b" => state.contains(&"!b".into()),
            "event" => events.contains(&"$e".into()),
            "receipts a" => receipts.contains(&"!a".into()),
            "account data x" => account_data.contains(&"@x".into()),
            "room account data x a" => room_account_data.contains(&("@x".into(), "!a".into())),
            "room account data x b" => room_account_data.contains(&("@x".into(), "!b".into())),
            other => panic!("{other}"),
        };
        ALL.into_iter().filter(is_cached).collect()
    }

    /// Returns the values that `row` drops from the caches.
    async fn dropped_by(row: Row) -> Vec<&'static str> {
        let world = World::filled().await;
        world.caches.apply(Token(9), &row);
        let cached = world.cached();
        ALL.into_iter().filter(|what| !cached.contains(what)).collect()
    }

    async fn write(&self, write: impl Fn(&Transaction<'_>) -> rusqlite::Result<()> + Send + 'static) {
        self.backend.database().transaction("write", move |tx| write(tx)).await.unwrap();
    }
}

fn invalidation(cache: &str, keys: Option<Value>) -> Row {
    Row::Caches(CachesRow { cache: cache.into(), keys: keys.map(Json), invalidated_ms: None })
}

fn receipt(room_id: &str) -> ReceiptsRow {
    ReceiptsRow {
        room_id: room_id.into(),
        kind: "m.read".into(),
        user_id: "@x".into(),
        event_id: "$e".into(),
        thread_id: None,
        data: Json(json!({})),
    }
}

fn parsed(stream: &str, row: Value) -> Row {
    Row::parse(&stream.into(), row).unwrap()
}

#[test]
fn a_row_invalidates_the_values_it_changes_and_no_other() {
    run(async {
        let event = json!(["ev", ["$e", "!a", "m.room.message", null, null, null, null, false, false]]);
        assert_eq!(World::dropped_by(parsed("events", event)).await, ["event"]);
        let state = json!(["state", ["!a", "m.room.topic", "", "$e"]]);
        assert_eq!(World::dropped_by(parsed("events", state)).await, ["state a"]);
        assert_eq!(World::dropped_by(parsed("events", json!(["state-all", ["!b"]]))).await, ["state b"]);
        assert_eq!(World::dropped_by(Row::Receipts(receipt("!a"))).await, ["receipts a"]);
        let of_account = json!(["@x", null, "m.direct"]);
        assert_eq!(World::dropped_by(parsed("account_data", of_account)).await, ["account data x"]);
        let of_room = json!(["@x", "!a", "m.tag"]);
        assert_eq!(World::dropped_by(parsed("account_data", of_room)).await, ["room account data x a"]);
        assert_eq!(World::dropped_by(parsed("to_device", json!(["@x"]))).await, [] as [&str; 0]);
    });
}

#[test]
fn an_invalidation_is_for_a_key_or_a_part_of_one_or_a_whole_cache() {
    run(async {
        let dropped = async |cache, keys| World::dropped_by(invalidation(cache, keys)).await;
        assert_eq!(dropped("cs_cache_fake", Some(json!(["!a", "@x", "@y"]))).await, ["state a"]);
        assert_eq!(dropped("cs_cache_fake", None).await, ["state a", "state b"]);
        assert_eq!(dropped("get_event", Some(json!(["$e"]))).await, ["event"]);
        assert_eq!(
            dropped("get_event", Some(json!([7]))).await,
            ["event"],
            "a key of unknown shape stands for all keys"
        );
        let for_room = "get_account_data_for_room";
        assert_eq!(dropped(for_room, Some(json!(["@x", "!b"]))).await, ["room account data x b"]);
        let both = ["room account data x a", "room account data x b"];
        assert_eq!(dropped(for_room, Some(json!(["@x"]))).await, both);
        assert_eq!(dropped(for_room, Some(json!(["@y"]))).await, [] as [&str; 0]);
    });
}

#[test]
fn a_cache_of_another_version_is_reported_and_changes_no_value() {
    run(async {
        let world = World::filled().await;
        world.caches.apply(Token(9), &invalidation("get_weather", None));
        assert_eq!(world.cached(), ALL);
        assert_eq!(*world.unknown.0.borrow(), ["get_weather"]);
    });
}

#[test]
fn invalidating_a_stream_drops_all_values_that_its_rows_could_change() {
    run(async {
        let left = async |stream| {
            let world = World::filled().await;
            world.caches.invalidate_stream(stream);
            world.cached()
        };
        assert_eq!(left("events").await, ALL[3..]);
        assert_eq!(left("receipts").await.len(), ALL.len() - 1);
        assert_eq!(left("account_data").await, ALL[..4]);
        assert_eq!(left("presence").await, ALL);
        assert_eq!(left("caches").await, [] as [&str; 0]);
    });
}

#[test]
fn a_value_has_the_highest_token_it_reflects() {
    run(async {
        let world = World::new();
        for what in ALL {
            assert_eq!(world.version(what).await, None, "{what}");
        }
        world
            .write(|tx| {
                let writer = InstanceName::from("writer");
                let outlier = EventRow { outlier: true, ..EventRow::message("$e", "!a") };
                let delta = |state_key: &str, event_id: Option<&str>| StateRow {
                    room_id: "!a".into(),
                    kind: "m.room.member".into(),
                    state_key: state_key.into(),
                    event_id: event_id.map(str::to_owned),
                };
                let deltas = [(Token(3), delta("@x", Some("$e"))), (Token(4), delta("@y", None))];
                events::persist(tx, &writer, &[(Token(2), outlier)], &deltas)?;
                receipts::insert(tx, &writer, Token(5), &receipt("!a"))?;
                for (token, room_id, kind) in [(6, None, "a"), (7, None, "b"), (8, Some("!b"), "a")] {
                    let room_id = room_id.map(str::to_owned);
                    let datum = Datum { user_id: "@x".into(), room_id, kind: kind.into(), content: json!(token) };
                    account_data::set(tx, &writer, Token(token), &datum)?;
                }
                Ok(())
            })
            .await;
        world.caches.invalidate_stream("caches");
        let versions = [Some(4), None, Some(2), Some(5), Some(7), None, Some(8)].map(|token| token.map(Token));
        for (what, version) in ALL.into_iter().zip(versions) {
            assert_eq!(world.version(what).await, version, "{what}");
        }
        // A removed entry counts for the version, but is not part of the state.
        assert_eq!(world.caches.current_state("!a").await.unwrap().value.len(), 1);
        assert!(world.caches.event("$e").await.unwrap().value.as_ref().unwrap().outlier);

        world.write(|tx| events::mark_ex_outlier(tx, &"writer".into(), Token(9), "$e").map(drop)).await;
        assert_eq!(world.version("event").await, Some(Token(2)), "cached until the row arrives");
        world.caches.invalidate_stream("events");
        assert_eq!(world.version("event").await, Some(Token(9)));
        assert!(!world.caches.event("$e").await.unwrap().value.as_ref().unwrap().outlier);
    });
}

/// Records each call with the position of the stream at that time.
struct Spy {
    ids: Rc<IdGenerator>,
    calls: RefCell<Vec<(String, Token)>>,
}

impl Spy {
    fn record(&self, what: String) {
        self.calls.borrow_mut().push((what, self.ids.current_token_for_writer(&"writer".into())));
    }
}

impl CacheView for Spy {
    fn apply(&self, token: Token, row: &Row) {
        self.record(format!("{token}: {}", row.to_json()));
    }

    fn invalidate_stream(&self, stream: &str) {
        self.record(format!("invalidate {stream}"));
    }
}

/// Returns the ids of account data on `instance`, its cache views, and a spy among them.
async fn spied(backend: &Rc<MemoryBackend>, instance: &str) -> (Rc<IdGenerator>, CacheViews, Rc<Spy>) {
    let options = IdGeneratorOptions {
        stream: rows::account_data::NAME.into(),
        instance: instance.into(),
        writers: vec!["writer".into()],
        sequence: account_data::SOURCE.sequence,
        tables: account_data::SOURCE.tables,
        shares_database: true,
        poke: Default::default(),
    };
    let ids = IdGenerator::load(backend.database(), options).await.unwrap();
    let (cache_views, spy) = (CacheViews::default(), Rc::new(Spy { ids: ids.clone(), calls: RefCell::default() }));
    cache_views.register(&spy);
    (ids, cache_views, spy)
}

fn row(kind: &str) -> Row {
    Row::AccountData(AccountDataRow { user_id: "@x".into(), room_id: None, kind: kind.into() })
}

#[test]
fn a_follower_applies_rows_before_its_position_moves() {
    run(async {
        let backend = MemoryBackend::open();
        let (ids, cache_views, spy) = spied(&backend, "worker").await;
        let stream = DatabaseStream::new(account_data::SOURCE, ids, backend.database(), cache_views);
        let writer = InstanceName::from("writer");
        let before = stream.position(&writer);
        stream.apply(&writer, Token(9), &[row("a"), row("b")]);
        assert!(spy.calls.borrow().iter().all(|(_, position)| *position == before));
        assert_eq!((spy.calls.borrow().len(), stream.position(&writer)), (2, before));
        stream.advance_by_row(&writer, Token(9));
        assert_eq!(stream.position(&writer), Token(9));
    });
}
