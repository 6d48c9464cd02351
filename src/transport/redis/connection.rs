//! What both connections to the broker have in common.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use redis::{ErrorKind, RedisConnectionInfo, RedisError};
use thiserror::Error;

use super::meter::{Limits, Meter};
use crate::env::observer::Trouble;
use crate::env::{BoxStream, Env};
use crate::instance::config::RedisConfig;
use crate::protocol::{PAYLOAD_BYTES_MAX, ParseError};
use crate::replication::handler::BROKER;
use crate::replication::{Backoff, Link};

/// How often the broker is pinged on each connection.
pub const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A broker that does not answer for this long is gone.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(25);

/// Why a connection to the broker ended, or something that came on it was passed over.
#[derive(Debug, Error)]
pub enum BrokerError {
    /// It could not be made.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The broker refused something, or closed the connection.
    #[error("{0}")]
    Redis(#[from] RedisError),
    /// The broker did not answer for [`REPLY_TIMEOUT`].
    #[error("no answer from the broker to {0}")]
    Silent(&'static str),
    /// The broker closed it.
    #[error("closed by the broker")]
    Closed,
    /// We closed it.
    #[error("closed by this end")]
    ClosedHere,
    /// What was published is not text.
    #[error("a payload that is not UTF-8")]
    NotUtf8,
    /// What was published is not a command.
    #[error("{0}")]
    Parse(#[from] ParseError),
}

impl BrokerError {
    /// Whether the broker does not let us do what we want: trying again would not help.
    pub fn is_refusal(&self) -> bool {
        let BrokerError::Redis(error) = self else { return false };
        let codes = ["NOAUTH", "WRONGPASS", "NOPERM"];
        error.kind() == ErrorKind::AuthenticationFailed || error.code().is_some_and(|code| codes.contains(&code))
    }
}

/// How many bytes may have been read from the broker and wait to be handled. As messages they take some eight times as much.
pub const WAITING_BYTES_MAX: usize = 32 * 1024;
/// The longest reply of the broker, in bytes: a message with the longest payload that a Squall publishes, and some more.
/// Redis itself carries up to 512 MiB (`proto-max-bulk-len`).
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;
const _: () = assert!(PAYLOAD_BYTES_MAX + 16 * 1024 < REPLY_BYTES_MAX, "with its channel");

/// Where the broker is, and how to be let in.
pub struct Broker {
    config: RedisConfig,
    user: Option<String>,
    limits: Limits,
    env: Env,
}

impl Broker {
    /// The one that `config` names.
    pub fn new(config: &RedisConfig, env: &Env) -> Self {
        let limits = Limits { waiting: WAITING_BYTES_MAX, reply: REPLY_BYTES_MAX };
        Broker { config: config.clone(), user: None, limits, env: env.clone() }
    }

    /// The same, where not everybody is let in by the password alone.
    pub fn with_user(self, user: Option<String>) -> Self {
        Broker { user, ..self }
    }

    /// The same, where connections may hold so much.
    pub fn with_limits(self, limits: Limits) -> Self {
        Broker { limits, ..self }
    }

    /// Opens a connection, read no faster than is told to be heard. What is sent on it first is up to the `redis` crate.
    pub async fn open(&self) -> Result<(BoxStream, RedisConnectionInfo, Meter), BrokerError> {
        let stream = self.env.network.connect(&self.config.address()).await?;
        let (stream, meter) = Meter::on(stream, self.limits);
        // Nobody asks what library this is, and every command less is one less to go wrong.
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let info = match &self.config.password {
            Some(password) => info.set_password(password),
            None => info,
        };
        let info = match &self.user {
            Some(user) => info.set_username(user),
            None => info,
        };
        Ok((stream, info, meter))
    }

    /// Tells of trouble.
    pub fn report(&self, error: &BrokerError) {
        self.env.observer.trouble(Trouble::Connection { peer: BROKER, error });
    }
}

/// Why nothing more comes on a connection.
pub(super) fn closed(meter: &Meter) -> BrokerError {
    cause(BrokerError::Closed, meter)
}

/// What went wrong on a connection: that something too long came, if it did, and not what came of that.
pub(super) fn cause(error: BrokerError, meter: &Meter) -> BrokerError {
    meter.is_overlong().map_or(error, BrokerError::Io)
}

/// What the broker answers to `what`, if it answers at all.
pub async fn answer<T>(
    what: &'static str,
    asked: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(REPLY_TIMEOUT, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(BrokerError::Silent(what)),
    }
}

/// Makes a connection again and again until the instance stops: `live` makes one and returns when it is over. However it
/// failed, there is another attempt, later and later (Synapse #9391); `link` says of each whether the delay is forgotten.
pub(super) async fn again_and_again<F>(purpose: &str, broker: &Broker, mut live: impl FnMut() -> F)
where
    F: Future<Output = (Option<Rc<Link>>, BrokerError)>,
{
    let env = &broker.env;
    let mut backoff = Backoff::new(&env.chance.of(purpose));
    while !env.tasks.is_stopped() {
        env.observer.connecting(BROKER);
        let (link, error) = live().await;
        broker.report(&error);
        if link.is_some_and(|link| link.was_set_up()) {
            backoff.reset();
        }
        if env.tasks.is_stopped() {
            return;
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// Tells whoever looks on when a connection counts as set up.
pub(super) fn settle(link: &Link, env: &Env) {
    if link.settle() {
        env.observer.set_up(&link.peer());
    }
}
