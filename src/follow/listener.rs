//! The subscription.

use std::pin::pin;
use std::time::Duration;

use redis::Msg;
use redis::aio::PubSubSink;
use thiserror::Error;
use tokio::time::Instant;

use super::{Follower, News, Watcher};
use crate::env::{Address, Env};
use crate::instance::config::RedisConfig;
use crate::replication::Backoff;
use crate::replication::link::QUIET_UNTIL_SET_UP;
use crate::transport::redis::{
    Broker, BrokerError, Limits, Messages, answer, publish_once, subscribe, user_ip_channel,
};

/// How often the broker is pinged, and so how soon what shows only as time passes is found.
pub const PING_INTERVAL: Duration = Duration::from_secs(1);

/// How often whoever watches is told that time passes.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// How much may wait to be judged, and how long a payload may be.
pub const LIMITS: Limits = Limits { waiting: 8 << 20, reply: 16 << 20 };

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
    let broker = Broker::new(&target.broker, env).with_user(target.user.clone()).with_limits(LIMITS);
    let channels = [target.server_name.clone(), user_ip_channel(&target.server_name)];
    let mut backoff = Backoff::new(&env.chance.of("follow"));
    let (mut was_let_in, mut is_to_ask) = (false, target.announce);
    loop {
        let since = Instant::now();
        let error = match attended(subscribe(&broker, &channels), follower, watcher).await {
            Ok((sink, messages)) => {
                was_let_in = true;
                follower.listening(watcher);
                let asking = async {
                    if !is_to_ask {
                        return std::future::pending().await;
                    }
                    publish_once(&broker, &target.server_name, REPLICATE, env).await
                };
                let (error, has_asked) = hear(sink, messages, asking, follower, watcher).await;
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
    mut messages: Messages,
    asking: impl Future<Output = Result<(), BrokerError>>,
    follower: &mut Follower,
    watcher: &mut dyn Watcher,
) -> (BrokerError, bool) {
    let (mut asking, mut is_asking, mut has_asked) = (pin!(asking), true, false);
    let mut pinged = pin!(ping(sink.clone()));
    let mut tick = Instant::now() + TICK_INTERVAL;
    loop {
        // All of them, so that none is left that was published before what the broker answers.
        loop {
            match messages.try_next() {
                Ok(Some(message)) => take(&message, follower, watcher),
                Ok(None) => break,
                Err(error) => return (error, has_asked),
            }
            if Instant::now() >= tick {
                follower.tick(watcher);
                tick = Instant::now() + TICK_INTERVAL;
            }
        }
        tokio::select! {
            biased;
            message = messages.next() => match message {
                Ok(message) => take(&message, follower, watcher),
                Err(error) => return (error, has_asked),
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

fn take(message: &Msg, follower: &mut Follower, watcher: &mut dyn Watcher) {
    follower.heard(message.get_channel_name(), message.get_payload_bytes(), watcher);
}

/// Waits a while and asks the broker for an answer. Gives the time at which it was asked.
async fn ping(mut sink: PubSubSink) -> Result<Instant, BrokerError> {
    tokio::time::sleep(PING_INTERVAL).await;
    let asked = Instant::now();
    answer("PING", sink.ping::<redis::Value>()).await?;
    Ok(asked)
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
    use crate::env::{BoxStream, Chance, Listener, LocalBoxFuture, Network, Scope, Silent, SystemClock};
    use crate::follow::Journal;
    use crate::judge::audit::{Audit, Transport};
    use crate::judge::observation::Moment;

    /// What a connection to the broker is like, one after the other; then there are no more.
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
            unreachable!("nobody connects")
        }
    }

    /// Answers until the other end is gone, but no more than so many pings.
    async fn answer_pings(wire: &mut DuplexStream, pings: usize) {
        let (mut heard, mut answered) = (Vec::new(), 0);
        while let Ok(1..) = wire.read_buf(&mut heard).await {
            let words = String::from_utf8_lossy(&heard).into_owned();
            let mut answer = String::new();
            if words.contains("SUBSCRIBE") {
                for (number, channel) in ["h", "h/USER_IP"].into_iter().enumerate() {
                    let length = channel.len();
                    answer += &format!("*3\r\n$9\r\nsubscribe\r\n${length}\r\n{channel}\r\n:{}\r\n", number + 1);
                }
            }
            if words.contains("PING") {
                answered += 1;
                if answered > pings {
                    return;
                }
                answer += "*2\r\n$4\r\npong\r\n$0\r\n\r\n";
            }
            heard.clear();
            wire.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    #[derive(Default)]
    struct Told(Vec<(u64, String)>);

    impl Watcher for Told {
        fn tell(&mut self, now: Moment, news: News<'_>, _follower: &Follower) {
            let words = match news {
                News::Listening => "listening".to_owned(),
                News::Deaf(why) => why.to_owned(),
                News::Away(away) => format!("away since {}", away.since.0),
                _ => return,
            };
            self.0.push((now.0, words));
        }
    }

    /// What is told of these connections within a minute.
    fn told_of(acts: Vec<Act>) -> Vec<(u64, String)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let env = Env {
                network: Rc::new(Script(RefCell::new(acts.into()))),
                clock: Rc::new(SystemClock),
                chance: Chance::from_seed(1),
                observer: Rc::new(Silent),
                tasks: Scope::new(Rc::new(Silent)),
            };
            let broker = RedisConfig { host: "broker".into(), port: 6379, password: None, tls: None };
            let target = Target { broker, user: None, server_name: "h".to_owned(), announce: false };
            let mut told = Told::default();
            let journal = Journal::new(&*env.clock, None);
            let mut follower = Follower::new(Audit::new(Transport::Redis, None), journal, &mut told);
            let listening = listen(&target, &env, &mut follower, &mut told);
            assert!(tokio::time::timeout(Duration::from_secs(60), listening).await.is_err(), "it is refused");
            told.0
        })
    }

    fn healthy() -> Act {
        Box::new(|mut wire| Box::pin(async move { answer_pings(&mut wire, usize::MAX).await }))
    }

    #[test]
    fn a_broker_that_falls_silent_is_left_and_the_gap_begins_where_it_answered_last() {
        let silent: Act = Box::new(|mut wire| {
            Box::pin(async move {
                answer_pings(&mut wire, 3).await;
                std::future::pending().await
            })
        });
        let told = told_of(vec![silent, healthy()]);
        let words: Vec<_> = told.iter().map(|(_, words)| words.as_str()).collect();
        let expected = ["listening", "no answer from the broker to PING", "away since 3000", "listening"];
        assert_eq!(words, expected, "{told:?}");
        assert_eq!((told[0].0, told[1].0), (0, 29_000));
        assert!((29_050..29_200).contains(&told[3].0), "{told:?}");
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
        let told = told_of(vec![endless, healthy()]);
        let words: Vec<_> = told.iter().map(|(_, words)| words.as_str()).collect();
        let expected = ["listening", "a reply of more than 16777216 bytes", "away since 0", "listening"];
        assert_eq!(words, expected, "{told:?}");
    }

    #[test]
    fn it_is_tried_again_for_ever() {
        let told = told_of(vec![]);
        assert_eq!(told, [(0, "connection refused".to_owned())], "the same is told once");
        let hang_up = || -> Act { Box::new(|wire| Box::pin(async { drop(wire) })) };
        let told = told_of((0..10).map(|_| hang_up()).chain([healthy()]).collect());
        assert_eq!(told.last().map(|(_, words)| words.as_str()), Some("listening"), "{told:?}");
        assert!((25_000..45_000).contains(&told.last().unwrap().0), "ever more seldom: {told:?}");
    }
}
