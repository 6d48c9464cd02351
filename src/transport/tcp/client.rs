//! The connecting end.

use std::rc::Rc;

use super::connection;
use crate::observer::Env;
use crate::observer::InstanceEvent;
use crate::replication::{Backoff, CommandHandler};
use crate::transport::tls_mismatch::Plain;
use squall_env::Address;
use squall_protocol::InstanceName;

/// Keeps a connection to `target` until the instance stops.
///
/// Each reconnect waits for a growing delay. The delay is reset only after a connection that was set up: every stream that
/// `target` writes had announced its position and was caught up.
pub async fn stay_connected(target: InstanceName, address: Address, handler: Rc<CommandHandler>, env: Env) {
    let mut backoff = Backoff::new(&env.seeds.child("reconnect").child(&target));
    while !env.tasks.is_stopped() {
        env.observer.connecting(target.as_str());
        match env.network.connect(&address).await {
            // A connection that is established after the instance began to stop would never be closed.
            Ok(_) if env.tasks.is_stopped() => return,
            Ok(stream) => {
                let connection = handler.opened(Some(&target));
                let error = connection::run(Rc::clone(&connection), Plain::connected(stream), &handler, &env).await;
                error.report(target.as_str(), &env);
                if connection.was_set_up() {
                    backoff.reset();
                }
            }
            Err(error) => env.observer.event(InstanceEvent::Connection { peer: target.as_str(), error: &error }),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}
