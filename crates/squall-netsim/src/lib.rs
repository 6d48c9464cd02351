//! A simulated network for tokio services.
//!
//! The processes of a simulation run on hosts, all in one thread and on one simulated clock. Each process gets its host's
//! [`Network`], which gives ordinary byte streams (`AsyncRead + AsyncWrite`). The task that plays the world starts and stops
//! processes through an [`Engine`] and injects faults: partitions, resets, power cuts, freezes, slow links and readers. A
//! [`Tap`] observes the traffic. A run is repeatable from its seed, and an hour in which nothing happens takes no time.
//!
//! This crate knows nothing of replication or of Matrix.
//!
//! # Example
//!
//! A server doubles numbers, and a client sends it one every second. A partition delays the answers, and loses none:
//!
//! ```
//! use std::cell::RefCell;
//! use std::rc::Rc;
//! use std::time::Duration;
//!
//! use squall_env::{Address, Network, SeedTree};
//! use squall_netsim::{Engine, EngineName, LatencyRange, Options, simulate, time};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use tokio::time::sleep;
//!
//! async fn serve(network: Rc<dyn Network>) -> std::io::Result<()> {
//!     let mut listener = network.listen(7000).await?;
//!     let mut stream = listener.accept().await?;
//!     loop {
//!         let number = stream.read_u8().await?;
//!         stream.write_u8(2 * number).await?;
//!     }
//! }
//!
//! type Answers = Rc<RefCell<Vec<(u8, Duration)>>>;
//!
//! async fn ask(network: Rc<dyn Network>, answers: Answers) -> std::io::Result<()> {
//!     let mut stream = network.connect(&Address::new("server", 7000)).await?;
//!     for number in 1..=10 {
//!         stream.write_u8(number).await?;
//!         let answer = stream.read_u8().await?;
//!         answers.borrow_mut().push((answer, time::elapsed()));
//!         sleep(Duration::from_secs(1)).await;
//!     }
//!     Ok(())
//! }
//!
//! /// Returns the answers and their times.
//! fn run(seed: u64) -> Vec<(u8, Duration)> {
//!     let answers = Answers::default();
//!     let options = Options {
//!         seeds: SeedTree::from_seed(seed),
//!         hosts: vec!["server".into(), "client".into()],
//!         latency: LatencyRange { min_us: 500, max_us: 20_000 },
//!         tap: Rc::new(()),
//!     };
//!     simulate(EngineName::EventDriven, options, async |engine: Rc<dyn Engine>| {
//!         engine.start("server", Box::new(|network| Box::pin(async { drop(serve(network).await) })));
//!         sleep(Duration::from_secs(1)).await;
//!         let of_client = Rc::clone(&answers);
//!         engine.start("client", Box::new(|network| Box::pin(async { drop(ask(network, of_client).await) })));
//!         sleep(Duration::from_secs(3)).await;
//!         engine.partition("client", "server");
//!         sleep(Duration::from_secs(6)).await;
//!         engine.heal("client", "server");
//!         sleep(Duration::from_secs(20)).await;
//!     });
//!     answers.take()
//! }
//!
//! let answers = run(7);
//! let (numbers, times): (Vec<u8>, Vec<Duration>) = answers.iter().copied().unzip();
//! assert_eq!(numbers, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]);
//! assert!(times.windows(2).any(|pair| pair[1] - pair[0] > Duration::from_secs(5)), "the partition");
//! assert_eq!(answers, run(7), "the same seed gives the same run");
//! ```
//!
//! # Engines
//!
//! Two engines simulate. [`event_driven`], the default, decides the fate of every packet, and quiet time costs it nothing.
//! `turmoil`, with the feature of that name, is the cross-check, with another scheduler, other clocks and another TCP: a
//! failure that only one engine shows is a property of that engine and not of the service. Both implement [`Engine`]; a
//! method for a fault that `turmoil` cannot inject returns [`Unsupported`].

#![forbid(unsafe_code)]

pub mod event_driven;
mod name;
mod panics;
pub mod tap;
// They compare the engines.
#[cfg(all(test, feature = "turmoil"))]
mod tests;
pub mod time;
#[cfg(feature = "turmoil")]
pub mod turmoil;

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

pub use name::{EngineError, EngineName};
pub use tap::{Attempt, End, Side, Tap};

use squall_env::{LocalBoxFuture, Network, SeedTree};

/// The bounds of the time that a packet travels. Arrivals are rounded up to a millisecond.
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

/// The parts of a simulation.
pub struct Options {
    /// The source of every random draw.
    pub seeds: SeedTree,
    /// The names of all hosts, each once.
    pub hosts: Vec<Arc<str>>,
    /// The latency of every link.
    pub latency: LatencyRange,
    /// The observer of all traffic.
    pub tap: Rc<dyn Tap>,
}

/// The code of a process. It receives its host's network, once, and becomes the process.
pub type Main = Box<dyn FnOnce(Rc<dyn Network>) -> LocalBoxFuture<'static, ()>>;

/// A fault that the engine cannot inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this engine cannot do that")]
pub struct Unsupported;

/// The controls of a simulation: starts processes and injects faults. For use outside the processes.
///
/// A method that takes the name of a host panics if no host has that name. An engine may lack the faults whose methods have
/// a default implementation.
pub trait Engine {
    /// Starts a process on `host`, with the power on: a new boot. When `main` ends, the process stays up, idle.
    ///
    /// # Panics
    /// If a process is already running there.
    fn start(&self, host: &str, main: Main);

    /// The number of processes started on `host` so far, which is the number of the present or last one.
    fn boot(&self, host: &str) -> u64;

    /// Returns true if a process is running on `host`, frozen or not.
    fn is_up(&self, host: &str) -> bool;

    /// Ends the process on `host`; the kernel stays. Peers read end of file, or a reset where bytes lay unread, and
    /// ports refuse. False if there was no process.
    fn stop(&self, host: &str) -> bool;

    /// Cuts the power of `host`: peers hear nothing more until it starts again, and new connections time out. False
    /// if there was no power.
    fn power_cut(&self, host: &str) -> bool;

    /// The connections between `a` and `b`, in either direction, that are open at both ends, oldest first.
    fn connections(&self, a: &str, b: &str) -> Vec<Connection>;

    /// The connections from `client` to `port` of `server` that are open at both ends, oldest first. An engine may find them
    /// faster than all connections between the two.
    fn connections_to(&self, client: &str, server: &str, port: u16) -> Vec<Connection> {
        let mut connections = self.connections(client, server);
        connections.retain(|connection| *connection.client == *client && connection.port == port);
        connections
    }

    /// Resets both ends of a connection at once. False if it was not open any more.
    fn cut(&self, connection: &Connection) -> bool;

    /// Lets nothing through from one host to another.
    fn partition(&self, from: &str, to: &str);

    /// Ends a partition.
    fn heal(&self, from: &str, to: &str);

    /// The number of packets from one host to another that have met a partition so far: above zero, the fault took effect.
    fn held(&self, from: &str, to: &str) -> u64;

    /// The number of packets that have left one host for another so far.
    fn sent(&self, from: &str, to: &str) -> u64;

    /// Sets the latency of packets from one host to another, from now on.
    fn set_latency(&self, from: &str, to: &str, latency: LatencyRange);

    /// Resets that latency to [`Options::latency`].
    fn reset_latency(&self, from: &str, to: &str);

    /// Ends one end of the connection between `gone` and `survivor` whose server has `port`: the application on `gone` reads
    /// a reset, and packets from the other end are dropped without notice, until [`answer`](Self::answer). Returns the
    /// connection; none if none is open.
    fn half_open(&self, _gone: &str, _survivor: &str, _port: u16) -> Result<Option<Connection>, Unsupported> {
        Err(Unsupported)
    }

    /// Answers the packets of a half-open connection with a reset, from now on.
    fn answer(&self, _connection: &Connection) -> Result<(), Unsupported> {
        Err(Unsupported)
    }

    /// Lets the packets wait that `from` sends on its connection to `to` whose server has `port`, until
    /// [`release`](Self::release). Other connections between the two are not affected. Returns the connection; none if none
    /// is open.
    fn stall(&self, _from: &str, _to: &str, _port: u16) -> Result<Option<Connection>, Unsupported> {
        Err(Unsupported)
    }

    /// Has the packets that waited arrive now, also on a connection that has ended since. Returns their number.
    fn release(&self, _connection: &Connection) -> Result<usize, Unsupported> {
        Err(Unsupported)
    }

    /// Limits the traffic from one host to another, in bytes a second, headers included.
    fn set_bandwidth(&self, _from: &str, _to: &str, _bytes_per_sec: Option<u64>) -> Result<(), Unsupported> {
        Err(Unsupported)
    }

    /// Freezes the process on `host` (SIGSTOP); its kernel continues to accept and acknowledge. False if no process was
    /// running, or it was frozen already.
    fn freeze(&self, _host: &str) -> Result<bool, Unsupported> {
        Err(Unsupported)
    }

    /// Resumes a frozen process; its overdue timers all fire at once. False if it was not frozen.
    fn thaw(&self, _host: &str) -> Result<bool, Unsupported> {
        Err(Unsupported)
    }

    /// Returns true if the process on `host` is frozen.
    fn is_frozen(&self, _host: &str) -> bool {
        false
    }

    /// Makes the process on `host` read slowly from each of its streams; the kernel's window does the rest.
    fn slow_reader(&self, _host: &str, _slow: Option<SlowReader>) -> Result<(), Unsupported> {
        Err(Unsupported)
    }

    /// The number of reads on `host` cut short because it reads slowly: above zero, the fault took effect.
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
/// If a task of any process panics, if two hosts have one name, if called from within a simulation, and if this build has no
/// such engine ([`EngineName::is_built`]).
pub fn simulate<T, F: Future<Output = T>>(
    name: EngineName,
    options: Options,
    main: impl FnOnce(Rc<dyn Engine>) -> F,
) -> T {
    match name {
        EngineName::EventDriven => event_driven::simulate(options, |engine| main(Rc::new(engine))),
        #[cfg(feature = "turmoil")]
        EngineName::Turmoil => turmoil::simulate(options, |engine| main(Rc::new(engine))),
        #[cfg(not(feature = "turmoil"))]
        EngineName::Turmoil => panic!("{}", EngineError::NotBuilt(name)),
    }
}

/// Returns a paused runtime, and the set of local tasks that will run on it.
fn runtime(seeds: &SeedTree) -> (Runtime, LocalSet) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    seed_select(&mut builder, seeds);
    let runtime = builder.build().expect("a runtime without I/O needs nothing that could fail");
    (runtime, LocalSet::new())
}

/// Seeds the generator from which an unbiased `select!` and a `watch` with several receivers draw. No code on the paths of a
/// simulation uses either, so this is only a second fence, for builds whose tokio offers it.
#[cfg(tokio_unstable)]
fn seed_select(builder: &mut tokio::runtime::Builder, seeds: &SeedTree) {
    let mut seed = [0; 32];
    rand::RngExt::fill(&mut seeds.child("tokio").rng(), &mut seed);
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed));
}

#[cfg(not(tokio_unstable))]
fn seed_select(_builder: &mut tokio::runtime::Builder, _seeds: &SeedTree) {}
