//! The listening end: the master and the instances that write streams.

use std::rc::Rc;

use super::connection;
use crate::observer::Env;
use crate::replication::CommandHandler;
use crate::tasks;
use crate::transport::accept::{AcceptOptions, BoundedListener, TooManyConnections};
use squall_env::Listener;
use squall_protocol::{Command, encode_line};

/// Serves every connection to `listener` until the instance stops.
pub async fn accept_connections(listener: Box<dyn Listener>, handler: Rc<CommandHandler>, env: Env) {
    let refusal = encode_line(&Command::Error(TooManyConnections.to_string()));
    let options = AcceptOptions {
        listener: "the listener",
        client: "a client",
        connections_max: handler.limits().tcp_connections_max,
        refusal: refusal.expect("a short text without line breaks fits a line"),
    };
    let mut listener = BoundedListener::new(listener, options, &env.tasks, &*env.observer);
    while let Some((stream, slot)) = listener.accept().await {
        let connection = handler.opened(None);
        let handler = Rc::clone(&handler);
        let connection_env = env.clone();
        env.tasks.spawn(tasks::SERVER_CONNECTION, async move {
            let error = connection::run(Rc::clone(&connection), stream, &handler, &connection_env).await;
            error.report(&connection.peer(), &connection_env);
            drop(slot);
        });
    }
}
