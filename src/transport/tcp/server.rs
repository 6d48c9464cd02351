//! The listening end: the master and the instances that write streams.

use std::rc::Rc;

use super::connection;
use crate::env::observer::Trouble;
use crate::env::{Env, Listener};
use crate::replication::CommandHandler;

/// Serves every connection that comes, until the instance stops.
pub async fn accept_connections(mut listener: Box<dyn Listener>, handler: Rc<CommandHandler>, env: Env) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = env.tasks.stopped() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                let link = handler.opened(None);
                let (handler, scope) = (Rc::clone(&handler), env.clone());
                env.tasks.spawn("server_connection", async move {
                    let error = connection::run(Rc::clone(&link), stream, &handler, &scope).await;
                    scope.observer.trouble(Trouble::Connection { peer: &link.peer(), error: &error });
                });
            }
            Err(error) => {
                env.observer.trouble(Trouble::Connection { peer: "the listener", error: &error });
                tokio::time::sleep(crate::replication::backoff::DELAY_MIN).await;
            }
        }
    }
}
