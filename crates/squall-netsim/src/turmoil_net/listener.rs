//! A listening socket of a simulated process.

use std::future::poll_fn;
use std::io;
use std::task::ready;

use turmoil_net::shim::tokio::net as shim;

use super::stream::{Stream, tap};
use super::wire::host::Process;
use super::wire::try_wire;
use squall_env::{self as env, BoxStream, LocalBoxFuture};

/// Accepts connections on one port of one host.
pub(super) struct Listener {
    process: Process,
    inner: shim::TcpListener,
}

impl Listener {
    /// Opens `port`; fails with `AddrInUse` where it is taken.
    pub(super) async fn bind(process: Process, port: u16) -> io::Result<Self> {
        poll_fn(|cx| process.enter(cx)).await?;
        let inner = shim::TcpListener::bind(("0.0.0.0", port)).await?; // ready at once, still in this kernel
        Ok(Listener { process, inner })
    }
}

impl env::Listener for Listener {
    fn accept(&mut self) -> LocalBoxFuture<'_, io::Result<BoxStream>> {
        Box::pin(async {
            let accepted = poll_fn(|cx| {
                ready!(self.process.enter(cx))?;
                self.inner.poll_accept(cx)
            });
            let (socket, _) = accepted.await?;
            let stream = Stream::accepted(self.process, socket)?;
            tap().accepted(stream.end());
            Ok(Box::new(stream) as BoxStream)
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if try_wire(|wire| wire.poke()).is_some() {
            self.process.pin(); // `inner` is closed after this
        }
    }
}
