//! `GET /metrics` and `GET /health`, on a port of their own.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Registry, TEXT_FORMAT, TextEncoder};

use crate::env::{Listener, Scope};

/// How long a connection may be silent before a request, or within its head.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the port is left alone after it could not accept.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Says whether all is well, and otherwise what is not. Called for each request.
pub type Health = Rc<dyn Fn() -> Result<(), String>>;

/// Answers `GET /metrics` with what is in `registry`, and `GET /health` with 200 `OK` or 503 and the reason, until `tasks`
/// are asked to stop. They need not be an instance's.
pub async fn serve(mut listener: Box<dyn Listener>, registry: Registry, health: Health, tasks: Scope) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = tasks.stopped() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the port of metrics; trying again");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                continue;
            }
        };
        let (registry, health) = (registry.clone(), Rc::clone(&health));
        tasks.spawn("metrics_connection", async move {
            let service = service_fn(|request| {
                let response = answer(&request, &registry, &health);
                async { Ok::<_, Infallible>(response) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a connection to the port of metrics ended");
            }
        });
    }
}

fn answer<B>(request: &Request<B>, registry: &Registry, health: &Health) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => match TextEncoder::new().encode_to_string(&registry.gather()) {
            Ok(text) => (StatusCode::OK, TEXT_FORMAT, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n")),
        },
        (&Method::GET | &Method::HEAD, "/health") => match health() {
            Ok(()) => (StatusCode::OK, PLAIN, "OK".to_owned()),
            Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{reason}\n")),
        },
        (_, "/metrics" | "/health") => (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "ask by GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, PLAIN, "there are /metrics and /health\n".to_owned()),
    };
    let mut response = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response = response.header(header::ALLOW, "GET, HEAD");
    }
    response.body(Full::new(body.into())).expect("status and headers are valid")
}

/// The content type of everything that is not metrics.
const PLAIN: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::io;

    use prometheus::IntCounter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::env::{BoxStream, LocalBoxFuture, Silent};

    /// A port at which these come, one after the other, and then nobody.
    struct Coming(VecDeque<io::Result<BoxStream>>);

    impl Listener for Coming {
        fn accept(&mut self) -> LocalBoxFuture<'_, io::Result<BoxStream>> {
            Box::pin(async {
                match self.0.pop_front() {
                    Some(stream) => stream,
                    None => std::future::pending().await,
                }
            })
        }
    }

    /// What each of `requests` is answered, on connections of their own, and one after another.
    fn answers(health: Health, requests: &[&str]) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let registry = Registry::new();
            let counter = IntCounter::new("gales", "How many there were.").unwrap();
            registry.register(Box::new(counter.clone())).unwrap();
            counter.inc_by(3);
            let (mut ours, mut theirs) = (Vec::new(), VecDeque::new());
            for _ in requests {
                let (our, their) = tokio::io::duplex(64 * 1024);
                ours.push(our);
                // One that cannot be accepted keeps no other from being.
                theirs.push_back(Err(io::ErrorKind::ConnectionAborted.into()));
                theirs.push_back(Ok(Box::new(their) as BoxStream));
            }
            let tasks = Scope::new(Rc::new(Silent));
            tasks.spawn("metrics", serve(Box::new(Coming(theirs)), registry, health, tasks.clone()));
            let mut answers = Vec::new();
            for (stream, request) in ours.iter_mut().zip(requests) {
                let request = format!("{request} HTTP/1.1\r\nhost: squall\r\nconnection: close\r\n\r\n");
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                answers.push(answer);
            }
            answers
        })
    }

    fn well() -> Health {
        Rc::new(|| Ok(()))
    }

    #[test]
    fn metrics_are_told_in_text() {
        let answers = answers(well(), &["GET /metrics", "HEAD /metrics"]);
        assert!(answers[0].starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\n"));
        assert!(answers[0].ends_with("# HELP gales How many there were.\n# TYPE gales counter\ngales 3\n"));
        assert!(answers[1].ends_with("\r\n\r\n"), "{}", answers[1]);
    }

    #[test]
    fn health_is_asked_anew_each_time() {
        let states = RefCell::new(VecDeque::from([Err("starting".to_owned()), Ok(()), Err("no broker".to_owned())]));
        let health: Health = Rc::new(move || states.borrow_mut().pop_front().unwrap());
        let answers = answers(health, &["GET /health"; 3]);
        assert!(
            answers[0].starts_with("HTTP/1.1 503 ") && answers[0].ends_with("\r\n\r\nstarting\n"),
            "{}",
            answers[0]
        );
        assert!(answers[1].starts_with("HTTP/1.1 200 ") && answers[1].ends_with("\r\n\r\nOK"), "{}", answers[1]);
        assert!(answers[2].starts_with("HTTP/1.1 503 ") && answers[2].ends_with("\r\n\r\nno broker\n"));
    }

    #[test]
    fn everything_else_is_refused() {
        let answers = answers(well(), &["GET /", "POST /metrics", "DELETE /health"]);
        assert!(answers[0].starts_with("HTTP/1.1 404 "), "{}", answers[0]);
        assert!(answers[1].starts_with("HTTP/1.1 405 ") && answers[1].contains("allow: GET, HEAD\r\n"));
        assert!(answers[2].starts_with("HTTP/1.1 405 "), "{}", answers[2]);
    }
}
