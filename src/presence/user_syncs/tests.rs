use std::collections::{BTreeSet, VecDeque};

use super::super::testing::{EPOCH_MS, Written, on_paused_clock, seconds};
use super::*;
use crate::protocol::{Command, SIGNS_OF_LIFE};
use crate::replication::Side;

/// An instance that serves syncs, and its connection to the presence writer.
struct Worker {
    syncs: Rc<UserSyncs>,
    link: Rc<Link>,
    links: u64,
    announced: RefCell<BTreeSet<String>>,
}

impl Worker {
    async fn new(env: &Env) -> Self {
        let config = PresenceConfig { refresh_ms: 60_000, process_expiry_ms: 300_000 };
        let syncs = UserSyncs::new(None, &config, env.clone());
        let mut worker = Worker { syncs, link: new_link(0), links: 0, announced: RefCell::default() };
        worker.connect();
        // Nobody is there to be announced.
        tokio::time::sleep(Duration::from_millis(1)).await;
        worker
    }

    fn connect(&mut self) {
        self.link.closed();
        self.links += 1;
        self.link = new_link(self.links);
        self.syncs.connected(&self.link);
    }

    fn begin(&self, user_id: &str) -> Syncing {
        self.syncs.begin(user_id, Some("phone"))
    }

    /// What was said since the last time: user, start or end, and how many seconds ago that was.
    async fn said(&self) -> Vec<String> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now_ms = self.syncs.now_ms();
        let tell = |command| match command {
            Command::UserSync(sync) => {
                assert_eq!(sync.instance_id, self.syncs.announcements.instance_id());
                let what = if sync.is_syncing { "start" } else { "end" };
                format!("{} {what} {}", sync.user_id, (now_ms - sync.last_sync_ms) / 1_000)
            }
            Command::ClearUserSync(id) => format!("clear {id}"),
            other => panic!("{other:?}"),
        };
        commands(&self.link).await.into_iter().map(tell).collect()
    }

    /// The same without those who were announced before and are only announced again.
    async fn news(&self) -> Vec<String> {
        let mut said = self.said().await;
        let mut announced = self.announced.borrow_mut();
        said.retain(|said| {
            let (user_id, what) = said.split_once(' ').unwrap();
            match what.starts_with("start") {
                true => announced.insert(user_id.to_owned()),
                false => announced.remove(user_id),
            }
        });
        said
    }
}

fn new_link(id: u64) -> Rc<Link> {
    Rc::new(Link::new(id, Side::Client, "writer", BTreeSet::from(["presence".into()])))
}

async fn commands(link: &Link) -> VecDeque<Command> {
    let lines = tokio::time::timeout(Duration::from_millis(1), link.outgoing()).await;
    let lines = lines.ok().flatten().unwrap_or_default();
    lines.iter().map(|line| Command::parse(std::str::from_utf8(line).unwrap().trim_end()).unwrap()).collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn only_the_first_of_several_syncs_is_announced_and_their_end_once_nothing_follows() {
    on_paused_clock(|env| async move {
        let worker = Worker::new(&env).await;
        let (first, second) = (worker.begin("@a"), worker.begin("@a"));
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
        assert_eq!(worker.news().await, NOTHING, "it may come back");
        seconds(10).await;
        assert_eq!(worker.news().await, ["@a end 17"], "with when it really ended");
        let _again = worker.begin("@a");
        assert_eq!(worker.news().await, ["@a start 0"]);
    });
}

#[test]
fn devices_are_counted_each_for_itself() {
    on_paused_clock(|env| async move {
        let worker = Worker::new(&env).await;
        let _phone = worker.syncs.begin("@a", Some("phone"));
        let _unknown = worker.syncs.begin("@a", None);
        // A device id that no line can carry counts as unknown.
        let _strange = worker.syncs.begin("@a", Some("a b\nPING"));
        assert_eq!(worker.said().await, ["@a start 0", "@a start 0"]);
        let nobody = worker.syncs.begin("@no user", None);
        assert_eq!(worker.said().await, NOTHING);
        drop(nobody);
        for _ in 0..3 {
            tokio::time::sleep(TURN_INTERVAL).await;
            assert_eq!(worker.said().await.len(), 1, "it is somebody's turn every time");
        }
    });
}

#[test]
fn a_steady_sync_is_announced_again_and_again() {
    on_paused_clock(|env| async move {
        let worker = Worker::new(&env).await;
        let _steady = worker.begin("@a");
        assert_eq!(worker.said().await, ["@a start 0"]);
        for _ in 0..100 {
            tokio::time::sleep(TURN_INTERVAL).await;
            assert_eq!(worker.said().await, ["@a start 0"]);
        }
    });
}

#[test]
fn of_many_some_are_announced_at_a_time_and_everybody_in_each_refresh() {
    on_paused_clock(|env| async move {
        let worker = Worker::new(&env).await;
        let all: Vec<_> = (10..60).map(|n| worker.begin(&format!("@{n}"))).collect();
        let everybody: BTreeSet<_> = worker.said().await.into_iter().collect();
        assert_eq!(everybody.len(), 50);
        for _ in 0..10 {
            let mut said = Vec::new();
            for _ in 0..30 {
                tokio::time::sleep(TURN_INTERVAL).await;
                let some = worker.said().await;
                assert_eq!(some.len(), 2, "50 in 30 times");
                said.extend(some);
            }
            assert_eq!(said.into_iter().collect::<BTreeSet<_>>(), everybody);
        }
        drop(all);
        seconds(30).await;
        let ends = worker.said().await.iter().filter(|said| said.contains("end")).count();
        assert_eq!(ends, 50);
        seconds(60).await;
        assert_eq!(worker.said().await, NOTHING, "nobody is there to be announced");
    });
}

#[test]
fn whoever_repeats_more_often_than_a_sign_of_life_is_due_repeats_everybody() {
    on_paused_clock(|env| async move {
        let config = PresenceConfig { refresh_ms: 1_500, process_expiry_ms: 3_000 };
        let (syncs, link) = (UserSyncs::new(None, &config, env.clone()), new_link(0));
        syncs.connected(&link);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let _all: Vec<_> = (0..3).map(|n| syncs.begin(&format!("@{n}"), None)).collect();
        assert_eq!(commands(&link).await.len(), 3);
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            assert_eq!(commands(&link).await.len(), 3);
        }
    });
}

#[test]
fn a_new_connection_begins_with_clearing_the_old_id_and_has_everything() {
    on_paused_clock(|env| async move {
        let mut worker = Worker::new(&env).await;
        let (_a, b, c) = (worker.begin("@a"), worker.begin("@b"), worker.begin("@c"));
        let first = worker.syncs.announcements.instance_id();
        assert_eq!(worker.said().await.len(), 3);
        worker.link.closed();
        // Its end is said nowhere, for it is contained in what the next connection begins with.
        drop(b);
        seconds(21).await;
        drop(c);
        let _d = worker.begin("@d");
        seconds(2).await;
        worker.connect();
        let second = worker.syncs.announcements.instance_id();
        assert_ne!(first, second);
        assert_eq!(worker.said().await, [&*format!("clear {first}"), "@a start 0", "@c start 2", "@d start 0"]);

        // That connection was never set up: nobody knows whether the first id has been cleared.
        worker.connect();
        let said = worker.said().await;
        assert_eq!(said[..2], [format!("clear {first}"), format!("clear {second}")]);
        worker.link.caught_up(&"presence".into());
        let third = worker.syncs.announcements.instance_id();
        worker.connect();
        assert_eq!(worker.said().await[..2], [&*format!("clear {third}"), "@a start 0"]);
    });
}

#[test]
fn ids_that_the_writer_has_forgotten_by_itself_are_not_cleared() {
    on_paused_clock(|env| async move {
        let mut worker = Worker::new(&env).await;
        worker.connect();
        seconds(299).await;
        worker.connect();
        assert_eq!(worker.said().await.len(), 2);
        seconds(2).await;
        worker.connect();
        assert_eq!(worker.said().await.len(), 2, "the first one is forgotten");
    });
}

#[test]
fn many_users_are_announced_without_making_the_connection_too_slow() {
    on_paused_clock(|env| async move {
        let mut worker = Worker::new(&env).await;
        worker.link.closed();
        let _all: Vec<_> = (0..25_000).map(|n| worker.begin(&format!("@{n}"))).collect();
        worker.connect();
        worker.said().await;
        let mut users = BTreeSet::new();
        loop {
            let commands = commands(&worker.link).await;
            if commands.is_empty() {
                break;
            }
            assert!(commands.len() <= ANNOUNCED_AT_ONCE);
            users.extend(commands.into_iter().map(|command| command.to_line().unwrap()));
        }
        assert!(worker.link.is_open());
        assert!(users.len() >= 25_000 - ANNOUNCED_AT_ONCE, "{}", users.len());
    });
}

#[test]
fn the_last_word_is_that_nobody_is_served_any_more() {
    on_paused_clock(|env| async move {
        let worker = Worker::new(&env).await;
        let a = worker.begin("@a");
        worker.syncs.stop();
        let _b = worker.begin("@b");
        drop(a);
        seconds(200).await;
        let id = worker.syncs.announcements.instance_id();
        assert!(id.starts_with(SIGNS_OF_LIFE) && id.len() == SIGNS_OF_LIFE.len() + 5, "{id}");
        assert_eq!(worker.said().await, ["@a start 200".to_owned(), format!("clear {id}")]);
    });
}

#[test]
fn the_presence_writer_itself_hears_of_its_own_syncs() {
    on_paused_clock(|env| async move {
        let written = Written::new();
        let config = PresenceConfig { refresh_ms: 4_000, process_expiry_ms: 20_000 };
        let handler = PresenceHandler::on_writer(Vec::new(), written.clone(), config.process_expiry(), env.clone());
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
fn all_who_have_missed_something_are_told_at_once_and_under_a_new_id() {
    on_paused_clock(|env| async move {
        let worker = Worker::new(&env).await;
        let _steady = worker.begin("@a");
        assert_eq!(worker.said().await, ["@a start 0"]);
        let before = worker.syncs.announcements.instance_id();
        for _ in 0..3 {
            worker.syncs.say_again();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(worker.said().await, NOTHING, "others may ask too");
        seconds(1).await;
        assert_eq!(worker.said().await, [format!("clear {before}"), "@a start 0".to_owned()]);
    });
}
