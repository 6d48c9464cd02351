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
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use crate::transport::altered::{Alter, Altered};
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
    /// Time at which reading last stopped at the limit of waiting bytes while the consumer had messages to handle.
    stopped_at: Option<Instant>,
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
        (Box::new(Altered { stream, alter: limiter.clone() }), limiter)
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

    /// Returns true if anything has been read.
    pub fn has_read(&self) -> bool {
        self.state().has_read
    }

    /// Returns true if reading stopped within this time because too many bytes were unhandled.
    pub fn has_stopped_within(&self, time: Duration) -> bool {
        self.state().stopped_at.is_some_and(|at| at.elapsed() < time)
    }

    /// Returns the error if a reply exceeds its limit.
    pub fn overlong_reply(&self) -> Option<io::Error> {
        let limit = self.limits.reply;
        let error = || io::Error::new(io::ErrorKind::InvalidData, format!("a reply of more than {limit} bytes"));
        (self.state().unfinished > limit).then(error)
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if state.waiting < self.limits.waiting
            && let Some(reader) = state.reader.take()
        {
            reader.wake();
        }
    }
}

impl Alter for ReadLimiter {
    fn poll_read(
        &mut self,
        stream: Pin<&mut BoxStream>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(error) = self.overlong_reply() {
            return Poll::Ready(Err(error));
        }
        {
            let mut state = self.state();
            if state.has_consumer && state.waiting >= self.limits.waiting {
                state.reader = Some(cx.waker().clone());
                match state.consumer.take() {
                    Some(consumer) => consumer.wake(),
                    None => state.stopped_at = Some(Instant::now()),
                }
                return Poll::Pending;
            }
        }
        let before = buf.filled().len();
        ready!(stream.poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        let mut state = self.state();
        state.has_read |= read > 0;
        state.waiting += read;
        state.unfinished += read;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

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

    /// True once it was woken.
    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_once_fewer_bytes_than_the_limit_wait() {
        let (near, mut far) = tokio::io::duplex(64);
        far.write_all(b"abcdefgh").await.unwrap();
        let (mut limited, limiter) = ReadLimiter::on(Box::new(near), Limits { waiting: 4, reply: 10 });
        limiter.drained(Waker::noop());
        let mut buffer = [0; 4];
        limited.read_exact(&mut buffer).await.unwrap();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let mut buffer = ReadBuf::new(&mut buffer);
        assert!(Pin::new(&mut limited).poll_read(&mut cx, &mut buffer).is_pending());
        limiter.handled(0);
        assert!(!woken.0.load(Ordering::Relaxed), "the limit is still reached");
        limiter.handled(1);
        assert!(woken.0.load(Ordering::Relaxed));
        assert!(Pin::new(&mut limited).poll_read(&mut cx, &mut buffer).is_ready());
        assert_eq!(buffer.filled(), b"efgh");
    }

    #[tokio::test]
    async fn only_a_reply_of_more_bytes_than_the_limit_is_an_error() {
        let (near, mut far) = tokio::io::duplex(64);
        let (mut limited, limiter) = ReadLimiter::on(Box::new(near), Limits { waiting: 64, reply: 10 });
        let mut buffer = [0; 12];
        for _ in 0..2 {
            far.write_all(&[0; 10]).await.unwrap();
            assert_eq!(limited.read(&mut buffer).await.unwrap(), 10);
            assert!(limiter.overlong_reply().is_none());
            limiter.answered();
        }
        far.write_all(&[0; 12]).await.unwrap();
        assert_eq!(limited.read(&mut buffer).await.unwrap(), 12);
        let error = limiter.overlong_reply().unwrap();
        assert_eq!(error.to_string(), "a reply of more than 10 bytes");
        assert_eq!(limited.read(&mut buffer).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn what_was_in_the_buffer_before_does_not_count() {
        let (near, mut far) = tokio::io::duplex(64);
        let (mut limited, limiter) = ReadLimiter::on(Box::new(near), Limits { waiting: 64, reply: 10 });
        far.write_all(&[0; 6]).await.unwrap();
        let mut buffer = [0; 12];
        let mut buffer = ReadBuf::new(&mut buffer);
        buffer.put_slice(&[0; 6]);
        std::future::poll_fn(|cx| Pin::new(&mut limited).poll_read(cx, &mut buffer)).await.unwrap();
        assert_eq!(buffer.filled().len(), 12);
        assert!(limiter.overlong_reply().is_none());
    }
}
