//! The subscription to the broker.

use std::pin::pin;
use std::time::Duration;

use redis::aio::PubSubSink;
use thiserror::Error;
use tokio::time::Instant;

use super::event::Event;
use super::follower::{Follower, Watcher};
use crate::observer::Env;
use crate::replication::Backoff;
use crate::replication::connection::QUIET_UNTIL_SET_UP;
use crate::transport::RedisConfig;
use crate::transport::redis::{
    Broker, BrokerError, Limits, Message, Messages, answer, publish_on_new_connection, subscribe, user_ip_channel,
};
use squall_env::Address;

/// Interval between pings of the broker. Findings that take time come at most this much later.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Interval between [`Event::Tick`]s.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// Bounds on the unjudged payloads and on the length of one, in bytes.
const LIMITS: Limits = Limits { waiting: 8 << 20, reply: 16 << 20 };

/// Time for which a subscriber that stopped reading counts as slow. Redis drops one that has 8 MiB waiting for 60 s, or 32
/// MiB at once, unless it is configured otherwise.
const SLOW_WITHIN: Duration = Duration::from_secs(70);

/// The command that asks every writer for its positions.
const REPLICATE: &[u8] = b"REPLICATE";

/// The deployment to follow.
#[derive(Debug, Clone)]
pub struct Target {
    /// The broker.
    pub broker: RedisConfig,
    /// The homeserver's name.
    pub server_name: String,
    /// True if one REPLICATE is to be published. Nothing else is ever published.
    pub send_replicate: bool,
}

/// A broker that refused the subscription.
#[derive(Debug, Error)]
#[error(
    "the broker at {address} refused the subscription ({error}). Give its password by --password-file or \
     SQUALL_REDIS_PASSWORD, and a user who may subscribe to the channels of {server_name} in its address: \
     redis://USER@HOST:PORT. An address may also have the password: redis://:PASSWORD@HOST:PORT"
)]
pub struct Refused {
    address: Address,
    server_name: String,
    error: BrokerError,
}

/// Gives every payload on the broker to the follower.
///
/// A lost connection is retried for ever, with a back-off. Returns only if the broker refuses the first subscription.
pub async fn listen(target: &Target, env: &Env, follower: &mut Follower, watcher: &mut dyn Watcher) -> Refused {
    let broker = Broker::new(&target.broker, env).with_limits(LIMITS);
    let channels = [target.server_name.clone(), user_ip_channel(&target.server_name)];
    let mut backoff = Backoff::new(&env.seeds.child("follow"));
    let mut was_subscribed = false;
    let mut is_replicate_due = target.send_replicate;
    loop {
        let since = Instant::now();
        let error = match with_ticks(subscribe(&broker, &channels), follower, watcher).await {
            Ok((sink, mut messages)) => {
                was_subscribed = true;
                follower.subscribed(watcher);
                let replicate = async {
                    if !is_replicate_due {
                        return std::future::pending().await;
                    }
                    publish_on_new_connection(&broker, &target.server_name, REPLICATE, env).await
                };
                let (error, is_sent) = receive(sink, &mut messages, replicate, follower, watcher).await;
                is_replicate_due &= !is_sent;
                let error = messages.cause(error);
                let was_slow = messages.has_stopped_within(SLOW_WITHIN)
                    || follower.has_stalled_within(SLOW_WITHIN.as_millis() as u64);
                if was_slow && error.is_closed_by_broker() { BrokerError::TooSlow } else { error }
            }
            Err(error) if error.is_refusal() && !was_subscribed => {
                return Refused { address: target.broker.address(), server_name: target.server_name.clone(), error };
            }
            Err(error) => error,
        };
        if since.elapsed() >= QUIET_UNTIL_SET_UP {
            backoff.reset();
        }
        follower.connection_lost(&error, watcher);
        with_ticks(tokio::time::sleep(backoff.next_delay()), follower, watcher).await;
    }
}

/// Runs a future, and reports [`Event::Tick`]s meanwhile.
async fn with_ticks<T>(future: impl Future<Output = T>, follower: &mut Follower, watcher: &mut dyn Watcher) -> T {
    let mut future = pin!(future);
    loop {
        match tokio::time::timeout(TICK_INTERVAL, &mut future).await {
            Ok(output) => return output,
            Err(_) => follower.tick(watcher),
        }
    }
}

/// Gives payloads to the follower until the connection is lost. Returns the error, and true if the REPLICATE was sent.
async fn receive(
    sink: PubSubSink,
    messages: &mut Messages,
    replicate: impl Future<Output = Result<(), BrokerError>>,
    follower: &mut Follower,
    watcher: &mut dyn Watcher,
) -> (BrokerError, bool) {
    let mut replicate = pin!(replicate);
    let mut is_sending = true;
    let mut is_sent = false;
    let mut ping = pin!(ping_later(sink.clone()));
    let mut tick = Instant::now() + TICK_INTERVAL;
    loop {
        // Takes every payload first, so that none is left from before the broker's answer to a ping.
        loop {
            match messages.try_next() {
                Ok(Some(message)) => give(&message, follower, watcher),
                Ok(None) => break,
                Err(error) => return (error, is_sent),
            }
            if Instant::now() >= tick {
                follower.tick(watcher);
                tick = Instant::now() + TICK_INTERVAL;
            }
        }
        tokio::select! {
            biased;
            message = messages.next() => match message {
                Ok(message) => give(&message, follower, watcher),
                Err(error) => return (error, is_sent),
            },
            pong = &mut ping => match pong {
                Ok(pinged) => {
                    follower.ponged(pinged, watcher);
                    ping.set(ping_later(sink.clone()));
                }
                Err(error) => return (error, is_sent),
            },
            sent = &mut replicate, if is_sending => {
                is_sending = false;
                match sent {
                    Ok(()) => {
                        is_sent = true;
                        follower.replicate_sent();
                    }
                    Err(error) => {
                        // Unless the broker refuses it, it is sent after the next subscription.
                        is_sent = error.is_refusal();
                        watcher.on_event(follower.now(), Event::ReplicateFailed(&error.to_string()), follower);
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

fn give(message: &Message, follower: &mut Follower, watcher: &mut dyn Watcher) {
    follower.received(message.channel(), message.payload(), watcher);
}

/// Waits for the ping interval and pings the broker. Returns the time of the ping when the broker has answered.
async fn ping_later(mut sink: PubSubSink) -> Result<Instant, BrokerError> {
    tokio::time::sleep(PING_INTERVAL).await;
    let pinged = Instant::now();
    answer("PING", sink.ping::<redis::Value>()).await?;
    Ok(pinged)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::io;
    use std::rc::Rc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::task::LocalSet;

    use super::*;
    use crate::follow::Journal;
    use squall_env::{BoxStream, Listener, LocalBoxFuture, Network, Noop, SeedTree, SystemClock, TaskSpawner};
    use squall_judge::audit::{Audit, Transport};
    use squall_judge::observation::SimTime;

    /// A network on which each connection to the broker acts as scripted. Further connections are refused.
    struct Script(RefCell<VecDeque<Act>>);

    type Act = Box<dyn FnOnce(DuplexStream) -> LocalBoxFuture<'static, ()>>;

    impl Network for Script {
        fn connect(&self, _to: &Address) -> LocalBoxFuture<'static, io::Result<BoxStream>> {
            let Some(act) = self.0.borrow_mut().pop_front() else {
                return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) });
            };
            let (near, far) = tokio::io::duplex(64 * 1024);
            tokio::task::spawn_local(act(far));
            Box::pin(async { Ok(Box::new(near) as BoxStream) })
        }

        fn listen(&self, _port: u16) -> LocalBoxFuture<'static, io::Result<Box<dyn Listener>>> {
            unreachable!("the follower does not listen")
        }
    }

    /// Answers a client until it is gone, but at most this many pings.
    async fn answer_pings(wire: &mut DuplexStream, pings: usize) {
        let mut received = Vec::new();
        let mut answered = 0;
        while let Ok(1..) = wire.read_buf(&mut received).await {
            let text = String::from_utf8_lossy(&received).into_owned();
            let mut answer = String::new();
            if text.contains("SUBSCRIBE") {
                for (number, channel) in ["h", "h/USER_IP"].into_iter().enumerate() {
                    let length = channel.len();
                    answer += &format!("*3\r\n$9\r\nsubscribe\r\n${length}\r\n{channel}\r\n:{}\r\n", number + 1);
                }
            }
            if text.contains("PING") {
                answered += 1;
                if answered > pings {
                    return;
                }
                answer += "*2\r\n$4\r\npong\r\n$0\r\n\r\n";
            }
            received.clear();
            wire.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    /// A watcher that keeps each event as text.
    #[derive(Default)]
    struct EventLog(Vec<(u64, String)>);

    impl Watcher for EventLog {
        fn on_event(&mut self, now: SimTime, event: Event<'_>, _follower: &Follower) {
            let text = match event {
                Event::Subscribed => "subscribed".to_owned(),
                Event::Disconnected(error) => error.to_string(),
                Event::Gap(gap) => format!("gap since {}", gap.since.0),
                _ => return,
            };
            self.0.push((now.0, text));
        }
    }

    /// Returns the events of these connections within a minute.
    fn events_of(acts: Vec<Act>) -> Vec<(u64, String)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let env = Env {
                network: Rc::new(Script(RefCell::new(acts.into()))),
                clock: Rc::new(SystemClock),
                seeds: SeedTree::from_seed(1),
                observer: Rc::new(Noop),
                tasks: TaskSpawner::new(Rc::new(Noop)),
            };
            let broker = RedisConfig::at("broker", 6379);
            let target = Target { broker, server_name: "h".to_owned(), send_replicate: false };
            let mut events = EventLog::default();
            let journal = Journal::new(&*env.clock, None);
            let mut follower = Follower::new(Audit::new(Transport::Redis, None), journal, &mut events);
            let listening = listen(&target, &env, &mut follower, &mut events);
            assert!(tokio::time::timeout(Duration::from_secs(60), listening).await.is_err(), "it is refused");
            events.0
        })
    }

    fn healthy() -> Act {
        Box::new(|mut wire| Box::pin(async move { answer_pings(&mut wire, usize::MAX).await }))
    }

    #[test]
    fn a_silent_broker_is_left_and_the_gap_begins_at_its_last_answer() {
        let silent: Act = Box::new(|mut wire| {
            Box::pin(async move {
                answer_pings(&mut wire, 3).await;
                std::future::pending().await
            })
        });
        let events = events_of(vec![silent, healthy()]);
        let texts: Vec<_> = events.iter().map(|(_, text)| text.as_str()).collect();
        let expected = ["subscribed", "no answer from the broker to PING", "gap since 3000", "subscribed"];
        assert_eq!(texts, expected, "{events:?}");
        assert_eq!((events[0].0, events[1].0), (0, 29_000));
        assert!((29_050..29_200).contains(&events[3].0), "{events:?}");
    }

    #[test]
    fn a_payload_without_an_end_costs_the_connection_and_nothing_else() {
        let endless: Act = Box::new(|mut wire| {
            Box::pin(async move {
                answer_pings(&mut wire, 0).await;
                let head = b"*3\r\n$7\r\nmessage\r\n$1\r\nh\r\n$400000000\r\n";
                let mut written = wire.write_all(head).await;
                while written.is_ok() {
                    written = wire.write_all(&[b'x'; 64 * 1024]).await;
                }
            })
        });
        let events = events_of(vec![endless, healthy()]);
        let texts: Vec<_> = events.iter().map(|(_, text)| text.as_str()).collect();
        let expected = ["subscribed", "a reply of more than 16777216 bytes", "gap since 0", "subscribed"];
        assert_eq!(texts, expected, "{events:?}");
    }

    #[test]
    fn a_subscriber_that_was_dropped_for_its_slowness_is_told_so() {
        let drops_after = |stall: Duration| -> Act {
            Box::new(move |mut wire| {
                Box::pin(async move {
                    answer_pings(&mut wire, 3).await;
                    tokio::time::advance(stall).await;
                })
            })
        };
        let first_reason = |stall| events_of(vec![drops_after(stall), healthy()])[1].1.clone();
        let slow = first_reason(Duration::from_secs(10));
        assert!(slow.contains("read too slowly") && slow.contains("client-output-buffer-limit"), "{slow}");
        assert_eq!(first_reason(Duration::from_secs(1)), "closed by the broker");
    }

    #[test]
    fn the_connection_is_retried_for_ever() {
        let events = events_of(vec![]);
        assert_eq!(events, [(0, "connection refused".to_owned())], "the same error is reported once");
        let hang_up = || -> Act { Box::new(|wire| Box::pin(async { drop(wire) })) };
        let events = events_of((0..10).map(|_| hang_up()).chain([healthy()]).collect());
        assert_eq!(events.last().map(|(_, text)| text.as_str()), Some("subscribed"), "{events:?}");
        assert!((25_000..45_000).contains(&events.last().unwrap().0), "with a back-off: {events:?}");
    }
}
