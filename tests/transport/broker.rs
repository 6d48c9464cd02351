//! The two connections of an instance to a Redis broker.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use squall::instance::{Instance, STOP_GRACE};
use squall::replication::backoff::JITTER;
use squall::sim::broker;
use squall::transport::redis::resp::encode_request;
use squall_env::BoxStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::deployment::{self, Deployment};
use crate::network::QueueListener;
use crate::run;

/// A broker behind wires that the test can cut.
struct Broker {
    deployment: Deployment,
    options: broker::Options,
    /// The server to which the broker's name leads.
    server: Rc<RefCell<mpsc::UnboundedSender<BoxStream>>>,
    /// The connections on which the instance publishes or subscribes. Those that only check the name are not among them.
    wires: mpsc::UnboundedReceiver<Wire>,
}

/// A connection to the broker. It is cut when this is dropped.
struct Wire {
    carrying: JoinHandle<()>,
    control: Rc<Control>,
    opened_at: Instant,
}

/// Controls a wire.
#[derive(Default)]
struct Control {
    /// Everything that the client sent.
    sent: RefCell<Vec<u8>>,
    has_sent: Notify,
    silence: Notify,
    is_holding: Cell<bool>,
    /// Those bytes of the client that the broker has not received.
    held: RefCell<Vec<u8>>,
    lose_client: Notify,
    arrive: Notify,
}

impl Control {
    /// Waits until it is known why the client has connected. Returns true if it only checks the broker's name.
    async fn is_check(&self) -> bool {
        loop {
            let sent = String::from_utf8_lossy(&self.sent.borrow()).into_owned();
            if sent.contains("/echo_by_name/") {
                return !sent.contains("SUBSCRIBE");
            }
            if sent.contains("CLIENT") || sent.contains("PUBLISH") {
                return false;
            }
            self.has_sent.notified().await;
        }
    }

    /// Carries bytes both ways.
    async fn carry(self: Rc<Self>, client: BoxStream, broker: DuplexStream) {
        let (client_reads, client_writes) = tokio::io::split(client);
        let (broker_reads, mut broker_writes) = tokio::io::split(broker);
        {
            let mut requests = pin!(self.carry_requests(client_reads, &mut broker_writes));
            let mut replies = pin!(carry(broker_reads, client_writes));
            tokio::select! {
                biased;
                // Both ends stay open.
                () = self.silence.notified() => return std::future::pending().await,
                // The client's end closes, and the broker's stays open.
                () = self.lose_client.notified() => {}
                () = &mut requests => return,
                () = &mut replies => return,
            }
        }
        self.arrive.notified().await;
        let held = self.held.take();
        // The broker may have closed the connection.
        let _ = broker_writes.write_all(&held).await;
        std::future::pending().await
    }

    async fn carry_requests(&self, mut from: impl AsyncRead + Unpin, to: &mut (impl AsyncWrite + Unpin)) {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut bytes).await {
            self.sent.borrow_mut().extend_from_slice(&bytes[..read]);
            self.has_sent.notify_one();
            tokio::time::sleep(LATENCY).await;
            if self.is_holding.get() {
                self.held.borrow_mut().extend_from_slice(&bytes[..read]);
            } else if to.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    }
}

impl Wire {
    /// Opens a connection of the instance to a server.
    fn open(client: BoxStream, server: &mpsc::UnboundedSender<BoxStream>) -> Self {
        let (near, far) = tokio::io::duplex(64 * 1024);
        server.send(Box::new(near)).unwrap();
        let control = Rc::new(Control::default());
        let carrying = tokio::task::spawn_local(Rc::clone(&control).carry(client, far));
        Wire { carrying, control, opened_at: Instant::now() }
    }

    /// Stops carrying bytes, without closing either end.
    fn fall_silent(&mut self) {
        self.control.silence.notify_one();
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
        let options = broker::Options::default();
        let server = Rc::new(RefCell::new(start_server(&options)));
        let (opened, wires) = mpsc::unbounded_channel();
        let mut port = deployment.play_broker("redis").await;
        let present = Rc::clone(&server);
        tokio::task::spawn_local(async move {
            while let Ok(client) = port.accept().await {
                let (wire, opened) = (Wire::open(client, &present.borrow()), opened.clone());
                tokio::task::spawn_local(async move {
                    if wire.control.is_check().await {
                        std::future::pending::<()>().await;
                    }
                    let _ = opened.send(wire);
                });
            }
        });
        let mut broker = Broker { deployment, options, server, wires };
        let worker = broker.deployment.start("worker1").await;
        let (one, other) = (broker.serve_next().await, broker.serve_next().await);
        let is_subscriber = String::from_utf8_lossy(&one.control.sent.borrow()).contains("SUBSCRIBE");
        let (publisher, subscriber) = if is_subscriber { (other, one) } else { (one, other) };
        (broker, worker, publisher, subscriber)
    }

    /// Lets the name lead to another server. Connections to the old one stay.
    fn fail_over(&self) -> impl Sized + use<> {
        self.server.replace(start_server(&self.options))
    }

    /// Waits for the next connection on which the instance publishes or subscribes.
    async fn serve_next(&mut self) -> Wire {
        let next = tokio::time::timeout(Duration::from_secs(120), self.wires.recv()).await;
        next.expect("it connects").expect("the port stays open")
    }

    /// Checks that the instance makes both connections again in time, and stays with them.
    async fn both_come_again_within(&mut self, time: Duration) {
        let again = async { (self.serve_next().await, self.serve_next().await) };
        let (_one, _other) = tokio::time::timeout(time, again).await.expect("it notices");
        let settled = tokio::time::timeout(Duration::from_secs(60), self.serve_next()).await;
        assert!(settled.is_err(), "it hears itself");
    }

    /// Subscribes another client, which is connected to the broker directly.
    async fn subscribe(&self) -> DuplexStream {
        let (mut near, far) = tokio::io::duplex(64 * 1024);
        self.server.borrow().send(Box::new(far)).unwrap();
        let channel = deployment::SERVER_NAME;
        let request = encode_request(&["SUBSCRIBE", channel]);
        near.write_all(&request).await.unwrap();
        near
    }

    /// Checks that the next connection comes after `nominal`, give or take the jitter.
    async fn serve_after(&mut self, nominal: Duration) -> Wire {
        let since = Instant::now();
        let wire = self.serve_next().await;
        let (waited, nominal) = (wire.opened_at.duration_since(since), nominal.as_secs_f64());
        let range = nominal * (1.0 - JITTER)..=nominal * (1.0 + JITTER) + 0.003;
        assert!(range.contains(&waited.as_secs_f64()), "reconnected after {waited:?} instead of {nominal} s");
        wire
    }
}

/// Starts a server. Returns where to send its connections. No two servers of these options know a client by the same
/// address.
fn start_server(options: &broker::Options) -> mpsc::UnboundedSender<BoxStream> {
    let (served, streams) = mpsc::unbounded_channel();
    tokio::task::spawn_local(broker::serve(Box::new(QueueListener(streams)), options.clone()));
    served
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
fn an_instance_whose_connections_both_stay_on_another_server_makes_them_again() {
    run(async {
        let (mut broker, _worker, _publisher, _subscriber) = Broker::with_worker().await;
        tokio::time::sleep(LONG).await;
        // Both connections stay on the old server, and hear each other there.
        let _old_server = broker.fail_over();
        broker.both_come_again_within(Duration::from_secs(25)).await;
    });
}

#[test]
fn what_the_broker_reads_late_on_an_old_connection_is_not_published() {
    run(async {
        let (mut broker, worker, publisher, _subscriber) = Broker::with_worker().await;
        let mut listener = broker.subscribe().await;
        tokio::time::sleep(SHORT).await;
        // The broker does not read what the instance sends, until the instance has published on another connection.
        let control = Rc::clone(&publisher.control);
        control.is_holding.set(true);
        worker.handler().remote_server_up("held.test");
        tokio::time::sleep(SHORT).await;
        control.lose_client.notify_one();
        let _publisher = broker.serve_next().await;
        tokio::time::sleep(SHORT).await;
        hears_only_the_next(&worker, &control, &mut listener).await;
    });
}

/// Seed 1001883 of `redis`.
#[test]
fn what_the_broker_reads_late_of_an_earlier_process_is_not_published() {
    run(async {
        let (mut broker, worker, publisher, _subscriber) = Broker::with_worker().await;
        let mut listener = broker.subscribe().await;
        tokio::time::sleep(SHORT).await;
        let control = Rc::clone(&publisher.control);
        control.is_holding.set(true);
        worker.handler().remote_server_up("held.test");
        tokio::time::sleep(SHORT).await;
        control.lose_client.notify_one();
        worker.stop().await;
        drop(worker);
        let worker = broker.deployment.start("worker1").await;
        let _wires = (broker.serve_next().await, broker.serve_next().await);
        tokio::time::sleep(SHORT).await;
        hears_only_the_next(&worker, &control, &mut listener).await;
    });
}

/// Checks that a subscriber hears what `worker` publishes now, and not what arrives late on an old wire.
async fn hears_only_the_next(worker: &Instance, old: &Control, listener: &mut DuplexStream) {
    worker.handler().remote_server_up("next.test");
    tokio::time::sleep(SHORT).await;
    assert!(String::from_utf8_lossy(&old.held.borrow()).contains("held.test"));
    old.arrive.notify_one();
    tokio::time::sleep(SHORT).await;
    let mut heard = vec![0; 64 * 1024];
    let length = listener.read(&mut heard).await.unwrap();
    let heard = String::from_utf8_lossy(&heard[..length]).into_owned();
    assert!(heard.contains("next.test"), "{heard}");
    assert!(!heard.contains("held.test"), "{heard}");
}

#[test]
fn an_instance_that_does_not_hear_itself_makes_both_connections_again() {
    for is_busy in [false, true] {
        run(async move {
            let (mut broker, worker, publisher, _subscriber) = Broker::with_worker().await;
            tokio::time::sleep(LONG).await;
            // The subscription stays on the old server.
            let _old_server = broker.fail_over();
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
            broker.both_come_again_within(Duration::from_secs(20)).await;
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
        // Each connects at 0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3 s and every 5 s from there (Synapse #9391). The name is checked
        // every 10 s.
        assert!(tokio::time::timeout(Duration::from_secs(60), hanging_up).await.is_err());
        assert!((37..=44).contains(&attempts), "{attempts} attempts");
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
