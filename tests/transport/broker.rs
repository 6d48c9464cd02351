//! The two connections of an instance to a Redis broker.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use squall::instance::{Instance, STOP_GRACE};
use squall::replication::backoff::JITTER;
use squall::sim::broker;
use squall::transport::redis::resp::encode_request;
use squall_env::{BoxStream, Listener};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::deployment::{self, Deployment};
use crate::network::QueueListener;
use crate::run;

/// A broker behind a wire that the test can cut.
struct Broker {
    port: Box<dyn Listener>,
    served: mpsc::UnboundedSender<BoxStream>,
}

/// A connection to the broker. It is cut when this is dropped.
struct Wire {
    carrying: JoinHandle<()>,
    silence: Option<oneshot::Sender<()>>,
}

impl Wire {
    /// Stops carrying bytes, without closing either end.
    fn fall_silent(&mut self) {
        let _ = self.silence.take().expect("it was not silent").send(());
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

impl Broker {
    /// Starts a broker and an instance that writes nothing. Returns them and the wires on which the instance publishes and
    /// subscribes. It connects in this order.
    async fn with_worker() -> (Self, Rc<Instance>, Wire, Wire) {
        let deployment = Deployment::new().with_broker("redis");
        let (served, streams) = mpsc::unbounded_channel();
        tokio::task::spawn_local(broker::serve(Box::new(QueueListener(streams)), broker::Options::default()));
        let mut broker = Broker { port: deployment.play_broker("redis").await, served };
        let worker = deployment.start("worker1").await;
        let (publisher, subscriber) = (broker.serve_next().await, broker.serve_next().await);
        (broker, worker, publisher, subscriber)
    }

    /// Waits for a connection and carries it to the broker.
    async fn serve_next(&mut self) -> Wire {
        let (client_reads, client_writes) = tokio::io::split(self.port.accept().await.unwrap());
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (broker_reads, broker_writes) = tokio::io::split(far);
        self.served.send(Box::new(near)).unwrap();
        let (silence, silenced) = oneshot::channel();
        let carrying = tokio::task::spawn_local(async move {
            let both_ways = async {
                tokio::select! {
                    () = carry(client_reads, broker_writes) => {}
                    () = carry(broker_reads, client_writes) => {}
                }
            };
            // Both ends stay open when it falls silent.
            let mut both_ways = pin!(both_ways);
            tokio::select! {
                biased;
                Ok(()) = silenced => std::future::pending().await,
                () = &mut both_ways => {}
            }
        });
        Wire { carrying, silence: Some(silence) }
    }

    /// Subscribes another client, which is connected to the broker directly.
    async fn subscribe(&self) -> DuplexStream {
        let (mut near, far) = tokio::io::duplex(64 * 1024);
        self.served.send(Box::new(far)).unwrap();
        let channel = deployment::SERVER_NAME;
        let request = encode_request(&["SUBSCRIBE", channel]);
        near.write_all(&request).await.unwrap();
        near
    }

    /// Checks that the next connection comes after `nominal`, give or take the jitter, and serves it.
    async fn serve_after(&mut self, nominal: Duration) -> Wire {
        let since = Instant::now();
        let wire = self.serve_next().await;
        let (waited, nominal) = (since.elapsed(), nominal.as_secs_f64());
        let range = nominal * (1.0 - JITTER)..=nominal * (1.0 + JITTER) + 0.003;
        assert!(range.contains(&waited.as_secs_f64()), "reconnected after {waited:?} instead of {nominal} s");
        wire
    }
}

/// Carries bytes with a delay until one end closes.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        tokio::time::sleep(LATENCY).await;
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// Delay of a wire in each direction.
const LATENCY: Duration = Duration::from_millis(5);
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(11);

#[test]
fn an_instance_that_does_not_hear_itself_makes_both_connections_again() {
    for is_busy in [false, true] {
        run(async move {
            let (mut broker, worker, publisher, _subscriber) = Broker::with_worker().await;
            tokio::time::sleep(LONG).await;
            // The name leads to another server now. The subscription stays on the old one.
            let (served, streams) = mpsc::unbounded_channel();
            tokio::task::spawn_local(broker::serve(Box::new(QueueListener(streams)), broker::Options::default()));
            let _old_server = std::mem::replace(&mut broker.served, served);
            drop(publisher);
            let _publisher = broker.serve_after(Duration::from_millis(100)).await;
            if is_busy {
                let worker = Rc::clone(&worker);
                tokio::task::spawn_local(async move {
                    loop {
                        worker.handler().remote_server_up("busy.test");
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                });
            }
            let again = async { (broker.serve_next().await, broker.serve_next().await) };
            let again = tokio::time::timeout(Duration::from_secs(20), again).await;
            let (_one, _other) = again.expect("it notices");
            let settled = tokio::time::timeout(Duration::from_secs(60), broker.serve_next()).await;
            assert!(settled.is_err(), "it hears itself");
        });
    }
}

#[test]
fn both_connections_are_retried_for_ever_with_growing_delays() {
    run(async {
        let deployment = Deployment::new().with_broker("redis");
        let mut port = deployment.play_broker("redis").await;
        let _worker = deployment.start("worker1").await;
        let mut attempts = 0;
        let hanging_up = async {
            loop {
                drop(port.accept().await.unwrap());
                attempts += 1;
            }
        };
        // Each connects at 0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3 s and every 5 s from there (Synapse #9391).
        assert!(tokio::time::timeout(Duration::from_secs(60), hanging_up).await.is_err());
        assert!((32..=38).contains(&attempts), "{attempts} attempts");
    });
}

#[test]
fn the_delay_is_reset_after_a_healthy_spell_and_not_before() {
    run(async {
        let (mut broker, _worker, mut publisher, _subscriber) = Broker::with_worker().await;
        for nominal_ms in [100, 200, 400] {
            tokio::time::sleep(SHORT).await;
            drop(publisher);
            publisher = broker.serve_after(Duration::from_millis(nominal_ms)).await;
        }
        tokio::time::sleep(LONG).await;
        for nominal_ms in [100, 200] {
            drop(publisher);
            publisher = broker.serve_after(Duration::from_millis(nominal_ms)).await;
            tokio::time::sleep(SHORT).await;
        }
    });
}

#[test]
fn a_publisher_that_never_pauses_has_healthy_spells_too() {
    run(async {
        let (mut broker, worker, mut publisher, _subscriber) = Broker::with_worker().await;
        let talking = Rc::clone(&worker);
        // More commands are sent before the first reply arrives.
        tokio::task::spawn_local(async move {
            loop {
                talking.handler().remote_server_up("matrix.org");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        for _ in 0..2 {
            tokio::time::sleep(LONG).await;
            drop(publisher);
            publisher = broker.serve_after(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn a_subscription_is_set_up_when_its_replicate_came_back() {
    run(async {
        let (mut broker, worker, _publisher, subscriber) = Broker::with_worker().await;
        tokio::time::sleep(LONG).await;
        assert!(worker.handler().connections().iter().all(|connection| connection.was_set_up()));
        drop(subscriber);
        let _subscriber = broker.serve_after(Duration::from_millis(100)).await;
        tokio::time::sleep(SHORT).await;
        let set_up = worker.handler().connections().iter().filter(|connection| connection.was_set_up()).count();
        assert_eq!(set_up, 1, "not after a second");
    });
}

#[test]
fn a_broker_that_falls_silent_is_noticed_on_either_connection() {
    run(async {
        let (mut broker, _worker, mut publisher, mut subscriber) = Broker::with_worker().await;
        tokio::time::sleep(LONG).await;
        publisher.fall_silent();
        subscriber.fall_silent();
        let noticed = async { (broker.serve_next().await, broker.serve_next().await) };
        // A ping after 5 s, 25 s for its answer, and the delay (Synapse #9218).
        assert!(tokio::time::timeout(Duration::from_secs(31), noticed).await.is_ok());
    });
}

#[test]
fn the_last_command_of_an_instance_that_stops_is_published() {
    run(async {
        let (broker, worker, _publisher, _subscriber) = Broker::with_worker().await;
        let mut listener = broker.subscribe().await;
        tokio::time::sleep(LONG).await;
        worker.stop().await;
        let mut received = Vec::new();
        while !String::from_utf8_lossy(&received).contains("\r\nCLEAR_USER_SYNC ") {
            let read = tokio::time::timeout(SHORT, listener.read_buf(&mut received)).await;
            assert!(matches!(read, Ok(Ok(1..))), "{}", String::from_utf8_lossy(&received));
        }
    });
}

#[test]
fn a_stop_waits_for_the_brokers_answer_and_not_for_ever() {
    run(async {
        let (_broker, worker, mut publisher, _subscriber) = Broker::with_worker().await;
        tokio::time::sleep(SHORT).await;
        publisher.fall_silent();
        let began = Instant::now();
        worker.stop().await;
        assert_eq!(began.elapsed(), STOP_GRACE);
    });
}
