//! The transports as a peer sees them: every byte to and from real instances, on a network in memory and a paused clock.
//!
//! The tests need no simulator and no seeds, but for the tests with a Redis broker, which is the simulated one.

#[cfg(feature = "sim")]
mod broker;
mod changes;
mod closing;
mod commands;
mod conformance;
mod database;
mod deployment;
mod greeting;
mod http;
mod liveness;
mod network;
mod peer;
mod reconnect;
mod refusals;
mod reports;
mod requests;
#[path = "../support/rows.rs"]
mod rows;
mod user_syncs;

/// Runs a test and its instances on one thread, with a clock that advances only when every task waits.
fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}
