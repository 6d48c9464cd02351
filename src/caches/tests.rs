//! Which rows make which values stale, and that they do so before the position moves.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::{Value, json};

use super::*;
use crate::protocol::{InstanceName, Token};
use crate::store::account_data::Datum;
use crate::store::memory::MemoryBackend;
use crate::store::{IdGenerator, IdGeneratorOptions, NewEvent, StateDelta};
use crate::streams::{
    self, AccountDataRow, CachesRow, DatabaseStream, Json, Keeper, Keepers, ReceiptsRow, Row, Stream,
};

/// Remembers the caches that were not known.
#[derive(Default)]
struct Unknown(RefCell<Vec<String>>);

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

/// Everything that is read in these tests.
const ALL: [&str; 7] =
    ["state a", "state b", "event", "receipts a", "account data x", "room account data x a", "room account data x b"];

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

impl World {
    fn new() -> Self {
        let (backend, unknown) = (MemoryBackend::open(), Rc::new(Unknown::default()));
        let caches = Caches::new(backend.database(), unknown.clone());
        World { backend, unknown, caches }
    }

    /// The same world with everything read once.
    async fn filled() -> Self {
        let world = World::new();
        for what in ALL {
            world.version(what).await;
        }
        assert_eq!(world.kept(), ALL);
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

    /// What is kept of what was read.
    fn kept(&self) -> Vec<&'static str> {
        let Caches { state, events, receipts, account_data, room_account_data, .. } = &*self.caches;
        let is_kept = |what: &&str| match *what {
            "state a" => state.has(&"!a".into()),
            "state b" => state.has(&"!b".into()),
            "event" => events.has(&"$e".into()),
            "receipts a" => receipts.has(&"!a".into()),
            "account data x" => account_data.has(&"@x".into()),
            "room account data x a" => room_account_data.has(&("@x".into(), "!a".into())),
            "room account data x b" => room_account_data.has(&("@x".into(), "!b".into())),
            other => panic!("{other}"),
        };
        ALL.into_iter().filter(is_kept).collect()
    }

    /// What is no longer kept after `row`.
    async fn dropped_by(row: Row) -> Vec<&'static str> {
        let world = World::filled().await;
        world.caches.take(Token(9), &row);
        let kept = world.kept();
        ALL.into_iter().filter(|what| !kept.contains(what)).collect()
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
fn a_row_makes_stale_what_it_changes_and_nothing_else() {
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
fn an_invalidation_is_of_a_key_of_a_part_of_one_or_of_a_whole_cache() {
    run(async {
        let dropped = async |cache, keys| World::dropped_by(invalidation(cache, keys)).await;
        assert_eq!(dropped("cs_cache_fake", Some(json!(["!a", "@x", "@y"]))).await, ["state a"]);
        assert_eq!(dropped("cs_cache_fake", None).await, ["state a", "state b"]);
        assert_eq!(dropped("get_event", Some(json!(["$e"]))).await, ["event"]);
        assert_eq!(dropped("get_event", Some(json!([7]))).await, ["event"], "a key that is not understood is all keys");
        let for_room = "get_account_data_for_room";
        assert_eq!(dropped(for_room, Some(json!(["@x", "!b"]))).await, ["room account data x b"]);
        let both = ["room account data x a", "room account data x b"];
        assert_eq!(dropped(for_room, Some(json!(["@x"]))).await, both);
        assert_eq!(dropped(for_room, Some(json!(["@y"]))).await, [] as [&str; 0]);
    });
}

#[test]
fn a_cache_of_another_version_is_reported_and_harms_nothing() {
    run(async {
        let world = World::filled().await;
        world.caches.take(Token(9), &invalidation("get_weather", None));
        assert_eq!(world.kept(), ALL);
        assert_eq!(*world.unknown.0.borrow(), ["get_weather"]);
    });
}

#[test]
fn doubt_about_a_stream_makes_stale_all_that_its_rows_could() {
    run(async {
        let left = async |stream| {
            let world = World::filled().await;
            world.caches.doubt(stream);
            world.kept()
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
                let outlier = NewEvent { outlier: true, ..NewEvent::message("$e", "!a") };
                let delta = |state_key: &str, event_id: Option<&str>| StateDelta {
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
        world.caches.doubt("caches");
        let versions = [Some(4), None, Some(2), Some(5), Some(7), None, Some(8)].map(|token| token.map(Token));
        for (what, version) in ALL.into_iter().zip(versions) {
            assert_eq!(world.version(what).await, version, "{what}");
        }
        // A removed entry is not of the state but of its version.
        assert_eq!(world.caches.current_state("!a").await.unwrap().value.len(), 1);
        assert!(world.caches.event("$e").await.unwrap().value.as_ref().unwrap().outlier);

        world.write(|tx| events::mark_ex_outlier(tx, &"writer".into(), Token(9), "$e").map(drop)).await;
        assert_eq!(world.version("event").await, Some(Token(2)), "kept until the row comes");
        world.caches.doubt("events");
        assert_eq!(world.version("event").await, Some(Token(9)));
        assert!(!world.caches.event("$e").await.unwrap().value.as_ref().unwrap().outlier);
    });
}

/// Notes where the stream stood when it was told something.
struct Spy {
    ids: Rc<IdGenerator>,
    told: RefCell<Vec<(String, Token)>>,
}

impl Spy {
    fn note(&self, what: String) {
        self.told.borrow_mut().push((what, self.ids.current_token_for_writer(&"writer".into())));
    }
}

impl Keeper for Spy {
    fn take(&self, token: Token, row: &Row) {
        self.note(format!("{token}: {}", row.to_json()));
    }

    fn doubt(&self, stream: &str) {
        self.note(format!("doubt {stream}"));
    }
}

/// The ids of account data as `instance` has them, and a spy among its keepers.
async fn spied(backend: &Rc<MemoryBackend>, instance: &str) -> (Rc<IdGenerator>, Keepers, Rc<Spy>) {
    let options = IdGeneratorOptions {
        stream: streams::account_data::NAME.into(),
        instance: instance.into(),
        writers: vec!["writer".into()],
        sequence: streams::account_data::SOURCE.sequence,
        tables: streams::account_data::SOURCE.tables,
        poke: Default::default(),
    };
    let ids = IdGenerator::load(backend.database(), options).await.unwrap();
    let (keepers, spy) = (Keepers::default(), Rc::new(Spy { ids: ids.clone(), told: RefCell::default() }));
    keepers.register(spy.clone());
    (ids, keepers, spy)
}

fn row(kind: &str) -> Row {
    Row::AccountData(AccountDataRow { user_id: "@x".into(), room_id: None, kind: kind.into() })
}

#[test]
fn a_follower_takes_rows_before_its_position_moves() {
    run(async {
        let backend = MemoryBackend::open();
        let (ids, keepers, spy) = spied(&backend, "worker").await;
        let stream = DatabaseStream::new(streams::account_data::SOURCE, ids, backend.database(), keepers);
        let (writer, before) = (InstanceName::from("writer"), stream.position(&"writer".into()));
        stream.take(&writer, Token(9), &[row("a"), row("b")]);
        assert!(spy.told.borrow().iter().all(|(_, position)| *position == before));
        assert_eq!((spy.told.borrow().len(), stream.position(&writer)), (2, before));
        stream.advance_by_row(&writer, Token(9));
        assert_eq!(stream.position(&writer), Token(9));
    });
}
