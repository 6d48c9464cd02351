//! The surroundings of a process, as seams: network, clock, seeds, tasks and an observer.
//!
//! A service that reaches the outside world only through an [`Env`] runs unchanged on real sockets and in a
//! deterministic simulation (the crate `squall-netsim`), where one seed decides everything:
//!
//! | seam | real | simulated |
//! |---|---|---|
//! | [`Network`] | [`TokioNetwork`], [`BoundNetwork`]; TLS with the feature `tls` | `squall-netsim` |
//! | `tokio::time`, [`Clock`] | [`SystemClock`] | a paused runtime, and a clock per host |
//! | [`SeedTree`] | [`SeedTree::from_os`] | [`SeedTree::from_seed`] |
//! | [`TaskSpawner`] | tasks in the order of their wake-ups | also with seeded [`PollDelay`]s |
//!
//! This crate knows nothing of replication or of Matrix.
//!
//! ```
//! use std::rc::Rc;
//! use squall_env::{Env, Noop, SeedTree, SystemClock, TaskKind, TaskSpawner, TokioNetwork};
//!
//! const GREET: TaskKind = TaskKind::new("greet");
//!
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! let greeting = tokio::task::LocalSet::new().block_on(&runtime, async {
//!     let env: Env<Noop> = Env {
//!         network: Rc::new(TokioNetwork),
//!         clock: Rc::new(SystemClock),
//!         seeds: SeedTree::from_seed(7),
//!         observer: Rc::new(Noop),
//!         tasks: TaskSpawner::new(Rc::new(Noop)),
//!     };
//!     env.tasks.spawn(GREET, async { "hello" }).await.unwrap()
//! });
//! assert_eq!(greeting, "hello");
//! ```

#![forbid(unsafe_code)]

pub mod clock;
pub mod network;
pub mod poll_delay;
pub mod seed_tree;
pub mod task_kind;
pub mod tasks;
#[cfg(feature = "tls")]
pub mod tls;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;

pub use clock::{Clock, SystemClock};
pub use network::{
    Address, BoundNetwork, BoxStream, CONNECT_TIMEOUT, Listener, Network, Stream, TlsConfig, TokioNetwork,
};
pub use poll_delay::PollDelay;
pub use seed_tree::SeedTree;
pub use task_kind::TaskKind;
pub use tasks::{Noop, Tally, TaskObserver, TaskSpawner};
#[cfg(feature = "tls")]
pub use tls::{TlsError, TlsNetwork};

/// A boxed future that lives on the process's own thread.
pub type LocalBoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// The outside world of a process, but for its database. `O` observes the process's own work. Cheap to clone.
pub struct Env<O: ?Sized> {
    /// Byte streams to and from other processes.
    pub network: Rc<dyn Network>,
    /// Wall-clock time.
    pub clock: Rc<dyn Clock>,
    /// The source of every random draw.
    pub seeds: SeedTree,
    /// The receiver of reports about the process's own work, such as metrics.
    pub observer: Rc<O>,
    /// The spawner of every task of the process.
    pub tasks: TaskSpawner,
}

impl<O: ?Sized> Clone for Env<O> {
    fn clone(&self) -> Self {
        Env {
            network: Rc::clone(&self.network),
            clock: Rc::clone(&self.clock),
            seeds: self.seeds.clone(),
            observer: Rc::clone(&self.observer),
            tasks: self.tasks.clone(),
        }
    }
}

impl<O: ?Sized> Env<O> {
    /// The surroundings of a real process: sockets whose ports are open on `bind` alone, the machine's clock, and
    /// seeds from the operating system.
    pub fn of_process(bind: IpAddr, observer: Rc<O>, tasks: TaskSpawner) -> Self {
        Env {
            network: Rc::new(BoundNetwork(bind)),
            clock: Rc::new(SystemClock),
            seeds: SeedTree::from_os(),
            observer,
            tasks,
        }
    }

    /// The same surroundings, with TLS on connections `to` one address.
    ///
    /// # Errors
    /// A file of `config` cannot be used, or there is no certificate authority to trust.
    #[cfg(feature = "tls")]
    pub fn with_tls(self, to: Address, config: &TlsConfig) -> Result<Self, TlsError> {
        let network = Rc::new(TlsNetwork::new(self.network, to, config)?);
        Ok(Env { network, ..self })
    }
}
