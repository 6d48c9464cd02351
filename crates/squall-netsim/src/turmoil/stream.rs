//! A connected socket of a simulated process.
//!
//! turmoil resets no connection for its caller. One that is cut fails here, at both ends: what turmoil still has of it is
//! dropped by the next operation of each, which runs in the right process, and packets that it still sends reach no process.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::turmoil::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::state::connection::Waiting;
use super::state::host::{HostIndex, Process};
use super::state::{state, tap, try_state};
use super::{End, Side};

/// One end of a connection.
pub(super) struct Stream {
    process: Process,
    peer: HostIndex,
    end: End,
    /// True if the application knows that the connection is over.
    has_ended: bool,
    /// True if the application has shut down its writing half. turmoil fails on a second shutdown.
    is_shut_down: bool,
    /// Gone once the connection is cut.
    inner: Option<TcpStream>,
}

impl Stream {
    /// The end of connection `id` that `process` has, with `peer` at the other end and `port` the server's.
    pub(super) fn new(process: Process, inner: TcpStream, peer: HostIndex, id: u64, side: Side, port: u16) -> Self {
        let end = state(|state| {
            state.hold(id, side, process, port);
            state.end(process, peer, id, side, port)
        });
        Stream { process, peer, end, has_ended: false, is_shut_down: false, inner: Some(inner) }
    }

    /// This end, as the tap calls it.
    pub(super) fn end(&self) -> &End {
        &self.end
    }

    /// Records that the application knows that the connection is over.
    fn ends(&mut self) {
        if !std::mem::replace(&mut self.has_ended, true) {
            state(|state| state.is_over(self.end.connection, self.end.side));
            tap().ended(&self.end);
        }
    }

    /// Runs an operation on turmoil's socket, unless the connection is cut.
    fn operate<T>(
        &mut self,
        waiting: Waiting,
        cx: &mut Context<'_>,
        operation: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if state(|state| state.is_cut(self.end.connection)) {
            self.inner = None;
        }
        let Some(inner) = &mut self.inner else {
            self.ends();
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let polled = operation(Pin::new(inner), cx);
        match &polled {
            Poll::Pending => state(|state| state.waits(self.end.connection, self.end.side, waiting, cx)),
            Poll::Ready(Err(_)) => self.ends(),
            Poll::Ready(Ok(_)) => {}
        }
        polled
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, has_room) = (buf.filled().len(), buf.remaining() > 0);
        ready!(self.operate(Waiting::ToRead, cx, |inner, cx| inner.poll_read(cx, buf)))?;
        let bytes = &buf.filled()[before..];
        if !bytes.is_empty() {
            tap().read(&self.end, bytes);
        } else if has_room {
            self.ends();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let n = ready!(self.operate(Waiting::ToWrite, cx, |inner, cx| inner.poll_write(cx, bytes)))?;
        if n > 0 {
            state(|state| state.sends(self.process.host, self.peer));
            tap().written(&self.end, &bytes[..n]);
        }
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // turmoil takes what is written at once
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut_down {
            ready!(self.operate(Waiting::ToWrite, cx, |inner, cx| inner.poll_shutdown(cx)))?;
            self.is_shut_down = true;
            state(|state| state.is_over(self.end.connection, self.end.side));
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let tap = try_state(|state| {
            state.let_go(self.end.connection, self.end.side);
            state.is_alive(self.process).then(|| state.tap.clone())
        });
        if let Some(Some(tap)) = tap {
            tap.closed(&self.end);
        }
    }
}
