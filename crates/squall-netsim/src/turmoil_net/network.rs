//! The network of one simulated process.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;
use turmoil_net::shim::tokio::net as shim;
use turmoil_net::{NetstatState, netstat};

use super::listener::Listener;
use super::stream::Stream;
use super::wire::host::Process;
use super::wire::segment::{Endpoint, Flow};
use super::wire::{try_wire, wire};
use super::{Attempt, Tap};
use crate::tap::Dialling;
use squall_env::network::CONNECT_TIMEOUT;
use squall_env::{self as env, Address, BoxStream, LocalBoxFuture, Network};

/// The [`Network`] of one boot of one host. Names are those in [`Options::hosts`](crate::Options::hosts), any other
/// fails with `NotFound`. Once the boot is over, every operation fails with `ConnectionAborted`.
#[derive(Clone, Debug)]
pub struct HostNetwork {
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
            std::future::poll_fn(|cx| process.enter(cx)).await?;
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
    wire(|wire| {
        wire.attempts += 1;
        Attempt { id: wire.attempts, host: process.name(wire), boot: process.boot, to }
    })
}

/// The tap, if `process` has not ended.
fn tap_of(process: Process) -> Option<Rc<dyn Tap>> {
    try_wire(|wire| process.is_alive(wire).then(|| Rc::clone(&wire.tap))).flatten()
}

async fn connect(process: Process, attempt: &Attempt) -> io::Result<Stream> {
    let to = &attempt.to;
    let host = wire(|wire| wire.names.get(&to.host).copied()).ok_or(io::ErrorKind::NotFound)?;
    let to = SocketAddr::new(host.ip(), to.port);
    let connect = Connect {
        process,
        id: attempt.id,
        to,
        local: None,
        connected: false,
        inner: Box::pin(shim::TcpStream::connect(to)),
    };
    // The kernel never gives up on a SYN, and an RST to stop it would read as a refusal.
    match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// A handshake, pinned to its host.
struct Connect {
    process: Process,
    id: u64,
    to: SocketAddr,
    /// The connecting socket, once it has dialled.
    local: Option<Flow>,
    connected: bool,
    inner: Pin<Box<dyn Future<Output = io::Result<shim::TcpStream>>>>,
}

impl Future for Connect {
    type Output = io::Result<Stream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        ready!(this.process.enter(cx))?;
        let result = this.inner.as_mut().poll(cx);
        wire(|wire| wire.poke());
        if result.is_pending() && this.local.is_none() {
            this.local = newest_dialling(this.process, this.to);
            if let Some(local) = this.local {
                wire(|wire| wire.dialled.insert(local, this.id));
            }
        }
        let socket = ready!(result).inspect_err(|_| this.refused())?;
        this.connected = true;
        Poll::Ready(Stream::dialled(this.process, socket, this.id))
    }
}

impl Connect {
    fn refused(&self) {
        if let Some(local) = self.local {
            wire(|wire| wire.dialled.remove(&local)); // no process will ever accept it
        }
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        let live = try_wire(|wire| match self.local.filter(|_| !self.connected) {
            Some(local) => wire.reap_later(local, Instant::now()),
            None => wire.poke(),
        });
        if live.is_some() {
            self.process.pin(); // `inner` may close a socket after this
        }
    }
}

/// The socket on which the process has just dialled `to`: the last in its kernel's table. The
/// kernel shows its port nowhere else before the server can accept.
fn newest_dialling(process: Process, to: SocketAddr) -> Option<Flow> {
    let dialling = |state| matches!(state, Some(NetstatState::SynSent));
    let sockets = netstat(process.host.ip()).entries;
    let socket = sockets.into_iter().rev().find(|socket| socket.peer == Some(to) && dialling(socket.state))?;
    Some(Flow { from: Endpoint::of(socket.local), to: Endpoint::of(to) })
}
