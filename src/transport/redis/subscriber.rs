//! The connection on which this instance subscribes.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use redis::aio::{PubSub, PubSubSink, PubSubStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::coop::{consume_budget, has_budget_remaining, unconstrained};

use super::connection::{Broker, BrokerError, PING_INTERVAL, answer, cause, closed, keep_connected, settle};
use super::echo::Echoes;
use super::message_splitter::{self, Message};
use super::read_limiter::ReadLimiter;
use super::user_ip_channel;
use crate::observer::Env;
use crate::replication::{CommandHandler, Connection};
use crate::transport::RedisConfig;
use squall_protocol::{Command, Header, InstanceName, MASTER, RdataHeader};

/// Approximate number of bytes of a message besides its channel and its payload.
const FRAME_BYTES: usize = 40;

/// Stays subscribed until the instance stops.
pub async fn stay_subscribed(config: RedisConfig, echoes: Rc<Echoes>, handler: Rc<CommandHandler>, env: Env) {
    let broker = Broker::new(&config, &env);
    keep_connected("subscribe", &broker, async || match subscribe(&broker, &channels(&handler, &echoes)).await {
        Ok((sink, messages)) => {
            echoes.subscribed();
            let connection = handler.subscribed();
            let error = listen(&connection, sink, messages, &echoes, &handler, &broker, &env).await;
            if matches!(error, BrokerError::Deaf) {
                handler.close_publisher();
            }
            connection.closed();
            handler.lost(&connection);
            (Some(connection), error)
        }
        Err(error) => (None, error),
    })
    .await;
}

/// Connects and subscribes. Returns once the broker has acknowledged the subscription: the answer to a command that is
/// published earlier could be missed.
pub async fn subscribe(broker: &Broker, channels: &[String]) -> Result<(PubSubSink, Messages), BrokerError> {
    let (stream, info, limiter) = broker.open().await?;
    let (rest, messages) = message_splitter::split(stream);
    let greeted = answer("the greeting", PubSub::new(&info, rest)).await;
    let (mut sink, others) = greeted.map_err(|error| cause(error, &limiter))?.split();
    let subscribed = answer("SUBSCRIBE", sink.subscribe(channels)).await;
    subscribed.map_err(|error| cause(error, &limiter))?;
    Ok((sink, Messages { messages, others, limiter }))
}

/// Returns the channels to which an instance subscribes.
fn channels(handler: &CommandHandler, echoes: &Echoes) -> Vec<String> {
    let mut channels = vec![handler.server_name().to_owned()];
    channels.extend(echoes.channels().map(str::to_owned));
    if handler.instance().as_str() == MASTER {
        channels.push(user_ip_channel(handler.server_name()));
    }
    channels
}

/// The messages of a subscription.
pub struct Messages {
    messages: UnboundedReceiver<Message>,
    /// Messages that the `redis` crate has parsed: those behind something that is no reply.
    others: PubSubStream,
    limiter: ReadLimiter,
}

impl Messages {
    /// Returns the next message if it has already arrived.
    pub fn try_next(&mut self) -> Result<Option<Message>, BrokerError> {
        let next = unconstrained(poll_fn(|cx| self.poll_next(cx))).now_or_never();
        next.map(|message| self.record(message)).transpose()
    }

    /// Waits for the next message. Cancel-safe.
    pub async fn next(&mut self) -> Result<Message, BrokerError> {
        let next = poll_fn(|cx| {
            let polled = self.poll_next(cx);
            if polled.is_pending() {
                self.limiter.drained(cx.waker());
            }
            polled
        });
        let message = unconstrained(next).await;
        self.record(message)
    }

    /// Polls for the next message. The caller's future must be unconstrained: an exhausted tokio budget must not look like an
    /// absent message.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        if let Poll::Ready(Some(message)) = self.messages.poll_recv(cx) {
            return Poll::Ready(Some(message));
        }
        let other = ready!(self.others.poll_next_unpin(cx));
        Poll::Ready(
            other.map(|message| Message::new(message.get_channel_name().as_bytes(), message.get_payload_bytes())),
        )
    }

    /// Returns the cause of an error on this connection: a message that exceeded its limit, or the error itself.
    pub fn cause(&self, error: BrokerError) -> BrokerError {
        cause(error, &self.limiter)
    }

    /// Returns true if this end stopped reading within this time, because too many messages were unhandled.
    pub fn has_stopped_within(&self, time: Duration) -> bool {
        self.limiter.has_stopped_within(time)
    }

    fn record(&self, message: Option<Message>) -> Result<Message, BrokerError> {
        let message = message.ok_or_else(|| closed(&self.limiter))?;
        self.limiter.handled(message.channel().len() + message.payload().len() + FRAME_BYTES);
        Ok(message)
    }
}

/// Hands received commands to the handler until the connection ends.
async fn listen(
    connection: &Rc<Connection>,
    sink: PubSubSink,
    mut messages: Messages,
    echoes: &Echoes,
    handler: &CommandHandler,
    broker: &Broker,
    env: &Env,
) -> BrokerError {
    let mut pinged = pin!(keep_pinging(connection, sink, echoes, env));
    loop {
        let message = tokio::select! {
            biased;
            () = connection.over() => return BrokerError::ClosedHere,
            error = &mut pinged => return cause(error, &messages.limiter),
            message = messages.next() => message,
        };
        let mut message = match message {
            Ok(message) => message,
            Err(error) => return error,
        };
        // Until it yields, nothing but the messages that have arrived already needs a look.
        loop {
            match message.payload() {
                payload if echoes.record(message.channel(), payload) => {}
                payload => receive(payload, connection, handler, broker),
            }
            // Once this has used the budget up, the select yields, so that the followers run even under a flood of messages.
            consume_budget().await;
            if !has_budget_remaining() || !connection.is_open() {
                break;
            }
            let Ok(Some(next)) = messages.try_next() else { break };
            message = next;
        }
    }
}

/// Hands one command to the handler. A payload that cannot be parsed is reported and skipped, so that one faulty publisher
/// does not affect the others.
fn receive(payload: &[u8], connection: &Rc<Connection>, handler: &CommandHandler, broker: &Broker) {
    if is_own_row(payload, handler.instance()) {
        return; // a writer receives its own rows too, and need not parse them
    }
    let error = match parse(payload, connection, handler) {
        Ok(Some(command)) => return handler.received(connection, command),
        Ok(None) => return,
        Err(error) => error,
    };
    match Header::peek(&String::from_utf8_lossy(payload)) {
        Ok(Header::Rdata(header)) => handler.unreadable(connection, header, &error),
        _ => broker.report(&error),
    }
}

/// Returns true if the payload is a row that this instance has written.
fn is_own_row(payload: &[u8], instance: &InstanceName) -> bool {
    let mut words = payload.splitn(4, |byte| *byte == b' ');
    words.next() == Some(b"RDATA") && words.nth(1) == Some(instance.as_str().as_bytes())
}

/// Parses a payload. Returns none for a row that the handler has taken, and for a command of a newer version.
fn parse(
    payload: &[u8],
    connection: &Rc<Connection>,
    handler: &CommandHandler,
) -> Result<Option<Command>, BrokerError> {
    let text = std::str::from_utf8(payload).map_err(|_| BrokerError::NotUtf8)?;
    if let Some(header) = RdataHeader::of(text)
        && handler.received_row(connection, &header)
    {
        return Ok(None);
    }
    match Command::parse(text) {
        Ok(command) => Ok(Some(command)),
        Err(error) => Ok(handler.newer(connection, text, error).map(|()| None)?),
    }
}

/// Pings the broker until it fails to answer, or until the instance does not hear what it publishes.
async fn keep_pinging(connection: &Connection, mut sink: PubSubSink, echoes: &Echoes, env: &Env) -> BrokerError {
    // The numbers that the broker had taken before it answered the last ping.
    let mut due = echoes.last_taken();
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        if !echoes.has_heard(due) {
            return BrokerError::Deaf;
        }
        due = echoes.last_taken();
        if let Err(error) = answer("PING", sink.ping::<redis::Value>()).await {
            return error;
        }
        settle(connection, env);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::limits::Limits;
    use crate::observer::{InstanceEvent, Observer};
    use crate::replication::Consumers;
    use squall_env::network::TokioNetwork;
    use squall_env::{Noop, SeedTree, SystemClock, TaskObserver, TaskSpawner};

    /// The problems that were reported.
    #[derive(Default)]
    struct Problems(RefCell<Vec<String>>);

    impl TaskObserver for Problems {}

    impl Observer for Problems {
        fn event(&self, event: InstanceEvent<'_>) {
            self.0.borrow_mut().push(match event {
                InstanceEvent::Connection { error, .. } => error.to_string(),
                InstanceEvent::UnknownStream { stream } => format!("unknown stream {stream}"),
                other => panic!("not expected here: {other:?}"),
            });
        }
    }

    fn env(observer: Rc<dyn Observer>) -> Env {
        Env {
            network: Rc::new(TokioNetwork),
            clock: Rc::new(SystemClock),
            seeds: SeedTree::from_seed(1),
            observer,
            tasks: TaskSpawner::new(Rc::new(Noop)),
        }
    }

    /// Returns the handler of an instance that has no streams.
    fn handler(name: &str, env: &Env) -> Rc<CommandHandler> {
        let (consumers, limits) = (Consumers::default(), Limits::default());
        CommandHandler::new(name.into(), "hs".into(), Vec::new(), consumers, limits, env.clone())
    }

    #[tokio::test]
    async fn the_handler_fetches_a_row_that_is_not_json_and_other_bad_payloads_are_reported() {
        let problems = Rc::new(Problems::default());
        let env = env(problems.clone());
        let config = RedisConfig::at("broker", 6379);
        let (handler, broker) = (handler("me", &env), Broker::new(&config, &env));
        let connection = handler.subscribed();
        for payload in ["RDATA events other 7 not JSON", "RDATA events me 7 not JSON", "nosuch command"] {
            receive(payload.as_bytes(), &connection, &handler, &broker);
        }
        receive(b"PING \xff", &connection, &handler, &broker);
        let problems = problems.0.borrow();
        assert_eq!(problems.len(), 3, "an own row is not even parsed: {problems:?}");
        assert_eq!(problems[0], "unknown stream events");
        assert!(problems[1].contains("nosuch") && problems[2] == "a payload that is not UTF-8", "{problems:?}");
    }

    #[test]
    fn only_rows_that_this_instance_has_written_are_its_own() {
        let is_own = |payload: &str| is_own_row(payload.as_bytes(), &"me".into());
        assert!(is_own("RDATA events me 7 [1]") && is_own("RDATA events me batch not JSON"));
        for payload in
            ["RDATA events other 7 [1]", "RDATA me other 7 [1]", "POSITION events me 7 7", "RDATA events", ""]
        {
            assert!(!is_own(payload), "{payload}");
        }
    }

    #[test]
    fn the_master_alone_subscribes_to_the_ips_of_users() {
        for (name, is_subscribed) in [("master", true), ("worker1", false)] {
            let echoes = Echoes::new("hs", &SeedTree::from_seed(1));
            let channels = channels(&handler(name, &env(Rc::new(Noop))), &echoes);
            assert_eq!(channels[0], "hs");
            assert_eq!(channels.contains(&user_ip_channel("hs")), is_subscribed, "{name}: {channels:?}");
        }
    }
}
