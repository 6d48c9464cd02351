//! On the connections to a Redis broker, which the test plays. Whatever it does, the instance tells what is wrong, goes on
//! answering others, and is back as soon as there is a broker that deserves the name.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use squall::env::{BoxStream, Listener, LocalBoxFuture};
use squall::protocol::{InstanceName, StreamName, Token};
use squall::replication::{Consumer, Consumers};
use squall::sim::broker;
use squall::store::{NewEvent, events};
use squall::streams::Row;
use squall::transport::redis::{PING_INTERVAL, REPLY_BYTES_MAX, REPLY_TIMEOUT};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::attack::{Target, persist};
use crate::deployment::{Deployment, SERVER_NAME};
use crate::memory::Watch;
use crate::{requests, run};

/// What an instance may hold of what a broker sends, besides the longest reply: what is read at once and what grows with it.
const CONNECTION_BYTES_MAX: usize = 128 * 1024;

/// A broker that the test plays, and a master that meets others there.
struct Scene {
    deployment: Deployment,
    port: Box<dyn Listener>,
    master: Target,
}

/// One connection of the master, as the broker has it.
struct Client {
    stream: BoxStream,
    heard: Vec<u8>,
}

impl Client {
    /// Waits until it has said this.
    async fn hear(&mut self, what: &str) {
        let hearing = async {
            while !self.heard.windows(what.len()).any(|window| window == what.as_bytes()) {
                assert_ne!(self.stream.read_buf(&mut self.heard).await.unwrap(), 0, "hung up before it said {what:?}");
            }
        };
        tokio::time::timeout(Duration::from_secs(60), hearing).await.unwrap_or_else(|_| panic!("never said {what:?}"));
        self.heard.clear();
    }

    /// Says this, as far as it is listened to.
    async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Waits until it hangs up.
    async fn is_hung_up(&mut self) {
        let hanging_up = async { while self.stream.read_buf(&mut self.heard).await.is_ok_and(|read| read > 0) {} };
        tokio::time::timeout(Duration::from_secs(60), hanging_up).await.expect("it hangs up");
    }
}

/// At which point the broker misbehaves.
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

    /// Whose master's rows go to `consumers`.
    async fn with(consumers: Consumers) -> Self {
        let deployment = Deployment::new().with_broker("redis");
        let port = deployment.play_broker("redis").await;
        let master = Target::start_with(&deployment, "master", consumers).await;
        Scene { deployment, port, master }
    }

    async fn next(&mut self) -> Client {
        let accepting = tokio::time::timeout(Duration::from_secs(60), self.port.accept());
        let stream = accepting.await.expect("it comes again").unwrap();
        Client { stream, heard: Vec::new() }
    }

    /// The connection of the master that has come to `stage`. The other one is hung up on until then.
    async fn at(&mut self, stage: Stage) -> Client {
        loop {
            let mut client = self.next().await;
            let asked = tokio::time::timeout(Duration::from_secs(1), client.stream.read_buf(&mut client.heard)).await;
            asked.expect("whoever connects asks at once").unwrap();
            let is_subscriber = client.heard.windows(9).any(|window| window == b"SUBSCRIBE");
            if is_subscriber != matches!(stage, Stage::Subscribing | Stage::Subscribed) {
                continue;
            }
            client.heard.clear();
            match stage {
                Stage::PublisherGreeted | Stage::Subscribing => {}
                Stage::Published => {
                    client.say("+PONG\r\n").await;
                    client.hear("POSITION").await;
                }
                Stage::Subscribed => client.say(acknowledged()).await,
            }
            return client;
        }
    }

    /// Checks that others are answered while the broker is as it is.
    async fn serves_others(&self) {
        let path = "/_synapse/replication/get_repl_stream_updates/events/healthy?from_token=0&upto_token=1";
        let asking = requests::get(&self.deployment, "master", path);
        let (status, answer) = tokio::time::timeout(Duration::from_secs(1), asking).await.expect("it answers at once");
        assert_eq!(status, 200, "{answer}");
    }

    /// Checks that the master tells of trouble with these words, soon.
    async fn tells(&self, words: &[&str]) {
        let words = [&["the broker: "], words].concat();
        let told = async {
            while self.master.told(&words) == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(1), told).await;
        assert!(told.is_ok(), "{words:?} is not among {:?}", self.master.everything_told());
        self.master.forget_troubles();
    }

    /// Checks that rows arrive by a broker that behaves.
    async fn recovers(self) {
        let Scene { deployment, mut port, master } = self;
        let (served, streams) = mpsc::unbounded_channel();
        tokio::task::spawn_local(broker::serve(Box::new(HandedOn(streams)), broker::Options::default()));
        tokio::task::spawn_local(async move {
            while let Ok(stream) = port.accept().await {
                let _ = served.send(stream);
            }
        });
        let worker = Target::start(&deployment, "worker1").await;
        // The longest back-off, and some.
        sleep(Duration::from_secs(7)).await;
        let token = persist(&master.instance).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(worker.instance.handler().position("events", &"master".into()).unwrap().0, token);
    }
}

/// Streams that the test hands on.
pub struct HandedOn(pub mpsc::UnboundedReceiver<BoxStream>);

impl Listener for HandedOn {
    fn accept(&mut self) -> LocalBoxFuture<'_, io::Result<BoxStream>> {
        Box::pin(async { self.0.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into()) })
    }
}

/// What the broker answers to the master's subscription.
pub fn acknowledged() -> String {
    let channels = [SERVER_NAME.to_owned(), format!("{SERVER_NAME}/USER_IP")];
    let one = |(at, channel): (usize, &String)| {
        format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{channel}\r\n:{}\r\n", channel.len(), at + 1)
    };
    channels.iter().enumerate().map(one).collect()
}

pub fn message(payload: &str) -> String {
    let channel = SERVER_NAME.len();
    format!("*3\r\n$7\r\nmessage\r\n${channel}\r\n{SERVER_NAME}\r\n${}\r\n{payload}\r\n", payload.len())
}

#[test]
fn garbage_is_told_and_the_connection_made_again() {
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
                scene.master.forget_troubles();
                client.say(garbage).await;
                scene.tells(&[]).await;
                client.is_hung_up().await;
            }
            // These may go on, or mean nothing: what comes of them is waited for as long as for any answer, and holds
            // nothing meanwhile.
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
                assert!(watch.peak() < CONNECTION_BYTES_MAX, "{} bytes held", watch.peak());
            }
            scene.serves_others().await;
            scene.recovers().await;
        }
    });
}

#[test]
fn arrays_nested_without_end_exhaust_neither_stack_nor_memory() {
    run(async {
        for stage in STAGES {
            let mut scene = Scene::new().await;
            let mut client = scene.at(stage).await;
            scene.master.forget_troubles();
            let watch = Watch::begin();
            client.say(b"*1\r\n".repeat(10_000)).await;
            scene.tells(&[]).await;
            assert!(watch.peak() < CONNECTION_BYTES_MAX, "{} bytes held", watch.peak());
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
                scene.master.forget_troubles();
                let piece = vec![b'x'; 64 * 1024];
                let watch = Watch::begin();
                client.say(beginning).await;
                for _ in 0..8 * REPLY_BYTES_MAX / piece.len() {
                    client.say(&piece).await;
                }
                scene.tells(&["a reply of more than"]).await;
                let bound = 2 * REPLY_BYTES_MAX + CONNECTION_BYTES_MAX;
                assert!(watch.peak() < bound, "{} bytes held, more than {bound}", watch.peak());
            }
            scene.recovers().await;
        }
    });
}

#[test]
fn an_answer_that_drips_or_never_comes_is_not_waited_for() {
    run(async {
        for (stage, asked) in STAGES.into_iter().zip(["PING", "PUBLISH", "SUBSCRIBE", "PING"]) {
            let mut scene = Scene::new().await;
            for drip in ["", "$1000\r\n"] {
                let mut client = scene.at(stage).await;
                let since = Instant::now();
                scene.master.forget_troubles();
                client.say(drip).await;
                let words = ["the broker: ", "no answer from the broker", asked];
                while scene.master.told(&words) == 0 {
                    if !drip.is_empty() {
                        client.say("x").await;
                    }
                    sleep(Duration::from_secs(1)).await;
                    assert!(
                        since.elapsed() < REPLY_TIMEOUT + 2 * PING_INTERVAL,
                        "{:?}",
                        scene.master.everything_told()
                    );
                }
                client.is_hung_up().await;
            }
            scene.serves_others().await;
            scene.recovers().await;
        }
    });
}

#[test]
fn a_password_that_is_not_answered_or_not_taken_is_told() {
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
            let mut client = Client { stream: port.accept().await.unwrap(), heard: Vec::new() };
            client.hear("a secret").await;
            client.say(answer).await;
            client.is_hung_up().await;
            assert!(worker.told(&[why]) > 0, "{why:?} is not among {:?}", worker.everything_told());
        }
        assert_eq!(worker.told(&["a secret"]), 0, "it must not get into a log");
    });
}

#[test]
fn what_nobody_understands_keeps_nobody_from_being_heard() {
    run(async {
        let mut scene = Scene::new().await;
        let mut client = scene.at(Stage::Subscribed).await;
        for (payload, why) in [
            ("NOSUCH a", "unknown command"),
            ("", "unknown command"),
            ("POSITION events writer1 2", "missing argument"),
            ("RDATA events writer1 two []", "not an integer"),
        ] {
            client.say(message(payload)).await;
            scene.tells(&[why]).await;
        }
        client.say(b"*3\r\n$7\r\nmessage\r\n$11\r\nsquall.test\r\n$2\r\n\xff\xfe\r\n").await;
        scene.tells(&["not UTF-8"]).await;
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
                |number: i64| (Token(number), NewEvent::message(format!("$event{number}"), "!room:squall.test"));
            events::persist(tx, &"writer1".into(), &[2, 3, 4, 5].map(event), &[])
        });
        written.await.unwrap();
        let deep = format!("{}1{}", "[".repeat(1_000), "]".repeat(1_000));
        let good = r#"["ev",["$event5","!room:squall.test","m.room.message",null,null,null,null,false,false]]"#;
        for (token, row) in
            [("2", deep.as_bytes()), ("3", b"[\"\xff\"]"), ("batch", b"no JSON"), ("5", good.as_bytes())]
        {
            let payload = [format!("RDATA events writer1 {token} ").as_bytes(), row].concat();
            let head = format!("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n${}\r\n", payload.len());
            client.say([head.as_bytes(), &payload, b"\r\n"].concat()).await;
        }
        sleep(Duration::from_millis(1)).await;
        assert_eq!(*applied.0.borrow(), [2, 3, 4, 5]);
        assert_eq!(scene.master.told(&["Row", "events"]), 3, "{:?}", scene.master.everything_told());
    });
}

/// The tokens whose rows were applied.
#[derive(Default)]
struct Applied(RefCell<Vec<i64>>);

impl Consumer for Applied {
    fn applied(&self, _stream: &StreamName, _writer: &InstanceName, token: Token, _rows: &[Row]) {
        self.0.borrow_mut().push(token.0);
    }
}
