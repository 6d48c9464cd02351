//! Splits the cost of whole runs into parts, in instructions.
//!
//! Wall time varies by a few per cent from run to run, and most single improvements are smaller. Instructions do not vary.
//! So valgrind's callgrind runs the same seeds once for each part, and counts while the part's functions run. A function
//! that is not found, because it was renamed or is part of another one now, ends this with an error.

use std::env;
use std::process::{Command, ExitCode};

use squall::sim::plan::{Plan, Scenario};
use squall::sim::runner;

/// The allocator of the program `squall`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The seeds of a sample. Callgrind is some fifty times slower than the program.
const SEEDS: std::ops::Range<u64> = 0..3;

/// An argument by which this program runs the seeds of a scenario, and nothing else.
const RUN: &str = "--run-seeds";

/// The parts, with the functions in which each is counted. A function that another one of the same part calls is not counted:
/// callgrind turns counting on and off with each of them.
const PARTS: [(&str, &[&str]); 5] = [
    ("drawing plans", &["*plan::generate*Plan>::generate"]),
    (
        "engine",
        &[
            "*event_driven::driver::Driver*poll",
            "*event_driven::stream::Stream*poll_read",
            "*event_driven::stream::Stream*poll_write",
            // The engine calls the tap, which is a part of the recorder.
            "*Recorder*Tap>::read",
            "*Recorder*Tap>::written",
        ],
    ),
    ("database", &["*store::database::Job::run"]),
    ("judge", &["*Judge::observe"]),
    ("convergence", &["*Judge::is_settled"]),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    if let Some(place) = arguments.iter().position(|argument| argument == RUN) {
        let scenario = arguments.get(place + 1).and_then(|name| name.parse().ok()).expect("a scenario");
        SEEDS.for_each(|seed| assert!(runner::judge(&Plan::generate(scenario, seed)).passed(), "{scenario} {seed}"));
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("not measured: valgrind is not installed (Debian's package valgrind)");
        return ExitCode::SUCCESS;
    }
    for function in PARTS.iter().flat_map(|(_, functions)| *functions) {
        if instructions(Scenario::Storm, &[function]) == 0 {
            println!("there is no function {function}: see PARTS in benches/cost.rs");
            return ExitCode::FAILURE;
        }
    }
    for scenario in [Scenario::Storm, Scenario::Swarm, Scenario::Redis, Scenario::RedisSwarm] {
        let total = instructions(scenario, &[]);
        let seeds = SEEDS.end - SEEDS.start;
        println!("{scenario}: {} million instructions a seed", total / seeds / 1_000_000);
        let mut rest = total;
        for (part, functions) in PARTS {
            let count = instructions(scenario, functions);
            rest -= count;
            println!("  {part:22} {:5.1} %", percent(count, total));
        }
        println!("  {:22} {:5.1} %", "stack, tokio, recorder", percent(rest, total));
    }
    ExitCode::SUCCESS
}

fn percent(part: u64, total: u64) -> f64 {
    100.0 * part as f64 / total as f64
}

/// Returns the number of instructions that the seeds take within these functions; in all, without functions.
fn instructions(scenario: Scenario, functions: &[&str]) -> u64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.args(functions.iter().map(|function| format!("--toggle-collect={function}")));
    let program = env::current_exe().expect("this program has a path");
    let output = command.arg(program).args([RUN, &scenario.to_string()]).output();
    let output = output.expect("valgrind was found before");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    collected.and_then(|(_, count)| count.trim().parse().ok()).unwrap_or_else(|| panic!("no count in: {text}"))
}
