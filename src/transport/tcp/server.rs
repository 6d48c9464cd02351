//! The listening end: the master and the instances that write streams.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use super::connection::{self, ConnectionError};
use crate::env::observer::Trouble;
use crate::env::{BoxStream, Env, Listener};
use crate::protocol::{Command, encode_line};
use crate::replication::CommandHandler;

/// How many connections are served at once. Each instance of a deployment has one; whoever comes beyond that is told so,
/// and those who are there are not disturbed.
pub const CONNECTIONS_MAX: usize = 2_000;

/// Serves every connection that comes, until the instance stops.
pub async fn accept_connections(mut listener: Box<dyn Listener>, handler: Rc<CommandHandler>, env: Env) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            biased;
            () = env.tasks.stopped() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                    env.observer.trouble(Trouble::Connection { peer: "a client", error: &ConnectionError::TooMany });
                    refuse(stream).await;
                    continue;
                };
                let link = handler.opened(None);
                let (handler, scope) = (Rc::clone(&handler), env.clone());
                env.tasks.spawn("server_connection", async move {
                    let error = connection::run(Rc::clone(&link), stream, &handler, &scope).await;
                    scope.observer.trouble(Trouble::Connection { peer: &link.peer(), error: &error });
                    drop(place);
                });
            }
            Err(error) => {
                env.observer.trouble(Trouble::Connection { peer: "the listener", error: &error });
                tokio::time::sleep(crate::replication::backoff::DELAY_MIN).await;
            }
        }
    }
}

/// Says why, as far as that does not take any time: nobody else may have to wait for it.
async fn refuse(mut stream: BoxStream) {
    let why = Command::Error(ConnectionError::TooMany.to_string());
    let line = encode_line(&why).expect("a short text without line breaks fits a line");
    let _ = tokio::time::timeout(Duration::ZERO, stream.write_all(&line)).await;
}
