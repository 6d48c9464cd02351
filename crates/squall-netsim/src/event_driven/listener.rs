//! A listening socket of a simulated process.

use std::future::poll_fn;
use std::io;
use std::task::ready;

use crate::time::Time;

use super::stream::Stream;
use super::wire::host::Process;
use super::wire::{try_wire, wire};
use squall_env::{self as env, BoxStream, LocalBoxFuture};

/// Accepts connections on one port of one host.
pub(super) struct Listener {
    process: Process,
    port: u16,
}

impl Listener {
    /// Opens `port`; fails with `AddrInUse` where it is taken.
    pub(super) async fn bind(process: Process, port: u16) -> io::Result<Self> {
        let bound = poll_fn(|cx| wire(|wire| process.enter(wire, cx).map_ok(|()| wire.listen(process.host, port))));
        bound.await??;
        Ok(Listener { process, port })
    }
}

impl env::Listener for Listener {
    fn accept(&mut self) -> LocalBoxFuture<'_, io::Result<BoxStream>> {
        Box::pin(async {
            let accepted = poll_fn(|cx| {
                wire(|wire| {
                    ready!(self.process.enter(wire, cx))?;
                    wire.poll_accept(self.process.host, self.port, cx)
                })
            });
            let local = accepted.await?;
            let (stream, tap) = Stream::new(self.process, local);
            tap.accepted(stream.end());
            Ok(Box::new(stream) as BoxStream)
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        try_wire(|wire| wire.close_port(self.process.host, self.port, Time::now()));
    }
}
