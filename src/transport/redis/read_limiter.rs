//! A limit on the bytes that have been read from a broker and not been handled.
//!
//! The `redis` crate reads without limit and puts messages into an unbounded channel: of a flood of 64 MiB it held 99 MiB.
//! A limited connection stops reading while [`Limits::waiting`] bytes are unhandled. Further bytes then wait in the kernel,
//! and then in the broker, which disconnects a client with too much output waiting (`client-output-buffer-limit pubsub`).
//! The instance reconnects as after any lost connection.
//!
//! A reply that is longer than [`Limits::reply`] also ends the connection: it could only be skipped after it was held as a
//! whole.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, ReadBuf, ReadHalf};

use squall_env::BoxStream;

/// The limits of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of bytes that have been read and not been handled.
    pub waiting: usize,
    /// Maximum length of a reply, in bytes.
    pub reply: usize,
}

/// A count of the bytes of one connection that have been read and not been handled.
#[derive(Debug, Clone)]
pub struct ReadLimiter {
    limits: Limits,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of bytes that have been read and not been handled.
    waiting: usize,
    /// Number of bytes that have been read since the last complete reply.
    unfinished: usize,
    /// True once anything has been read.
    has_read: bool,
    /// True once a consumer takes messages. Before that, and on a connection with replies only, just the length of a
    /// reply is limited.
    has_consumer: bool,
    /// The task that reads, while it must wait.
    reader: Option<Waker>,
    /// The consumer, while it waits for a complete message.
    consumer: Option<Waker>,
}

impl ReadLimiter {
    /// Limits `stream`. Returns the limited stream and its limiter.
    pub fn on(stream: BoxStream, limits: Limits) -> (BoxStream, Self) {
        let limiter = ReadLimiter { limits, state: Arc::default() };
        let (stream, writing) = tokio::io::split(stream);
        (Box::new(tokio::io::join(LimitedReader { stream, limiter: limiter.clone() }, writing)), limiter)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a message of this many bytes was handled.
    pub fn handled(&self, bytes: usize) {
        let mut state = self.state();
        state.waiting = state.waiting.saturating_sub(bytes);
        state.unfinished = 0;
        state.has_consumer = true;
        self.wake(state);
    }

    /// Records that every command has its reply.
    pub fn answered(&self) {
        self.state().unfinished = 0;
    }

    /// Records that no complete message waits. The limiter wakes `consumer` when the limit of waiting bytes is reached: only
    /// the consumer can tell if those bytes are a single incomplete reply.
    pub fn drained(&self, consumer: &Waker) {
        let mut state = self.state();
        state.waiting = 0;
        state.has_consumer = true;
        state.consumer = Some(consumer.clone());
        self.wake(state);
    }

    /// Returns the error if a reply exceeds its limit.
    pub fn overlong_reply(&self) -> Option<io::Error> {
        let limit = self.limits.reply;
        let error = || io::Error::new(io::ErrorKind::InvalidData, format!("a reply of more than {limit} bytes"));
        (self.state().unfinished > limit).then(error)
    }

    /// Returns true if nothing has been read yet.
    pub(super) fn has_read_nothing(&self) -> bool {
        !self.state().has_read
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if state.waiting < self.limits.waiting
            && let Some(reader) = state.reader.take()
        {
            reader.wake();
        }
    }
}

/// The reading half of a limited connection.
struct LimitedReader {
    stream: ReadHalf<BoxStream>,
    limiter: ReadLimiter,
}

impl AsyncRead for LimitedReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.limiter.overlong_reply() {
            return Poll::Ready(Err(error));
        }
        {
            let mut state = self.limiter.state();
            if state.has_consumer && state.waiting >= self.limiter.limits.waiting {
                state.reader = Some(cx.waker().clone());
                if let Some(consumer) = state.consumer.take() {
                    consumer.wake();
                }
                return Poll::Pending;
            }
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        let mut state = self.limiter.state();
        state.waiting += read;
        state.unfinished += read;
        state.has_read |= read > 0;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const WAITING_BYTES_MAX: usize = 1 << 20;
    const REPLY_BYTES_MAX: usize = 2 << 20;
    const LIMITS: Limits = Limits { waiting: WAITING_BYTES_MAX, reply: REPLY_BYTES_MAX };

    #[tokio::test]
    async fn reading_stops_at_the_limit_of_waiting_bytes() {
        let (near, mut far) = tokio::io::duplex(2 * WAITING_BYTES_MAX);
        far.write_all(&vec![0; 2 * WAITING_BYTES_MAX]).await.unwrap();
        let (mut limited, limiter) = ReadLimiter::on(Box::new(near), LIMITS);
        limiter.drained(Waker::noop());
        let mut read_all = async |bytes: &mut usize| {
            let mut buffer = vec![0; 64 * 1024];
            // A read that would wait means that the limit is reached.
            while let Ok(read) = tokio::time::timeout(std::time::Duration::ZERO, limited.read(&mut buffer)).await {
                *bytes += read.unwrap();
            }
        };
        let mut bytes = 0;
        read_all(&mut bytes).await;
        assert_eq!(bytes, WAITING_BYTES_MAX);
        limiter.handled(100_000);
        read_all(&mut bytes).await;
        assert_eq!(bytes, WAITING_BYTES_MAX + 2 * 64 * 1024, "the last read may exceed the limit by one buffer");
        limiter.drained(Waker::noop());
        read_all(&mut bytes).await;
        assert_eq!(bytes, 2 * WAITING_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_reply_without_end_is_an_error() {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let endless = async {
            let bytes = vec![0; 64 * 1024];
            while far.write_all(&bytes).await.is_ok() {}
        };
        let (mut limited, limiter) = ReadLimiter::on(Box::new(near), LIMITS);
        let reading = async {
            let (mut buffer, mut bytes) = (vec![0; 64 * 1024], 0);
            loop {
                match limited.read(&mut buffer).await {
                    Ok(read) => bytes += read,
                    Err(error) => break (bytes, error.kind()),
                }
                limiter.drained(Waker::noop());
            }
        };
        let (bytes, error) = tokio::select! { biased; read = reading => read, () = endless => panic!("the writer never stops by itself") };
        assert_eq!(error, io::ErrorKind::InvalidData);
        assert!((REPLY_BYTES_MAX..REPLY_BYTES_MAX + 100_000).contains(&bytes), "{bytes} bytes");
    }
}
