//! The HTTP server: accepts connections and hands their requests to the router.

use std::convert::Infallible;
use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::Router;
use super::write_timeout::WriteTimeout;
use crate::observer::Env;
use crate::observer::InstanceEvent;
use crate::tasks;
use crate::transport::accept::{AcceptOptions, BoundedListener};
use squall_env::{BoxStream, Listener};

/// Time within which the head of a request must arrive, counted from the end of the previous request. hyper's default.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time after which a client that reads nothing of its response is disconnected.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum length of a request's head, in bytes. Twisted has this limit for each line of it; Synapse's requests have a few
/// short lines.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The response to a client that is refused because there are too many connections.
pub(crate) const TOO_MANY_CONNECTIONS: Bytes =
    Bytes::from_static(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");

/// Serves every request to `listener`, on at most `connections_max` connections at once, until the instance stops.
pub async fn serve_requests(listener: Box<dyn Listener>, connections_max: usize, router: Rc<Router>, env: Env) {
    let options = AcceptOptions {
        listener: "the HTTP listener",
        client: "an HTTP client",
        connections_max,
        refusal: TOO_MANY_CONNECTIONS,
    };
    let mut listener = BoundedListener::new(listener, options, &env.tasks, &*env.observer);
    while let Some((stream, slot)) = listener.accept().await {
        let router = Rc::clone(&router);
        let observer = Rc::clone(&env.observer);
        env.tasks.spawn(tasks::HTTP_CONNECTION, async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let router = Rc::clone(&router);
                async move { Ok::<Response<Full<Bytes>>, Infallible>(router.answer(request).await) }
            });
            let served = serve_connection(stream, service).await;
            let error: Option<Box<dyn Error>> = match (slot.tls_mismatch(), served) {
                (Some(error), _) => Some(Box::new(error)),
                (None, Err(error)) => Some(Box::new(error)),
                (None, Ok(())) => None,
            };
            if let Some(error) = error {
                observer.event(InstanceEvent::Connection { peer: "an HTTP client", error: &*error });
            }
            drop(slot);
        });
    }
}

/// Serves the requests on one connection, within the time-outs and limits of this module.
pub(crate) async fn serve_connection<S>(stream: BoxStream, service: S) -> hyper::Result<()>
where
    S: HttpService<Incoming, ResBody = Full<Bytes>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    // No date header: it would come from the machine's clock.
    server.auto_date_header(false);
    server.serve_connection(TokioIo::new(WriteTimeout::new(stream, WRITE_TIMEOUT)), service).await
}
