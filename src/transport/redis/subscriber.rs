//! The connection on which everything is heard.

use std::pin::pin;
use std::rc::Rc;

use futures_util::StreamExt;
use redis::aio::{PubSub, PubSubSink, PubSubStream};

use super::connection::{Broker, BrokerError, PING_INTERVAL, again_and_again, answer, settle};
use super::user_ip_channel;
use crate::env::Env;
use crate::instance::config::RedisConfig;
use crate::protocol::{Command, MASTER};
use crate::replication::{CommandHandler, Link};

/// Stays subscribed until the instance stops.
pub async fn stay_subscribed(config: RedisConfig, handler: Rc<CommandHandler>, env: Env) {
    let broker = Broker::new(&config, &env);
    again_and_again("subscribe", &broker, async || match subscribe(&broker, &channels(&handler)).await {
        Ok((sink, messages)) => {
            let link = handler.subscribed();
            let error = listen(&link, sink, messages, &handler, &broker, &env).await;
            link.closed();
            handler.lost(&link);
            (Some(link), error)
        }
        Err(error) => (None, error),
    })
    .await;
}

/// Connects and subscribes. Ends when the broker has acknowledged that, and not before: what is asked for earlier may be
/// answered before the subscription is there.
pub async fn subscribe(broker: &Broker, channels: &[String]) -> Result<(PubSubSink, PubSubStream), BrokerError> {
    let (stream, info) = broker.open().await?;
    let (mut sink, messages) = answer("the greeting", PubSub::new(&info, stream)).await?.split();
    answer("SUBSCRIBE", sink.subscribe(channels)).await?;
    Ok((sink, messages))
}

/// What this instance has to hear.
fn channels(handler: &CommandHandler) -> Vec<String> {
    let mut channels = vec![handler.server_name().to_owned()];
    if handler.instance().as_str() == MASTER {
        channels.push(user_ip_channel(handler.server_name()));
    }
    channels
}

/// Hands what comes to the handler, until the connection is over.
async fn listen(
    link: &Rc<Link>,
    sink: PubSubSink,
    mut messages: PubSubStream,
    handler: &CommandHandler,
    broker: &Broker,
    env: &Env,
) -> BrokerError {
    let mut pinged = pin!(keep_pinging(link, sink, env));
    loop {
        let message = tokio::select! {
            biased;
            () = link.over() => return BrokerError::ClosedHere,
            error = &mut pinged => return error,
            message = messages.next() => message,
        };
        let Some(message) = message else { return BrokerError::Closed };
        // One who says what nobody understands must not keep everybody else from being heard.
        match understood(message.get_payload_bytes()) {
            Ok(command) => handler.received(link, command),
            Err(error) => broker.report(&error),
        }
    }
}

fn understood(payload: &[u8]) -> Result<Command, BrokerError> {
    let text = std::str::from_utf8(payload).map_err(|_| BrokerError::NotUtf8)?;
    Ok(Command::parse(text)?)
}

/// Pings the broker until it does not answer.
async fn keep_pinging(link: &Link, mut sink: PubSubSink, env: &Env) -> BrokerError {
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        if let Err(error) = answer("PING", sink.ping::<redis::Value>()).await {
            return error;
        }
        settle(link, env);
    }
}
