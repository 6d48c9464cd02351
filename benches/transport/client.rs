//! The `redis` crate's client without the stack, with as many connections as the stack has. Each connection subscribes, as
//! an instance does. The subscribers parse the JSON of each payload. The publisher receives its own payloads and drops
//! them.

use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, Pipeline, RedisConnectionInfo};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::now;
use crate::server::Server;

/// Most commands that are published before their answers are awaited, as in the stack.
const UNANSWERED_MAX: usize = 1_000;
const CHANNEL: &str = "the client alone";

pub(crate) struct Client {
    publisher: MultiplexedConnection,
    subscribers: usize,
    /// Receives a message from each subscriber that has read the last payload.
    finished: tokio::sync::Mutex<mpsc::UnboundedReceiver<()>>,
}

impl Client {
    pub(crate) async fn start(server: &Server, subscribers: usize) -> Self {
        let (sender, finished) = mpsc::unbounded_channel();
        let connect = async || {
            let stream = TcpStream::connect(("127.0.0.1", server.port)).await.expect("the server is there");
            stream.set_nodelay(true).expect("it is a socket");
            stream
        };
        let info = RedisConnectionInfo::default();
        let subscribe = async || {
            let mut subscriber = PubSub::new(&info, connect().await).await.expect("it is a Redis");
            subscriber.subscribe(CHANNEL).await.expect("the server has no access rules");
            subscriber.into_on_message()
        };
        let mut own = subscribe().await;
        tokio::task::spawn_local(async move { while own.next().await.is_some() {} });
        for _ in 0..subscribers {
            let mut messages = subscribe().await;
            let sender = sender.clone();
            tokio::task::spawn_local(async move {
                while let Some(message) = messages.next().await {
                    let payload = std::str::from_utf8(message.get_payload_bytes()).expect("it was text");
                    if read(payload) {
                        let _ = sender.send(());
                    }
                }
            });
        }
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connecting = MultiplexedConnection::new_with_config(&info, connect().await, config);
        let (publisher, driver) = connecting.await.expect("it is a Redis");
        tokio::task::spawn_local(driver);
        Client { publisher, subscribers, finished: finished.into() }
    }

    /// Publishes the payloads. Returns the time until every subscriber has read all of them.
    pub(crate) async fn carry(&self, payloads: &[String]) -> Duration {
        let payloads = [payloads, &[LAST.to_owned()]].concat();
        let began = now();
        let mut publisher = self.publisher.clone();
        for payloads in payloads.chunks(UNANSWERED_MAX) {
            let mut pipeline = Pipeline::with_capacity(payloads.len());
            for payload in payloads {
                pipeline.cmd("PUBLISH").arg(CHANNEL).arg(payload).ignore();
            }
            pipeline.exec_async(&mut publisher).await.expect("the server is there");
        }
        let mut finished = self.finished.lock().await;
        for _ in 0..self.subscribers {
            finished.recv().await.expect("the subscribers stay");
        }
        began.elapsed()
    }
}

/// The payload that follows the others.
const LAST: &str = "LAST";

/// Parses a payload's JSON. Returns true for the last payload.
fn read(payload: &str) -> bool {
    if payload == LAST {
        return true;
    }
    let row = payload.splitn(5, ' ').nth(4).expect("it is a row");
    let row: Value = serde_json::from_str(row).expect("a row is JSON");
    std::hint::black_box(row);
    false
}
