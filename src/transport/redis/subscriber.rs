//! The connection on which everything is heard.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use futures_util::{FutureExt, StreamExt};
use redis::Msg;
use redis::aio::{PubSub, PubSubSink, PubSubStream};
use tokio::task::unconstrained;

use super::connection::{Broker, BrokerError, PING_INTERVAL, again_and_again, answer, cause, closed, settle};
use super::meter::Meter;
use super::user_ip_channel;
use crate::env::Env;
use crate::instance::config::RedisConfig;
use crate::protocol::{Command, Header, InstanceName, MASTER};
use crate::replication::{CommandHandler, Link};

/// What a message takes on the wire besides its words, about.
const FRAME_BYTES: usize = 40;

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
pub async fn subscribe(broker: &Broker, channels: &[String]) -> Result<(PubSubSink, Messages), BrokerError> {
    let (stream, info, meter) = broker.open().await?;
    let greeted = answer("the greeting", PubSub::new(&info, stream)).await;
    let (mut sink, stream) = greeted.map_err(|error| cause(error, &meter))?.split();
    let subscribed = answer("SUBSCRIBE", sink.subscribe(channels)).await;
    subscribed.map_err(|error| cause(error, &meter))?;
    Ok((sink, Messages { stream, meter }))
}

/// What this instance has to hear.
fn channels(handler: &CommandHandler) -> Vec<String> {
    let mut channels = vec![handler.server_name().to_owned()];
    if handler.instance().as_str() == MASTER {
        channels.push(user_ip_channel(handler.server_name()));
    }
    channels
}

/// What is published, as far as it has come.
pub struct Messages {
    stream: PubSubStream,
    meter: Meter,
}

impl Messages {
    /// The next one, if it has come already.
    pub fn try_next(&mut self) -> Result<Option<Msg>, BrokerError> {
        // Whether it has come is not a matter of whose turn it is.
        let next = unconstrained(self.stream.next()).now_or_never();
        next.map(|message| self.taken(message)).transpose()
    }

    /// The next one. May be dropped while it waits.
    pub async fn next(&mut self) -> Result<Msg, BrokerError> {
        let Messages { stream, meter } = self;
        let mut next = pin!(unconstrained(stream.next()));
        let message = poll_fn(|cx| {
            let polled = next.as_mut().poll(cx);
            if polled.is_pending() {
                meter.is_drained(cx.waker());
            }
            polled
        });
        let message = message.await;
        self.taken(message)
    }

    fn taken(&self, message: Option<Msg>) -> Result<Msg, BrokerError> {
        let message = message.ok_or_else(|| closed(&self.meter))?;
        self.meter.heard(message.get_channel_name().len() + message.get_payload_bytes().len() + FRAME_BYTES);
        Ok(message)
    }
}

/// Hands what comes to the handler, until the connection is over.
async fn listen(
    link: &Rc<Link>,
    sink: PubSubSink,
    mut messages: Messages,
    handler: &CommandHandler,
    broker: &Broker,
    env: &Env,
) -> BrokerError {
    let mut pinged = pin!(keep_pinging(link, sink, env));
    loop {
        let message = tokio::select! {
            biased;
            () = link.over() => return BrokerError::ClosedHere,
            error = &mut pinged => return cause(error, &messages.meter),
            message = messages.next() => message,
        };
        match message {
            Ok(message) => take(message.get_payload_bytes(), link, handler, broker),
            Err(error) => return error,
        }
        // Whoever deals with what came has to get a turn, however much there is.
        tokio::task::consume_budget().await;
    }
}

/// One who says what nobody understands must not keep everybody else from being heard.
fn take(payload: &[u8], link: &Rc<Link>, handler: &CommandHandler, broker: &Broker) {
    if is_own_row(payload, handler.instance()) {
        return; // a writer hears all it says, and need not read it
    }
    let error = match understood(payload) {
        Ok(command) => return handler.received(link, command),
        Err(error) => error,
    };
    match Header::peek(&String::from_utf8_lossy(payload)) {
        Ok(Header::Rdata(header)) => handler.unreadable(link, header, &error),
        _ => broker.report(&error),
    }
}

/// Whether it is a row that this instance has written.
fn is_own_row(payload: &[u8], instance: &InstanceName) -> bool {
    let mut words = payload.splitn(4, |byte| *byte == b' ');
    words.next() == Some(b"RDATA") && words.nth(1) == Some(instance.as_str().as_bytes())
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
