//! Runs a plan and returns a verdict.
//!
//! A run has two phases. In the storm, operations and faults come as planned, and the invariants must hold at every step. In
//! the calm every fault is healed and every process is up, and every instance must converge within the calm bound.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::added_writer;
use super::calm::calm_bound;
use super::database::SimDatabase;
use super::plan::{Fault, FaultEntry, Operation, Plan};
use super::probe;
pub use super::recorder::Counts;
use super::recorder::Recorder;
use super::sync_clients;
use super::topology::topology;
use super::verdict::{Conclusion, Finding, Verdict};
use super::world::World;
use squall_env::SeedTree;
use squall_judge::{Judge, Observation, SimTime};
use squall_netsim::{self as engine, Engine, EngineName, LatencyRange, Unsupported};

/// The interval between reports of progress, in simulated time.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// The interval between checks for convergence, in the calm.
const CONVERGENCE_INTERVAL: Duration = Duration::from_millis(100);

/// The progress of a run.
#[derive(Debug, Clone)]
pub enum Progress {
    /// Simulated time has moved on.
    Moved {
        /// The time since the run began.
        at: SimTime,
        /// The numbers so far.
        counts: Counts,
    },
    /// A fault is injected.
    Fault {
        /// The time since the run began.
        at: SimTime,
        /// The fault.
        fault: Fault,
    },
    /// The storm is over.
    Calm {
        /// The time since the run began.
        at: SimTime,
    },
}

/// The source of a run's draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entropy {
    /// The plan's seed alone.
    Seed,
    /// The operating system. Such a run cannot be repeated; it shows that a comparison of two runs notices draws that do not
    /// come from the seed.
    System,
}

/// Callbacks and outputs of a run. By default there are none.
#[derive(Default)]
pub struct RunHooks {
    /// The callback for progress.
    pub watcher: Option<Box<dyn Fn(Progress)>>,
    /// The output for observations, one line of text each.
    pub trace: Option<Box<dyn Write>>,
}

/// Runs `plan` on the event-driven engine and judges it.
pub fn run(plan: &Plan, entropy: Entropy, hooks: RunHooks) -> Verdict {
    run_on(EngineName::default(), plan, entropy, hooks)
}

/// Runs `plan` on `engine` and judges it.
pub fn run_on(engine: EngineName, plan: &Plan, entropy: Entropy, hooks: RunHooks) -> Verdict {
    run_until(None, engine, plan, entropy, hooks)
}

/// Runs `plan` on `engine` and judges it. With `stop_on`, the run ends at the first violation that has that fingerprint.
fn run_until(stop_on: Option<&str>, engine: EngineName, plan: &Plan, entropy: Entropy, hooks: RunHooks) -> Verdict {
    let stopwatch = Stopwatch::start();
    let seeds = match entropy {
        Entropy::Seed => SeedTree::from_seed(plan.seed).child("run"),
        Entropy::System => SeedTree::from_os(),
    };
    let recorder = Recorder::new(Judge::new(topology(plan)), hooks.trace);
    let options = engine::Options {
        seeds: seeds.child("network"),
        hosts: plan.topology.machines().map(Arc::from).collect(),
        latency: LatencyRange { min_us: plan.network.latency_us_min, max_us: plan.network.latency_us_max },
        tap: recorder.clone(),
    };
    let run = Run { plan: Rc::new(plan.clone()), recorder: Rc::clone(&recorder), watcher: hooks.watcher.map(Rc::from) };
    let ending = engine::simulate(engine, options, async |engine| {
        let whole = run.storm_and_calm(engine, seeds);
        let Some(fingerprint) = stop_on else { return whole.await };
        tokio::select! {
            biased;
            ending = whole => ending,
            () = recorder.sees(fingerprint) => Ending::stopped(recorder.now()),
        }
    });
    Verdict { engine, ..verdict(plan, &recorder, ending, stopwatch.elapsed_ms()) }
}

/// Runs `plan` on the event-driven engine by its seed, without hooks. A panic is a verdict like any other.
pub fn judge(plan: &Plan) -> Verdict {
    judge_on(EngineName::default(), plan)
}

/// Runs `plan` on `engine` by its seed, without hooks. A panic is a verdict like any other.
pub fn judge_on(engine: EngineName, plan: &Plan) -> Verdict {
    judged(None, engine, plan)
}

/// Runs `plan` on `engine` until the first violation that has `fingerprint`, or to the end. The verdict counts only what
/// happened until then.
pub fn judge_until(fingerprint: &str, engine: EngineName, plan: &Plan) -> Verdict {
    judged(Some(fingerprint), engine, plan)
}

fn judged(stop_on: Option<&str>, engine: EngineName, plan: &Plan) -> Verdict {
    let run = || run_until(stop_on, engine, plan, Entropy::Seed, RunHooks::default());
    let ran = catch_unwind(AssertUnwindSafe(run));
    ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Verdict { engine, panic: Some(text.to_owned()), ..Verdict::new(plan, Conclusion::Panicked) }
    })
}

/// A run under way.
struct Run {
    plan: Rc<Plan>,
    recorder: Rc<Recorder>,
    watcher: Option<Rc<dyn Fn(Progress)>>,
}

/// The end of a run, besides the facts that the recorder has.
struct Ending {
    simulated: SimTime,
    faults: FaultTally,
    converged: bool,
}

impl Ending {
    /// Returns the end of a run that was stopped at `simulated`.
    fn stopped(simulated: SimTime) -> Self {
        Ending { simulated, faults: FaultTally::default(), converged: false }
    }
}

/// The counts of faults that took effect, and of those that did not.
#[derive(Default)]
struct FaultTally {
    by_family: RefCell<BTreeMap<&'static str, usize>>,
    idle: Cell<usize>,
    skipped: Cell<usize>,
}

impl Run {
    async fn storm_and_calm(self, engine: Rc<dyn Engine>, seeds: SeedTree) -> Ending {
        self.recorder.start();
        let (database, transactions) =
            SimDatabase::open(self.recorder.clone()).expect("an empty database in memory opens");
        tokio::task::spawn_local(transactions);
        let world = World::new(engine, &self.plan, seeds.clone(), database.clone(), Rc::clone(&self.recorder));
        world.start_all();
        let clients = self.plan.clients.iter().map(|client| {
            let seeds = seeds.child("client").child(client.user).child(client.device);
            tokio::task::spawn_local(sync_clients::run(Rc::clone(&world), client.clone(), seeds))
        });
        let clients: Vec<JoinHandle<()>> = clients.collect();
        let watching = self.watch();

        let faults = Rc::new(FaultTally::default());
        let end = Instant::now() + Duration::from_millis(self.plan.storm_ms);
        let operations = tokio::task::spawn_local(operate(Rc::clone(&world), self.plan.operations.clone()));
        let storm: Vec<_> = self.plan.faults.iter().map(|entry| self.schedule(&world, entry, end, &faults)).collect();
        let added = self.plan.topology.added.clone();
        let added = added.map(|added| tokio::task::spawn_local(added_writer::add(Rc::clone(&world), added)));
        tokio::time::sleep_until(end).await;

        operations.abort();
        for fault in storm {
            fault.await.expect("a fault ends by itself, at the end of the storm at the latest");
        }
        if let Some(added) = added {
            added.await.expect("a writer is added once every fault is over, at the latest");
        }
        world.start_all();
        world.observe_broker();
        self.recorder.observe(&Observation::Calm);
        if let Some(watcher) = &self.watcher {
            watcher(Progress::Calm { at: self.recorder.now() });
        }

        let converged = self.converges(&world, &database).await && self.reads_caches(&world).await;
        if converged && self.plan.has_probe {
            probe::run(&world, calm_bound(&self.plan)).await;
        }
        if let Some(watching) = watching {
            watching.abort();
        }
        for client in &clients {
            client.abort();
        }
        let faults = Rc::into_inner(faults).expect("every fault's task has ended");
        Ending { simulated: self.recorder.now(), faults, converged }
    }

    /// Spawns a task that reports the progress, if there is a watcher.
    fn watch(&self) -> Option<JoinHandle<()>> {
        let recorder = Rc::clone(&self.recorder);
        let watcher = self.watcher.clone()?;
        Some(tokio::task::spawn_local(async move {
            loop {
                watcher(Progress::Moved { at: recorder.now(), counts: recorder.counts() });
                tokio::time::sleep(WATCH_INTERVAL).await;
            }
        }))
    }

    /// Spawns a task that injects a fault at its time.
    fn schedule(&self, world: &Rc<World>, entry: &FaultEntry, end: Instant, tally: &Rc<FaultTally>) -> JoinHandle<()> {
        let world = Rc::clone(world);
        let tally = Rc::clone(tally);
        let recorder = Rc::clone(&self.recorder);
        let watcher = self.watcher.clone();
        let FaultEntry { at_ms, fault } = entry.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(at_ms)).await;
            if let Some(watcher) = watcher {
                watcher(Progress::Fault { at: recorder.now(), fault: fault.clone() });
            }
            let family = fault.family();
            match fault.inject(&*world, end).await {
                Ok(true) => *tally.by_family.borrow_mut().entry(family.name()).or_default() += 1,
                Ok(false) => tally.idle.set(tally.idle.get() + 1),
                Err(Unsupported) => tally.skipped.set(tally.skipped.get() + 1),
            }
        })
    }

    /// Reads every cached value. Returns false if a read has not returned within the calm bound.
    async fn reads_caches(&self, world: &World) -> bool {
        let read = tokio::time::timeout(calm_bound(&self.plan), world.read_caches()).await.is_ok();
        if !read {
            self.recorder.observe(&Observation::CalmOver);
        }
        read
    }

    /// Waits until nothing is pending, no request is under way, and no transaction in flight writes rows. Returns false if
    /// the calm bound is over first.
    async fn converges(&self, world: &World, database: &SimDatabase) -> bool {
        let deadline = Instant::now() + calm_bound(&self.plan);
        while Instant::now() < deadline {
            tokio::time::sleep(CONVERGENCE_INTERVAL).await;
            let is_at_work = world.has_requests_under_way() || database.has_rows_in_flight();
            if !is_at_work && self.recorder.judge().is_settled() {
                return true;
            }
        }
        self.recorder.observe(&Observation::CalmOver);
        false
    }
}

async fn operate(world: Rc<World>, operations: Vec<Operation>) {
    let began = Instant::now();
    for (place, Operation { at_ms, kind, id }) in operations.into_iter().enumerate() {
        tokio::time::sleep_until(began + Duration::from_millis(at_ms)).await;
        world.perform(id.unwrap_or(place), kind);
    }
}

fn verdict(plan: &Plan, recorder: &Recorder, ending: Ending, wall_ms: u64) -> Verdict {
    let judge = recorder.judge();
    let violation = Finding::first_of(judge.violations());
    let conclusion = match (&violation, ending.converged) {
        (Some(_), _) => Conclusion::Violated,
        (None, false) => Conclusion::Stuck,
        (None, true) => Conclusion::Passed,
    };
    let counts = recorder.counts();
    let faults_by_family = ending.faults.by_family.into_inner();
    Verdict {
        violation,
        pending: if ending.converged { Vec::new() } else { judge.pending() },
        trace_hash: judge.trace_hash(),
        simulated_ms: ending.simulated.0,
        wall_ms,
        faults: faults_by_family.values().sum(),
        faults_idle: ending.faults.idle.get(),
        faults_skipped: ending.faults.skipped.get(),
        faults_by_family,
        commands: counts.commands,
        rows_committed: counts.rows_committed,
        rows_applied: counts.rows_applied,
        marks: judge.marks().clone(),
        exercised: judge.exercised(),
        ..Verdict::new(plan, conclusion)
    }
}

/// A clock for real time, for the verdict's `wall_ms` alone.
struct Stopwatch {
    since: std::time::Instant,
}

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "a run's real duration is reported, and nothing depends on it")]
    fn start() -> Self {
        Stopwatch { since: std::time::Instant::now() }
    }

    fn elapsed_ms(&self) -> u64 {
        self.since.elapsed().as_millis() as u64
    }
}

#[cfg(test)]
mod tests;
