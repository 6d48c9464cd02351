//! How much that was read waits to be heard.
//!
//! The `redis` crate reads whatever comes and puts it into a channel without a bound. Here its connection reads no more
//! while [`WAITING_BYTES_MAX`] wait, so that what cannot be judged in time waits in the kernel and then in the broker,
//! which drops whoever has too much waiting there. A payload of which [`PAYLOAD_BYTES_READ_MAX`] have come and that goes on
//! ends the connection: it would have to be held as a whole to be passed over.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::env::{Address, BoxStream, Listener, LocalBoxFuture, Network};

/// How many bytes may wait.
pub const WAITING_BYTES_MAX: usize = 8 << 20;

/// How many bytes of one payload are read.
pub const PAYLOAD_BYTES_READ_MAX: usize = 16 << 20;

/// What was read and what was heard, on all connections of one [`MeteredNetwork`].
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    /// Since something was heard last.
    unfinished: usize,
    reader: Option<Waker>,
}

impl Meter {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something of so many bytes was heard.
    pub fn heard(&self, bytes: usize) {
        let mut state = self.state();
        state.waiting = state.waiting.saturating_sub(bytes);
        state.unfinished = 0;
        state.wake();
    }

    /// Nothing waits.
    pub fn is_drained(&self) {
        let mut state = self.state();
        state.waiting = 0;
        state.wake();
    }

    /// Why nothing more is read, if a payload has become too long.
    pub fn is_overlong(&self) -> Option<io::Error> {
        self.state().is_overlong()
    }

    /// There is a new connection.
    pub fn begin(&self) {
        *self.state() = State::default();
    }
}

impl State {
    fn is_overlong(&self) -> Option<io::Error> {
        let why = || format!("a payload of more than {PAYLOAD_BYTES_READ_MAX} bytes");
        (self.unfinished > PAYLOAD_BYTES_READ_MAX).then(|| io::Error::new(io::ErrorKind::InvalidData, why()))
    }

    fn wake(&mut self) {
        if self.waiting < WAITING_BYTES_MAX
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }
}

/// A network whose connections are read no faster than what comes on them is heard.
pub struct MeteredNetwork {
    /// The network itself.
    pub network: Rc<dyn Network>,
    /// What was read and what was heard.
    pub meter: Meter,
}

impl Network for MeteredNetwork {
    fn connect(&self, to: &Address) -> LocalBoxFuture<'static, io::Result<BoxStream>> {
        let (connecting, meter) = (self.network.connect(to), self.meter.clone());
        Box::pin(async move { Ok(Box::new(Metered { stream: connecting.await?, meter }) as BoxStream) })
    }

    fn listen(&self, port: u16) -> LocalBoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.network.listen(port)
    }
}

struct Metered {
    stream: BoxStream,
    meter: Meter,
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        {
            let mut state = self.meter.state();
            if let Some(error) = state.is_overlong() {
                return Poll::Ready(Err(error));
            }
            if state.waiting >= WAITING_BYTES_MAX {
                state.reader = Some(cx.waker().clone());
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

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn no_more_is_read_than_may_wait() {
        let (near, mut far) = tokio::io::duplex(2 * WAITING_BYTES_MAX);
        far.write_all(&vec![0; 2 * WAITING_BYTES_MAX]).await.unwrap();
        let meter = Meter::default();
        let mut metered = Metered { stream: Box::new(near), meter: meter.clone() };
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
        meter.is_drained();
        read_all(&mut bytes).await;
        assert_eq!(bytes, 2 * WAITING_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_payload_that_does_not_end_is_not_read_to_the_end() {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let endless = async {
            let bytes = vec![0; 64 * 1024];
            while far.write_all(&bytes).await.is_ok() {}
        };
        let meter = Meter::default();
        let mut metered = Metered { stream: Box::new(near), meter: meter.clone() };
        let reading = async {
            let (mut buffer, mut bytes) = (vec![0; 64 * 1024], 0);
            loop {
                match metered.read(&mut buffer).await {
                    Ok(read) => bytes += read,
                    Err(error) => break (bytes, error.kind()),
                }
                meter.is_drained();
            }
        };
        let (bytes, error) =
            tokio::select! { biased; read = reading => read, () = endless => panic!("it does not end") };
        assert_eq!(error, io::ErrorKind::InvalidData);
        assert!((PAYLOAD_BYTES_READ_MAX..PAYLOAD_BYTES_READ_MAX + 100_000).contains(&bytes), "{bytes} bytes");
    }
}
