//! What both connections to the broker have in common.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::resp::{Replies, Reply, ReplyError, encode};
use crate::env::observer::Trouble;
use crate::env::{BoxStream, Env};
use crate::instance::config::RedisConfig;
use crate::protocol::ParseError;
use crate::replication::{Backoff, Link};

/// How often the broker is pinged on each connection.
pub const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A broker that does not answer for this long is gone.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(25);

/// How much is read from the broker at once, at the least that there is room for.
const READ_BYTES: usize = 16 * 1024;
/// How much of an answer an error repeats, in characters.
const ANSWER_CHARS_MAX: usize = 200;

/// Why a connection to the broker ended, or something that came on it was passed over.
#[derive(Debug, Error)]
pub enum BrokerError {
    /// It could not be made, or broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What the broker said is no reply.
    #[error("the broker does not speak its protocol: {0}")]
    Reply(#[from] ReplyError),
    /// What the broker said is no answer to what was asked.
    #[error("the broker answers {asked} with {answer}")]
    Answer {
        /// What was asked.
        asked: &'static str,
        /// The beginning of its answer.
        answer: String,
    },
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

/// Where the broker is, and how to be let in.
pub(super) struct Broker {
    config: RedisConfig,
    env: Env,
}

impl Broker {
    pub fn new(config: &RedisConfig, env: &Env) -> Self {
        Broker { config: config.clone(), env: env.clone() }
    }

    /// Opens a connection, and says the password if there is one.
    pub async fn open(&self) -> Result<(BrokerReader, BrokerWriter), BrokerError> {
        let (reader, writer) = tokio::io::split(self.env.network.connect(&self.config.address()).await?);
        let mut reader = BrokerReader { stream: reader, replies: Replies::default() };
        let mut writer = BrokerWriter { stream: writer, bytes: BytesMut::new() };
        if let Some(password) = &self.config.password {
            let asked = async {
                writer.send([&[&b"AUTH"[..], password.as_bytes()][..]]).await?;
                reader.expect("AUTH", |reply| *reply == Reply::Simple("OK".into())).await
            };
            answer("AUTH", asked).await?;
        }
        Ok((reader, writer))
    }

    /// Tells of trouble.
    pub fn report(&self, error: &BrokerError) {
        self.env.observer.trouble(Trouble::Connection { peer: "the broker", error });
    }
}

/// What the broker says.
pub(super) struct BrokerReader {
    stream: ReadHalf<BoxStream>,
    replies: Replies,
}

impl BrokerReader {
    /// The next thing it says. Cancel-safe.
    pub async fn next(&mut self) -> Result<Reply, BrokerError> {
        loop {
            match self.next_read()? {
                Some(reply) => return Ok(reply),
                None => self.read().await?,
            }
        }
    }

    /// The next thing it says, as far as that is read; `None` until [`read`](Self::read) was called.
    pub fn next_read(&mut self) -> Result<Option<Reply>, BrokerError> {
        Ok(self.replies.next_reply()?)
    }

    /// Reads what it says. Cancel-safe.
    pub async fn read(&mut self) -> Result<(), BrokerError> {
        match self.stream.read_buf(self.replies.buffer(READ_BYTES)).await? {
            0 => Err(BrokerError::Closed),
            _ => Ok(()),
        }
    }

    /// The next thing it says, which has to be this.
    pub async fn expect(&mut self, asked: &'static str, is_it: impl Fn(&Reply) -> bool) -> Result<(), BrokerError> {
        let reply = self.next().await?;
        if is_it(&reply) { Ok(()) } else { Err(BrokerError::unexpected(asked, &reply)) }
    }
}

/// What the broker is told.
pub(super) struct BrokerWriter {
    stream: WriteHalf<BoxStream>,
    /// The commands that are sent together.
    bytes: BytesMut,
}

impl BrokerWriter {
    /// Sends commands, each of which is a few words.
    pub async fn send<'a>(&mut self, commands: impl IntoIterator<Item = &'a [&'a [u8]]>) -> Result<(), BrokerError> {
        self.bytes.clear();
        commands.into_iter().for_each(|words| encode(words, &mut self.bytes));
        Ok(self.stream.write_all(&self.bytes).await?)
    }
}

impl BrokerError {
    /// That is not what was to come after `asked`.
    pub(super) fn unexpected(asked: &'static str, reply: &Reply) -> Self {
        let answer = format!("{reply:?}").chars().take(ANSWER_CHARS_MAX).collect();
        BrokerError::Answer { asked, answer }
    }
}

/// What the broker answers to `what`, if it answers at all.
pub(super) async fn answer<T>(
    what: &'static str,
    asked: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    tokio::time::timeout(REPLY_TIMEOUT, asked).await.unwrap_or(Err(BrokerError::Silent(what)))
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
