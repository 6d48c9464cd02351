//! A connected socket of a simulated process.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use turmoil_net::shim::tokio::net as shim;

use super::wire::ending::Ending;
use super::wire::host::Process;
use super::wire::segment::{Endpoint, Flow};
use super::wire::{WINDOW_STEP, try_wire, wire};
use super::{End, Side, SlowReader, Tap};

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
    inner: shim::TcpStream,
}

impl Stream {
    /// The dialling end of connection `id`.
    pub(super) fn dialled(process: Process, inner: shim::TcpStream, id: u64) -> io::Result<Self> {
        let local = name(process, &inner)?;
        Ok(Self::new(process, inner, local, id, Side::Client))
    }

    /// The accepting end of a connection, whose number its dialling end has left on the wire.
    pub(super) fn accepted(process: Process, inner: shim::TcpStream) -> io::Result<Self> {
        let local = name(process, &inner)?;
        let id = wire(|wire| wire.dialled.remove(&local.reversed())).expect("what is accepted was dialled");
        Ok(Self::new(process, inner, local, id, Side::Server))
    }

    fn new(process: Process, inner: shim::TcpStream, local: Flow, id: u64, side: Side) -> Self {
        let end = wire(|wire| {
            wire.held.insert(local, (id, side));
            wire.end(process, local, id, side)
        });
        Stream { process, local, end, freed: 0, pause: None, has_ended: false, inner }
    }

    /// This end, as the tap calls it.
    pub(super) fn end(&self) -> &End {
        &self.end
    }

    /// Records that the application knows that the connection is over.
    fn ends(&mut self) {
        if !std::mem::replace(&mut self.has_ended, true) {
            tap().ended(&self.end);
        }
    }

    /// The kernel knows of resets only; the wire knows why it forged one.
    fn explain(&mut self, error: io::Error) -> io::Error {
        self.ends();
        match wire(|wire| wire.ended.get(&self.local).copied()) {
            Some(Ending::Aborted(reason)) if error.kind() == io::ErrorKind::ConnectionReset => reason.into(),
            _ => error,
        }
    }

    fn slow_reader(&self) -> Option<SlowReader> {
        wire(|wire| wire.host(self.process.host).slow_reader)
    }

    fn has_read(&mut self, bytes: &[u8], slow: Option<SlowReader>) {
        if bytes.is_empty() {
            return;
        }
        tap().read(&self.end, bytes);
        self.pause = slow.map(|slow| Box::pin(tokio::time::sleep(slow.pause)));
        if slow.is_some_and(|slow| bytes.len() >= slow.bytes) {
            wire(|wire| wire.host(self.process.host).slowed += 1);
        }
        self.freed += bytes.len();
        if self.freed >= WINDOW_STEP {
            self.freed = 0;
            wire(|wire| {
                wire.freed.insert(self.local);
                wire.poke();
            });
        }
    }
}

fn name(process: Process, socket: &shim::TcpStream) -> io::Result<Flow> {
    process.pin();
    Ok(Flow { from: Endpoint::of(socket.local_addr()?), to: Endpoint::of(socket.peer_addr()?) })
}

/// The run's tap, to be called while the wire is free.
pub(super) fn tap() -> Rc<dyn Tap> {
    wire(|wire| wire.tap.clone())
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.process.enter(cx))?;
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        let slow = this.slow_reader();
        let before = buf.filled().len();
        let had_room = buf.remaining() > 0;
        let result = match slow {
            None => ready!(Pin::new(&mut this.inner).poll_read(cx, buf)),
            Some(slow) => {
                let limit = buf.remaining().min(slow.bytes.max(1));
                let mut part = ReadBuf::new(buf.initialize_unfilled_to(limit));
                let result = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part));
                let read = part.filled().len();
                buf.advance(read);
                result
            }
        };
        result.map_err(|error| this.explain(error))?;
        let read = &buf.filled()[before..];
        this.has_read(read, slow);
        if read.is_empty() && had_room {
            this.ends();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.process.enter(cx))?;
        let n = ready!(Pin::new(&mut this.inner).poll_write(cx, bytes)).map_err(|error| this.explain(error))?;
        wire(|wire| wire.poke());
        tap().written(&this.end, &bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // the kernel takes what is written at once
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.process.enter(cx))?;
        ready!(Pin::new(&mut this.inner).poll_shutdown(cx)).map_err(|error| this.explain(error))?;
        wire(|wire| wire.poke());
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let tap = try_wire(|wire| {
            wire.closed(self.local, Instant::now());
            self.process.is_alive(wire).then(|| wire.tap.clone())
        });
        let Some(tap) = tap else { return };
        if let Some(tap) = tap {
            tap.closed(&self.end);
        }
        self.process.pin(); // `inner` is closed after this
    }
}
