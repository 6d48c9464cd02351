//! The parts that the subscribing and the publishing connection share.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use redis::{ErrorKind, RedisConnectionInfo, RedisError};
use thiserror::Error;

use super::read_limiter::{Limits, ReadLimiter};
use super::sentinel::{self, NoMaster};
use crate::observer::Env;
use crate::observer::InstanceEvent;
use crate::replication::handler::BROKER;
use crate::replication::{Backoff, Connection};
use crate::transport::RedisConfig;
use crate::transport::tls_mismatch::{self, Plain};
use squall_env::BoxStream;
use squall_protocol::{PAYLOAD_BYTES_MAX, ParseError};

/// Interval between pings on each connection to the broker.
pub const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Time after which a broker that does not answer is considered dead.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(25);

/// An error that ended a connection to the broker, or a payload that was ignored.
#[derive(Debug, Error)]
pub enum BrokerError {
    /// The connection could not be established.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No sentinel names the broker.
    #[error("{0}")]
    NoMaster(#[from] NoMaster),
    /// The broker refused a command, or closed the connection.
    #[error("{0}")]
    Redis(#[from] RedisError),
    /// The broker did not answer for [`REPLY_TIMEOUT`].
    #[error("no answer from the broker to {0}")]
    Silent(&'static str),
    /// A message that this instance published does not arrive at its own subscription.
    #[error(
        "this instance does not hear what it publishes: its connections lead to different brokers, and are made again"
    )]
    Deaf,
    /// The broker does not let this instance end the connection on which it published before.
    #[error(
        "the broker refused CLIENT INFO, CLIENT KILL, GET or SET ({0}), so what it reads late on this instance's old \
         connection can make other instances miss rows: allow these commands, which need Redis 6.2 or later, and the keys \
         that begin with the server name"
    )]
    OldConnectionOpen(#[source] RedisError),
    /// The broker closed the connection.
    #[error("closed by the broker")]
    Closed,
    /// The broker closed the connection before it answered. A port for TLS does so if it is addressed without, or if the
    /// client's certificate is not the right one.
    #[error(
        "closed by the broker before it answered ({0}). If its port is for TLS, connect with TLS, by rediss:// in an \
         address or [redis.tls] in a configuration. If you do, check the certificate that it asks for"
    )]
    Unanswered(RedisError),
    /// The broker answered with an alert of TLS.
    #[error(
        "the broker's port is for TLS: connect with TLS, by rediss:// in an address or [redis.tls] in a configuration"
    )]
    ForTls,
    /// The broker closed the connection of a subscriber that had not read for a while.
    #[error(
        "the broker dropped this subscriber, which read too slowly for the traffic: raise the broker's \
         client-output-buffer-limit for pubsub, or give this process more CPU time"
    )]
    TooSlow,
    /// This instance closed the connection.
    #[error("closed by this end")]
    ClosedHere,
    /// A payload is not UTF-8.
    #[error("a payload that is not UTF-8")]
    NotUtf8,
    /// A payload is not a command.
    #[error("{0}")]
    Parse(#[from] ParseError),
}

impl BrokerError {
    /// Returns true if the other end closed the connection.
    pub fn is_closed_by_broker(&self) -> bool {
        match self {
            BrokerError::Closed => true,
            BrokerError::Io(error) => error.kind() == io::ErrorKind::ConnectionReset,
            BrokerError::Redis(error) => error.is_connection_dropped(),
            _ => false,
        }
    }

    /// Returns true if the broker refused the credentials or the command, so that a retry would not help.
    pub fn is_refusal(&self) -> bool {
        let BrokerError::Redis(error) = self else { return false };
        let codes = ["NOAUTH", "WRONGPASS", "NOPERM"];
        error.kind() == ErrorKind::AuthenticationFailed || error.code().is_some_and(|code| codes.contains(&code))
    }
}

/// Maximum number of bytes that have been read from the broker and not been handled. As messages of the `redis` crate
/// they take about eight times as much memory.
pub const WAITING_BYTES_MAX: usize = 32 * 1024;
/// Maximum length of a reply, in bytes. It exceeds that of a message with the longest payload that Squall publishes. Redis
/// itself allows 512 MiB (`proto-max-bulk-len`).
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;
const _: () = assert!(PAYLOAD_BYTES_MAX + 16 * 1024 < REPLY_BYTES_MAX, "a message also holds its channel");

/// The broker's address, the credentials, and the limits of a connection.
pub struct Broker {
    config: RedisConfig,
    limits: Limits,
    env: Env,
}

impl Broker {
    /// Creates the broker that `config` describes.
    pub fn new(config: &RedisConfig, env: &Env) -> Self {
        let limits = Limits { waiting: WAITING_BYTES_MAX, reply: REPLY_BYTES_MAX };
        Broker { config: config.clone(), limits, env: env.clone() }
    }

    /// Returns the broker with other limits.
    pub fn with_limits(self, limits: Limits) -> Self {
        Broker { limits, ..self }
    }

    /// Opens a connection and the limiter that bounds its unhandled bytes. The `redis` crate authenticates on it.
    pub async fn open(&self) -> Result<(BoxStream, RedisConnectionInfo, ReadLimiter), BrokerError> {
        let address = match &self.config.sentinel {
            Some(sentinel) => sentinel::address_of_master(sentinel, &self.env).await?,
            None => self.config.address(),
        };
        let stream = self.env.network.connect(&address).await?;
        let stream = if self.config.tls.is_some() { stream } else { Plain::connected(stream) };
        let (stream, limiter) = ReadLimiter::on(stream, self.limits);
        // The name of the client library is not needed, and a command that is not sent cannot fail.
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let info = match &self.config.password {
            Some(password) => info.set_password(password),
            None => info,
        };
        let info = match &self.config.user {
            Some(user) => info.set_username(user),
            None => info,
        };
        Ok((stream, info, limiter))
    }

    /// Reports an error to the observer, except the end of a connection in an orderly stop.
    pub fn report(&self, error: &BrokerError) {
        if self.env.tasks.is_stopped() && matches!(error, BrokerError::ClosedHere | BrokerError::Closed) {
            return;
        }
        self.env.observer.event(InstanceEvent::Connection { peer: BROKER, error });
    }
}

/// Returns the error for a connection that the broker closed.
pub(super) fn closed(limiter: &ReadLimiter) -> BrokerError {
    cause(BrokerError::Closed, limiter)
}

/// Returns the cause of an error: a reply that exceeded its limit, if there was one; a port for TLS, if it shows; or the
/// error itself.
pub(super) fn cause(error: BrokerError, limiter: &ReadLimiter) -> BrokerError {
    if let Some(overlong) = limiter.overlong_reply() {
        return BrokerError::Io(overlong);
    }
    match error {
        BrokerError::Redis(error) if tls_mismatch::is_cause_of(&error) => BrokerError::ForTls,
        BrokerError::Redis(error) if error.is_io_error() && !limiter.has_read() => BrokerError::Unanswered(error),
        error => error,
    }
}

/// Waits for the broker's reply to `command`, for at most [`REPLY_TIMEOUT`].
pub async fn answer<T>(
    command: &'static str,
    reply: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(REPLY_TIMEOUT, reply).await {
        Ok(reply) => Ok(reply?),
        Err(_) => Err(BrokerError::Silent(command)),
    }
}

/// Keeps a connection to the broker until the instance stops. `live` establishes one connection and returns when it has
/// ended.
///
/// Every error is followed by another attempt, after a growing delay (Synapse #9391). The delay is reset after a
/// connection that was set up.
pub(super) async fn keep_connected<F>(purpose: &str, broker: &Broker, mut live: impl FnMut() -> F)
where
    F: Future<Output = (Option<Rc<Connection>>, BrokerError)>,
{
    let env = &broker.env;
    let mut backoff = Backoff::new(&env.seeds.child(purpose));
    while !env.tasks.is_stopped() {
        env.observer.connecting(BROKER);
        let (connection, error) = live().await;
        broker.report(&error);
        if connection.is_some_and(|connection| connection.was_set_up()) {
            backoff.reset();
        }
        if env.tasks.is_stopped() {
            return;
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// Reports to the observer when a connection becomes set up.
pub(super) fn settle(connection: &Connection, env: &Env) {
    if connection.settle() {
        env.observer.set_up(&connection.peer());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use squall_env::network::TokioNetwork;
    use squall_env::{Noop, SeedTree, SystemClock, TaskSpawner};

    #[test]
    fn only_a_refusal_of_the_credentials_or_the_command_is_one() {
        let of_code = |code: &str| BrokerError::Redis(redis::make_extension_error(code.into(), None));
        for code in ["NOAUTH", "WRONGPASS", "NOPERM"] {
            assert!(of_code(code).is_refusal(), "{code}");
        }
        let failed = RedisError::from((ErrorKind::AuthenticationFailed, "wrong"));
        assert!(BrokerError::Redis(failed).is_refusal());
        for other in [of_code("LOADING"), BrokerError::Closed, BrokerError::Silent("PING")] {
            assert!(!other.is_refusal(), "{other}");
        }
    }

    #[tokio::test]
    async fn a_broker_whose_users_have_passwords_is_told_the_user() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let env = Env {
            network: Rc::new(TokioNetwork),
            clock: Rc::new(SystemClock),
            seeds: SeedTree::from_seed(1),
            observer: Rc::new(Noop),
            tasks: TaskSpawner::new(Rc::new(Noop)),
        };
        for user in [None, Some("squall")] {
            let (user_name, password) = (user.map(str::to_owned), Some("secret".to_owned()));
            let config = RedisConfig { user: user_name, password, ..RedisConfig::at("127.0.0.1", port) };
            let broker = Broker::new(&config, &env);
            let (_, info, _) = broker.open().await.unwrap();
            assert_eq!((info.username(), info.password()), (user, Some("secret")));
        }
    }
}
