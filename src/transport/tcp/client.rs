//! The connecting end, which never gives up.

use std::rc::Rc;

use super::connection;
use crate::env::observer::Trouble;
use crate::env::{Address, Env};
use crate::protocol::InstanceName;
use crate::replication::{Backoff, CommandHandler};

/// Keeps a connection to `target` until the instance stops.
///
/// After each loss it waits, and longer each time. The delay is forgotten only when a connection was set up, that is,
/// when every stream that `target` writes had announced its position and was caught up with.
pub async fn stay_connected(target: InstanceName, address: Address, handler: Rc<CommandHandler>, env: Env) {
    let mut backoff = Backoff::new(&env.chance.of("reconnect").of(&target));
    while !env.tasks.is_stopped() {
        env.observer.connecting(target.as_str());
        match env.network.connect(&address).await {
            // Nobody would close a connection that is made after the instance began to stop.
            Ok(_) if env.tasks.is_stopped() => return,
            Ok(stream) => {
                let link = handler.opened(Some(&target));
                let error = connection::run(Rc::clone(&link), stream, &handler, &env).await;
                env.observer.trouble(Trouble::Connection { peer: target.as_str(), error: &error });
                if link.was_set_up() {
                    backoff.reset();
                }
            }
            Err(error) => env.observer.trouble(Trouble::Connection { peer: target.as_str(), error: &error }),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}
