//! A simulated Redis server with the commands that replication uses. It runs as a program on a host of the storm.
//!
//! It loses its state when it stops; Redis keeps no published message either. The tests in `tests/real/broker.rs` send the
//! same bytes to it and to a real `redis-server`, and expect the same replies.

mod client;
mod failover;
mod state;

use std::cell::Cell;
use std::rc::Rc;

use tokio::task::JoinSet;

use failover::Present;
pub use failover::{Failover, LostConnections};
pub use state::Limits;

use squall_env::Listener;

/// The configuration of a broker.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The password that clients must send, if any.
    pub password: Option<String>,
    /// The limits on unsent replies to a subscriber.
    pub limits: Limits,
    /// Number of clients that were disconnected for exceeding the limits. Processes may share it.
    pub dropped: Rc<Cell<u64>>,
    /// Number of clients that were accepted. Servers that share it know no two clients by one address.
    pub accepted: Rc<Cell<u64>>,
    /// Moves the broker's name to another server.
    pub failover: Rc<Failover>,
}

/// Serves clients for ever.
pub async fn serve(mut listener: Box<dyn Listener>, options: Options) {
    let failover = Rc::clone(&options.failover);
    let present = Rc::new(Present::new(options));
    failover.began(&present);
    let mut clients = JoinSet::new();
    loop {
        // A connection that fails while it is accepted does not affect the others.
        let Ok(stream) = listener.accept().await else { continue };
        clients.spawn_local(client::serve(stream, present.state()));
        while clients.try_join_next().is_some() {}
    }
}
