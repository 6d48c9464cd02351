//! A plan set up on an engine: the hosts, the processes on them, and the one database they share.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::broker;
use super::cancellations::Cancellations;
use super::client::Client;
use super::clock::SimClock;
use super::database::faults::{DatabaseFault, DatabaseFaults, Trouble};
use super::database::{DatabaseTiming, SimDatabase, SimDatabaseHandle};
use super::engine::Engine;
use super::plan::{BROKER, BrokerPlan, OperationKind, Plan, SchedulingPlan};
use super::recorder::{Recorder, StackWitness, Witness};
use super::strangers::Strangers;
use super::workload;
use crate::env::{Chance, Deferral, Env, Network, Scope};
use crate::instance::config::{Endpoint, RedisConfig, StreamWriters};
use crate::instance::{Config, Instance};
use crate::judge::Observation;
use crate::protocol::{InstanceName, MASTER};
use crate::replication::Consumers;
use crate::store::{Database, InstanceMap};
use crate::streams::Source;
use crate::sync::{SyncError, SyncResponse};

/// The homeserver's name.
pub const SERVER_NAME: &str = "squall.test";

/// The port of the line protocol on every host.
pub const REPLICATION_PORT: u16 = 9092;
/// The port of HTTP requests on every host.
pub const HTTP_PORT: u16 = 9093;
/// The port of the broker.
pub const BROKER_PORT: u16 = 6379;
/// What the broker is told first, where it asks for a password.
const BROKER_PASSWORD: &str = "a-password-of-the-storm";

/// How long a supervisor waits before it starts a process again that did not come up.
pub const START_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a process is asked to do by those outside it.
enum Order {
    Perform(usize, OperationKind),
    Sync(SyncRequest, oneshot::Sender<Result<SyncResponse, SyncError>>),
    Stop(oneshot::Sender<()>),
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct SyncRequest {
    /// Whose device it is.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// The token of its last answer.
    pub since: Option<String>,
    /// How long the answer may wait for news.
    pub timeout: Duration,
}

/// A request of a client under way.
pub struct Asked {
    /// The process that was asked.
    pub boot: u64,
    /// Where its answer comes.
    pub answer: oneshot::Receiver<Result<SyncResponse, SyncError>>,
}

/// The process that runs on a host.
struct Process {
    boot: u64,
    is_gagged: Rc<Cell<bool>>,
    database: SimDatabaseHandle,
    orders: mpsc::UnboundedSender<Order>,
}

/// What surrounds a host, whichever process runs on it.
struct Weather {
    database: Rc<DatabaseFaults>,
    clients: Rc<Cancellations>,
    peers: Strangers,
}

impl Weather {
    fn new(recorder: &Recorder) -> Self {
        let (database, clients) = Default::default();
        Weather { database, clients, peers: Strangers::new(recorder.brought()) }
    }
}

/// Everything that a plan speaks of.
pub struct World {
    engine: Rc<dyn Engine>,
    config: Rc<Config>,
    chance: Chance,
    database: SimDatabase,
    timing: DatabaseTiming,
    scheduling: SchedulingPlan,
    recorder: Rc<Recorder>,
    processes: RefCell<BTreeMap<InstanceName, Process>>,
    instances: Vec<InstanceName>,
    /// What the broker is told at each start, if there is one.
    broker: Option<broker::Options>,
    /// What is wrong with each host's database, and with its clients.
    weather: BTreeMap<InstanceName, Weather>,
    /// Hosts that a fault keeps down.
    down: RefCell<BTreeSet<InstanceName>>,
    /// Streams that stay broken.
    broken: RefCell<Vec<Rc<DatabaseFault>>>,
}

/// The configuration of the deployment that `plan` describes.
pub(super) fn config_of(plan: &Plan) -> Config {
    let deployment = &plan.topology;
    let endpoint =
        |host: &str| Endpoint { host: host.into(), replication_port: REPLICATION_PORT, http_port: HTTP_PORT };
    let listeners = deployment.writers().chain([MASTER]);
    Config {
        server_name: SERVER_NAME.into(),
        secret: "a-secret-of-the-storm".into(),
        instance_map: listeners.map(|host| (host.into(), endpoint(host))).collect(),
        stream_writers: StreamWriters {
            events: deployment.events_writers.iter().map(|name| name.as_str().into()).collect(),
            typing: deployment.typing_writer.as_str().into(),
            account_data: deployment.account_data_writer.as_str().into(),
            presence: deployment.presence_writer.as_str().into(),
            receipts: deployment.receipts_writers.iter().map(|name| name.as_str().into()).collect(),
            to_device: deployment.to_device_writer.as_str().into(),
        },
        presence: plan.presence.clone(),
        redis: deployment.broker.as_ref().map(redis_of),
    }
}

fn redis_of(plan: &BrokerPlan) -> RedisConfig {
    let password = plan.has_password.then(|| BROKER_PASSWORD.to_owned());
    RedisConfig { host: BROKER.into(), port: BROKER_PORT, password, tls: None }
}

fn options_of(plan: &BrokerPlan) -> broker::Options {
    let soft_for = Duration::from_millis(plan.soft_for_ms);
    let limits = broker::Limits { hard_bytes: plan.hard_bytes, soft_bytes: plan.soft_bytes, soft_for };
    let password = plan.has_password.then(|| BROKER_PASSWORD.to_owned());
    broker::Options { password, limits, dropped: Rc::default() }
}

fn timing_of(plan: &Plan) -> DatabaseTiming {
    let database = &plan.database;
    DatabaseTiming {
        before_us: database.before_us.0..=database.before_us.1,
        after_us: database.after_us.0..=database.after_us.1,
        rollback_per_mille: database.rollback_per_mille,
    }
}

/// None if the plan puts off nothing.
fn deferral_of(scheduling: &SchedulingPlan, chance: &Chance) -> Option<Deferral> {
    let SchedulingPlan { deferred_per_mille, deferral_ms_max } = *scheduling;
    (deferred_per_mille > 0).then(|| Deferral {
        chance: chance.of("defer"),
        per_mille: deferred_per_mille,
        longest: Duration::from_millis(deferral_ms_max),
    })
}

impl World {
    /// Sets up the hosts, all of them down.
    pub fn new(
        engine: Rc<dyn Engine>,
        plan: &Plan,
        chance: Chance,
        database: SimDatabase,
        recorder: Rc<Recorder>,
    ) -> Rc<Self> {
        Rc::new(World {
            engine,
            config: Rc::new(config_of(plan)),
            chance,
            database,
            timing: timing_of(plan),
            scheduling: plan.scheduling.clone(),
            weather: plan.topology.hosts().map(|host| (host.into(), Weather::new(&recorder))).collect(),
            recorder,
            processes: RefCell::default(),
            instances: plan.topology.hosts().map(InstanceName::from).collect(),
            broker: plan.topology.broker.as_ref().map(options_of),
            down: RefCell::default(),
            broken: RefCell::default(),
        })
    }

    /// The engine underneath.
    pub fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// The deployment's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The names of all instances.
    pub fn instances(&self) -> &[InstanceName] {
        &self.instances
    }

    /// What is wrong with the database as `name` sees it.
    pub fn database_faults(&self, name: &InstanceName) -> &Rc<DatabaseFaults> {
        &self.weather[name].database
    }

    /// Breaks a stream for `name` for good, and says so.
    pub fn break_stream(&self, name: &InstanceName, source: &Source) -> Rc<DatabaseFault> {
        let transaction = source.transaction.to_owned();
        let broken = Rc::new(self.database_faults(name).begin(Trouble::Broken { transaction }));
        self.broken.borrow_mut().push(Rc::clone(&broken));
        self.recorder.observe(&Observation::StreamBroken { stream: source.name.into() });
        broken
    }

    /// Which of the requests to `name` are dropped on the way.
    pub fn cancellations(&self, name: &InstanceName) -> &Rc<Cancellations> {
        &self.weather[name].clients
    }

    /// How strange the peers of `name` are.
    pub fn strangers(&self, name: &InstanceName) -> &Strangers {
        &self.weather[name].peers
    }

    /// Who is told what is seen.
    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// The numbers that instances have in tokens.
    pub(super) fn instance_map(&self) -> InstanceMap {
        self.database.inspect(InstanceMap::read).expect("the table is there")
    }

    /// Starts every process that is not running.
    pub fn start_all(&self) {
        self.down.borrow_mut().clear();
        let broker = self.broker.iter().map(|_| InstanceName::from(BROKER));
        for name in broker.chain(self.instances.iter().cloned()) {
            self.start(&name);
        }
    }

    /// Starts the process on a host, unless it is running already.
    pub fn start(&self, name: &InstanceName) {
        if self.engine.is_up(name.as_str()) {
            return;
        }
        match &self.broker {
            Some(options) if name.as_str() == BROKER => self.start_broker(options.clone()),
            _ => self.start_instance(name),
        }
    }

    /// Tells how often the broker has dropped somebody for whom too much waited.
    pub fn observe_broker(&self) {
        if let Some(broker) = &self.broker {
            self.recorder.observe(&Observation::SubscribersDropped { count: broker.dropped.get() });
        }
    }

    fn start_broker(&self, options: broker::Options) {
        let serve = async move |network: Rc<dyn Network>| {
            let listener = network.listen(BROKER_PORT).await.expect("nobody else listens on the broker's host");
            broker::serve(listener, options).await;
        };
        self.engine.start(BROKER, Box::new(move |network| Box::pin(serve(network))));
    }

    fn start_instance(&self, name: &InstanceName) {
        let boot = self.engine.boot(name.as_str()) + 1;
        let is_gagged = Rc::new(Cell::new(false));
        let witness = Witness::new(name.clone(), boot, Rc::clone(&is_gagged), Rc::clone(&self.recorder));
        let (orders, incoming) = mpsc::unbounded_channel();
        let chance = self.chance.of("host").of(name).of(boot);
        let database =
            self.database.handle(chance.of("database"), self.timing.clone(), Rc::clone(self.database_faults(name)));
        self.recorder.observe(&Observation::Started { instance: name.clone(), boot });
        let process = Boot {
            name: name.clone(),
            config: Rc::clone(&self.config),
            deferral: deferral_of(&self.scheduling, &chance),
            chance,
            database: Database::new(Rc::new(database.clone())),
            witness,
            cancellations: Rc::clone(self.cancellations(name)),
            strangers: self.strangers(name).clone(),
            orders: incoming,
        };
        self.engine.start(name.as_str(), Box::new(move |network| Box::pin(process.run(network))));
        self.processes.borrow_mut().insert(name.clone(), Process { boot, is_gagged, database, orders });
    }

    /// Cuts a host's power.
    pub fn power_cut(&self, name: &InstanceName) -> bool {
        self.gag(name);
        self.engine.power_cut(name.as_str())
    }

    /// Asks the process on a host to stop, and ends it when it has or when it takes too long. False if there is none.
    pub async fn stop(&self, name: &InstanceName) -> bool {
        if self.broker.is_some() && name.as_str() == BROKER {
            return self.engine.stop(BROKER); // it has nothing to say before it ends
        }
        let (done, stopped) = oneshot::channel();
        let asked = {
            let processes = self.processes.borrow();
            let Some(process) = processes.get(name) else { return false };
            process.orders.send(Order::Stop(done)).map(|()| process.boot)
        };
        let Ok(boot) = asked else { return false };
        self.recorder.observe(&Observation::AskedToStop { instance: name.clone(), boot });
        let _ = tokio::time::timeout(2 * crate::instance::STOP_GRACE, stopped).await;
        if self.engine.boot(name.as_str()) != boot || !self.engine.is_up(name.as_str()) {
            return false; // something else ended it meanwhile
        }
        self.gag(name);
        self.engine.stop(name.as_str())
    }

    /// Whatever a dying process still says is not heard: neither the network nor the database nor the judge listens
    /// to its old boot.
    fn gag(&self, name: &InstanceName) {
        if let Some(process) = self.processes.borrow_mut().remove(name) {
            process.is_gagged.set(true);
            process.database.gag();
            self.recorder.observe(&Observation::Stopped { instance: name.clone(), boot: process.boot });
        }
    }

    /// Marks a host as kept down by a fault. False if one keeps it down already.
    pub fn claim_down(&self, name: &InstanceName) -> bool {
        self.down.borrow_mut().insert(name.clone())
    }

    /// The fault that kept a host down is over: starts it.
    pub fn release_down(&self, name: &InstanceName) {
        if self.down.borrow_mut().remove(name) {
            self.start(name);
        }
    }

    /// Has an operation of the plan carried out by the process that it falls to, if it is running.
    pub fn perform(&self, id: usize, operation: OperationKind) {
        let target = workload::target(&self.config, &operation);
        if let Some(process) = self.processes.borrow().get(&target) {
            // A process that is just ending takes no more orders, like one that is down.
            let _ = process.orders.send(Order::Perform(id, operation));
        }
    }

    /// Asks the process on a host what is new for a client. None if there is none; the answer does not come if it ends.
    pub fn sync(&self, host: &InstanceName, request: SyncRequest) -> Option<Asked> {
        let (reply, answer) = oneshot::channel();
        let processes = self.processes.borrow();
        let process = processes.get(host)?;
        process.orders.send(Order::Sync(request, reply)).ok()?;
        Some(Asked { boot: process.boot, answer })
    }
}

/// One boot of one process, about to run on its host.
struct Boot {
    name: InstanceName,
    config: Rc<Config>,
    chance: Chance,
    deferral: Option<Deferral>,
    database: Database,
    witness: Witness,
    cancellations: Rc<Cancellations>,
    strangers: Strangers,
    orders: mpsc::UnboundedReceiver<Order>,
}

impl Boot {
    async fn run(mut self, network: Rc<dyn Network>) {
        let instance = self.start(network).await;
        while let Some(order) = self.orders.recv().await {
            match order {
                Order::Perform(id, operation) => {
                    let client = Client::new(Rc::clone(&instance), self.witness.clone());
                    let request = workload::perform(client, id, operation);
                    let chance = self.chance.of("operation").of(id);
                    instance.env().tasks.spawn("operation", self.cancellations.carry_out(&chance, request));
                }
                Order::Sync(SyncRequest { user_id, device_id, since, timeout }, reply) => {
                    let syncing = Rc::clone(&instance);
                    instance.env().tasks.spawn("sync", async move {
                        let answer = syncing.sync(&user_id, &device_id, since.as_deref(), timeout).await;
                        // The client may have gone.
                        let _ = reply.send(answer);
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

    /// Starts the instance, again and again if need be, as a supervisor would.
    async fn start(&self, network: Rc<dyn Network>) -> Rc<Instance> {
        let network = self.strangers.on(network, self.name.clone(), self.chance.of("strangers"));
        loop {
            let observer = Rc::new(StackWitness::new(self.witness.clone()));
            let env = Env {
                network: Rc::clone(&network),
                clock: Rc::new(SimClock),
                chance: self.chance.clone(),
                observer: observer.clone(),
                tasks: Scope::with_deferral(observer, self.deferral.clone()),
            };
            let consumers = Consumers::default();
            consumers.register(Rc::new(self.witness.clone()));
            let (config, database) = (Rc::clone(&self.config), self.database.clone());
            match Instance::start(self.name.clone(), config, env, database, consumers).await {
                Ok(instance) => {
                    let witness = self.witness.clone();
                    instance.typing().on_change(Box::new(move |token, row| witness.typing_changed(token, row)));
                    return instance;
                }
                Err(_) => tokio::time::sleep(START_AGAIN_AFTER).await,
            }
        }
    }
}
