//! One run, from plan to verdict.
//!
//! A run has two phases. In the storm, operations and faults happen as planned, and safety must hold at every step. In
//! the calm every fault is healed and every process is up, and everything must converge within the calm bound.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::calm::calm_bound;
use super::database::SimDatabase;
use super::engine::{self, Cannot, Engine, EngineName, LatencyRange};
use super::plan::{Fault, FaultEntry, Operation, Plan};
use super::recorder::{Counts, Recorder};
use super::verdict::{Conclusion, Finding, Verdict};
use super::world::World;
use super::{clients, faults, topology};
use crate::env::Chance;
use crate::judge::{Judge, Moment, Observation};

/// How often a watcher is told how the run goes, in simulated time.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// How often the judge is asked, in the calm, whether everything has converged.
const CONVERGENCE_INTERVAL: Duration = Duration::from_millis(100);

/// What a watcher is told while a run goes on.
#[derive(Debug, Clone)]
pub enum Progress {
    /// Simulated time has moved on.
    Moved {
        /// Since the run began.
        at: Moment,
        /// The numbers so far.
        counts: Counts,
    },
    /// A fault is injected.
    Fault {
        /// When.
        at: Moment,
        /// Which.
        fault: Fault,
    },
    /// The storm is over.
    Calm {
        /// When.
        at: Moment,
    },
}

/// Where the draws of a run come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entropy {
    /// The plan's seed, and nothing else.
    Seed,
    /// The operating system. Such a run cannot be repeated; it exists to show that the comparison of two runs notices
    /// when chance comes from elsewhere.
    System,
}

/// Who looks on while a plan runs. Nobody does by default.
#[derive(Default)]
pub struct Onlookers {
    /// Is told how the run goes.
    pub watcher: Option<Box<dyn Fn(Progress)>>,
    /// Gets every observation as a line of text.
    pub trace: Option<Box<dyn Write>>,
}

/// Runs `plan` on the event-driven engine and judges it.
pub fn run(plan: &Plan, entropy: Entropy, onlookers: Onlookers) -> Verdict {
    run_on(EngineName::default(), plan, entropy, onlookers)
}

/// Runs `plan` on `engine` and judges it.
pub fn run_on(engine: EngineName, plan: &Plan, entropy: Entropy, onlookers: Onlookers) -> Verdict {
    run_until(None, engine, plan, entropy, onlookers)
}

/// The same, but only until something is violated in the way that a fingerprint says, if that is given.
fn run_until(seen: Option<&str>, engine: EngineName, plan: &Plan, entropy: Entropy, onlookers: Onlookers) -> Verdict {
    let stopwatch = Stopwatch::start();
    let chance = match entropy {
        Entropy::Seed => Chance::from_seed(plan.seed).of("run"),
        Entropy::System => Chance::from_os(),
    };
    let recorder = Recorder::new(Judge::new(topology(plan)), onlookers.trace);
    let watcher = onlookers.watcher.unwrap_or_else(|| Box::new(|_| {}));
    let options = engine::Options {
        chance: chance.of("network"),
        hosts: plan.topology.machines().map(Arc::from).collect(),
        latency: LatencyRange { min_us: plan.network.latency_us_min, max_us: plan.network.latency_us_max },
        tap: recorder.clone(),
    };
    let run = Run { plan: Rc::new(plan.clone()), recorder: Rc::clone(&recorder), watcher: watcher.into() };
    let ending = engine::simulate(engine, options, async |engine| {
        let whole = run.storm_and_calm(engine, chance);
        let Some(fingerprint) = seen else { return whole.await };
        tokio::select! {
            biased;
            ending = whole => ending,
            () = recorder.sees(fingerprint) => Ending::before_the_end(recorder.now()),
        }
    });
    Verdict { engine, ..verdict(plan, &recorder, ending, stopwatch.elapsed_ms()) }
}

/// Runs `plan` on the event-driven engine by its seed, with nobody looking on. A panic is a verdict like any other.
pub fn judge(plan: &Plan) -> Verdict {
    judge_on(EngineName::default(), plan)
}

/// The same on `engine`.
pub fn judge_on(engine: EngineName, plan: &Plan) -> Verdict {
    judged(None, engine, plan)
}

/// The same, but whoever knows what they are looking for need not see the rest: the run ends when something is violated
/// in the way that `fingerprint` says. What the verdict counts is what there was until then.
pub fn judge_until(fingerprint: &str, engine: EngineName, plan: &Plan) -> Verdict {
    judged(Some(fingerprint), engine, plan)
}

fn judged(seen: Option<&str>, engine: EngineName, plan: &Plan) -> Verdict {
    let run = || run_until(seen, engine, plan, Entropy::Seed, Onlookers::default());
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
    watcher: Rc<dyn Fn(Progress)>,
}

/// What a run has come to, besides what the recorder knows.
struct Ending {
    simulated: Moment,
    faults: FaultTally,
    converged: bool,
}

impl Ending {
    /// Of a run that nobody wanted to see any more of at `simulated`.
    fn before_the_end(simulated: Moment) -> Self {
        Ending { simulated, faults: FaultTally::default(), converged: false }
    }
}

/// Which faults took effect.
#[derive(Default)]
struct FaultTally {
    by_family: RefCell<BTreeMap<&'static str, usize>>,
    idle: Cell<usize>,
    skipped: Cell<usize>,
}

impl Run {
    async fn storm_and_calm(self, engine: Rc<dyn Engine>, chance: Chance) -> Ending {
        self.recorder.start();
        let (database, transactions) =
            SimDatabase::open(self.recorder.clone()).expect("an empty database in memory opens");
        tokio::task::spawn_local(transactions);
        let world = World::new(engine, &self.plan, chance.clone(), database.clone(), Rc::clone(&self.recorder));
        world.start_all();
        let clients = self.plan.clients.iter().map(|client| {
            let chance = chance.of("client").of(client.user).of(client.device);
            tokio::task::spawn_local(clients::run(Rc::clone(&world), client.clone(), chance))
        });
        let clients: Vec<JoinHandle<()>> = clients.collect();
        let watching = self.watch();

        let faults = Rc::new(FaultTally::default());
        let end = Instant::now() + Duration::from_millis(self.plan.storm_ms);
        let operations = tokio::task::spawn_local(operate(Rc::clone(&world), self.plan.operations.clone()));
        let storm: Vec<_> = self.plan.faults.iter().map(|entry| self.schedule(&world, entry, end, &faults)).collect();
        tokio::time::sleep_until(end).await;

        operations.abort();
        for fault in storm {
            fault.await.expect("a fault ends by itself, at the end of the storm at the latest");
        }
        world.start_all();
        world.observe_broker();
        self.recorder.observe(&Observation::Calm);
        (self.watcher)(Progress::Calm { at: self.recorder.now() });

        let converged = self.converges(&database).await;
        watching.abort();
        clients.iter().for_each(JoinHandle::abort);
        let faults = Rc::into_inner(faults).expect("every fault's task has ended");
        Ending { simulated: self.recorder.now(), faults, converged }
    }

    fn watch(&self) -> JoinHandle<()> {
        let (recorder, watcher) = (Rc::clone(&self.recorder), Rc::clone(&self.watcher));
        tokio::task::spawn_local(async move {
            loop {
                watcher(Progress::Moved { at: recorder.now(), counts: recorder.counts() });
                tokio::time::sleep(WATCH_INTERVAL).await;
            }
        })
    }

    /// Lets a fault happen in its time.
    fn schedule(&self, world: &Rc<World>, entry: &FaultEntry, end: Instant, tally: &Rc<FaultTally>) -> JoinHandle<()> {
        let (world, tally) = (Rc::clone(world), Rc::clone(tally));
        let (recorder, watcher) = (Rc::clone(&self.recorder), Rc::clone(&self.watcher));
        let FaultEntry { at_ms, fault } = entry.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(at_ms)).await;
            watcher(Progress::Fault { at: recorder.now(), fault: fault.clone() });
            let family = fault.family();
            match faults::inject(world, fault, end).await {
                Ok(true) => *tally.by_family.borrow_mut().entry(family.name()).or_default() += 1,
                Ok(false) => tally.idle.set(tally.idle.get() + 1),
                Err(Cannot) => tally.skipped.set(tally.skipped.get() + 1),
            }
        })
    }

    /// Waits until nothing is pending any more, and no transaction that could add to it is on its way. False if the calm
    /// bound is over first.
    async fn converges(&self, database: &SimDatabase) -> bool {
        let deadline = Instant::now() + calm_bound(&self.plan.presence);
        while Instant::now() < deadline {
            tokio::time::sleep(CONVERGENCE_INTERVAL).await;
            if !database.has_rows_in_flight() && self.recorder.judge().pending().is_empty() {
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

/// Real time, for the verdict's `wall_ms` alone.
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
