//! The `redis` crate's client alone: as many processes as the stack has. Every one has subscribed, as an instance has, and
//! all but the one that publishes read the JSON of what they hear; that one hears itself, and passes over it.

use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, Pipeline, RedisConnectionInfo};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::server::Server;
use crate::{BURST, now};

/// How many commands are published before their answers are waited for, as by the stack.
const UNANSWERED_MAX: usize = 1_000;
const CHANNEL: &str = "the client alone";

pub struct Client {
    publisher: MultiplexedConnection,
    subscribers: usize,
    /// Tells of each subscriber that has read the last payload.
    heard: tokio::sync::Mutex<mpsc::UnboundedReceiver<()>>,
}

impl Client {
    pub async fn start(server: &Server, subscribers: usize) -> Self {
        let (tell, heard) = mpsc::unbounded_channel();
        let connect = async || {
            let stream = TcpStream::connect(("127.0.0.1", server.port)).await.expect("the server is there");
            stream.set_nodelay(true).expect("it is a socket");
            stream
        };
        let info = RedisConnectionInfo::default();
        let subscribe = async || {
            let mut subscriber = PubSub::new(&info, connect().await).await.expect("it is a Redis");
            subscriber.subscribe(CHANNEL).await.expect("everybody may");
            subscriber.into_on_message()
        };
        let mut own = subscribe().await;
        tokio::task::spawn_local(async move { while own.next().await.is_some() {} });
        for _ in 0..subscribers {
            let (mut messages, tell) = (subscribe().await, tell.clone());
            tokio::task::spawn_local(async move {
                while let Some(message) = messages.next().await {
                    let payload = std::str::from_utf8(message.get_payload_bytes()).expect("it was text");
                    if read(payload) {
                        let _ = tell.send(());
                    }
                }
            });
        }
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connecting = MultiplexedConnection::new_with_config(&info, connect().await, config);
        let (publisher, driver) = connecting.await.expect("it is a Redis");
        tokio::task::spawn_local(driver);
        Client { publisher, subscribers, heard: heard.into() }
    }

    /// How long it takes until every subscriber has read them all.
    pub async fn carry(&self, payloads: &[String]) -> Duration {
        let mut took = Duration::ZERO;
        for payloads in payloads.chunks(BURST) {
            let payloads = [payloads, &[LAST.to_owned()]].concat();
            let began = now();
            self.carry_at_once(&payloads).await;
            took += began.elapsed();
        }
        took
    }

    async fn carry_at_once(&self, payloads: &[String]) {
        let mut publisher = self.publisher.clone();
        for payloads in payloads.chunks(UNANSWERED_MAX) {
            let mut pipeline = Pipeline::with_capacity(payloads.len());
            for payload in payloads {
                pipeline.cmd("PUBLISH").arg(CHANNEL).arg(payload).ignore();
            }
            pipeline.exec_async(&mut publisher).await.expect("the server is there");
        }
        let mut heard = self.heard.lock().await;
        for _ in 0..self.subscribers {
            heard.recv().await.expect("the subscribers stay");
        }
    }
}

/// What is published behind the payloads.
const LAST: &str = "LAST";

/// Reads a payload's JSON; tells whether it was the last payload.
fn read(payload: &str) -> bool {
    if payload == LAST {
        return true;
    }
    let row = payload.splitn(5, ' ').nth(4).expect("it is a row");
    let row: Value = serde_json::from_str(row).expect("a row is JSON");
    std::hint::black_box(row);
    false
}
