//! A Redis server, as much of it as replication uses, as a program that runs on a host of the storm.
//!
//! It keeps nothing when it ends, as Redis keeps nothing of what was published. A suite holds it to what a real
//! `redis-server` answers to the same bytes (`tests/redis`).

mod client;
pub(super) mod resp;
mod state;

use std::cell::Cell;
use std::rc::Rc;

use tokio::task::JoinSet;

pub use state::Limits;
use state::State;

use crate::env::Listener;

/// What a broker is told at its start.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What clients have to say first, if anything.
    pub password: Option<String>,
    /// How much may wait for a client.
    pub limits: Limits,
    /// Counts the clients for whom too much waited, over all processes that are told this.
    pub dropped: Rc<Cell<u64>>,
}

/// Serves whoever connects, for ever.
pub async fn serve(mut listener: Box<dyn Listener>, options: Options) {
    let state = Rc::new(State::new(options));
    let mut clients = JoinSet::new();
    loop {
        // A client that fails to come is its own trouble.
        let Ok(stream) = listener.accept().await else { continue };
        clients.spawn_local(client::serve(stream, Rc::clone(&state)));
        while clients.try_join_next().is_some() {}
    }
}
