//! Malformed, endless and excessive input. It costs the sender its connection and does not affect other peers.
//!
//! Each attack targets real instances on a network in memory and a paused clock. Each test checks that the error is sent to
//! the attacker or reported, that the instance serves other peers without delay, and that memory stays within the
//! documented bound. Hostile recordings are given to an audit. The global allocator counts memory, so these tests are a
//! program of their own.

mod announcements;
mod attack;
mod broker;
#[path = "../transport/database.rs"]
mod database;
#[path = "../transport/deployment.rs"]
#[allow(dead_code, reason = "the transports' tests use all of it")]
mod deployment;
mod documented;
mod flood;
mod fuzzed;
mod http;
mod lines;
#[path = "../support/memory.rs"]
mod memory;
#[path = "../transport/network.rs"]
mod network;
#[path = "../transport/peer.rs"]
#[allow(dead_code, reason = "the transports' tests use all of it")]
mod peer;
#[path = "../support/ports.rs"]
mod ports;
#[path = "../fuzz/properties.rs"]
#[allow(unreachable_pub, reason = "it is also a library, for `cargo fuzz`")]
mod properties;
mod recordings;
#[path = "../transport/requests.rs"]
#[allow(dead_code, reason = "the transports' tests use all of it")]
mod requests;
mod simulated;

use attack::Target;
use deployment::Deployment;

#[global_allocator]
static COUNTING: memory::Counting = memory::Counting;

/// Runs a test and its instances on one thread, with a clock that advances only when every task waits.
fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// Runs a test on a deployment whose master runs.
fn on_master(test: impl AsyncFnOnce(Deployment, Target)) {
    run(async {
        let deployment = Deployment::new();
        let master = Target::start(&deployment, "master").await;
        test(deployment, master).await;
    });
}
