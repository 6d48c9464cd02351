//! How much that was read from a broker waits to be heard.
//!
//! The `redis` crate reads whatever comes and puts it into a channel without a bound: of a flood of 64 MiB it held 99. Here
//! its connections read no more while more than [`Limits::waiting`] wait, so that what cannot be heard in time waits in the
//! kernel and then in the broker, which drops whoever has too much waiting there (`client-output-buffer-limit pubsub`);
//! that is a lost connection like any other. A reply of which [`Limits::reply`] have come and that goes on ends the
//! connection: it would have to be held as a whole to be passed over.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, ReadBuf, ReadHalf};

use crate::env::BoxStream;

/// What a connection may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many bytes may wait.
    pub waiting: usize,
    /// How many bytes of one reply are read.
    pub reply: usize,
}

/// What was read on one connection, and what of it was heard.
#[derive(Debug, Clone)]
pub struct Meter {
    limits: Limits,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    /// Since something was heard last.
    unfinished: usize,
    /// Whether anybody hears what comes by itself. Before that, and where there are answers only, all that counts is how
    /// long one is.
    is_heard: bool,
    reader: Option<Waker>,
    /// Whoever waits for something to hear, while nothing whole has come.
    hearer: Option<Waker>,
}

impl Meter {
    /// Has `stream` read no faster than what comes on it is heard.
    pub fn on(stream: BoxStream, limits: Limits) -> (BoxStream, Self) {
        let meter = Meter { limits, state: Arc::default() };
        let (stream, writing) = tokio::io::split(stream);
        (Box::new(tokio::io::join(Metered { stream, meter: meter.clone() }, writing)), meter)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something of so many bytes was heard.
    pub fn heard(&self, bytes: usize) {
        let mut state = self.state();
        state.waiting = state.waiting.saturating_sub(bytes);
        state.unfinished = 0;
        state.is_heard = true;
        self.wake(state);
    }

    /// Everything that was asked is answered.
    pub fn answered(&self) {
        self.state().unfinished = 0;
    }

    /// Nothing whole waits. `hearer` is woken when more has come than may wait: only it can tell whether that is one reply
    /// that goes on.
    pub fn is_drained(&self, hearer: &Waker) {
        let mut state = self.state();
        state.waiting = 0;
        state.is_heard = true;
        state.hearer = Some(hearer.clone());
        self.wake(state);
    }

    /// Why nothing more is read, if a reply has become too long.
    pub fn is_overlong(&self) -> Option<io::Error> {
        let limit = self.limits.reply;
        let why = || io::Error::new(io::ErrorKind::InvalidData, format!("a reply of more than {limit} bytes"));
        (self.state().unfinished > limit).then(why)
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if state.waiting < self.limits.waiting
            && let Some(reader) = state.reader.take()
        {
            reader.wake();
        }
    }
}

/// The half of a connection on which the broker is heard.
struct Metered {
    stream: ReadHalf<BoxStream>,
    meter: Meter,
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.meter.is_overlong() {
            return Poll::Ready(Err(error));
        }
        {
            let mut state = self.meter.state();
            if state.is_heard && state.waiting >= self.meter.limits.waiting {
                state.reader = Some(cx.waker().clone());
                if let Some(hearer) = state.hearer.take() {
                    hearer.wake();
                }
                return Poll::Pending;
            }
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        let mut state = self.meter.state();
        state.waiting += read;
        state.unfinished += read;
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
    async fn no_more_is_read_than_may_wait() {
        let (near, mut far) = tokio::io::duplex(2 * WAITING_BYTES_MAX);
        far.write_all(&vec![0; 2 * WAITING_BYTES_MAX]).await.unwrap();
        let (mut metered, meter) = Meter::on(Box::new(near), LIMITS);
        meter.is_drained(Waker::noop());
        let mut read_all = async |bytes: &mut usize| {
            let mut buffer = vec![0; 64 * 1024];
            // Nothing comes any more as soon as it does not come at once.
            while let Ok(read) = tokio::time::timeout(std::time::Duration::ZERO, metered.read(&mut buffer)).await {
                *bytes += read.unwrap();
            }
        };
        let mut bytes = 0;
        read_all(&mut bytes).await;
        assert_eq!(bytes, WAITING_BYTES_MAX);
        meter.heard(100_000);
        read_all(&mut bytes).await;
        assert_eq!(bytes, WAITING_BYTES_MAX + 2 * 64 * 1024, "to the end of what fits into the buffer");
        meter.is_drained(Waker::noop());
        read_all(&mut bytes).await;
        assert_eq!(bytes, 2 * WAITING_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_reply_that_does_not_end_is_not_read_to_the_end() {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let endless = async {
            let bytes = vec![0; 64 * 1024];
            while far.write_all(&bytes).await.is_ok() {}
        };
        let (mut metered, meter) = Meter::on(Box::new(near), LIMITS);
        let reading = async {
            let (mut buffer, mut bytes) = (vec![0; 64 * 1024], 0);
            loop {
                match metered.read(&mut buffer).await {
                    Ok(read) => bytes += read,
                    Err(error) => break (bytes, error.kind()),
                }
                meter.is_drained(Waker::noop());
            }
        };
        let (bytes, error) =
            tokio::select! { biased; read = reading => read, () = endless => panic!("it does not end") };
        assert_eq!(error, io::ErrorKind::InvalidData);
        assert!((REPLY_BYTES_MAX..REPLY_BYTES_MAX + 100_000).contains(&bytes), "{bytes} bytes");
    }
}
