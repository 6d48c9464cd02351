//! The accept loop of every port: the line protocol, HTTP requests, and metrics.
//!
//! The number of connections is bounded. A client beyond the bound is refused with a reason, and the connections that are
//! open are not disturbed. An error of `accept` (too many open files, for example) is reported and followed by a pause, so
//! that it does not become a busy loop.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::LimitHit;
use crate::observer::InstanceEvent;
use crate::observer::Observer;
use crate::transport::tls_mismatch::{Notice, Plain, TlsMismatch};
use squall_env::{BoxStream, Listener, TaskSpawner};

/// Pause after an error of `accept`.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// A client that was refused because the listener has its maximum of connections.
#[derive(Debug, Error)]
#[error("too many connections")]
pub(crate) struct TooManyConnections;

/// The settings of a [`BoundedListener`].
pub(crate) struct AcceptOptions {
    /// The listener's name in reports, such as `the HTTP listener`.
    pub listener: &'static str,
    /// The name of its clients in reports, such as `an HTTP client`.
    pub client: &'static str,
    /// Maximum number of open connections.
    pub connections_max: usize,
    /// The bytes that are sent to a client that is refused.
    pub refusal: Bytes,
}

/// A listener whose open connections are bounded in number.
pub(crate) struct BoundedListener<'a> {
    listener: Box<dyn Listener>,
    options: AcceptOptions,
    slots: Arc<Semaphore>,
    tasks: &'a TaskSpawner,
    observer: &'a dyn Observer,
}

/// The place of one open connection. Dropping it makes room for another connection.
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
    tls: Notice,
}

impl Slot {
    /// Returns the error if the connection ended because the client speaks TLS.
    pub(crate) fn tls_mismatch(&self) -> Option<TlsMismatch> {
        self.tls.is_given().then_some(TlsMismatch::Client)
    }
}

impl<'a> BoundedListener<'a> {
    /// Bounds `listener`. It accepts until `tasks` are stopped, and reports refusals and errors to `observer`.
    pub(crate) fn new(
        listener: Box<dyn Listener>,
        options: AcceptOptions,
        tasks: &'a TaskSpawner,
        observer: &'a dyn Observer,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(options.connections_max));
        BoundedListener { listener, options, slots, tasks, observer }
    }

    /// Accepts the next connection. The caller keeps the slot for as long as the connection is open.
    ///
    /// Returns `None` once the tasks are stopped.
    pub(crate) async fn accept(&mut self) -> Option<(BoxStream, Slot)> {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.tasks.stopped() => return None,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    self.observer.event(InstanceEvent::Connection { peer: self.options.listener, error: &error });
                    tokio::time::sleep(ERROR_PAUSE).await;
                    continue;
                }
            };
            if let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() {
                let (stream, tls) = Plain::accepted(stream);
                return Some((stream, Slot { _permit: permit, tls }));
            }
            self.observer.limit_hit(LimitHit::ConnectionRefused);
            let error = &TooManyConnections;
            self.observer.event(InstanceEvent::Connection { peer: self.options.client, error });
            self.refuse(stream).await;
        }
    }

    /// Sends the refusal if the socket takes it at once. A slow client must not delay the other ones.
    async fn refuse(&self, mut stream: BoxStream) {
        let _ = tokio::time::timeout(Duration::ZERO, stream.write_all(&self.options.refusal)).await;
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::collections::VecDeque;
    use std::io;

    use squall_env::{BoxStream, Listener, LocalBoxFuture};

    /// A listener that yields these results, and then waits for ever.
    pub(crate) struct Script(pub(crate) VecDeque<io::Result<BoxStream>>);

    impl Listener for Script {
        fn accept(&mut self) -> LocalBoxFuture<'_, io::Result<BoxStream>> {
            Box::pin(async {
                match self.0.pop_front() {
                    Some(result) => result,
                    None => std::future::pending().await,
                }
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::io;
    use std::rc::Rc;

    use tokio::io::AsyncReadExt;
    use tokio::time::Instant;

    use super::testing::Script;
    use super::*;
    use squall_env::Noop;

    /// Records reports.
    #[derive(Default)]
    struct Reports(RefCell<Vec<String>>);

    impl squall_env::TaskObserver for Reports {}

    impl Observer for Reports {
        fn event(&self, event: InstanceEvent<'_>) {
            let InstanceEvent::Connection { peer, error } = event else { panic!("{event:?}") };
            self.0.borrow_mut().push(format!("{peer}: {error}"));
        }
    }

    fn options(connections_max: usize) -> AcceptOptions {
        AcceptOptions { listener: "the listener", client: "a client", connections_max, refusal: "no\n".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_reported_and_followed_by_a_pause() {
        let (_near, far) = tokio::io::duplex(64);
        let errors = [io::ErrorKind::ConnectionAborted, io::ErrorKind::Other].map(|kind| Err(kind.into()));
        let script = Script(errors.into_iter().chain([Ok(Box::new(far) as BoxStream)]).collect());
        let tasks = TaskSpawner::new(Rc::new(Noop));
        let reports = Reports::default();
        let mut listener = BoundedListener::new(Box::new(script), options(1), &tasks, &reports);
        let since = Instant::now();
        assert!(listener.accept().await.is_some());
        assert_eq!(since.elapsed(), 2 * ERROR_PAUSE);
        assert_eq!(*reports.0.borrow(), ["the listener: connection aborted", "the listener: other error"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_beyond_the_bound_is_refused_until_a_slot_is_free() {
        let (near, far): (Vec<_>, Vec<_>) = (0..3).map(|_| tokio::io::duplex(64)).unzip();
        let script = Script(far.into_iter().map(|stream| Ok(Box::new(stream) as BoxStream)).collect());
        let tasks = TaskSpawner::new(Rc::new(Noop));
        let reports = Reports::default();
        let mut listener = BoundedListener::new(Box::new(script), options(1), &tasks, &reports);
        let first = listener.accept().await;
        let waiting = tokio::time::timeout(Duration::from_secs(1), listener.accept()).await;
        assert!(waiting.is_err(), "both other clients are refused");
        assert_eq!(*reports.0.borrow(), ["a client: too many connections"; 2]);
        for mut client in near.into_iter().skip(1) {
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "no\n");
        }
        drop(first);
        let (_near, far) = tokio::io::duplex(64);
        listener.listener = Box::new(Script(VecDeque::from([Ok(Box::new(far) as BoxStream)])));
        assert!(listener.accept().await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_accepted_once_the_tasks_are_stopped() {
        let (_near, far) = tokio::io::duplex(64);
        let script = Script(VecDeque::from([Ok(Box::new(far) as BoxStream)]));
        let tasks = TaskSpawner::new(Rc::new(Noop));
        tasks.stop();
        let mut listener = BoundedListener::new(Box::new(script), options(1), &tasks, &Noop);
        assert!(listener.accept().await.is_none());
    }
}
