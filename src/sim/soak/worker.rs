//! A soak's process, seen from inside: it reads seeds, a line each, and answers each with a verdict on a line.
//!
//! Whatever a seed does to its process (an endless loop, an abort, a stack overflow, memory without end) it does to
//! this one, and whoever started it looks on from outside; see [`super::processes`].

use std::io::{self, Write};
use std::process::exit;
use std::sync::mpsc;

use crate::sim::engine::EngineName;
use crate::sim::plan::{Plan, Scenario};
use crate::sim::runner;

/// Runs the seeds of `scenario` that standard input names on `engine`, until it is closed.
///
/// Standard input is closed as well when whoever started this process is dead, however it died. Nobody is left to hear
/// the verdict then, and the process ends at once, even in the middle of a seed.
/// So it is when standard output cannot be written.
pub fn serve(engine: EngineName, scenario: Scenario) -> ! {
    let hooks = Hooks::from_environment();
    let (seeds, asked) = mpsc::channel();
    std::thread::scope(|threads| {
        threads.spawn(move || {
            for line in io::stdin().lines().map_while(Result::ok) {
                match line.parse::<u64>() {
                    Ok(seed) if seeds.send(seed).is_ok() => {}
                    _ => break,
                }
            }
            exit(0);
        });
        for seed in asked {
            hooks.misbehave(seed);
            let verdict = runner::judge_on(engine, &Plan::generate(scenario, seed));
            let line = verdict.report(&verdict.reproduction()).to_json();
            let mut stdout = io::stdout().lock();
            if writeln!(stdout, "{line}").and_then(|()| stdout.flush()).is_err() {
                exit(0);
            }
        }
        exit(0)
    })
}

/// Seeds at which this process misbehaves, so that tests can see that misbehaviour is found. Nothing but tests sets
/// these variables.
struct Hooks {
    hang: Option<u64>,
    crash: Option<u64>,
    swell: Option<u64>,
}

impl Hooks {
    fn from_environment() -> Self {
        let seed = |name| std::env::var(name).ok().and_then(|seed| seed.parse().ok());
        Hooks {
            hang: seed("SQUALL_TEST_HANG_SEED"),
            crash: seed("SQUALL_TEST_CRASH_SEED"),
            swell: seed("SQUALL_TEST_SWELL_SEED"),
        }
    }

    fn misbehave(&self, seed: u64) {
        if self.crash == Some(seed) {
            eprintln!("crashing at seed {seed}, as asked");
            std::process::abort();
        }
        let mut hoard: Vec<Vec<u8>> = Vec::new();
        // Bounded, so that a test that fails does not take the machine with it.
        while self.swell == Some(seed) && hoard.len() < 64 {
            hoard.push(vec![1; 16 << 20]);
        }
        while self.hang == Some(seed) || !hoard.is_empty() {
            std::thread::park();
        }
    }
}
