//! The subscription.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use redis::Msg;
use redis::aio::{PubSubSink, PubSubStream};
use thiserror::Error;
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::meter::{Meter, MeteredNetwork};
use super::{Follower, News, Watcher};
use crate::env::{Address, Env};
use crate::instance::config::RedisConfig;
use crate::replication::Backoff;
use crate::replication::link::QUIET_UNTIL_SET_UP;
use crate::transport::redis::{Broker, BrokerError, answer, publish_once, subscribe, user_ip_channel};

/// How often the broker is pinged, and so how soon what shows only as time passes is found.
pub const PING_INTERVAL: Duration = Duration::from_secs(1);

/// How often whoever watches is told that time passes.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// What a message takes on the wire besides its words, about.
const FRAME_BYTES: usize = 40;

/// What asks everybody for their positions.
const REPLICATE: &[u8] = b"REPLICATE";

/// What is followed.
#[derive(Debug, Clone)]
pub struct Target {
    /// The broker.
    pub broker: RedisConfig,
    /// As which of its users, if it has several.
    pub user: Option<String>,
    /// The homeserver's name.
    pub server_name: String,
    /// Whether to ask everybody's positions, once. Nothing else is ever published.
    pub announce: bool,
}

/// The broker does not let us in.
#[derive(Debug, Error)]
#[error(
    "the broker at {address} does not let this in ({error}). Name who may subscribe to the channels of {server_name}, \
     with the password that the broker asks for, in its address: redis://:PASSWORD@HOST:PORT or \
     redis://USER:PASSWORD@HOST:PORT"
)]
pub struct Refused {
    address: Address,
    server_name: String,
    error: BrokerError,
}

/// Listens for ever. Whatever happens to the connection, it is made again, later and later; but a broker that does not
/// let us in the first time ends it.
pub async fn listen(target: &Target, env: &Env, follower: &mut Follower, watcher: &mut dyn Watcher) -> Refused {
    let meter = Meter::default();
    let network = Rc::new(MeteredNetwork { network: Rc::clone(&env.network), meter: meter.clone() });
    let broker_as = |env: &Env| Broker::new(&target.broker, env).with_user(target.user.clone());
    let (broker, speaking) = (broker_as(&Env { network, ..env.clone() }), broker_as(env));
    let channels = [target.server_name.clone(), user_ip_channel(&target.server_name)];
    let mut backoff = Backoff::new(&env.chance.of("follow"));
    let (mut was_let_in, mut is_to_ask) = (false, target.announce);
    loop {
        meter.begin();
        let since = Instant::now();
        let error = match attended(subscribe(&broker, &channels), follower, watcher).await {
            Ok((sink, messages)) => {
                was_let_in = true;
                follower.listening(watcher);
                let asking = async {
                    if !is_to_ask {
                        return std::future::pending().await;
                    }
                    publish_once(&speaking, &target.server_name, REPLICATE, env).await
                };
                let (error, has_asked) = hear(sink, messages, asking, &meter, follower, watcher).await;
                is_to_ask &= !has_asked;
                error
            }
            Err(error) if error.is_refusal() && !was_let_in => {
                let (address, server_name) = (target.broker.address(), target.server_name.clone());
                return Refused { address, server_name, error };
            }
            Err(error) => error,
        };
        if since.elapsed() >= QUIET_UNTIL_SET_UP {
            backoff.reset();
        }
        follower.is_deaf(error.to_string(), watcher);
        attended(tokio::time::sleep(backoff.next_delay()), follower, watcher).await;
    }
}

/// Does something that may take long, while whoever watches is told that time passes.
async fn attended<T>(doing: impl Future<Output = T>, follower: &mut Follower, watcher: &mut dyn Watcher) -> T {
    let mut doing = pin!(doing);
    loop {
        match tokio::time::timeout(TICK_INTERVAL, &mut doing).await {
            Ok(done) => return done,
            Err(_) => follower.tick(watcher),
        }
    }
}

/// Tells the follower what is published, until the connection is over. Says too whether it has `asked`.
async fn hear(
    sink: PubSubSink,
    mut messages: PubSubStream,
    asking: impl Future<Output = Result<(), BrokerError>>,
    meter: &Meter,
    follower: &mut Follower,
    watcher: &mut dyn Watcher,
) -> (BrokerError, bool) {
    let (mut asking, mut is_asking, mut has_asked) = (pin!(asking), true, false);
    let mut pinged = pin!(ping(sink.clone()));
    let mut tick = Instant::now() + TICK_INTERVAL;
    loop {
        // All of them, so that none is left that was published before what the broker answers.
        while let Some(message) = unconstrained(messages.next()).now_or_never() {
            let Some(message) = message else { return (BrokerError::Closed, has_asked) };
            take(&message, meter, follower, watcher);
            if Instant::now() >= tick {
                follower.tick(watcher);
                tick = Instant::now() + TICK_INTERVAL;
            }
        }
        meter.is_drained();
        tokio::select! {
            biased;
            message = messages.next() => match message {
                Some(message) => take(&message, meter, follower, watcher),
                None => return (BrokerError::Closed, has_asked),
            },
            answered = &mut pinged => match answered {
                Ok(asked) => {
                    follower.proven(asked, watcher);
                    pinged.set(ping(sink.clone()));
                }
                Err(error) => return (error, has_asked),
            },
            asked = &mut asking, if is_asking => {
                is_asking = false;
                match asked {
                    Ok(()) => has_asked = true,
                    Err(error) => {
                        // Otherwise it is asked with the next subscription.
                        has_asked = error.is_refusal();
                        watcher.tell(follower.now(), News::NotAsked(&error.to_string()), follower);
                    }
                }
            }
            () = tokio::time::sleep_until(tick) => {
                follower.tick(watcher);
                tick = Instant::now() + TICK_INTERVAL;
            }
        }
    }
}

fn take(message: &Msg, meter: &Meter, follower: &mut Follower, watcher: &mut dyn Watcher) {
    let (channel, data) = (message.get_channel_name(), message.get_payload_bytes());
    follower.heard(channel, data, watcher);
    meter.heard(channel.len() + data.len() + FRAME_BYTES);
}

/// Waits a while and asks the broker for an answer. Gives the time at which it was asked.
async fn ping(mut sink: PubSubSink) -> Result<Instant, BrokerError> {
    tokio::time::sleep(PING_INTERVAL).await;
    let asked = Instant::now();
    answer("PING", sink.ping::<redis::Value>()).await?;
    Ok(asked)
}
