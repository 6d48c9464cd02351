//! The answering end.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use super::Router;
use super::impatient::Impatient;
use crate::env::observer::Trouble;
use crate::env::{BoxStream, Env, Listener};

/// How long the head of a request may take to come whole, the silence before it included. hyper's own default.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long nothing of an answer may be taken.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a head may be. Twisted's limit for a line of it, of which Synapse's requests have a few short ones.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How many connections are served at once. A request has one of its own, if a Squall asks.
pub const CONNECTIONS_MAX: usize = 2_000;

/// There are [`CONNECTIONS_MAX`] already.
#[derive(Debug, Error)]
#[error("too many connections")]
struct TooMany;

/// Serves every request that comes, until the instance stops.
pub async fn serve_requests(mut listener: Box<dyn Listener>, router: Rc<Router>, env: Env) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            biased;
            () = env.tasks.stopped() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                env.observer.trouble(Trouble::Connection { peer: "the HTTP listener", error: &error });
                tokio::time::sleep(crate::replication::backoff::DELAY_MIN).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            env.observer.trouble(Trouble::Connection { peer: "an HTTP client", error: &TooMany });
            refuse(stream).await;
            continue;
        };
        let (router, observer) = (Rc::clone(&router), Rc::clone(&env.observer));
        env.tasks.spawn("http_connection", async move {
            let service = service_fn(move |request| {
                let router = Rc::clone(&router);
                async move { Ok::<_, Infallible>(router.answer(request).await) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
            let stream = TokioIo::new(Impatient::new(stream, WRITE_TIMEOUT));
            // No date header: it would come from the machine's clock.
            let served = server.auto_date_header(false).serve_connection(stream, service).await;
            if let Err(error) = served {
                observer.trouble(Trouble::Connection { peer: "an HTTP client", error: &error });
            }
            drop(place);
        });
    }
}

/// Says that it may work later, as far as that does not take any time: nobody else may have to wait for it.
async fn refuse(mut stream: BoxStream) {
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let _ = tokio::time::timeout(Duration::ZERO, stream.write_all(answer)).await;
}
