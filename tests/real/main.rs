//! The stack without the simulator: real sockets, a real database file and real time.
//!
//! What the storm proves on a simulated network has to hold on a real one. Every wait ends as soon as what it waits for
//! has happened.
//!
//! With the feature `services` what needs a Redis broker runs on a real one too, which has to be installed
//! (`redis-server`); without it on the storm's own, which the same tests hold to what a real one answers.

mod broker;
mod deployment;
mod follow;
mod follow_program;
mod processes;
mod program;
mod redis;
mod rows;
mod server;
#[cfg(feature = "services")]
mod stopping;
mod tcp;
mod tls;

use tokio::task::LocalSet;

/// Runs a test on one thread, in real time.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}
