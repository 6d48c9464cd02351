//! The network of one simulated process.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::rc::Rc;

use ::turmoil::net::TcpStream;

use super::listener::Listener;
use super::state::host::{HostIndex, Process};
use super::state::{state, try_state};
use super::stream::Stream;
use super::{Attempt, Side, Tap};
use crate::tap::Dialling;
use squall_env::network::CONNECT_TIMEOUT;
use squall_env::{self as env, Address, BoxStream, LocalBoxFuture, Network};

/// The ports that dialling takes, one after the other, each once in a run: turmoil never gives back one whose attempt failed.
pub(super) const EPHEMERAL_PORTS: RangeInclusive<u16> = 10_000..=u16::MAX;

/// The [`Network`] of one boot of one host. Names are those in [`Options::hosts`](crate::Options::hosts), any
/// other fails with `NotFound`. Works inside the process only.
#[derive(Clone, Debug)]
pub(super) struct HostNetwork {
    process: Process,
}

impl HostNetwork {
    pub(super) fn new(process: Process) -> Self {
        HostNetwork { process }
    }
}

impl Network for HostNetwork {
    fn connect(&self, to: &Address) -> LocalBoxFuture<'static, io::Result<BoxStream>> {
        let (process, to) = (self.process, to.clone());
        Box::pin(async move {
            let attempt = attempt(process, to);
            let dialling = Dialling::begin(attempt.clone(), move || tap_of(process));
            let result = connect(process, &attempt).await;
            dialling.ended(result.as_ref().map(drop).map_err(io::Error::kind));
            Ok(Box::new(result?) as BoxStream)
        })
    }

    fn listen(&self, port: u16) -> LocalBoxFuture<'static, io::Result<Box<dyn env::Listener>>> {
        let process = self.process;
        Box::pin(async move { Ok(Box::new(Listener::bind(process, port).await?) as Box<dyn env::Listener>) })
    }
}

/// A new attempt of `process`.
fn attempt(process: Process, to: Address) -> Attempt {
    state(|state| {
        state.attempts += 1;
        let host = state.hosts[process.host.0].name.clone();
        Attempt { id: state.attempts, host, boot: process.boot, to }
    })
}

/// The tap, if `process` has not ended.
fn tap_of(process: Process) -> Option<Rc<dyn Tap>> {
    try_state(|state| state.is_alive(process).then(|| Rc::clone(&state.tap))).flatten()
}

async fn connect(process: Process, attempt: &Attempt) -> io::Result<Stream> {
    let Address { host, port } = &attempt.to;
    let server = state(|state| state.names.get(host).copied()).ok_or(io::ErrorKind::NotFound)?;
    let dialled = Dialled::new(process, server, attempt.id);
    let to = SocketAddr::new(state(|state| state.hosts[server.0].address), *port);
    // turmoil itself never gives up on a host that is down or held.
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(to)).await;
    let inner = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    assert_eq!(inner.local_addr()?, dialled.from, "turmoil gives one port after the other");
    Ok(Stream::new(process, inner, server, attempt.id, Side::Client, *port))
}

/// The address that an attempt is about to be made from, by which the server that accepts it knows its number. turmoil
/// shows the address only after the attempt.
struct Dialled {
    from: SocketAddr,
}

impl Dialled {
    fn new(process: Process, server: HostIndex, id: u64) -> Self {
        let from = state(|state| {
            state.sends(process.host, server);
            let host = &mut state.hosts[process.host.0];
            let port = EPHEMERAL_PORTS.start().checked_add(host.dials).expect("no host dials so often in one run");
            host.dials += 1;
            let from = SocketAddr::new(host.address, port);
            state.dialled.insert(from, id);
            from
        });
        Dialled { from }
    }
}

impl Drop for Dialled {
    fn drop(&mut self) {
        try_state(|state| state.dialled.remove(&self.from)); // no process accepts it any more
    }
}
