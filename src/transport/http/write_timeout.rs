//! A time-out for writes to a peer that does not read.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use squall_env::BoxStream;

/// A stream whose writes fail with [`io::ErrorKind::TimedOut`] if the peer reads nothing for a while.
///
/// hyper has time-outs for reads only. Without this one, a client that sends requests and reads no response would hold its
/// connection for ever.
pub(super) struct WriteTimeout {
    stream: BoxStream,
    timeout: Duration,
    /// The timer, which runs while a write is blocked.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl WriteTimeout {
    /// Limits the time of blocked writes to `timeout`.
    pub(super) fn new(stream: BoxStream, timeout: Duration) -> Self {
        WriteTimeout { stream, timeout, waiting: None }
    }

    /// Polls a write, or fails if writes have been blocked for too long.
    fn in_time<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut BoxStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let done = write(Pin::new(&mut self.stream), cx);
        if done.is_ready() {
            self.waiting = None;
            return done;
        }
        let timeout = self.timeout;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for WriteTimeout {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl AsyncWrite for WriteTimeout {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.in_time(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.in_time(cx, |stream, cx| stream.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn on_paused_clock<F: Future>(test: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
    }

    #[test]
    fn a_flush_and_a_shutdown_reach_the_stream() {
        on_paused_clock(async {
            let (near, mut far) = tokio::io::duplex(64);
            let mut stream = WriteTimeout::new(Box::new(BufWriter::new(near)), TIMEOUT);
            stream.write_all(b"held").await.unwrap();
            assert!(tokio::time::timeout(TIMEOUT, far.read_u8()).await.is_err(), "it is not flushed");
            stream.flush().await.unwrap();
            let mut received = [0; 4];
            far.read_exact(&mut received).await.unwrap();
            assert_eq!(&received, b"held");
            stream.shutdown().await.unwrap();
            assert_eq!(far.read(&mut received).await.unwrap(), 0);
        });
    }

    #[test]
    fn a_flush_fails_if_the_peer_reads_nothing() {
        on_paused_clock(async {
            let (near, _far) = tokio::io::duplex(2);
            let mut stream = WriteTimeout::new(Box::new(BufWriter::new(near)), TIMEOUT);
            stream.write_all(b"held").await.unwrap();
            let began = tokio::time::Instant::now();
            assert_eq!(stream.flush().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!(began.elapsed(), TIMEOUT);
        });
    }
}
