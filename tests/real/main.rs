//! The stack without the simulator: real sockets, a real database file and real time.
//!
//! The stack must behave on a real network as it does on the simulated one. Every wait ends as soon as its event has
//! happened.
//!
//! The tests that need a Redis broker run on the simulated broker. With the feature `services` they also run on a real
//! one: `redis-server` must be installed. Some of them check that both brokers send the same replies.

mod broker;
mod deployment;
mod descriptors;
mod endurance;
mod follow;
mod follow_credentials;
mod follow_program;
mod full_disk;
mod load;
mod log;
#[path = "../support/ports.rs"]
mod ports;
mod processes;
mod program;
mod proxy;
mod redis;
mod rows;
#[path = "../support/schema.rs"]
mod schema;
#[cfg(feature = "services")]
mod sentinel;
mod server;
#[cfg(feature = "services")]
mod stopping;
mod tcp;
mod tls;
mod unwritable;

use tokio::task::LocalSet;

/// Runs a test on one thread, in real time.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}
