//! The network of one simulated process.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use crate::time::Time;

use super::listener::Listener;
use super::stream::Stream;
use super::wire::host::Process;
use super::wire::segment::{Flow, HostIndex};
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
            std::future::poll_fn(|cx| wire(|wire| process.enter(wire, cx))).await?;
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
    let connect = Connect { process, id: attempt.id, host, port: to.port, local: None };
    // No host ever gives up on a SYN.
    match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// A handshake.
struct Connect {
    process: Process,
    id: u64,
    host: HostIndex,
    port: u16,
    /// The connecting socket, once it has dialled and until it is connected.
    local: Option<Flow>,
}

impl Future for Connect {
    type Output = io::Result<Stream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let connected = wire(|wire| {
            ready!(this.process.enter(wire, cx))?;
            let dial = || wire.dial(this.id, this.process.host, this.host, this.port);
            let local = *this.local.get_or_insert_with(dial);
            wire.poll_connected(local, cx)
        });
        ready!(connected)?;
        let local = this.local.take().expect("it is connected");
        Poll::Ready(Ok(Stream::new(this.process, local).0))
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        if let Some(local) = self.local {
            try_wire(|wire| wire.close(local, Time::now()));
        }
    }
}
