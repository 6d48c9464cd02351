//! What an instance is given by its surroundings: network, clock, chance, observer and tasks.
//!
//! The stack reaches the outside world through these five seams and the database (see [`crate::store`]), and through
//! nothing else. That is what lets the simulator run it unmodified, and what makes a run depend on its seed alone.

pub mod chance;
pub mod clock;
pub mod deferral;
pub mod network;
pub mod observer;
pub mod tasks;
#[cfg(feature = "serve")]
pub mod tls;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;

pub use chance::Chance;
pub use clock::{Clock, SystemClock};
pub use deferral::Deferral;
pub use network::{Address, BoundNetwork, BoxStream, Listener, Network, Stream, TlsConfig};
pub use observer::{Both, Log, Observer, Silent};
pub use tasks::Scope;
#[cfg(feature = "serve")]
pub use tls::{TlsError, TlsNetwork};

/// A boxed future that lives on the instance's own thread.
pub type LocalBoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Everything an instance may touch besides its database. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    /// Byte streams to and from other instances.
    pub network: Rc<dyn Network>,
    /// Wall-clock time.
    pub clock: Rc<dyn Clock>,
    /// Randomness, keyed by who draws it.
    pub chance: Chance,
    /// Where the instance tells of its own work (metrics).
    pub observer: Rc<dyn Observer>,
    /// Where every task of the instance runs.
    pub tasks: Scope,
}

impl Env {
    /// What a process of its own has: real sockets, whose ports are open on `bind` alone, the machine's clock, and chance
    /// that nobody can guess.
    pub fn of_process(bind: IpAddr, observer: Rc<dyn Observer>) -> Env {
        Env {
            network: Rc::new(BoundNetwork(bind)),
            clock: Rc::new(SystemClock),
            chance: Chance::from_os(),
            tasks: Scope::new(Rc::clone(&observer)),
            observer,
        }
    }

    /// The same, with TLS on the way `to` one address.
    ///
    /// # Errors
    /// The files of `config` cannot be used, or nobody would be trusted.
    #[cfg(feature = "serve")]
    pub fn with_tls(self, to: Address, config: &TlsConfig) -> Result<Env, TlsError> {
        let network = Rc::new(TlsNetwork::new(self.network, to, config)?);
        Ok(Env { network, ..self })
    }
}
