//! Input that nobody who means well would send: it costs whoever sends it their connection, and nobody else anything.
//!
//! Each attack is made on real instances, on a network in memory and a paused clock. Three things are asked each time:
//! that the attacker is told, or whoever looks on; that the instance serves everybody else as if nothing were; and that
//! no more memory is held than was said to be. The allocator counts, which is why this is a program of its own.

mod attack;
mod broker;
#[path = "../transport/database.rs"]
mod database;
#[path = "../transport/deployment.rs"]
#[allow(dead_code, reason = "the transports' tests use all of it")]
mod deployment;
mod documented;
mod flood;
mod http;
mod lines;
#[path = "../support/memory.rs"]
mod memory;
#[path = "../transport/network.rs"]
mod network;
#[path = "../transport/peer.rs"]
#[allow(dead_code, reason = "the transports' tests use all of it")]
mod peer;
#[path = "../transport/requests.rs"]
#[allow(dead_code, reason = "the transports' tests use all of it")]
mod requests;
mod simulated;

use attack::Target;
use deployment::Deployment;

#[global_allocator]
static COUNTING: memory::Counting = memory::Counting;

/// Runs a test where all its instances live: on one thread, with a clock that moves only when everybody waits.
fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// Runs a test on a deployment of which the master runs and can be attacked.
fn on_master(test: impl AsyncFnOnce(Deployment, Target)) {
    run(async {
        let deployment = Deployment::new();
        let master = Target::start(&deployment, "master").await;
        test(deployment, master).await;
    });
}
