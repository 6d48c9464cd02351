//! A connected socket of a simulated process.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::wire::host::Process;
use super::wire::segment::Flow;
use super::wire::{WINDOW_STEP, Wire, try_wire, wire};
use super::{End, SlowReader, Tap};
use crate::time::Time;

/// One end of a connection. It may be polled and dropped by any task of the thread, a library's own included.
pub(super) struct Stream {
    process: Process,
    local: Flow,
    end: End,
    /// Bytes read since the wire was last notified.
    freed: usize,
    /// The pause of a slow reader after a read.
    pause: Option<Pin<Box<Sleep>>>,
    /// True if the application knows that the connection is over.
    has_ended: bool,
}

impl Stream {
    /// The stream of a connected socket, and the run's tap, to be called while the wire is free.
    pub(super) fn new(process: Process, local: Flow) -> (Self, Rc<dyn Tap>) {
        let (end, tap) = wire(|wire| (wire.hold(process, local), wire.tap.clone()));
        (Stream { process, local, end, freed: 0, pause: None, has_ended: false }, tap)
    }

    /// This end, as the tap calls it.
    pub(super) fn end(&self) -> &End {
        &self.end
    }

    /// Makes one call of the socket, if the process may. Returns the tap too, to be called while the wire is free.
    fn call<T>(
        &mut self,
        cx: &Context<'_>,
        call: impl FnOnce(&mut Wire, Flow) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<(T, Rc<dyn Tap>)>> {
        let admitted: Poll<io::Result<_>> = wire(|wire| {
            ready!(self.process.enter(wire, cx))?;
            let result = ready!(call(wire, self.local));
            Poll::Ready(Ok(result.map(|value| (value, wire.tap.clone()))))
        });
        Poll::Ready(ready!(admitted)?.inspect_err(|_| self.ends()))
    }

    /// Records that the application knows that the connection is over.
    fn ends(&mut self) {
        if !std::mem::replace(&mut self.has_ended, true) {
            wire(|wire| wire.tap.clone()).ended(&self.end);
        }
    }

    fn has_read(&mut self, bytes: usize, slow: Option<SlowReader>) {
        self.pause = slow.map(|slow| Box::pin(tokio::time::sleep(slow.pause)));
        if slow.is_some_and(|slow| bytes >= slow.bytes) {
            wire(|wire| wire.host(self.process.host).slowed += 1);
        }
        self.freed += bytes;
        if self.freed >= WINDOW_STEP {
            self.freed = 0;
            wire(|wire| wire.freed(self.local));
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(pause) = &mut this.pause {
            ready!(wire(|wire| this.process.enter(wire, cx)))?;
            ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        let (before, had_room) = (buf.filled().len(), buf.remaining() > 0);
        let host = this.process.host;
        let (slow, tap) = ready!(this.call(cx, |wire, local| {
            let slow = wire.host(host).slow_reader;
            let limit = slow.map_or(usize::MAX, |slow| slow.bytes.max(1));
            wire.poll_read(local, cx, buf, limit).map_ok(|()| slow)
        }))?;
        let read = &buf.filled()[before..];
        if !read.is_empty() {
            tap.read(&this.end, read);
            this.has_read(read.len(), slow);
        } else if had_room {
            this.ends();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let (n, tap) = ready!(this.call(cx, |wire, local| wire.poll_write(local, cx, bytes)))?;
        tap.written(&this.end, &bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // the socket takes what is written at once
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.call(cx, |wire, local| Poll::Ready(wire.shut_down(local))).map_ok(|_| ())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let tap = try_wire(|wire| {
            wire.close(self.local, Time::now());
            self.process.is_alive(wire).then(|| wire.tap.clone())
        });
        if let Some(tap) = tap.flatten() {
            tap.closed(&self.end);
        }
    }
}
