//! A stream whose input is altered on its way to the reader. What is written passes as it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use squall_env::BoxStream;

/// Alters the input of one stream.
pub(crate) trait Alter: Send + Unpin {
    /// Reads from `stream` and alters what was read, as [`AsyncRead::poll_read`].
    fn poll_read(
        &mut self,
        stream: Pin<&mut BoxStream>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>;
}

/// A stream whose input is altered.
pub(crate) struct Altered<A> {
    /// The stream as it is.
    pub stream: BoxStream,
    /// The alteration of its input.
    pub alter: A,
}

impl<A: Alter> AsyncRead for Altered<A> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Altered { stream, alter } = &mut *self;
        alter.poll_read(Pin::new(stream), cx, buf)
    }
}

impl<A: Alter> AsyncWrite for Altered<A> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
