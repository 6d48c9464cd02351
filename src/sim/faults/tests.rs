//! A fault counts only if it found something to disturb, and leaves nothing behind.

use std::future::Future;

use super::*;
use crate::env::Chance;
use crate::judge::Judge;
use crate::sim::database::SimDatabase;
use crate::sim::engine::{self, EngineName};
use crate::sim::plan::OperationKind;
use crate::sim::recorder::Recorder;
use crate::sim::testing::small_plan;
use crate::sim::topology;

const SECOND: Duration = Duration::from_secs(1);

/// Runs `test` in the world of the small plan, where everybody has been connected for a while.
fn in_world<F: Future<Output = ()>>(test: impl FnOnce(Rc<World>) -> F) {
    let plan = small_plan();
    let recorder = Recorder::new(Judge::new(topology(&plan)), None);
    let options = engine::Options {
        chance: Chance::from_seed(7),
        hosts: plan.topology.hosts().map(std::sync::Arc::from).collect(),
        latency: LatencyRange { min_us: 1_000, max_us: 5_000 },
        tap: recorder.clone(),
    };
    engine::simulate(EngineName::TurmoilNet, options, |engine| async move {
        recorder.start();
        let (database, transactions) = SimDatabase::open(Rc::new(())).unwrap();
        tokio::task::spawn_local(transactions);
        let world = World::new(engine, &plan, Chance::from_seed(7), database, recorder);
        world.start_all();
        tokio::time::sleep(2 * SECOND).await;
        test(world).await;
    });
}

/// Injects a fault in a storm that goes on for ten seconds.
async fn takes_effect(world: &Rc<World>, fault: Fault) -> bool {
    inject(Rc::clone(world), fault, Instant::now() + 10 * SECOND).await.unwrap()
}

fn partition(from: &str, to: &str, for_ms: u64) -> Fault {
    Fault::Partition { from: from.into(), to: to.into(), both: true, for_ms }
}

fn half_open(gone: &str, survivor: &str, for_ms: u64) -> Fault {
    Fault::HalfOpen { gone: gone.into(), survivor: survivor.into(), for_ms }
}

fn rolling_restart(hosts: &[&str], down_ms: u64, pause_ms: u64) -> Fault {
    Fault::RollingRestart { hosts: hosts.iter().map(|host| (*host).into()).collect(), down_ms, pause_ms }
}

fn freeze(host: &str, for_ms: u64) -> Fault {
    Fault::Freeze { host: host.into(), for_ms }
}

fn power_cut(host: &str, for_ms: u64) -> Fault {
    Fault::PowerCut { host: host.into(), for_ms }
}

#[test]
fn latency_counts_where_something_is_sent() {
    in_world(|world| async move {
        let slow = |from: &str, to: &str| {
            let (from, to) = (from.into(), to.into());
            Fault::Latency { from, to, min_us: 50_000, max_us: 60_000, for_ms: 6_000 }
        };
        assert!(takes_effect(&world, slow("writer1", "worker1")).await);
        assert!(!takes_effect(&world, slow("worker1", "worker2")).await);
    });
}

#[test]
fn a_cut_counts_where_a_connection_is_open() {
    in_world(|world| async move {
        let cut = |a: &str, b: &str| Fault::Cut { a: a.into(), b: b.into() };
        let before = world.engine().connections("worker1", "writer1");
        assert!(takes_effect(&world, cut("writer1", "worker1")).await);
        assert!(!world.engine().connections("worker1", "writer1").contains(&before[0]));
        assert!(!takes_effect(&world, cut("worker1", "worker2")).await);
    });
}

#[test]
fn a_flap_counts_in_the_direction_of_its_connections() {
    in_world(|world| async move {
        let flap = |client: &str, server: &str| {
            let (client, server) = (client.into(), server.into());
            Fault::Flap { client, server, after_ms: 50, for_ms: 2_000 }
        };
        assert!(takes_effect(&world, flap("worker1", "writer1")).await);
        assert!(!takes_effect(&world, flap("writer1", "worker1")).await);
    });
}

#[test]
fn a_partition_counts_where_it_held_something() {
    in_world(|world| async move {
        assert!(takes_effect(&world, partition("worker1", "writer1", 6_000)).await);
        assert!(!takes_effect(&world, partition("worker1", "worker2", 6_000)).await);
    });
}

#[test]
fn a_partition_is_over_when_the_storm_is() {
    in_world(|world| async move {
        let began = Instant::now();
        takes_effect(&world, partition("worker1", "writer1", 60_000)).await;
        assert_eq!(began.elapsed().as_secs(), 10);
        let held = world.engine().held("worker1", "writer1");
        tokio::time::sleep(20 * SECOND).await;
        assert_eq!(world.engine().held("worker1", "writer1"), held, "nothing is held any more");
        assert!(!world.engine().connections("worker1", "writer1").is_empty());
    });
}

#[test]
fn a_host_comes_back_after_a_power_cut_or_a_restart() {
    for fault in [power_cut("worker1", 3_000), Fault::Restart { host: "worker1".into(), for_ms: 3_000 }] {
        in_world(|world| async move {
            let boot = world.engine().boot("worker1");
            let family = fault.family();
            let injected = tokio::task::spawn_local(inject(Rc::clone(&world), fault, Instant::now() + 10 * SECOND));
            tokio::time::sleep(2 * SECOND).await;
            assert!(!world.engine().is_up("worker1"), "{family}");
            assert!(injected.await.unwrap().unwrap(), "{family}");
            assert!(world.engine().is_up("worker1"), "{family}");
            assert_eq!(world.engine().boot("worker1"), boot + 1, "{family}");
        });
    }
}

#[test]
fn a_host_that_is_down_cannot_be_taken_down() {
    in_world(|world| async move {
        let first = tokio::task::spawn_local(inject(
            Rc::clone(&world),
            power_cut("worker1", 5_000),
            Instant::now() + 10 * SECOND,
        ));
        tokio::time::sleep(SECOND).await;
        let since = Instant::now();
        assert!(!takes_effect(&world, power_cut("worker1", 60_000)).await);
        assert!(!takes_effect(&world, Fault::Restart { host: "worker1".into(), for_ms: 60_000 }).await);
        assert_eq!(since.elapsed(), Duration::ZERO, "and nobody waits for it");
        assert!(first.await.unwrap().unwrap());
        assert!(world.engine().is_up("worker1"), "the first fault alone decides when it comes back");
    });
}

#[test]
fn a_slow_consumer_counts_if_it_had_something_to_read() {
    in_world(|world| async move {
        let slow = || Fault::SlowConsumer { host: "worker1".into(), bytes: 4, pause_ms: 5, for_ms: 6_000 };
        assert!(takes_effect(&world, slow()).await);
        assert!(world.claim_down(&InstanceName::from("worker1")));
        world.power_cut(&"worker1".into());
        assert!(!takes_effect(&world, slow()).await);
    });
}

#[test]
fn a_half_open_connection_counts_where_one_was_established() {
    in_world(|world| async move {
        let before = world.engine().connections("worker1", "writer1");
        assert!(takes_effect(&world, half_open("worker1", "writer1", 3_000)).await);
        let after = world.engine().connections("worker1", "writer1");
        assert!(!after.contains(&before[0]) && !after.is_empty(), "whose end is gone has connected again");
        assert!(!takes_effect(&world, half_open("worker1", "worker2", 3_000)).await);
    });
}

#[test]
fn whoever_survives_a_half_open_connection_notices_by_its_pings() {
    in_world(|world| async move {
        // The client survives: nobody else connects for it.
        let fault = half_open("writer1", "worker1", 60_000);
        tokio::task::spawn_local(inject(Rc::clone(&world), fault, Instant::now() + 60 * SECOND));
        tokio::time::sleep(20 * SECOND).await;
        assert!(world.engine().connections("worker1", "writer1").is_empty(), "it believes itself connected");
        // The ping time-out, looked at every ping interval, and its goodbye, for which it has as much time again.
        tokio::time::sleep(45 * SECOND).await;
        assert!(!world.engine().connections("worker1", "writer1").is_empty());
    });
}

#[test]
fn a_slow_drip_counts_where_something_was_sent_and_holds_up_nothing_once_it_is_over() {
    in_world(|world| async move {
        let drip = |from: &str, to: &str| {
            let (from, to) = (from.into(), to.into());
            Fault::SlowDrip { from, to, bytes_per_sec: 1, for_ms: 6_000 }
        };
        let arrived = || world.engine().connections("writer1", "worker1").len();
        assert_eq!(arrived(), 1);
        assert!(takes_effect(&world, drip("writer1", "worker1")).await);
        assert!(takes_effect(&world, Fault::Cut { a: "writer1".into(), b: "worker1".into() }).await);
        tokio::time::sleep(SECOND).await;
        assert_eq!(arrived(), 1, "the next handshake need not wait until the queue has dripped");
        assert!(!takes_effect(&world, drip("worker1", "worker2")).await);
    });
}

#[test]
fn a_rolling_restart_takes_down_one_host_after_the_other() {
    in_world(|world| async move {
        let hosts = ["master", "writer1", "worker1", "worker2"];
        let boots = || hosts.map(|host| world.engine().boot(host));
        assert_eq!(boots(), [1; 4]);
        let fault = rolling_restart(&hosts, 1_000, 1_000);
        let injected = tokio::task::spawn_local(inject(Rc::clone(&world), fault, Instant::now() + 10 * SECOND));
        tokio::time::sleep(SECOND / 2).await;
        for n in 0..4 {
            let down = hosts.map(|host| !world.engine().is_up(host));
            assert_eq!(down, [0, 1, 2, 3].map(|other| other == n), "after {n}");
            tokio::time::sleep(2 * SECOND).await;
        }
        assert!(injected.await.unwrap().unwrap());
        assert_eq!(boots(), [2; 4]);
    });
}

#[test]
fn a_rolling_restart_passes_over_a_host_that_is_down_and_ends_with_the_storm() {
    in_world(|world| async move {
        let down = tokio::task::spawn_local(inject(
            Rc::clone(&world),
            power_cut("worker1", 6_000),
            Instant::now() + 10 * SECOND,
        ));
        tokio::time::sleep(SECOND).await;
        let began = Instant::now();
        assert!(!takes_effect(&world, rolling_restart(&["worker1"], 5_000, 0)).await);
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(takes_effect(&world, rolling_restart(&["worker1", "worker2", "master"], 8_000, 7_000)).await);
        assert_eq!(began.elapsed(), 10 * SECOND, "the storm is over before the master's turn");
        assert_eq!(["worker1", "worker2", "master"].map(|host| world.engine().boot(host)), [2, 2, 1]);
        assert!(world.engine().is_up("worker2"));
        assert!(down.await.unwrap().unwrap());
    });
}

#[test]
fn a_freeze_counts_where_a_process_runs_freely_and_is_over_with_the_storm() {
    in_world(|world| async move {
        let began = Instant::now();
        let injected =
            tokio::task::spawn_local(inject(Rc::clone(&world), freeze("worker1", 60_000), began + 10 * SECOND));
        tokio::time::sleep(SECOND).await;
        assert!(world.engine().is_frozen("worker1"));
        assert!(!takes_effect(&world, freeze("worker1", 1_000)).await, "it is frozen already");
        assert!(injected.await.unwrap().unwrap());
        assert_eq!(began.elapsed(), 10 * SECOND);
        assert!(!world.engine().is_frozen("worker1") && world.engine().boot("worker1") == 1);
        assert!(world.claim_down(&"worker1".into()));
        world.power_cut(&"worker1".into());
        assert!(!takes_effect(&world, freeze("worker1", 1_000)).await, "there is nothing to freeze");
    });
}

#[test]
fn a_freeze_thaws_only_the_process_that_it_froze() {
    in_world(|world| async move {
        let end = Instant::now() + 30 * SECOND;
        let first = tokio::task::spawn_local(inject(Rc::clone(&world), freeze("worker1", 5_000), end));
        tokio::time::sleep(SECOND).await;
        assert!(inject(Rc::clone(&world), power_cut("worker1", 1_000), end).await.unwrap());
        let second = tokio::task::spawn_local(inject(Rc::clone(&world), freeze("worker1", 10_000), end));
        assert!(first.await.unwrap().unwrap());
        assert!(world.engine().is_frozen("worker1"));
        assert!(second.await.unwrap().unwrap());
        assert!(!world.engine().is_frozen("worker1"));
    });
}

/// Has `writer1` persist a message in a second.
fn send_in_a_second(world: &Rc<World>, ordinal: usize) {
    let world = Rc::clone(world);
    tokio::task::spawn_local(async move {
        tokio::time::sleep(SECOND).await;
        world.perform(ordinal, OperationKind::Send { room: 1 });
    });
}

#[test]
fn trouble_with_the_database_counts_where_a_transaction_meets_it() {
    let writer = || "writer1".to_owned();
    let faults = [
        Fault::SlowWriter {
            host: writer(),
            delay_ms_min: 500,
            delay_ms_max: 600,
            rollback_per_mille: 0,
            for_ms: 3_000,
        },
        Fault::SlowDatabase { host: None, extra_ms_min: 50, extra_ms_max: 60, for_ms: 3_000 },
        Fault::StalledDatabase { host: Some(writer()), for_ms: 3_000 },
        Fault::FailingDatabase { host: writer(), per_mille: 1_000, for_ms: 3_000 },
        Fault::FailingHandlers { host: writer(), per_mille: 1_000, for_ms: 3_000 },
        Fault::LostAcknowledgement { host: writer(), per_mille: 1_000, for_ms: 3_000 },
        Fault::CancelledRequests { host: writer(), per_mille: 1_000, for_ms: 3_000 },
    ];
    for fault in faults {
        in_world(|world| async move {
            assert!(!takes_effect(&world, fault.clone()).await, "{}: nobody asks for anything", fault.family());
            // A request has few awaits; one of several is dropped before its last.
            (0..8).for_each(|ordinal| send_in_a_second(&world, ordinal));
            assert!(takes_effect(&world, fault.clone()).await, "{}", fault.family());
        });
    }
}

#[test]
fn strangers_count_where_their_lines_are_read_and_harm_no_connection() {
    in_world(|world| async move {
        let strangers = |host: &str| Fault::Strangers { host: host.into(), per_mille: 1_000, for_ms: 8_000 };
        let before = world.engine().connections("worker1", "writer1");
        assert!(takes_effect(&world, strangers("worker1")).await, "heartbeats bring them");
        assert_eq!(world.engine().connections("worker1", "writer1"), before);
        let judge = world.recorder().judge();
        assert!(judge.exercised()["strangers_isolated"] > 0);
        assert_eq!(judge.violations(), []);
    });
}

#[test]
fn a_broken_stream_counts_where_it_is_read_and_stays_broken_when_the_storm_is_over() {
    in_world(|world| async move {
        let broken = |stream: &str| Fault::BrokenStream { host: "writer1".into(), stream: stream.into() };
        assert!(!takes_effect(&world, broken("receipts")).await, "nobody writes any");
        send_in_a_second(&world, 0);
        assert!(takes_effect(&world, broken("events")).await);
        let again = world.break_stream(&"writer1".into(), &crate::streams::events::SOURCE);
        tokio::time::sleep(30 * SECOND).await;
        assert!(again.hits() > 0, "it is tried again and again");
    });
}

#[test]
fn a_process_that_starts_while_the_database_stalls_waits_for_it() {
    in_world(|world| async move {
        assert!(world.claim_down(&"worker1".into()));
        world.power_cut(&"worker1".into());
        let stall = Fault::StalledDatabase { host: None, for_ms: 6_000 };
        let stalled = tokio::task::spawn_local(inject(Rc::clone(&world), stall, Instant::now() + 10 * SECOND));
        tokio::time::sleep(SECOND).await;
        world.release_down(&"worker1".into());
        tokio::time::sleep(4 * SECOND).await;
        assert!(world.engine().connections("worker1", "writer1").is_empty());
        assert!(stalled.await.unwrap().unwrap());
        tokio::time::sleep(SECOND).await;
        assert!(!world.engine().connections("worker1", "writer1").is_empty());
    });
}
