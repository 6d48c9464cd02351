//! Measures the rate of rows from a writer to its followers, over TCP and over a real `redis-server`, and the memory of a
//! follower that is far behind.
//!
//! Rates differ by more than a factor of two between machines. Therefore the `redis` crate's own client publishes the same
//! payloads in the same run, in turn with the stack. It has as many subscribers, which parse the JSON and drop it. The
//! ratio of the two rates is the cost of the stack.

mod client;
#[path = "../../tests/support/memory.rs"]
mod memory;
mod server;
mod stack;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use server::Server;
use stack::{Cluster, Follower};
use tokio::task::LocalSet;

#[global_allocator]
static COUNTING: memory::Counting = memory::Counting;

/// Number of rows in a sample, which are committed at once. The environment variable `SQUALL_BENCH_ROWS` overrides it.
const ROWS: usize = 20_000;
/// Number of samples of each measurement. Their median counts.
const SAMPLES: usize = 5;
/// Numbers of followers.
const FOLLOWERS: [usize; 3] = [1, 4, 16];
/// Least ratio of the stack's rate to the client's.
const RATIO_MIN: f64 = 0.3;
/// Numbers of rows that a follower is behind, scaled like the samples.
const BEHIND: [usize; 2] = [10_000, 100_000];
/// Most ratio of the second one's memory to the first one's.
const GROWTH_MAX: f64 = 1.2;

fn main() -> ExitCode {
    let rows = std::env::var("SQUALL_BENCH_ROWS").ok();
    let rows = rows.map_or(ROWS, |rows| rows.parse().expect("SQUALL_BENCH_ROWS is a number"));
    let names: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_wanted = |part: &str| names.is_empty() || names.iter().any(|name| part.contains(name.as_str()));
    let mut is_well = true;
    if is_wanted("rates") {
        println!("{rows} rows at once, medians of {SAMPLES} samples");
        is_well &= FOLLOWERS.map(|followers| compare_rates(rows, followers)).iter().all(|is_well| *is_well);
    }
    if is_wanted("memory") {
        is_well &= compare_memory(BEHIND.map(|behind| behind * rows / ROWS));
    }
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints the rate of the stack and of the client alone. Returns true if the stack is fast enough.
fn compare_rates(rows: usize, followers: usize) -> bool {
    let [tcp, redis, client] = rates(rows, followers);
    let to = if followers == 1 { "1 follower".to_owned() } else { format!("{followers} followers") };
    println!("{to}: the client alone, {client:.0} rows a second");
    let mut is_well = true;
    for (transport, rate) in [("TCP", tcp), ("Redis", redis)] {
        let ratio = rate / client;
        println!("{to}: {transport}, {rate:.0} rows a second, {ratio:.2} of the client alone");
        if ratio < RATIO_MIN {
            println!("{to}: {transport} must be {RATIO_MIN} of the client alone");
            is_well = false;
        }
    }
    is_well
}

/// Prints the memory of a follower that is behind. Returns true if it does not grow with the distance.
fn compare_memory(behind: [usize; 2]) -> bool {
    let [less, more] = behind.map(|rows| {
        let peak = memory_behind(rows);
        println!("{rows} rows behind: {} KiB at most", peak / 1024);
        peak
    });
    let growth = more as f64 / less as f64;
    println!("ten times as far behind: {growth:.2} times the memory");
    if growth > GROWTH_MAX {
        println!("it must be at most {GROWTH_MAX} times");
    }
    growth <= GROWTH_MAX
}

/// Returns the rates over TCP, over Redis and of the client alone, in rows a second. The three take turns.
fn rates(rows: usize, followers: usize) -> [f64; 3] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("there are sockets");
    LocalSet::new().block_on(&runtime, async {
        let server = Server::start().await;
        let tcp = Cluster::start("tcp", None, followers).await;
        let redis = Cluster::start("redis", Some(server.config()), followers).await;
        let client = client::Client::start(&server, followers).await;
        let payloads = stack::payloads(rows);
        let mut took = [const { Vec::new() }; 3];
        for _ in 0..SAMPLES {
            took[0].push(tcp.carry(rows).await);
            took[1].push(redis.carry(rows).await);
            took[2].push(client.carry(&payloads).await);
        }
        took.map(|took| rows as f64 / median(took).as_secs_f64())
    })
}

/// Returns the peak memory of a follower that catches up with so many rows, in bytes.
fn memory_behind(rows: usize) -> usize {
    let cluster = stack::Scratch::new("behind", None);
    let writer = stack::Remote::start(&cluster);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("there are sockets");
    let tasks = LocalSet::new();
    let follower = tasks.block_on(&runtime, async {
        let follower = Follower::start(&cluster, "follower").await;
        follower.reaches(writer.write(1)).await;
        follower
    });
    // The follower does not run now, so the writer cannot wait for it.
    let last = writer.write(rows);
    let watch = memory::Watch::begin();
    tasks.block_on(&runtime, follower.reaches(last));
    watch.peak()
}

fn median(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took[took.len() / 2]
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}
