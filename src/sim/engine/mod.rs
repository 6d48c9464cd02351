//! Hosts, clock and links for simulated instances.
//!
//! An engine gives every instance of a run its [`Network`], lets the world inject faults into it, and tells a [`Tap`] what
//! went over the wire. There are two. [`turmoil_net`] decides the fate of every packet, and quiet time costs it nothing: it
//! is the one that finds things. [`turmoil`] is the cross-check: another scheduler, other clocks, another TCP. What holds
//! on one of them only is a property of that engine and not of the stack.
//!
//! [`Engine`] is all that the world knows of either.

mod name;
pub mod tap;
#[cfg(test)]
mod tests;
pub mod time;
pub mod turmoil;
pub mod turmoil_net;

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::runtime::{RngSeed, Runtime, UnhandledPanic};
use tokio::task::LocalSet;

pub use name::EngineName;
pub use tap::{Attempt, End, Side, Tap};

use crate::env::{Chance, LocalBoxFuture, Network};

/// How long a packet travels, drawn from these bounds. Arrivals are rounded up to a millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyRange {
    /// Shortest journey, microseconds.
    pub min_us: u64,
    /// Longest journey, microseconds, included. Less than `min_us` means `min_us`.
    pub max_us: u64,
}

/// A slow consumer: how fast an application reads from each of its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowReader {
    /// Most bytes one read returns; at least one.
    pub bytes: usize,
    /// Time after each read before the next one succeeds.
    pub pause: Duration,
}

/// An open connection between two hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// [`Attempt::id`] of the attempt that made it.
    pub id: u64,
    /// The host that dialled.
    pub client: Arc<str>,
    /// The host that accepted.
    pub server: Arc<str>,
    /// The server's port.
    pub port: u16,
}

/// What a simulation is made of.
pub struct Options {
    /// Where every draw comes from.
    pub chance: Chance,
    /// The names of all hosts, each once.
    pub hosts: Vec<Arc<str>>,
    /// How long packets travel, on every link.
    pub latency: LatencyRange,
    /// Who is told of all traffic.
    pub tap: Rc<dyn Tap>,
}

/// What runs on a host: is given the host's network, once, in the process that it becomes.
pub type Main = Box<dyn FnOnce(Rc<dyn Network>) -> LocalBoxFuture<'static, ()>>;

/// The engine has no means to do this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this engine cannot do that")]
pub struct Cannot;

/// A simulation, in the hands of the world: starts processes and injects faults. To be used outside the processes.
///
/// Methods that take the name of a host panic if there is none of that name. Those that have a body here are what an
/// engine need not be able to do.
pub trait Engine {
    /// Starts a process on `host`, with the power on: a new boot. When `main` ends the process goes on idle.
    ///
    /// # Panics
    /// If a process is already running there.
    fn start(&self, host: &str, main: Main);

    /// How many processes were started on `host`: the number of the present or last one.
    fn boot(&self, host: &str) -> u64;

    /// Whether a process is running on `host`, frozen or not.
    fn is_up(&self, host: &str) -> bool;

    /// Ends the process on `host`; the kernel stays. Peers read end of file, or a reset where bytes lay unread, and
    /// ports refuse. False if there was no process.
    fn stop(&self, host: &str) -> bool;

    /// Cuts the power of `host`: peers hear nothing more until it starts again, and new connections time out. False
    /// if there was no power.
    fn power_cut(&self, host: &str) -> bool;

    /// The connections between `a` and `b`, whoever dialled, that are open at both ends, oldest first.
    fn connections(&self, a: &str, b: &str) -> Vec<Connection>;

    /// Resets both ends of a connection at once. False if it was not open any more.
    fn cut(&self, connection: &Connection) -> bool;

    /// Lets nothing through from one host to another.
    fn partition(&self, from: &str, to: &str);

    /// Ends a partition.
    fn heal(&self, from: &str, to: &str);

    /// How many packets from one host to another have met a partition so far: whether the fault took effect.
    fn held(&self, from: &str, to: &str) -> u64;

    /// How many packets have left one host for another so far.
    fn sent(&self, from: &str, to: &str) -> u64;

    /// Sets how long packets from one host to another travel, from now on.
    fn set_latency(&self, from: &str, to: &str, latency: LatencyRange);

    /// Sets it back to what all links have.
    fn reset_latency(&self, from: &str, to: &str);

    /// Makes an end to one end only of a connection between `gone` and `survivor` whose server has `port`: the application
    /// on `gone` reads a reset, and what the other end sends is dropped without a word, until [`answer`](Self::answer).
    /// Gives the connection, none if none is open.
    fn half_open(&self, _gone: &str, _survivor: &str, _port: u16) -> Result<Option<Connection>, Cannot> {
        Err(Cannot)
    }

    /// What comes along a connection one of whose ends is gone is answered from now on, by a reset.
    fn answer(&self, _connection: &Connection) -> Result<(), Cannot> {
        Err(Cannot)
    }

    /// Limits what goes from one host to another, in bytes a second, headers included.
    fn set_bandwidth(&self, _from: &str, _to: &str, _bytes_per_sec: Option<u64>) -> Result<(), Cannot> {
        Err(Cannot)
    }

    /// Stops the process on `host` in its tracks (SIGSTOP); its kernel goes on accepting and acknowledging. False if
    /// none was running freely.
    fn freeze(&self, _host: &str) -> Result<bool, Cannot> {
        Err(Cannot)
    }

    /// Lets a frozen process go on; its overdue timers all fire at once. False if it was not frozen.
    fn thaw(&self, _host: &str) -> Result<bool, Cannot> {
        Err(Cannot)
    }

    /// Whether the process on `host` is frozen.
    fn is_frozen(&self, _host: &str) -> bool {
        false
    }

    /// Makes the process on `host` read slowly from each of its streams; the kernel's window does the rest.
    fn slow_reader(&self, _host: &str, _slow: Option<SlowReader>) -> Result<(), Cannot> {
        Err(Cannot)
    }

    /// How many reads on `host` were cut short because it reads slowly: whether the fault took effect.
    fn slowed(&self, _host: &str) -> u64 {
        0
    }
}

/// Runs one simulation on the engine called `name`, to the end of `main`, the task that plays the world, and returns its
/// result. Then every process is ended.
///
/// All state belongs to the thread: any number of simulations may run on as many threads, and one after the other on
/// one.
///
/// # Panics
/// If a task of any process panics, if two hosts have one name, and if called from within a simulation.
pub fn simulate<T, F: Future<Output = T>>(
    name: EngineName,
    options: Options,
    main: impl FnOnce(Rc<dyn Engine>) -> F,
) -> T {
    match name {
        EngineName::TurmoilNet => turmoil_net::simulate(options, |engine| main(Rc::new(engine))),
        EngineName::Turmoil => turmoil::simulate(options, |engine| main(Rc::new(engine))),
    }
}

/// A paused runtime, and the local tasks on it. A panic in any task ends both.
fn runtime(chance: &Chance) -> (Runtime, LocalSet) {
    let mut seed = [0; 32];
    chance.of("tokio").rng().fill(&mut seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed)) // `select!` inside libraries draws from it
        .unhandled_panic(UnhandledPanic::ShutdownRuntime)
        .build()
        .expect("a runtime without I/O needs nothing that could fail");
    let mut root = LocalSet::new();
    root.unhandled_panic(UnhandledPanic::ShutdownRuntime);
    (runtime, root)
}
