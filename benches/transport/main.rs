//! How fast rows get from their writer to its followers, over TCP and over a real `redis-server`, and what memory a
//! follower takes that is far behind.
//!
//! Rows a second say little by themselves: they differ by more than two from machine to machine. So in the same run, in
//! turn with the stack, the `redis` crate's own client publishes the very payloads to as many subscribers, each of which
//! reads their JSON and does nothing with it. The ratio is what the stack costs.

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

/// How many rows a sample has, unless `SQUALL_BENCH_ROWS` says otherwise.
const ROWS: usize = 20_000;
/// How many of them are committed at once; the next ones when these have arrived. With more than ten thousand waiting for
/// it a follower would be dropped, and catch up instead.
pub const BURST: usize = 5_000;
/// How many samples there are of each; their median counts.
const SAMPLES: usize = 5;
/// How many followers there are.
const FOLLOWERS: [usize; 3] = [1, 4, 16];
/// At the least this much of the client's rate the stack must have.
const RATIO_MIN: f64 = 0.3;
/// How many rows a follower is behind, scaled as the samples are.
const BEHIND: [usize; 2] = [10_000, 100_000];
/// How many times the memory the second may take.
const GROWTH_MAX: f64 = 1.2;

fn main() -> ExitCode {
    let rows = std::env::var("SQUALL_BENCH_ROWS").ok();
    let rows = rows.map_or(ROWS, |rows| rows.parse().expect("SQUALL_BENCH_ROWS is a number"));
    let names: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_wanted = |part: &str| names.is_empty() || names.iter().any(|name| part.contains(name.as_str()));
    let mut is_well = true;
    if is_wanted("rates") {
        println!("{rows} rows a sample, {BURST} at once, medians of {SAMPLES}");
        is_well &= FOLLOWERS.map(|followers| compare_rates(rows, followers)).iter().all(|is_well| *is_well);
    }
    if is_wanted("memory") {
        is_well &= compare_memory(BEHIND.map(|behind| behind * rows / ROWS));
    }
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says how fast the stack is beside the client alone, and whether it is fast enough.
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

/// Says what memory a follower takes that is so far behind, and whether it is no more the further it is.
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

/// Rows a second over TCP, over Redis, and of the client alone, which take turns.
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

/// The most memory that a follower takes, in bytes, until it has made good that it is so many rows behind.
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
    // Nobody runs the follower now, and the writer cannot wait for it.
    let last = writer.write(rows);
    let watch = memory::Watch::begin();
    tasks.block_on(&runtime, follower.reaches(last));
    watch.peak()
}

fn median(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took[took.len() / 2]
}

#[expect(clippy::disallowed_methods, reason = "real time is what a benchmark is about")]
fn now() -> Instant {
    Instant::now()
}
