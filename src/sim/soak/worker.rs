//! The body of a soak's process: it reads seeds, one on each line, and answers each with a verdict on one line.
//!
//! A seed that loops for ever, aborts, overflows the stack or takes all memory affects only this process. The process
//! that started it watches it: see [`super::processes`].

use std::io::{self, Write};
use std::process::exit;
use std::sync::mpsc;

use crate::sim::plan::{Plan, Scenario};
use crate::sim::runner;
use squall_netsim::EngineName;

/// Runs the seeds that standard input names on `engine`, with plans of `scenario`, until standard input is closed.
///
/// Standard input is also closed when the parent process ends in any way. This process then ends at once, even during a
/// seed, because no process reads the verdict. It also ends when standard output cannot be written.
pub fn serve(engine: EngineName, scenario: Scenario) -> ! {
    let hooks = TestHooks::from_environment();
    let (sender, seeds) = mpsc::channel();
    std::thread::scope(|threads| {
        threads.spawn(move || {
            for line in io::stdin().lines().map_while(Result::ok) {
                match line.parse::<u64>() {
                    Ok(seed) if sender.send(seed).is_ok() => {}
                    _ => break,
                }
            }
            exit(0);
        });
        for seed in seeds {
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

/// Seeds at which this process hangs, crashes or takes too much memory. Only tests set the environment variables: they
/// check that a soak finds such seeds.
struct TestHooks {
    hang: Option<u64>,
    crash: Option<u64>,
    swell: Option<u64>,
}

impl TestHooks {
    fn from_environment() -> Self {
        let seed = |name| std::env::var(name).ok().and_then(|seed| seed.parse().ok());
        TestHooks {
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
        // The amount is bounded, so that a failing test does not exhaust the machine's memory.
        while self.swell == Some(seed) && hoard.len() < 64 {
            hoard.push(vec![1; 16 << 20]);
        }
        while self.hang == Some(seed) || !hoard.is_empty() {
            std::thread::park();
        }
    }
}
