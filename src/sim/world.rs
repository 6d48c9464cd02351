//! The world of a run: a plan set up on an engine, with its hosts, their processes, and the one database they share.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::broker::{self, LostConnections};
use super::cancellations::Cancellations;
use super::clock::SimClock;
use super::database::faults::{DatabaseFault, DatabaseFaultGuard, DatabaseFaults};
use super::database::{DatabaseTiming, SimDatabase, SimDatabaseHandle};
use super::deployment::{BROKER, BROKER_PASSWORD, BROKER_PORT, BrokerPlan};
use super::faults::Cluster;
use super::odd_framing::OddFraming;
use super::plan::{OperationKind, Plan, SchedulingPlan};
use super::recorder::Recorder;
use super::requests::Client;
use super::rollout::Rollout;
use super::strange_lines::StrangeLines;
use super::witness::{StackWitness, Witness};
use super::workload;
use crate::instance::{Config, Instance};
use crate::observer::Env;
use crate::replication::Consumers;
use crate::store::Database;
use crate::store::{SOURCES, Source};
use crate::sync::{SyncError, SyncResponse};
use crate::tasks;
use squall_env::{LocalBoxFuture, Network, PollDelay, SeedTree, TaskSpawner};
use squall_judge::Observation;
use squall_netsim::Engine;
use squall_protocol::rows::typing;
use squall_protocol::{InstanceMap, InstanceName, StreamName};

/// The time after which a supervisor starts a process again that did not come up.
pub(super) const RESTART_DELAY: Duration = Duration::from_secs(1);

/// An order to a process from outside.
enum Order {
    Perform(usize, OperationKind),
    Probe(usize, OperationKind, oneshot::Sender<bool>),
    Sync(SyncRequest, oneshot::Sender<Result<SyncResponse, SyncError>>),
    ReadAllAgain(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// A sync request of a client.
#[derive(Debug, Clone)]
pub(super) struct SyncRequest {
    /// The user.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// The token of the last response; none for the first request.
    pub since: Option<String>,
    /// The time that the response may wait for news.
    pub timeout: Duration,
}

/// A sync request in flight.
pub(super) struct PendingSync {
    /// The boot of the process that serves it.
    pub boot: u64,
    /// The channel of its response.
    pub response: oneshot::Receiver<Result<SyncResponse, SyncError>>,
}

/// A process that runs on a host.
struct Process {
    boot: u64,
    is_silenced: Rc<Cell<bool>>,
    database: SimDatabaseHandle,
    orders: mpsc::UnboundedSender<Order>,
}

/// The faults of one host. They outlive its processes.
struct HostFaults {
    database: Rc<DatabaseFaults>,
    cancellations: Cancellations,
    version_skew: StrangeLines,
    odd_framing: OddFraming,
    forged_positions: StrangeLines,
    clock: SimClock,
}

impl HostFaults {
    fn new(recorder: &Recorder, written: &Arc<[(StreamName, InstanceName)]>) -> Self {
        let version_skew = StrangeLines::of_newer_peers(recorder.injected());
        let odd_framing = OddFraming::new(recorder.injected());
        HostFaults {
            database: Rc::default(),
            cancellations: Cancellations::default(),
            version_skew,
            odd_framing,
            forged_positions: StrangeLines::of_forgers(recorder.injected(), Arc::clone(written)),
            clock: SimClock::default(),
        }
    }
}

/// The number of requests under way.
#[derive(Clone, Default)]
struct RequestsUnderWay(Rc<Cell<usize>>);

impl RequestsUnderWay {
    /// Counts a request until the result is dropped.
    fn begin(&self) -> RequestUnderWay {
        self.0.set(self.0.get() + 1);
        RequestUnderWay(self.clone())
    }
}

/// A request under way. It ends when this is dropped, because it may end with its process.
struct RequestUnderWay(RequestsUnderWay);

impl Drop for RequestUnderWay {
    fn drop(&mut self) {
        let RequestsUnderWay(count) = &self.0;
        count.set(count.get() - 1);
    }
}

/// The hosts, processes and database of a run.
pub(super) struct World {
    engine: Rc<dyn Engine>,
    rollout: Rollout,
    seeds: SeedTree,
    database: SimDatabase,
    timing: DatabaseTiming,
    scheduling: SchedulingPlan,
    recorder: Rc<Recorder>,
    processes: RefCell<BTreeMap<InstanceName, Process>>,
    instances: Vec<InstanceName>,
    /// The options of the broker, if there is one.
    broker: Option<broker::Options>,
    /// The faults of each host.
    host_faults: BTreeMap<InstanceName, HostFaults>,
    /// The hosts that a fault keeps down.
    down: RefCell<BTreeSet<InstanceName>>,
    /// The faults of streams that stay broken.
    broken: RefCell<Vec<(InstanceName, Rc<DatabaseFaultGuard>)>>,
    requests: RequestsUnderWay,
}

fn options_of(plan: &BrokerPlan) -> broker::Options {
    let soft_for = Duration::from_millis(plan.soft_for_ms);
    let limits = broker::Limits { hard_bytes: plan.hard_bytes, soft_bytes: plan.soft_bytes, soft_for };
    let password = plan.has_password.then(|| BROKER_PASSWORD.to_owned());
    broker::Options { password, limits, ..broker::Options::default() }
}

fn timing_of(plan: &Plan) -> DatabaseTiming {
    let database = &plan.database;
    DatabaseTiming {
        before_us: database.before_us.0..=database.before_us.1,
        after_us: database.after_us.0..=database.after_us.1,
        rollback_per_mille: database.rollback_per_mille,
    }
}

/// Returns the delays of polls; none if the plan delays no poll.
fn poll_delay_of(scheduling: &SchedulingPlan, seeds: &SeedTree) -> Option<PollDelay> {
    let SchedulingPlan { deferred_per_mille, deferral_ms_max } = *scheduling;
    (deferred_per_mille > 0).then(|| PollDelay {
        seeds: seeds.child("defer"),
        per_mille: deferred_per_mille,
        longest: Duration::from_millis(deferral_ms_max),
    })
}

/// Returns each stream with each of its writers.
fn written_streams(config: &Config) -> Arc<[(StreamName, InstanceName)]> {
    let writers = |name| {
        let stream = StreamName::from(name);
        config.writers_of(name).into_iter().map(move |writer| (stream.clone(), writer))
    };
    SOURCES.iter().map(|source| source.name).chain([typing::NAME]).flat_map(writers).collect()
}

impl World {
    /// Creates the world, with all hosts down.
    pub(super) fn new(
        engine: Rc<dyn Engine>,
        plan: &Plan,
        seeds: SeedTree,
        database: SimDatabase,
        recorder: Rc<Recorder>,
    ) -> Rc<Self> {
        let rollout = Rollout::new(plan);
        let written = written_streams(rollout.config_of_clients());
        let faults = |host: &str| (host.into(), HostFaults::new(&recorder, &written));
        Rc::new(World {
            engine,
            rollout,
            seeds,
            database,
            timing: timing_of(plan),
            scheduling: plan.scheduling.clone(),
            host_faults: plan.topology.hosts().map(faults).collect(),
            recorder,
            processes: RefCell::default(),
            instances: plan.topology.hosts().map(InstanceName::from).collect(),
            broker: plan.topology.broker.as_ref().map(options_of),
            down: RefCell::default(),
            broken: RefCell::default(),
            requests: RequestsUnderWay::default(),
        })
    }

    /// Returns the recorder of the run.
    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Returns the numbers of the instances in tokens.
    pub(super) fn instance_map(&self) -> InstanceMap {
        self.database.inspect(crate::store::instance_map::read).expect("the table is there")
    }

    /// Starts every process that is not running.
    pub(super) fn start_all(&self) {
        self.down.borrow_mut().clear();
        let broker = self.broker.iter().map(|_| InstanceName::from(BROKER));
        for name in broker.chain(self.instances.iter().cloned()) {
            self.start(&name);
        }
    }

    /// Starts the process on a host, unless a fault keeps the host down.
    pub(super) fn start_unless_kept_down(&self, name: &InstanceName) {
        if !self.down.borrow().contains(name) {
            self.start(name);
        }
    }

    /// Starts the process on a host, unless it is running already or its turn has not come.
    fn start(&self, name: &InstanceName) {
        if self.engine.is_up(name.as_str()) || !self.rollout.may_start(name) {
            return;
        }
        match &self.broker {
            Some(options) if name.as_str() == BROKER => self.start_broker(options.clone()),
            _ => self.start_instance(name),
        }
    }

    /// Reports the number of subscribers that the broker has dropped for exceeding the output-buffer limit.
    pub(super) fn observe_broker(&self) {
        if let Some(broker) = &self.broker {
            self.recorder.observe(&Observation::SubscribersDropped { count: broker.dropped.get() });
        }
    }

    fn start_broker(&self, options: broker::Options) {
        let serve = async move |network: Rc<dyn Network>| {
            let listener = network.listen(BROKER_PORT).await.expect("the broker is the only process on its host");
            broker::serve(listener, options).await;
        };
        self.engine.start(BROKER, Box::new(move |network| Box::pin(serve(network))));
    }

    fn start_instance(&self, name: &InstanceName) {
        let boot = self.engine.boot(name.as_str()) + 1;
        let is_silenced = Rc::new(Cell::new(false));
        let witness = Witness::new(name.clone(), boot, Rc::clone(&is_silenced), Rc::clone(&self.recorder));
        let (orders, incoming) = mpsc::unbounded_channel();
        let seeds = self.seeds.child("host").child(name).child(boot);
        let database =
            self.database.handle(seeds.child("database"), self.timing.clone(), Rc::clone(self.database_faults(name)));
        self.recorder.observe(&Observation::Started { instance: name.clone(), boot });
        let process = Boot {
            name: name.clone(),
            config: Rc::clone(self.rollout.config_of(name)),
            poll_delay: poll_delay_of(&self.scheduling, &seeds),
            seeds,
            database: Database::new(Rc::new(database.clone())),
            witness,
            cancellations: self.cancellations(name).clone(),
            version_skew: self.version_skew(name).clone(),
            odd_framing: self.odd_framing(name).clone(),
            forged_positions: self.forged_positions(name).clone(),
            clock: self.host_faults[name].clock.clone(),
            requests: self.requests.clone(),
            orders: incoming,
        };
        self.engine.start(name.as_str(), Box::new(move |network| Box::pin(process.run(network))));
        self.processes.borrow_mut().insert(name.clone(), Process { boot, is_silenced, database, orders });
    }

    /// Asks the process on a host to stop, and ends it when it has stopped or when its grace is over. Returns false if no
    /// process is running there.
    async fn stop_gracefully(&self, name: &InstanceName) -> bool {
        if self.broker.is_some() && name.as_str() == BROKER {
            return self.engine.stop(BROKER); // a broker has nothing to finish
        }
        let (done, stopped) = oneshot::channel();
        let ordered = {
            let processes = self.processes.borrow();
            let Some(process) = processes.get(name) else { return false };
            process.orders.send(Order::Stop(done)).map(|()| process.boot)
        };
        let Ok(boot) = ordered else { return false };
        self.recorder.observe(&Observation::AskedToStop { instance: name.clone(), boot });
        let _ = tokio::time::timeout(2 * crate::instance::STOP_GRACE, stopped).await;
        if self.engine.boot(name.as_str()) != boot || !self.engine.is_up(name.as_str()) {
            return false; // another fault ended it meanwhile
        }
        self.silence(name);
        self.engine.stop(name.as_str())
    }

    /// Disconnects a dying process from the network, the database and the judge: what its drop handlers still do is not
    /// observed.
    fn silence(&self, name: &InstanceName) {
        if let Some(process) = self.processes.borrow_mut().remove(name) {
            process.is_silenced.set(true);
            process.database.silence();
            self.recorder.observe(&Observation::Stopped { instance: name.clone(), boot: process.boot });
        }
    }

    /// Sends an operation of the plan to the process that carries it out, if it is running.
    pub(super) fn perform(&self, id: usize, operation: OperationKind) {
        let target = workload::target(self.rollout.config_of_clients(), &operation);
        if let Some(process) = self.processes.borrow().get(&target) {
            // A process that is ending takes no more orders, like one that is down.
            let _ = process.orders.send(Order::Perform(id, operation));
        }
    }

    /// Sends a request of the probe to the process on `host`. Returns true once it has succeeded, and false if it has failed.
    pub(super) async fn probe(&self, host: &InstanceName, id: usize, operation: OperationKind) -> bool {
        let (done, succeeded) = oneshot::channel();
        let order = Order::Probe(id, operation, done);
        let is_ordered = self.processes.borrow().get(host).is_some_and(|process| process.orders.send(order).is_ok());
        is_ordered && succeeded.await.unwrap_or(false)
    }

    /// Returns true if an operation of the plan has not ended, syncs aside.
    pub(super) fn has_requests_under_way(&self) -> bool {
        self.requests.0.get() > 0
    }

    /// Returns the configuration that all instances share once the storm is over.
    pub(super) fn config(&self) -> &Config {
        self.rollout.config_of_clients()
    }

    /// Returns the configurations of the run.
    pub(super) fn rollout(&self) -> &Rollout {
        &self.rollout
    }

    /// Returns the host of every instance.
    pub(super) fn hosts(&self) -> &[InstanceName] {
        &self.instances
    }

    /// Returns true if `host` cannot read one of its streams any more.
    pub(super) fn has_broken_stream(&self, host: &InstanceName) -> bool {
        self.broken.borrow().iter().any(|(name, _)| name == host)
    }

    /// Reads every value again, through the instances that have read it, and waits until all are read. So the judge finds a
    /// stale cached value that no client reads any more.
    pub(super) async fn read_caches(&self) {
        let order = |process: &Process| {
            let (done, read) = oneshot::channel();
            process.orders.send(Order::ReadAllAgain(done)).ok().map(|()| read)
        };
        let orders: Vec<_> = self.processes.borrow().values().filter_map(order).collect();
        for read in orders {
            // A process that ends meanwhile has no caches any more.
            let _ = read.await;
        }
    }

    /// Sends a sync request to the process on a host. Returns none if no process runs there. No response comes if the process
    /// ends.
    pub(super) fn sync(&self, host: &InstanceName, request: SyncRequest) -> Option<PendingSync> {
        let (reply, response) = oneshot::channel();
        let processes = self.processes.borrow();
        let process = processes.get(host)?;
        process.orders.send(Order::Sync(request, reply)).ok()?;
        Some(PendingSync { boot: process.boot, response })
    }
}

impl Cluster for World {
    fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    fn observe(&self, observation: &Observation) {
        self.recorder.observe(observation);
    }

    fn instances(&self) -> &[InstanceName] {
        &self.instances
    }

    fn database_faults(&self, name: &InstanceName) -> &Rc<DatabaseFaults> {
        &self.host_faults[name].database
    }

    fn break_stream(&self, name: &InstanceName, source: &Source) -> Rc<DatabaseFaultGuard> {
        let transaction = source.transaction.to_owned();
        let broken = Rc::new(self.database_faults(name).begin(DatabaseFault::Broken { transaction }));
        self.broken.borrow_mut().push((name.clone(), Rc::clone(&broken)));
        self.recorder.observe(&Observation::StreamBroken { stream: source.name.into() });
        broken
    }

    fn cancellations(&self, name: &InstanceName) -> &Cancellations {
        &self.host_faults[name].cancellations
    }

    fn version_skew(&self, name: &InstanceName) -> &StrangeLines {
        &self.host_faults[name].version_skew
    }

    fn odd_framing(&self, name: &InstanceName) -> &OddFraming {
        &self.host_faults[name].odd_framing
    }

    fn forged_positions(&self, name: &InstanceName) -> &StrangeLines {
        &self.host_faults[name].forged_positions
    }

    fn step_clock(&self, name: &InstanceName, by_ms: i64) {
        self.host_faults[name].clock.step(by_ms);
    }

    fn claim_down(&self, name: &InstanceName) -> bool {
        self.down.borrow_mut().insert(name.clone())
    }

    fn release_down(&self, name: &InstanceName) {
        if self.down.borrow_mut().remove(name) {
            self.start(name);
        }
    }

    fn fail_over_broker(&self, lost: LostConnections) -> bool {
        self.broker.as_ref().is_some_and(|options| options.failover.fail_over(lost))
    }

    fn power_cut(&self, name: &InstanceName) -> bool {
        self.silence(name);
        self.engine.power_cut(name.as_str())
    }

    fn stop<'a>(&'a self, name: &'a InstanceName) -> LocalBoxFuture<'a, bool> {
        Box::pin(self.stop_gracefully(name))
    }
}

/// One boot of one process, before it runs on its host.
struct Boot {
    name: InstanceName,
    config: Rc<Config>,
    seeds: SeedTree,
    poll_delay: Option<PollDelay>,
    database: Database,
    witness: Witness,
    cancellations: Cancellations,
    version_skew: StrangeLines,
    odd_framing: OddFraming,
    forged_positions: StrangeLines,
    clock: SimClock,
    requests: RequestsUnderWay,
    orders: mpsc::UnboundedReceiver<Order>,
}

impl Boot {
    async fn run(mut self, network: Rc<dyn Network>) {
        let instance = self.start(network).await;
        let client = Client::new(Rc::clone(&instance), self.witness.clone());
        let operation_seeds = self.seeds.child("operation");
        while let Some(order) = self.orders.recv().await {
            match order {
                Order::Perform(id, operation) => {
                    // A sync ends when the plan says so, and others end with an answer.
                    let is_request = !matches!(operation, OperationKind::Sync { .. });
                    let under_way = is_request.then(|| self.requests.begin());
                    let performed = Box::pin(workload::perform(client.clone(), id, operation));
                    let request = async move {
                        performed.await;
                        drop(under_way);
                    };
                    let request = self.cancellations.carry_out(&operation_seeds.child(id), request);
                    instance.env().tasks.spawn(tasks::OPERATION, request);
                }
                Order::Probe(id, operation, done) => {
                    let client = client.clone();
                    instance.env().tasks.spawn(tasks::OPERATION, async move {
                        let _ = done.send(workload::perform(client, id, operation).await);
                    });
                }
                Order::Sync(SyncRequest { user_id, device_id, since, timeout }, reply) => {
                    let syncing = Rc::clone(&instance);
                    instance.env().tasks.spawn(tasks::SYNC, async move {
                        let answer = syncing.sync(&user_id, &device_id, since.as_deref(), timeout).await;
                        // The client may have gone.
                        let _ = reply.send(answer);
                    });
                }
                Order::ReadAllAgain(done) => {
                    let client = client.clone();
                    instance.env().tasks.spawn(tasks::OPERATION, async move {
                        client.read_all_again().await;
                        let _ = done.send(());
                    });
                }
                Order::Stop(done) => {
                    instance.stop().await;
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    /// Starts the instance, and tries again after each failure, as a supervisor would.
    async fn start(&self, network: Rc<dyn Network>) -> Rc<Instance> {
        let network = self.version_skew.wrap(network, self.name.clone(), self.seeds.child("strangers"));
        let network = self.forged_positions.wrap(network, self.name.clone(), self.seeds.child("forged positions"));
        let network = self.odd_framing.wrap(network, self.name.clone(), self.seeds.child("odd framing"));
        loop {
            let observer = Rc::new(StackWitness::new(self.witness.clone()));
            let env = Env {
                network: Rc::clone(&network),
                clock: Rc::new(self.clock.clone()),
                seeds: self.seeds.clone(),
                observer: observer.clone(),
                tasks: TaskSpawner::with_poll_delay(observer, self.poll_delay.clone()),
            };
            let consumers = Consumers::default();
            consumers.register(Rc::new(self.witness.clone()));
            let config = Rc::clone(&self.config);
            let database = self.database.clone();
            match Instance::start(self.name.clone(), config, env, database, consumers).await {
                Ok(instance) => {
                    let witness = self.witness.clone();
                    instance.typing().on_change(Box::new(move |token, row| witness.typing_changed(token, row)));
                    return instance;
                }
                Err(_) => tokio::time::sleep(RESTART_DELAY).await,
            }
        }
    }
}
