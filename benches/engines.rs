//! Compares the two engines, and measures the cost of an engine without the stack.
//!
//! The event-driven engine exists because stepping every host through every millisecond is too slow for a long soak. It
//! must stay ten times as fast on a quiet cluster and on bare traffic, and its cost must not grow faster than hosts times
//! messages. The benchmark fails otherwise.

mod bare;
mod figures;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::process::ExitCode;

use divan::Bencher;
use figures::{measure, rate};
use squall::sim::plan::{Plan, Scenario};
use squall::sim::runner::{self, Entropy, RunHooks};
use squall::sim::soak;
use squall_netsim::EngineName;

const ENGINES: [EngineName; 2] = EngineName::ALL;

/// Least ratio of the event-driven engine's rate to turmoil's on a quiet cluster and on bare traffic.
const FACTOR_MIN: f64 = 10.0;

/// Number of hosts in the quiet cluster.
const HOSTS: usize = 9;

/// Numbers of hosts for the growth of the cost. The first is the base.
const GROWING: [usize; 4] = [5, 10, 20, 40];

/// Length of bare traffic, in simulated seconds.
const BARE_SECS: u64 = 60;

fn main() -> ExitCode {
    figures::main();
    let mut is_well = true;
    for (what, factor_min) in [("quiet", Some(FACTOR_MIN)), ("bare", Some(FACTOR_MIN)), ("swarm", None)] {
        let [Some(one), Some(other)] = ENGINES.map(|engine| rate(&format!("{what} on {engine}"))) else { continue };
        let factor = one / other;
        println!("{what}: {} is {factor:.1} times as fast as {}", ENGINES[0], ENGINES[1]);
        if let Some(factor_min) = factor_min.filter(|least| factor < *least) {
            println!("{what}: it must be {factor_min} times as fast");
            is_well = false;
        }
    }
    if let (Some(whole), Some(bare)) = (rate("whole"), rate("as much")) {
        println!("of a whole run, the engine alone takes {:.0} % for as many hosts and messages", 100.0 * whole / bare);
    }
    let [first, ..] = GROWING;
    for hosts in GROWING {
        let rate = |hosts| rate(&format!("{hosts} hosts"));
        let (Some(least), Some(now)) = (rate(first), rate(hosts)) else { continue };
        // The number of messages grows with the number of hosts, in the same simulated time.
        let cost = least / now;
        let more = hosts as f64 / first as f64;
        println!("{hosts} hosts: {cost:.1} times the cost of {first}, {:.2} times a message", cost / more);
        if cost > more * more {
            println!("{hosts} hosts: worse than hosts times messages");
            is_well = false;
        }
    }
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs nine hosts for a simulated minute of pings and heartbeats.
#[divan::bench(sample_count = 5, sample_size = 1, args = ENGINES)]
fn quiet(bencher: Bencher, engine: EngineName) {
    let plan = Plan { storm_ms: 60_000, ..Plan::generate(Scenario::Quiet, 0) };
    let describe = |rate| format!("quiet: {rate:.0} simulated seconds a second on {engine}");
    measure(bencher, &format!("quiet on {engine}"), 60, describe, || {
        let verdict = runner::run_on(engine, &plan, Entropy::Seed, RunHooks::default());
        assert!(verdict.passed(), "{}", verdict.reproduction());
    });
}

/// Runs nine hosts without the stack. Each sends a message a second to another one.
#[divan::bench(sample_count = 5, sample_size = 1, args = ENGINES)]
fn bare_traffic(bencher: Bencher, engine: EngineName) {
    let describe = |rate| format!("bare traffic: {rate:.0} simulated seconds a second on {engine}");
    let messages = HOSTS as u64 * BARE_SECS;
    measure(bencher, &format!("bare on {engine}"), BARE_SECS, describe, || {
        bare::run(engine, HOSTS, BARE_SECS, messages);
    });
}

/// Runs seeds of the swarm; fewer on turmoil, which is much slower.
#[divan::bench(sample_count = 3, sample_size = 1, args = ENGINES)]
fn swarm(bencher: Bencher, engine: EngineName) {
    let seeds = match engine {
        EngineName::EventDriven => "0..40",
        EngineName::Turmoil => "0..4",
    };
    let seeds: soak::SeedRange = seeds.parse().expect("it is a range of seeds");
    let describe = |rate| format!("swarm: {:.0} seeds a minute on one thread on {engine}", rate * 60.0);
    measure(bencher, &format!("swarm on {engine}"), seeds.len(), describe, || {
        soak::run(engine, Scenario::Swarm, seeds, NonZeroUsize::MIN, |verdict| {
            assert!(verdict.passed(), "{}", verdict.reproduction());
            ControlFlow::Continue(())
        });
    });
}

/// Runs one seed of the swarm on the event-driven engine.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn whole_run(bencher: Bencher) {
    let plan = Plan::generate(Scenario::Swarm, 1);
    let describe = |rate| format!("whole run: {:.1} ms", 1_000.0 / rate);
    measure(bencher, "whole", 1, describe, || {
        runner::run_on(EngineName::EventDriven, &plan, Entropy::Seed, RunHooks::default());
    });
}

/// Runs the same number of hosts for the same time without the stack, with a message for every command of that run.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn as_much_without_the_stack(bencher: Bencher) {
    let plan = Plan::generate(Scenario::Swarm, 1);
    let verdict = runner::run_on(EngineName::EventDriven, &plan, Entropy::Seed, RunHooks::default());
    let secs = verdict.simulated_ms / 1_000;
    let messages = verdict.commands;
    let describe = |rate| {
        format!("the engine alone: {:.1} ms for {messages} messages in {secs} simulated seconds", 1_000.0 / rate)
    };
    measure(bencher, "as much", 1, describe, || bare::run(EngineName::EventDriven, verdict.hosts, secs, messages));
}

/// Runs a growing number of hosts on the event-driven engine. Each sends a message a second.
#[divan::bench(sample_count = 10, sample_size = 1, args = GROWING)]
fn growing(bencher: Bencher, hosts: usize) {
    let describe = |rate| format!("{hosts} hosts: {rate:.0} simulated seconds a second");
    let messages = hosts as u64 * BARE_SECS;
    measure(bencher, &format!("{hosts} hosts"), BARE_SECS, describe, || {
        bare::run(EngineName::EventDriven, hosts, BARE_SECS, messages);
    });
}
