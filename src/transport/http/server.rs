//! The answering end.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::Router;
use crate::env::observer::Trouble;
use crate::env::{Env, Listener};

/// How long a connection may be silent before a request, or within its head.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves every request that comes, until the instance stops.
pub async fn serve_requests(mut listener: Box<dyn Listener>, router: Rc<Router>, env: Env) {
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
        let (router, observer) = (Rc::clone(&router), Rc::clone(&env.observer));
        env.tasks.spawn("http_connection", async move {
            let service = service_fn(move |request| {
                let router = Rc::clone(&router);
                async move { Ok::<_, Infallible>(router.answer(request).await) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
            // No date header: it would come from the machine's clock.
            let served = server.auto_date_header(false).serve_connection(TokioIo::new(stream), service).await;
            if let Err(error) = served {
                observer.trouble(Trouble::Connection { peer: "an HTTP client", error: &error });
            }
        });
    }
}
