use std::collections::{BTreeSet, VecDeque};

use super::super::testing::{EPOCH_MS, Written, on_paused_clock, seconds};
use super::*;
use squall_protocol::{Command, Role, SIGNS_OF_LIFE};

/// An instance that serves syncs, and its connection to the presence writer.
struct Worker {
    syncs: Rc<UserSyncs>,
    connection: Rc<Connection>,
    connections: u64,
    known: RefCell<BTreeSet<String>>,
}

impl Worker {
    async fn new(env: &Env) -> Self {
        let config = PresenceConfig { refresh_ms: 60_000, process_expiry_ms: 300_000, ..PresenceConfig::default() };
        let syncs = UserSyncs::new(None, &config, env.clone());
        let mut worker = Worker { syncs, connection: new_connection(0), connections: 0, known: RefCell::default() };
        worker.connect();
        // No user is syncing yet, so nothing is announced.
        tokio::time::sleep(Duration::from_millis(1)).await;
        worker
    }

    fn connect(&mut self) {
        self.connection.closed();
        self.connections += 1;
        self.connection = new_connection(self.connections);
        self.syncs.connected(&self.connection);
    }

    fn begin(&self, user_id: &str) -> Syncing {
        self.syncs.begin(user_id, Some("phone"))
    }

    /// Returns the announcements since the last call: user, start or end, and the seconds since the last sync.
    async fn announced(&self) -> Vec<String> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now_ms = self.syncs.now_ms();
        let in_words = |command| match command {
            Command::UserSync(sync) => {
                assert!(!sync.is_syncing || sync.instance_id == self.syncs.announcements.instance_id());
                let what = if sync.is_syncing { "start" } else { "end" };
                format!("{} {what} {}", sync.user_id, (now_ms - sync.last_sync_ms) / 1_000)
            }
            Command::ClearUserSync(id) => format!("clear {id}"),
            other => panic!("{other:?}"),
        };
        commands(&self.connection).await.into_iter().map(in_words).collect()
    }

    /// Returns the announcements since the last call, without users who are only announced again.
    async fn news(&self) -> Vec<String> {
        let mut announced = self.announced().await;
        let mut known = self.known.borrow_mut();
        announced.retain(|announcement| {
            let (user_id, what) = announcement.split_once(' ').unwrap();
            match what.starts_with("start") {
                true => known.insert(user_id.to_owned()),
                false => known.remove(user_id),
            }
        });
        announced
    }
}

fn new_connection(id: u64) -> Rc<Connection> {
    Rc::new(Connection::new(id, Role::Client, "writer", BTreeSet::from(["presence".into()])))
}

async fn commands(connection: &Connection) -> VecDeque<Command> {
    let lines = tokio::time::timeout(Duration::from_millis(1), connection.outgoing()).await;
    let lines = lines.ok().flatten().unwrap_or_default();
    lines.iter().map(|line| Command::parse(std::str::from_utf8(line).unwrap().trim_end()).unwrap()).collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn the_first_of_several_syncs_is_announced_and_the_end_once_no_sync_follows() {
    on_paused_clock(|env| async move {
        let worker = Worker::new(&env).await;
        let first = worker.begin("@a");
        let second = worker.begin("@a");
        assert_eq!(worker.news().await, ["@a start 0"]);
        drop(first);
        seconds(30).await;
        assert_eq!(worker.news().await, NOTHING);
        drop(second);
        seconds(5).await;
        let third = worker.begin("@a");
        seconds(3).await;
        drop(third);
        seconds(7).await;
        assert_eq!(worker.news().await, NOTHING, "the user may come back");
        seconds(10).await;
        assert_eq!(worker.news().await, ["@a end 17"], "with the time of the real end");
        let _again = worker.begin("@a");
        assert_eq!(worker.news().await, ["@a start 0"]);
    });
}

#[test]
fn each_device_is_counted_separately() {
    on_paused_clock(|env| async move {
        let worker = Worker::new(&env).await;
        let _phone = worker.syncs.begin("@a", Some("phone"));
        let _unknown = worker.syncs.begin("@a", None);
        // A device id that does not fit a line counts as unknown.
        let _invalid = worker.syncs.begin("@a", Some("a b\nPING"));
        assert_eq!(worker.announced().await, ["@a start 0", "@a start 0"]);
        let invalid = worker.syncs.begin("@no user", None);
        assert_eq!(worker.announced().await, NOTHING);
        drop(invalid);
        for _ in 0..3 {
            tokio::time::sleep(ANNOUNCE_INTERVAL).await;
            assert_eq!(worker.announced().await.len(), 1, "one user is announced every time");
        }
    });
}

#[test]
fn a_steady_sync_is_announced_again_and_again() {
    on_paused_clock(|env| async move {
        let worker = Worker::new(&env).await;
        let _steady = worker.begin("@a");
        assert_eq!(worker.announced().await, ["@a start 0"]);
        for _ in 0..100 {
            tokio::time::sleep(ANNOUNCE_INTERVAL).await;
            assert_eq!(worker.announced().await, ["@a start 0"]);
        }
    });
}

#[test]
fn of_many_users_some_are_announced_at_a_time_and_all_in_each_refresh_interval() {
    on_paused_clock(|env| async move {
        let worker = Worker::new(&env).await;
        let all: Vec<_> = (10..60).map(|n| worker.begin(&format!("@{n}"))).collect();
        let all_users: BTreeSet<_> = worker.announced().await.into_iter().collect();
        assert_eq!(all_users.len(), 50);
        for _ in 0..10 {
            let mut announced = Vec::new();
            for _ in 0..30 {
                tokio::time::sleep(ANNOUNCE_INTERVAL).await;
                let some = worker.announced().await;
                assert_eq!(some.len(), 2, "50 users in 30 parts");
                announced.extend(some);
            }
            assert_eq!(announced.into_iter().collect::<BTreeSet<_>>(), all_users);
        }
        drop(all);
        seconds(30).await;
        let ends = worker.announced().await.iter().filter(|announcement| announcement.contains("end")).count();
        assert_eq!(ends, 50);
        seconds(60).await;
        assert_eq!(worker.announced().await, NOTHING, "no user is left to be announced");
    });
}

#[test]
fn with_a_short_refresh_interval_all_users_are_announced_in_each() {
    on_paused_clock(|env| async move {
        let config = PresenceConfig { refresh_ms: 1_500, process_expiry_ms: 3_000, ..PresenceConfig::default() };
        let syncs = UserSyncs::new(None, &config, env.clone());
        let connection = new_connection(0);
        syncs.connected(&connection);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let _all: Vec<_> = (0..3).map(|n| syncs.begin(&format!("@{n}"), None)).collect();
        assert_eq!(commands(&connection).await.len(), 3);
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            assert_eq!(commands(&connection).await.len(), 3);
        }
    });
}

#[test]
fn a_new_connection_begins_with_clearing_the_old_id_and_announces_all_users() {
    on_paused_clock(|env| async move {
        let mut worker = Worker::new(&env).await;
        let _a = worker.begin("@a");
        let b = worker.begin("@b");
        let c = worker.begin("@c");
        let first = worker.syncs.announcements.instance_id();
        assert_eq!(worker.announced().await.len(), 3);
        worker.connection.closed();
        // Its end is not announced: the next connection covers it by announcing the users who still sync.
        drop(b);
        seconds(21).await;
        drop(c);
        let _d = worker.begin("@d");
        seconds(2).await;
        worker.connect();
        let second = worker.syncs.announcements.instance_id();
        assert_ne!(first, second);
        assert_eq!(worker.announced().await, ["@c end 2", &*format!("clear {first}"), "@a start 0", "@d start 0"]);
        let _again = worker.begin("@c");
        assert_eq!(worker.announced().await, ["@c start 0"]);

        // The presence writer may have been away when the first id was cleared, even if the connection was set up.
        worker.connection.caught_up(&"presence".into());
        worker.connect();
        assert_eq!(worker.announced().await[..2], [format!("clear {first}"), format!("clear {second}")]);
    });
}

/// Seed 1000399 of `storm`: the user was announced twice, once alone and once with all others.
#[test]
fn a_user_who_begins_to_sync_on_a_new_connection_is_announced_once() {
    on_paused_clock(|env| async move {
        let mut worker = Worker::new(&env).await;
        let _early = worker.begin("@early:a");
        worker.announced().await;
        worker.connect();
        let _late = worker.begin("@late:a");
        let announced = worker.announced().await;
        assert_eq!(announced[1..], ["@late:a start 0", "@early:a start 0"]);
        // Later it is announced again like every other.
        let mut again = Vec::new();
        for _ in 0..60 {
            seconds(1).await;
            again.extend(worker.announced().await);
        }
        assert!(
            again.contains(&"@early:a start 0".to_owned()) && again.contains(&"@late:a start 0".to_owned()),
            "{again:?}"
        );
    });
}

#[test]
fn ids_that_the_presence_writer_does_not_know_are_not_cleared() {
    on_paused_clock(|env| async move {
        let mut worker = Worker::new(&env).await;
        worker.connect();
        assert_eq!(worker.announced().await, NOTHING, "nothing was announced under the first one");
        let a = worker.begin("@a");
        worker.connect();
        assert_eq!(worker.announced().await.len(), 2, "one is cleared, and the user is announced");
        drop(a);
        seconds(299).await;
        worker.connect();
        let clears = worker.announced().await;
        assert_eq!(clears.len(), 2, "{clears:?}");
        seconds(2).await;
        worker.connect();
        assert_eq!(worker.announced().await, clears[1..], "the first one is forgotten");
    });
}

#[test]
fn many_users_are_announced_without_overfilling_the_outbox() {
    on_paused_clock(|env| async move {
        let mut worker = Worker::new(&env).await;
        worker.connection.closed();
        let _all: Vec<_> = (0..25_000).map(|n| worker.begin(&format!("@{n}"))).collect();
        worker.connect();
        worker.announced().await;
        let mut users = BTreeSet::new();
        loop {
            let commands = commands(&worker.connection).await;
            if commands.is_empty() {
                break;
            }
            assert!(commands.len() <= ANNOUNCED_AT_ONCE_MAX);
            users.extend(commands.into_iter().map(|command| command.to_line().unwrap()));
        }
        assert!(worker.connection.is_open());
        assert!(users.len() >= 25_000 - ANNOUNCED_AT_ONCE_MAX, "{}", users.len());
    });
}

#[test]
fn the_last_announcement_clears_the_id() {
    on_paused_clock(|env| async move {
        let worker = Worker::new(&env).await;
        let a = worker.begin("@a");
        worker.syncs.stop();
        let _b = worker.begin("@b");
        drop(a);
        seconds(200).await;
        let id = worker.syncs.announcements.instance_id();
        assert!(id.starts_with(SIGNS_OF_LIFE) && id.len() == SIGNS_OF_LIFE.len() + 5, "{id}");
        assert_eq!(worker.announced().await, ["@a start 200".to_owned(), format!("clear {id}")]);
    });
}

#[test]
fn at_the_stop_earlier_ids_are_cleared_again_where_the_connection_has_discarded_that() {
    for overflows in [false, true] {
        on_paused_clock(|env| async move {
            let worker = Worker::new(&env).await;
            let _a = worker.begin("@a");
            let first = worker.syncs.announcements.instance_id();
            worker.announced().await;
            worker.syncs.announcements.missed();
            let second = worker.syncs.announcements.instance_id();
            if overflows {
                for _ in 0..=COMMANDS_QUEUED_MAX {
                    worker.connection.send(&Command::Ping("1".into())).unwrap();
                }
            }
            worker.syncs.stop();
            let last: Vec<_> = commands(&worker.connection).await.into_iter().collect();
            let cleared = [first, second].map(Command::ClearUserSync);
            assert!(last.ends_with(&cleared) && last.len() == 2 + usize::from(overflows), "{last:?}");
        });
    }
}

#[test]
fn the_presence_writer_is_sent_the_syncs_of_its_own_instance() {
    on_paused_clock(|env| async move {
        let written = Written::new();
        let config = PresenceConfig { refresh_ms: 4_000, process_expiry_ms: 20_000, ..PresenceConfig::default() };
        let handler = PresenceHandler::on_writer(Vec::new(), written.clone(), &config, env.clone());
        let syncs = UserSyncs::new(Some(Rc::clone(&handler)), &config, env);
        let sync = syncs.begin("@a", None);
        seconds(50).await;
        assert!(handler.is_syncing("@a"));
        drop(sync);
        seconds(60).await;
        assert!(!handler.is_syncing("@a"));
        let states: Vec<_> = written.of("@a").iter().map(|(state, at)| (state.as_str(), *at)).collect();
        assert_eq!(states, [("online", 0), ("online", 60), ("offline", 80)]);
        assert!(handler.presence_of("@a").last_user_sync_ms <= EPOCH_MS + 50_010);
    });
}

#[test]
fn several_requests_are_answered_by_one_announcement_under_a_new_id() {
    on_paused_clock(|env| async move {
        let worker = Worker::new(&env).await;
        let _steady = worker.begin("@a");
        assert_eq!(worker.announced().await, ["@a start 0"]);
        let before = worker.syncs.announcements.instance_id();
        for _ in 0..3 {
            worker.syncs.announce_again();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(worker.announced().await, NOTHING, "other instances may ask too");
        seconds(1).await;
        assert_eq!(worker.announced().await, [format!("clear {before}"), "@a start 0".to_owned()]);
    });
}

#[test]
fn the_end_of_a_sync_is_announced_before_all_users_are_announced_anew() {
    on_paused_clock(|env| async move {
        let worker = Worker::new(&env).await;
        let _steady = worker.begin("@a");
        let b = worker.begin("@b");
        assert_eq!(worker.announced().await.len(), 2);
        drop(b);
        worker.syncs.announce_again();
        let c = worker.begin("@c");
        drop(c);
        assert_eq!(worker.announced().await, ["@b end 0", "@c start 0"]);
        let before = worker.syncs.announcements.instance_id();
        seconds(1).await;
        assert_eq!(worker.announced().await, ["@c end 1", &*format!("clear {before}"), "@a start 0"]);
        seconds(60).await;
        let announced = worker.announced().await;
        assert!(announced.iter().all(|announcement| announcement.starts_with("@a start")), "{announced:?}");
    });
}

#[test]
fn a_peer_that_asks_every_second_is_answered_every_ten() {
    on_paused_clock(|env| async move {
        let worker = Worker::new(&env).await;
        let _steady: Vec<_> = (0..1_000).map(|n| worker.begin(&format!("@{n}"))).collect();
        let mut cleared = Vec::new();
        for _ in 0..600 {
            worker.syncs.announce_again();
            seconds(1).await;
            let commands = commands(&worker.connection).await;
            cleared.push(commands.iter().filter(|command| matches!(command, Command::ClearUserSync(_))).count());
        }
        let times = cleared.iter().filter(|count| **count > 0).count();
        assert!((55..=61).contains(&times), "{times}");
        assert!(cleared.iter().all(|count| *count <= IDS_PER_EXPIRY as usize), "{cleared:?}");
    });
}
