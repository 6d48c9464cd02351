//! An invariant that holds on the event-driven engine holds on turmoil's own `Sim` too, with another scheduler, other
//! clocks and another TCP. An invariant that holds on one engine only would be a property of that engine.
//!
//! Fifty plans run on both engines. They are plans of the storm, cut down to a few seconds and to the faults that both
//! engines can inject. Packets travel differently on the two engines, so traces are not compared. Both must end with the
//! same verdict, inject every fault, and exercise every invariant. Three whole plans run on turmoil as well: it counts the
//! faults that it skips, and gives the same trace in another process.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;

use squall::presence::PresenceConfig;
use squall::sim::plan::{Family, FaultEntry, Plan, Scenario};
use squall::sim::soak::{self, SeedRange, Tally};
use squall::sim::verdict::{Verdict, cargo_run};
use squall_netsim::EngineName;

use crate::{determinism, suite};

/// Length of the storm of a plan that runs on both engines.
const STORM_MS: u64 = 10_000;

/// The faults that turmoil cannot inject.
const SKIPPED: [Family; 5] =
    [Family::HalfOpen, Family::LateBytes, Family::SlowDrip, Family::Freeze, Family::SlowConsumer];

/// Returns the plan of `seed`, cut down so that both engines can run it in little time.
fn plan_for_both(seed: u64) -> Plan {
    let mut plan = Plan::generate(Scenario::Storm, seed);
    plan.storm_ms = STORM_MS;
    plan.operations.retain(|operation| operation.at_ms < STORM_MS);
    plan.faults.retain(|entry| entry.at_ms < STORM_MS && !SKIPPED.contains(&entry.fault.family()));
    // The calm lasts until a process's presence has expired, and until a busy user is offline.
    plan.presence =
        PresenceConfig { refresh_ms: 4_000, process_expiry_ms: 20_000, busy_ms: 40_000, ..PresenceConfig::default() };
    Plan::load(&plan.to_json()).expect("what is left is a plan")
}

/// Returns the verdict on the plan of every seed, on `engine`.
fn verdicts(engine: EngineName, seeds: SeedRange) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    soak::run_plans(engine, seeds, suite::all_cores(), plan_for_both, |verdict| {
        verdicts.push(verdict.clone());
        ControlFlow::Continue(())
    });
    verdicts
}

/// Returns the end of a run in words, with the command that repeats it.
fn described(verdict: &Verdict) -> String {
    let Verdict { seed, engine, verdict: ending, .. } = verdict;
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cross_check_{seed}.json"));
    std::fs::write(&path, plan_for_both(*seed).to_json()).expect("cargo has created the directory");
    let fingerprint = verdict.fingerprint().unwrap_or_default();
    let repeat = format!("{} --plan {}", cargo_run(*engine), path.display());
    format!("seed {seed} on {engine}: {ending} {fingerprint}\n{repeat}")
}

#[test]
fn both_engines_give_the_same_verdicts() {
    let seeds = suite::seeds("6000..6050");
    let [one, other] = EngineName::ALL.map(|engine| verdicts(engine, seeds));
    assert_eq!((one.len() as u64, other.len() as u64), (seeds.len(), seeds.len()));
    for (one, other) in one.iter().zip(&other) {
        for verdict in [one, other] {
            assert!(verdict.passed(), "{}", described(verdict));
            assert_eq!(verdict.faults_skipped, 0, "{}", described(verdict));
        }
        let injected = |verdict: &Verdict| verdict.faults + verdict.faults_idle;
        assert_eq!(injected(one), injected(other), "seed {}: every fault is injected on both", one.seed);
    }
    for verdicts in [one, other].iter().filter(|verdicts| verdicts.len() >= 50) {
        let mut tally = Tally::default();
        for verdict in verdicts {
            tally.add(verdict);
        }
        suite::assert_all_exercised(&tally);
    }
}

#[test]
fn turmoil_skips_unsupported_faults_and_runs_a_seed_alike_in_any_process() {
    const SEEDS: &str = "0..3";
    let elsewhere = determinism::hashes(&["soak", "--engine", "turmoil", "--seeds", SEEDS, "--json"]);
    let mut here = BTreeMap::new();
    let two = NonZeroUsize::new(2).expect("it is not zero");
    soak::run(EngineName::Turmoil, Scenario::Storm, SEEDS.parse().expect("it is a range"), two, |verdict| {
        assert!(verdict.passed(), "{:?}\n{}", verdict.fingerprint(), verdict.reproduction());
        let faults = Plan::generate(Scenario::Storm, verdict.seed).faults;
        let cannot = |entry: &&FaultEntry| SKIPPED.contains(&entry.fault.family());
        assert_eq!(verdict.faults_skipped, faults.iter().filter(cannot).count());
        assert_eq!(verdict.faults + verdict.faults_idle + verdict.faults_skipped, faults.len());
        here.insert(verdict.seed, verdict.trace_hash.clone());
        ControlFlow::Continue(())
    });
    assert_eq!(here.len(), 3);
    assert_eq!(here, elsewhere);
}
