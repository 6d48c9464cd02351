//! Serves `GET /metrics` and `GET /health` on a port of their own.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use prometheus::{Registry, TEXT_FORMAT, TextEncoder};
use tokio::task::JoinHandle;

use crate::errors::Causes;
use crate::observer::{InstanceEvent, Log, Observer};
use crate::tasks;
use crate::transport::accept::{AcceptOptions, BoundedListener};
use crate::transport::http::{TOO_MANY_CONNECTIONS, serve_connection};
use squall_env::{Listener, TaskSpawner};

/// Maximum number of open connections, where the process may open enough files.
pub const METRICS_CONNECTIONS_MAX: usize = 100;

/// The health of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does everything that it should.
    Good,
    /// It serves, but something needs an operator: this.
    Degraded(String),
    /// It does not serve, for this reason.
    Bad(String),
}

/// A health check, run for each request.
pub type HealthCheck = Rc<dyn Fn() -> Health>;

/// Serves until `tasks` are stopped. They need not be the tasks of an instance. `GET /metrics` returns the metrics in
/// `registry`, and `GET /health` returns 200 `OK`, 200 with what needs an operator, or 503 and the reason.
///
/// At most `connections_max` connections are open. A new one ends the oldest, so that idle clients cannot keep a health check
/// out.
pub async fn serve(
    listener: Box<dyn Listener>,
    connections_max: usize,
    registry: Registry,
    health: HealthCheck,
    tasks: TaskSpawner,
) {
    let options = AcceptOptions {
        listener: "the metrics listener",
        client: "a metrics client",
        // One more until the oldest one has ended.
        connections_max: connections_max + 1,
        refusal: TOO_MANY_CONNECTIONS,
    };
    let log = Rc::new(Log::default());
    let mut listener = BoundedListener::new(listener, options, &tasks, &*log);
    // The oldest first.
    let mut open: VecDeque<JoinHandle<()>> = VecDeque::new();
    while let Some((stream, slot)) = listener.accept().await {
        open.retain(|connection| !connection.is_finished());
        if open.len() >= connections_max
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
            let _ = oldest.await;
        }
        let registry = registry.clone();
        let health = Rc::clone(&health);
        let log = Rc::clone(&log);
        open.push_back(tasks.spawn(tasks::METRICS_CONNECTION, async move {
            let service = service_fn(|request: Request<Incoming>| {
                let response = answer(&request, &registry, &health);
                async { Ok::<Response<Full<Bytes>>, Infallible>(response) }
            });
            let served = serve_connection(stream, service).await;
            match (slot.tls_mismatch(), served) {
                // A misconfiguration, and not a client that went away.
                (Some(error), _) => log.event(InstanceEvent::Connection { peer: "a metrics client", error: &error }),
                (None, Err(error)) => {
                    tracing::debug!(error = %Causes(&error), "connection of a metrics client ended");
                }
                (None, Ok(())) => {}
            }
            drop(slot);
        }));
    }
}

fn answer<B>(request: &Request<B>, registry: &Registry, health: &HealthCheck) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => match TextEncoder::new().encode_to_string(&registry.gather()) {
            Ok(text) => (StatusCode::OK, TEXT_FORMAT, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n")),
        },
        (&Method::GET | &Method::HEAD, "/health") => match health() {
            Health::Good => (StatusCode::OK, PLAIN, "OK".to_owned()),
            Health::Degraded(what) => (StatusCode::OK, PLAIN, format!("degraded: {what}\n")),
            Health::Bad(reason) => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{reason}\n")),
        },
        (_, "/metrics" | "/health") => (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "use GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, PLAIN, "not found: use /metrics or /health\n".to_owned()),
    };
    let mut response = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response = response.header(header::ALLOW, "GET, HEAD");
    }
    response.body(Full::new(body.into())).expect("status and headers are valid")
}

/// The content type of every body but the metrics.
const PLAIN: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io;
    use std::time::Duration;

    use prometheus::IntCounter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::transport::accept::testing::Script;
    use squall_env::{BoxStream, Noop};

    /// Sends each request on a connection of its own, one after another, and returns the responses.
    fn answers(health: HealthCheck, requests: &[&str]) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let registry = Registry::new();
            let counter = IntCounter::new("gales", "Number of gales.").unwrap();
            registry.register(Box::new(counter.clone())).unwrap();
            counter.inc_by(3);
            let mut ours = Vec::new();
            let mut theirs = VecDeque::new();
            for _ in requests {
                let (our, their) = tokio::io::duplex(64 * 1024);
                ours.push(our);
                // A connection that fails before it is accepted does not affect the next one.
                theirs.push_back(Err(io::ErrorKind::ConnectionAborted.into()));
                theirs.push_back(Ok(Box::new(their) as BoxStream));
            }
            let tasks = TaskSpawner::new(Rc::new(Noop));
            tasks.spawn(
                tasks::SERVE_METRICS,
                serve(Box::new(Script(theirs)), METRICS_CONNECTIONS_MAX, registry, health, tasks.clone()),
            );
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

    fn healthy() -> HealthCheck {
        Rc::new(|| Health::Good)
    }

    #[test]
    fn metrics_are_served_as_text() {
        let answers = answers(healthy(), &["GET /metrics", "HEAD /metrics"]);
        assert!(answers[0].starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\n"));
        assert!(answers[0].ends_with("# HELP gales Number of gales.\n# TYPE gales counter\ngales 3\n"));
        assert!(answers[1].ends_with("\r\n\r\n"), "{}", answers[1]);
    }

    #[test]
    fn the_health_check_runs_for_each_request() {
        let states = [
            Health::Bad("starting".to_owned()),
            Health::Good,
            Health::Bad("no broker".to_owned()),
            Health::Degraded("an unknown writer".to_owned()),
        ];
        let states = RefCell::new(VecDeque::from(states));
        let health: HealthCheck = Rc::new(move || states.borrow_mut().pop_front().unwrap());
        let answers = answers(health, &["GET /health"; 4]);
        assert!(
            answers[0].starts_with("HTTP/1.1 503 ") && answers[0].ends_with("\r\n\r\nstarting\n"),
            "{}",
            answers[0]
        );
        assert!(answers[1].starts_with("HTTP/1.1 200 ") && answers[1].ends_with("\r\n\r\nOK"), "{}", answers[1]);
        assert!(answers[2].starts_with("HTTP/1.1 503 ") && answers[2].ends_with("\r\n\r\nno broker\n"));
        assert!(
            answers[3].starts_with("HTTP/1.1 200 ") && answers[3].ends_with("\r\n\r\ndegraded: an unknown writer\n")
        );
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        let answers = answers(healthy(), &["GET /", "POST /metrics", "DELETE /health"]);
        assert!(answers[0].starts_with("HTTP/1.1 404 "), "{}", answers[0]);
        assert!(answers[1].starts_with("HTTP/1.1 405 ") && answers[1].contains("allow: GET, HEAD\r\n"));
        assert!(answers[2].starts_with("HTTP/1.1 405 "), "{}", answers[2]);
    }

    #[test]
    fn idle_clients_keep_nobody_out_and_are_closed_in_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let mut ours = Vec::new();
            let theirs = (0..2 * METRICS_CONNECTIONS_MAX + 1).map(|_| {
                let (our, their) = tokio::io::duplex(1024);
                ours.push(our);
                Ok(Box::new(their) as BoxStream)
            });
            let (listener, tasks) = (Box::new(Script(theirs.collect())), TaskSpawner::new(Rc::new(Noop)));
            let serving = serve(listener, METRICS_CONNECTIONS_MAX, Registry::new(), healthy(), tasks.clone());
            tasks.spawn(tasks::SERVE_METRICS, serving);
            let mut last = ours.pop().unwrap();
            last.write_all(b"GET /health HTTP/1.1\r\nhost: squall\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            last.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            let began = tokio::time::Instant::now();
            for (number, mut idle) in ours.into_iter().enumerate() {
                idle.read_to_end(&mut Vec::new()).await.unwrap();
                let is_displaced = number <= METRICS_CONNECTIONS_MAX;
                let open_for = if is_displaced { Duration::ZERO } else { crate::transport::http::HEAD_TIMEOUT };
                assert_eq!(began.elapsed(), open_for, "connection {number}");
            }
        });
    }
}
