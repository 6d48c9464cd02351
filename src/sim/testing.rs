//! The plans and worlds that tests share.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::database::SimDatabase;
use super::faults::{Cluster, Fault};
use super::plan::{DatabasePlan, Deployment, FORMAT, NetworkPlan, OperationKind, Plan, Scenario, SchedulingPlan};
use super::recorder::Recorder;
use super::topology::topology;
use super::world::World;
use squall_env::SeedTree;
use squall_judge::Judge;
use squall_netsim::{self as engine, EngineName, LatencyRange, Unsupported};
use squall_protocol::MASTER;

/// One second.
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// Returns a plan of ten seconds without operations and faults: a master, a writer and two workers, which do not connect to
/// each other.
pub(super) fn small_plan() -> Plan {
    Plan {
        format: FORMAT,
        seed: 7,
        scenario: Scenario::Storm,
        storm_ms: 10_000,
        topology: Deployment {
            events_writers: vec!["writer1".into()],
            typing_writer: MASTER.into(),
            account_data_writer: MASTER.into(),
            presence_writer: MASTER.into(),
            receipts_writers: vec![MASTER.into()],
            to_device_writer: MASTER.into(),
            workers: vec!["worker1".into(), "worker2".into()],
            broker: None,
            added: None,
        },
        network: NetworkPlan { latency_us_min: 1_000, latency_us_max: 5_000 },
        scheduling: SchedulingPlan::default(),
        database: DatabasePlan { before_us: (500, 2_000), after_us: (500, 2_000), rollback_per_mille: 0 },
        presence: Default::default(),
        limits: Default::default(),
        operations: Vec::new(),
        faults: Vec::new(),
        clients: Vec::new(),
        has_probe: false,
    }
}

/// Runs `test` in the world of the small plan, two seconds after its start: every instance is connected.
pub(super) fn in_world<F: Future<Output = ()>>(test: impl FnOnce(Rc<World>) -> F) {
    let plan = small_plan();
    let recorder = Recorder::new(Judge::new(topology(&plan)), None);
    let options = engine::Options {
        seeds: SeedTree::from_seed(7),
        hosts: plan.topology.hosts().map(Arc::from).collect(),
        latency: LatencyRange { min_us: 1_000, max_us: 5_000 },
        tap: recorder.clone(),
    };
    engine::simulate(EngineName::EventDriven, options, |engine| async move {
        recorder.start();
        let (database, transactions) = SimDatabase::open(Rc::new(())).unwrap();
        tokio::task::spawn_local(transactions);
        let world = World::new(engine, &plan, SeedTree::from_seed(7), database, recorder);
        world.start_all();
        tokio::time::sleep(2 * SECOND).await;
        test(world).await;
    });
}

/// Injects a fault in a storm that lasts for `storm` from now on.
pub(super) fn inject(
    world: &Rc<World>,
    fault: impl Into<Fault>,
    storm: Duration,
) -> JoinHandle<Result<bool, Unsupported>> {
    let world = Rc::clone(world);
    let fault = fault.into();
    let storm_end = Instant::now() + storm;
    tokio::task::spawn_local(async move { fault.inject(&*world, storm_end).await })
}

/// Injects a fault in a storm of ten seconds. Returns true if it took effect.
pub(super) async fn takes_effect(world: &Rc<World>, fault: impl Into<Fault>) -> bool {
    inject(world, fault, 10 * SECOND).await.unwrap().unwrap()
}

/// Makes `writer1` persist a message in a second.
pub(super) fn send_in_a_second(world: &Rc<World>, ordinal: usize) {
    let world = Rc::clone(world);
    tokio::task::spawn_local(async move {
        tokio::time::sleep(SECOND).await;
        world.perform(ordinal, OperationKind::Send { room: 1 });
    });
}

/// Checks that a fault of three seconds counts where `writer1` carries out requests, and only there.
pub(super) fn counts_where_it_is_met(fault: impl Into<Fault>) {
    let fault = fault.into();
    in_world(|world| async move {
        assert!(!takes_effect(&world, fault.clone()).await, "no client sends a request");
        // A request has few awaits; one of several is dropped before its last.
        for ordinal in 0..8 {
            send_in_a_second(&world, ordinal);
        }
        assert!(takes_effect(&world, fault).await);
    });
}

/// Checks that `worker1` comes back with its next boot after a fault that takes it down for three seconds.
pub(super) fn comes_back(fault: impl Into<Fault>) {
    let fault = fault.into();
    in_world(|world| async move {
        let boot = world.engine().boot("worker1");
        let injected = inject(&world, fault, 10 * SECOND);
        tokio::time::sleep(2 * SECOND).await;
        assert!(!world.engine().is_up("worker1"));
        assert!(injected.await.unwrap().unwrap());
        assert!(world.engine().is_up("worker1"));
        assert_eq!(world.engine().boot("worker1"), boot + 1);
    });
}
