//! The two engines side by side, and what either costs without the stack.
//!
//! The event-driven engine exists because stepping every host through every millisecond is too dear for a night's soak.
//! That has to stay so: on a quiet cluster and on bare traffic it must be ten times as fast, and its cost must not grow
//! faster with the hosts than hosts times messages does. This ends with an error if it is not so.

mod bare;
mod figures;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::process::ExitCode;

use divan::Bencher;
use figures::{measure, rate};
use squall::sim::engine::EngineName;
use squall::sim::plan::{Plan, Scenario};
use squall::sim::runner::{self, Entropy, Onlookers};
use squall::sim::soak;

const ENGINES: [EngineName; 2] = EngineName::ALL;

/// How many times as fast as turmoil the event-driven engine must be where little happens.
const FACTOR_MIN: f64 = 10.0;

/// How many hosts there are in the quiet cluster and in the swarm.
const HOSTS: usize = 9;

/// How the hosts grow, from the first of these.
const GROWING: [usize; 4] = [5, 10, 20, 40];

/// How long bare traffic goes on, in simulated seconds.
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
        // As many messages more as hosts, in as much simulated time.
        let (cost, more) = (least / now, hosts as f64 / first as f64);
        println!("{hosts} hosts: {cost:.1} times the cost of {first}, {:.2} times a message", cost / more);
        if cost > more * more {
            println!("{hosts} hosts: worse than hosts times messages");
            is_well = false;
        }
    }
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Nine hosts and a simulated minute of pings and heartbeats.
#[divan::bench(sample_count = 5, sample_size = 1, args = ENGINES)]
fn quiet(bencher: Bencher, engine: EngineName) {
    let plan = Plan { storm_ms: 60_000, ..Plan::generate(Scenario::Quiet, 0) };
    let tell = |rate| format!("quiet: {rate:.0} simulated seconds a second on {engine}");
    measure(bencher, &format!("quiet on {engine}"), 60, tell, || {
        let verdict = runner::run_on(engine, &plan, Entropy::Seed, Onlookers::default());
        assert!(verdict.passed(), "{}", verdict.reproduction());
    });
}

/// Nine hosts without the stack, each of which sends another one a message a second.
#[divan::bench(sample_count = 5, sample_size = 1, args = ENGINES)]
fn bare_traffic(bencher: Bencher, engine: EngineName) {
    let tell = |rate| format!("bare traffic: {rate:.0} simulated seconds a second on {engine}");
    let messages = HOSTS as u64 * BARE_SECS;
    measure(bencher, &format!("bare on {engine}"), BARE_SECS, tell, || {
        bare::run(engine, HOSTS, BARE_SECS, messages);
    });
}

/// Whole runs of the swarm. Fewer seeds on turmoil, which needs so much longer.
#[divan::bench(sample_count = 3, sample_size = 1, args = ENGINES)]
fn swarm(bencher: Bencher, engine: EngineName) {
    let seeds = match engine {
        EngineName::TurmoilNet => "0..40",
        EngineName::Turmoil => "0..4",
    };
    let seeds: soak::SeedRange = seeds.parse().expect("it is a range of seeds");
    let tell = |rate| format!("swarm: {:.0} seeds a minute on one thread on {engine}", rate * 60.0);
    measure(bencher, &format!("swarm on {engine}"), seeds.len(), tell, || {
        soak::run(engine, Scenario::Swarm, seeds, NonZeroUsize::MIN, |verdict| {
            assert!(verdict.passed(), "{}", verdict.reproduction());
            ControlFlow::Continue(())
        });
    });
}

/// One run of the swarm on the event-driven engine.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn whole_run(bencher: Bencher) {
    let plan = Plan::generate(Scenario::Swarm, 1);
    let tell = |rate| format!("whole run: {:.1} ms", 1_000.0 / rate);
    measure(bencher, "whole", 1, tell, || {
        runner::run_on(EngineName::TurmoilNet, &plan, Entropy::Seed, Onlookers::default());
    });
}

/// As many hosts for as long, with a message for every command that was read in that run, and nothing else.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn as_much_without_the_stack(bencher: Bencher) {
    let plan = Plan::generate(Scenario::Swarm, 1);
    let verdict = runner::run_on(EngineName::TurmoilNet, &plan, Entropy::Seed, Onlookers::default());
    let (secs, messages) = (verdict.simulated_ms / 1_000, verdict.commands);
    let tell = |rate| {
        format!("the engine alone: {:.1} ms for {messages} messages in {secs} simulated seconds", 1_000.0 / rate)
    };
    measure(bencher, "as much", 1, tell, || bare::run(EngineName::TurmoilNet, verdict.hosts, secs, messages));
}

/// More and more hosts on the event-driven engine, each of which sends a message a second.
#[divan::bench(sample_count = 10, sample_size = 1, args = GROWING)]
fn growing(bencher: Bencher, hosts: usize) {
    let tell = |rate| format!("{hosts} hosts: {rate:.0} simulated seconds a second");
    let messages = hosts as u64 * BARE_SECS;
    measure(bencher, &format!("{hosts} hosts"), BARE_SECS, tell, || {
        bare::run(EngineName::TurmoilNet, hosts, BARE_SECS, messages);
    });
}
