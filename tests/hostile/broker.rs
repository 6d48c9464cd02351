//! Attacks by a Redis broker, which the test plays. The instance reports the error, keeps serving other peers, and
//! reconnects as soon as the broker behaves.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use squall::replication::{Consumer, Consumers};
use squall::sim::broker;
use squall::store::events;
use squall::transport::redis::resp::Reply;
use squall::transport::redis::{PING_INTERVAL, REPLY_BYTES_MAX, REPLY_TIMEOUT};
use squall_env::{BoxStream, Listener};
use squall_protocol::rows::Row;
use squall_protocol::rows::events::EventRow;
use squall_protocol::{InstanceName, StreamName, Token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::attack::{Target, nested, persist};
use crate::deployment::{Deployment, SERVER_NAME};
use crate::memory::Watch;
use crate::network::QueueListener;
use crate::{requests, run};

/// Memory that an instance may use for a connection to a broker, besides the longest reply.
const CONNECTION_BYTES_MAX: usize = 128 * 1024;

/// A broker that the test plays, and a master that uses it.
struct Scene {
    deployment: Deployment,
    port: Box<dyn Listener>,
    master: Target,
}

/// The broker's end of one connection of the master.
struct Client {
    stream: BoxStream,
    received: Vec<u8>,
}

impl Client {
    /// Waits until the master has sent `what`.
    async fn hear(&mut self, what: &str) {
        let hearing = async {
            while !self.received.windows(what.len()).any(|window| window == what.as_bytes()) {
                assert_ne!(
                    self.stream.read_buf(&mut self.received).await.unwrap(),
                    0,
                    "closed before it sent {what:?}"
                );
            }
        };
        tokio::time::timeout(Duration::from_secs(60), hearing).await.unwrap_or_else(|_| panic!("never sent {what:?}"));
        self.received.clear();
    }

    /// Sends bytes. An error is ignored: the instance may have closed the connection.
    async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Waits until the master closes the connection.
    async fn is_closed(&mut self) {
        let hanging_up = async { while self.stream.read_buf(&mut self.received).await.is_ok_and(|read| read > 0) {} };
        tokio::time::timeout(Duration::from_secs(60), hanging_up).await.expect("the master closes the connection");
    }
}

/// The point at which the broker misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    PublisherGreeted,
    Published,
    Subscribing,
    Subscribed,
}

const STAGES: [Stage; 4] = [Stage::PublisherGreeted, Stage::Published, Stage::Subscribing, Stage::Subscribed];

impl Scene {
    async fn new() -> Self {
        Scene::with(Consumers::default()).await
    }

    /// Creates a scene whose master has these consumers.
    async fn with(consumers: Consumers) -> Self {
        let deployment = Deployment::new().with_broker("redis");
        let port = deployment.play_broker("redis").await;
        let master = Target::start_with(&deployment, "master", consumers).await;
        deployment.allocate_events().await;
        Scene { deployment, port, master }
    }

    async fn next(&mut self) -> Client {
        let accepting = tokio::time::timeout(Duration::from_secs(60), self.port.accept());
        let stream = accepting.await.expect("the master reconnects in time").unwrap();
        Client { stream, received: Vec::new() }
    }

    /// Waits for the master's connection that reaches `stage`. Closes the other one.
    async fn at(&mut self, stage: Stage) -> Client {
        loop {
            let mut client = self.next().await;
            // Room for a whole request.
            client.received.reserve(1_024);
            let asked =
                tokio::time::timeout(Duration::from_secs(1), client.stream.read_buf(&mut client.received)).await;
            asked.expect("a client sends a command at once").unwrap();
            // The connections that only check the broker's name begin with this.
            if client.received.windows(7).any(|window| window == b"PUBLISH") {
                continue;
            }
            let is_subscriber = client.received.windows(9).any(|window| window == b"SUBSCRIBE");
            if is_subscriber != matches!(stage, Stage::Subscribing | Stage::Subscribed) {
                continue;
            }
            let request = std::mem::take(&mut client.received);
            match stage {
                Stage::PublisherGreeted | Stage::Subscribing => {}
                Stage::Published => {
                    client.say("+PONG\r\n").await;
                    client.hear("INFO").await;
                    // As from a server before Redis 6.2.
                    client.say("-ERR unknown command 'CLIENT'\r\n").await;
                    client.hear("POSITION").await;
                }
                Stage::Subscribed => client.say(subscribed(&request)).await,
            }
            return client;
        }
    }

    /// Checks that the master serves other peers during the attack.
    async fn serves_others(&self) {
        let path = "/_synapse/replication/get_repl_stream_updates/events/healthy?from_token=0&upto_token=1";
        let asking = requests::get(&self.deployment, "master", path);
        let (status, answer) =
            tokio::time::timeout(Duration::from_secs(1), asking).await.expect("the master answers at once");
        assert_eq!(status, 200, "{answer}");
    }

    /// Checks that the master soon reports an error with these words.
    async fn reports(&self, words: &[&str]) {
        let words = [&["the broker: "], words].concat();
        let reported = async {
            while self.master.reported(&words) == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let reported = tokio::time::timeout(Duration::from_secs(1), reported).await;
        assert!(reported.is_ok(), "{words:?} is not among {:?}", self.master.reports());
        self.master.clear_reports();
    }

    /// Checks that rows are replicated once the broker behaves.
    async fn recovers(self) {
        let Scene { deployment, mut port, master } = self;
        let (served, streams) = mpsc::unbounded_channel();
        tokio::task::spawn_local(broker::serve(Box::new(QueueListener(streams)), broker::Options::default()));
        tokio::task::spawn_local(async move {
            while let Ok(stream) = port.accept().await {
                let _ = served.send(stream);
            }
        });
        let worker = Target::start(&deployment, "worker1").await;
        // Longer than the longest back-off.
        sleep(Duration::from_secs(7)).await;
        let token = persist(&master.instance).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(worker.instance.handler().position("events", &"master".into()).unwrap().0, token);
    }
}

/// Returns the broker's replies to a subscription, one for each channel in `request`.
pub(crate) fn subscribed(request: &[u8]) -> Vec<u8> {
    let request = String::from_utf8_lossy(request);
    let channels = request.split("\r\n").filter(|line| line.starts_with(SERVER_NAME));
    let replies = channels.zip(1..).map(|(channel, count)| Reply::subscribed(channel.to_owned(), count).to_bytes());
    replies.collect::<Vec<_>>().concat()
}

/// Returns the broker's message to the subscribers of the homeserver's channel.
pub(crate) fn message(payload: impl AsRef<[u8]>) -> Bytes {
    Reply::message(SERVER_NAME, Bytes::copy_from_slice(payload.as_ref())).to_bytes()
}

#[test]
fn garbage_is_reported_and_followed_by_a_reconnect() {
    run(async {
        for stage in STAGES {
            let mut scene = Scene::new().await;
            for garbage in [
                &b"\0\xff\x80garbage\r\n"[..],
                b"HTTP/1.1 400 Bad Request\r\n\r\n",
                b":one\r\n",
                b"*2\r\n$99999999999999999999999\r\n",
                b"$2\r\nabcd\r\n",
            ] {
                let mut client = scene.at(stage).await;
                scene.master.clear_reports();
                client.say(garbage).await;
                scene.reports(&[]).await;
                client.is_closed().await;
            }
            // These may be incomplete or mean nothing. The instance waits for the rest until the time-out, and uses no
            // memory for it.
            for strange in [
                &b"$-5\r\n"[..],
                b"*-5\r\n",
                b"$999999999999\r\n",
                b"*999999999999\r\n",
                b"-ERR no\r\n",
                b"$-1\r\n",
                b"*0\r\n",
                b"+OK\r\n",
            ] {
                let mut client = scene.at(stage).await;
                let watch = Watch::begin();
                client.say(strange).await;
                sleep(REPLY_TIMEOUT + 2 * PING_INTERVAL).await;
                watch.assert_below(CONNECTION_BYTES_MAX, "memory");
            }
            scene.serves_others().await;
            scene.recovers().await;
        }
    });
}

#[test]
fn a_broker_that_refuses_the_key_still_ends_the_old_connection_of_the_same_process() {
    run(async {
        let mut scene = Scene::new().await;
        let mut first = scene.at(Stage::PublisherGreeted).await;
        scene.master.clear_reports();
        first.say("+PONG\r\n").await;
        first.hear("INFO").await;
        first.say("$14\r\nid=5 addr=a:1\n\r\n").await;
        first.hear("GET").await;
        first.say("-NOPERM this user has no permissions to access one of the keys\r\n").await;
        first.hear("POSITION").await;
        scene.reports(&["refused CLIENT INFO, CLIENT KILL, GET or SET", "no permissions"]).await;
        drop(first);
        let mut second = scene.at(Stage::PublisherGreeted).await;
        second.say("+PONG\r\n").await;
        second.hear("KILL\r\n$2\r\nID\r\n$1\r\n5\r\n").await;
    });
}

#[test]
fn arrays_nested_without_end_exhaust_neither_stack_nor_memory() {
    run(async {
        for stage in STAGES {
            let mut scene = Scene::new().await;
            let mut client = scene.at(stage).await;
            scene.master.clear_reports();
            let watch = Watch::begin();
            client.say(b"*1\r\n".repeat(10_000)).await;
            scene.reports(&[]).await;
            watch.assert_below(CONNECTION_BYTES_MAX, "memory");
            scene.recovers().await;
        }
    });
}

#[test]
fn a_reply_without_end_is_not_held() {
    run(async {
        for stage in STAGES {
            let mut scene = Scene::new().await;
            for beginning in ["+", "*3\r\n$7\r\nmessage\r\n$11\r\nsquall.test\r\n+"] {
                let mut client = scene.at(stage).await;
                scene.master.clear_reports();
                let piece = vec![b'x'; 64 * 1024];
                let watch = Watch::begin();
                client.say(beginning).await;
                for _ in 0..8 * REPLY_BYTES_MAX / piece.len() {
                    client.say(&piece).await;
                }
                scene.reports(&["a reply of more than"]).await;
                let bound = 2 * REPLY_BYTES_MAX + CONNECTION_BYTES_MAX;
                watch.assert_below(bound, "memory");
            }
            scene.recovers().await;
        }
    });
}

#[test]
fn a_slow_or_missing_reply_times_out() {
    run(async {
        for (stage, asked) in STAGES.into_iter().zip(["PING", "PUBLISH", "SUBSCRIBE", "PING"]) {
            let mut scene = Scene::new().await;
            for drip in ["", "$1000\r\n"] {
                let mut client = scene.at(stage).await;
                let since = Instant::now();
                scene.master.clear_reports();
                client.say(drip).await;
                let words = ["the broker: ", "no answer from the broker", asked];
                while scene.master.reported(&words) == 0 {
                    if !drip.is_empty() {
                        client.say("x").await;
                    }
                    sleep(Duration::from_secs(1)).await;
                    assert!(since.elapsed() < REPLY_TIMEOUT + 2 * PING_INTERVAL, "{:?}", scene.master.reports());
                }
                client.is_closed().await;
            }
            scene.serves_others().await;
            scene.recovers().await;
        }
    });
}

#[test]
fn a_password_that_is_refused_or_not_answered_is_reported() {
    run(async {
        let deployment = Deployment::new().with_broker("redis");
        let mut port = deployment.play_broker("redis").await;
        let mut config = deployment.config().clone();
        config.redis.as_mut().unwrap().password = Some("a secret".into());
        let worker = Target::start_as(&deployment, config, "worker1", Consumers::default()).await;
        for (answer, why) in [
            ("", "no answer from the broker to the greeting"),
            ("+O", "no answer from the broker to the greeting"),
            ("-WRONGPASS no\r\n", "Password authentication failed"),
        ] {
            // Some only check the broker's name, and report nothing.
            for _ in 0..4 {
                let mut client = Client { stream: port.accept().await.unwrap(), received: Vec::new() };
                client.hear("a secret").await;
                client.say(answer).await;
                client.is_closed().await;
            }
            assert!(worker.reported(&[why]) > 0, "{why:?} is not among {:?}", worker.reports());
        }
        assert_eq!(worker.reported(&["a secret"]), 0, "the password must not get into a log");
    });
}

#[test]
fn a_malformed_payload_does_not_affect_the_next_one() {
    run(async {
        let mut scene = Scene::new().await;
        let mut client = scene.at(Stage::Subscribed).await;
        for (payload, why) in [
            ("NOSUCH a", "is unknown to this version"),
            ("", "unknown command"),
            ("POSITION events writer1 2", "missing argument"),
            ("RDATA events writer1 two []", "not an integer"),
        ] {
            client.say(message(payload)).await;
            scene.reports(&[why]).await;
        }
        client.say(message(b"\xff\xfe")).await;
        scene.reports(&["not UTF-8"]).await;
        client.say(message("POSITION events writer1 1 7")).await;
        sleep(Duration::from_millis(1)).await;
        assert_eq!(scene.master.instance.handler().position("events", &"writer1".into()).unwrap().0, 7);
    });
}

#[test]
fn a_row_that_cannot_be_read_is_fetched_and_not_passed_over() {
    run(async {
        let applied = Rc::new(Applied::default());
        let consumers = Consumers::default();
        consumers.register(applied.clone());
        let mut scene = Scene::with(consumers).await;
        let mut client = scene.at(Stage::Subscribed).await;
        client.say(message("POSITION events writer1 1 1")).await;
        let written = scene.deployment.database().transaction("write", |tx| {
            let event =
                |number: i64| (Token(number), EventRow::message(format!("$event{number}"), "!room:squall.test"));
            events::persist(tx, &"writer1".into(), &[2, 3, 4, 5].map(event), &[])
        });
        written.await.unwrap();
        let deep = nested(1_000);
        let good = r#"["ev",["$event5","!room:squall.test","m.room.message",null,null,null,null,false,false]]"#;
        for (token, row) in
            [("2", deep.as_bytes()), ("3", b"[\"\xff\"]"), ("batch", b"no JSON"), ("5", good.as_bytes())]
        {
            let payload = [format!("RDATA events writer1 {token} ").as_bytes(), row].concat();
            client.say(message(payload)).await;
        }
        sleep(Duration::from_millis(1)).await;
        assert_eq!(*applied.0.borrow(), [2, 3, 4, 5]);
        assert_eq!(scene.master.reported(&["Row", "events"]), 3, "{:?}", scene.master.reports());
    });
}

/// A consumer that records the tokens of the applied rows.
#[derive(Default)]
struct Applied(RefCell<Vec<i64>>);

impl Consumer for Applied {
    fn applied(&self, _stream: &StreamName, _writer: &InstanceName, token: Token, _rows: &[Row]) {
        self.0.borrow_mut().push(token.0);
    }
}
