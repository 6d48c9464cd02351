//! The transports as a peer sees them: every byte in and out of real instances, on a network in memory and a paused
//! clock. Needs no simulator: nothing here is left to chance, so nothing has to be drawn.
//! Only the Redis broker is the simulator's.

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
mod requests;
#[path = "../support/rows.rs"]
mod rows;
mod user_syncs;

/// Runs a test where all its instances live: on one thread, with a clock that moves only when everybody waits.
fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}
