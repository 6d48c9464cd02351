//! Attacks on the simulated Redis broker. A failure there would end a run.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use squall::instance::Write;
use squall::sim::broker::{self, Limits};
use squall::transport::redis::resp::encode_request;
use squall_env::BoxStream;
use squall_protocol::PAYLOAD_BYTES_MAX;
use squall_protocol::rows::events::EventRow;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use crate::attack::{Target, persist};
use crate::deployment::Deployment;
use crate::memory::Watch;
use crate::network::QueueListener;
use crate::run;

/// Maximum number of unsent bytes for a subscriber.
const HARD_BYTES: usize = 1024 * 1024;

/// A deployment with the simulated broker, a writer and a follower.
struct Scene {
    /// The queue of connections to the broker.
    clients: mpsc::UnboundedSender<BoxStream>,
    master: Target,
    worker: Target,
}

impl Scene {
    async fn new() -> Self {
        let deployment = Deployment::new().with_broker("redis");
        let (clients, streams) = mpsc::unbounded_channel();
        let limits = Limits { hard_bytes: HARD_BYTES, ..Limits::default() };
        let options = broker::Options { limits, ..broker::Options::default() };
        tokio::task::spawn_local(broker::serve(Box::new(QueueListener(streams)), options));
        let mut port = deployment.play_broker("redis").await;
        let instances = clients.clone();
        tokio::task::spawn_local(async move {
            while let Ok(stream) = port.accept().await {
                instances.send(stream).unwrap();
            }
        });
        let master = Target::start(&deployment, "master").await;
        let worker = Target::start(&deployment, "worker1").await;
        let scene = Scene { clients, master, worker };
        tokio::time::sleep(Duration::from_secs(1)).await;
        scene.carries_rows().await;
        scene
    }

    /// Checks that rows are replicated without delay.
    async fn carries_rows(&self) {
        let token = persist(&self.master.instance).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(self.worker.instance.handler().position("events", &"master".into()).unwrap().0, token);
    }

    fn connect(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(4096);
        self.clients.send(Box::new(far)).unwrap();
        near
    }

    /// Sends bytes to the broker. Returns its replies within a second, and true if it closed the connection.
    async fn answer_to(&self, bytes: &[u8]) -> (String, bool) {
        let mut stream = self.connect();
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        let mut answer = Vec::new();
        // A write fails once the broker has closed the connection.
        let saying = async {
            let _ = writer.write_all(bytes).await;
            std::future::pending::<()>().await
        };
        let hung_up = tokio::select! {
            read = reader.read_to_end(&mut answer) => read.is_ok(),
            () = saying => unreachable!("it never completes"),
            () = tokio::time::sleep(Duration::from_secs(1)) => false,
        };
        (String::from_utf8_lossy(&answer).into_owned(), hung_up)
    }
}

#[test]
fn a_malformed_request_is_answered_and_ends_the_connection() {
    run(async {
        let scene = Scene::new().await;
        for (bytes, why) in [
            (&b"*x\r\n"[..], "invalid multibulk length"),
            (b"*999999999999\r\n", "invalid multibulk length"),
            (b"*99999999999999999999999\r\n", "invalid multibulk length"),
            (b"*1\r\n$999999999999\r\n", "invalid bulk length"),
            (b"*1\r\n$-5\r\n", "invalid bulk length"),
            (b"*1\r\n*1\r\n", "expected '$', got '*'"),
            (b"*1\r\n\r\n", "expected '$'"),
            (&vec![b'x'; 1024 * 1024], "too big mbulk count string"),
            (&b"*1\r\n".repeat(10_000), "expected '$', got '*'"),
        ] {
            let watch = Watch::begin();
            let (answer, hung_up) = scene.answer_to(bytes).await;
            assert!(answer.starts_with("-ERR Protocol error: ") && answer.contains(why), "{why}: {answer:?}");
            assert!(hung_up, "{why}: still connected");
            watch.assert_below(1024 * 1024, why);
        }
        scene.carries_rows().await;
    });
}

#[test]
fn garbage_does_not_affect_other_clients() {
    run(async {
        let scene = Scene::new().await;
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for _ in 0..200 {
            let mut garbage = vec![0; rng.random_range(1..100_000)];
            rng.fill(&mut garbage[..]);
            scene.answer_to(&garbage).await;
        }
        scene.carries_rows().await;
    });
}

#[test]
fn a_thousand_slow_or_silent_clients_do_not_affect_other_clients() {
    run(async {
        let scene = Scene::new().await;
        let watch = Watch::begin();
        let mut idle = Vec::new();
        for number in 0..1_000 {
            let mut stream = scene.connect();
            if number % 2 == 0 {
                stream.write_all(b"*3\r\n$7\r\nPUB").await.unwrap();
            }
            idle.push(stream);
        }
        scene.carries_rows().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        scene.carries_rows().await;
        let bound = 1_000 * 32 * 1024;
        watch.assert_below(bound, "memory");
    });
}

#[test]
fn a_subscriber_that_never_reads_is_dropped_and_delays_no_other_client() {
    run(async {
        let scene = Scene::new().await;
        let watch = Watch::begin();
        let mut slow = scene.connect();
        slow.write_all(&encode_request(&["SUBSCRIBE", "squall.test"])).await.unwrap();
        let payload = format!("REMOTE_SERVER_UP {}", "x".repeat(1_000));
        for _ in 0..4 * HARD_BYTES / payload.len() {
            scene.master.instance.handler().remote_server_up(&payload);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        scene.carries_rows().await;
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(1), slow.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "it is still connected");
        let bound = 3 * HARD_BYTES;
        watch.assert_below(bound, "memory");
    });
}

#[test]
fn a_row_too_long_to_be_published_is_fetched_and_ends_no_connection() {
    run(async {
        let scene = Scene::new().await;
        scene.worker.clear_reports();
        let event = EventRow::message("$long", format!("!{}:squall.test", "x".repeat(PAYLOAD_BYTES_MAX)));
        let write = Write { event: Some(event), state: Vec::new() };
        let token = scene.master.instance.events().unwrap().persist(vec![write]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(scene.worker.instance.handler().position("events", &"master".into()), Some(token));
        scene.carries_rows().await;
        assert_eq!(scene.worker.reports(), [""; 0]);
    });
}
