//! A listening socket of a simulated process.

use std::io;

use ::turmoil::net::TcpListener;

use super::Side;
use super::state::host::{HostIndex, Process};
use super::state::{state, tap};
use super::stream::Stream;
use squall_env::{self as env, BoxStream, LocalBoxFuture};

/// Accepts connections on one port of one host.
pub(super) struct Listener {
    process: Process,
    port: u16,
    inner: TcpListener,
}

impl Listener {
    /// Opens `port`; fails with `AddrInUse` where it is taken.
    pub(super) async fn bind(process: Process, port: u16) -> io::Result<Self> {
        let inner = TcpListener::bind(("0.0.0.0", port)).await?;
        Ok(Listener { process, port, inner })
    }
}

impl env::Listener for Listener {
    fn accept(&mut self) -> LocalBoxFuture<'_, io::Result<BoxStream>> {
        Box::pin(async {
            let (inner, from) = self.inner.accept().await?;
            let (id, client) = state(|state| {
                let id = state.dialled.remove(&from).expect("what is accepted was dialled");
                let client = state.hosts.iter().position(|host| host.address == from.ip());
                (id, HostIndex(client.expect("hosts alone dial")))
            });
            let stream = Stream::new(self.process, inner, client, id, Side::Server, self.port);
            tap().accepted(stream.end());
            Ok(Box::new(stream) as BoxStream)
        })
    }
}
