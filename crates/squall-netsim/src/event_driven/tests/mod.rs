//! The engine's behaviour. Most tests hold both ends of a connection in their own hands, which works because a stream
//! pins its process, from any poll.

mod determinism;
mod faults;
mod network_faults;
mod parity;
mod sockets;
mod waiting_acks;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::*;
use squall_env::{Address, BoxStream, Network, SeedTree};

const PORT: u16 = 9000;
const SECOND: Duration = Duration::from_secs(1);

/// A call of a socket.
#[derive(Debug, Clone, Copy)]
enum Call {
    Write(usize),
    Read(usize),
    ShutDown,
    Close,
}

fn options(seed: u64, hosts: &[&str]) -> Options {
    Options {
        seeds: SeedTree::from_seed(seed),
        hosts: hosts.iter().map(|host| Arc::from(*host)).collect(),
        latency: LatencyRange { min_us: 1_000, max_us: 5_000 },
        tap: Rc::new(()),
    }
}

/// Runs a world of a client, a server and a bystander.
fn storm<T, F: Future<Output = T>>(main: impl FnOnce(Engine) -> F) -> T {
    simulate(options(7, &["client", "server", "bystander"]), main)
}

/// Starts an idle process and takes its network.
fn boot(engine: Engine, host: &str) -> HostNetwork {
    let mut network = None;
    engine.start(host, |own| {
        network = Some(own);
        async {}
    });
    network.expect("the main function was called")
}

/// Starts a client and a server; returns both ends of a connection between them.
async fn pair(engine: Engine) -> (BoxStream, BoxStream) {
    let (client, server) = (boot(engine, "client"), boot(engine, "server"));
    let mut listener = server.listen(PORT).await.unwrap();
    let address = Address::new("server", PORT);
    let (client, server) = tokio::join!(client.connect(&address), listener.accept());
    (client.unwrap(), server.unwrap())
}

/// Starts a process that sends back all that it receives.
fn echo(engine: Engine, host: &str) {
    engine.start(host, |network| async move {
        let mut listener = network.listen(PORT).await.unwrap();
        while let Ok(stream) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
}

async fn dial(network: &HostNetwork, host: &str) -> io::Result<BoxStream> {
    network.connect(&Address::new(host, PORT)).await
}

/// One byte there and back.
async fn ping(stream: &mut BoxStream) -> io::Result<()> {
    stream.write_all(b"?").await?;
    stream.read_u8().await?;
    Ok(())
}

fn kind<T>(result: io::Result<T>) -> Result<T, io::ErrorKind> {
    result.map_err(|error| error.kind())
}

async fn read_error(stream: &mut BoxStream) -> io::ErrorKind {
    let read = timeout(600 * SECOND, stream.read_u8()).await.expect("a read that ends");
    read.expect_err("a read that fails").kind()
}

/// Writes until it fails or blocks for `patience`; returns how much was taken, and the error.
async fn write_on(stream: &mut BoxStream, patience: Duration) -> (usize, Option<io::ErrorKind>) {
    let mut written = 0;
    loop {
        match timeout(patience, stream.write(&[0; 1000])).await {
            Ok(Ok(n)) => written += n,
            Ok(Err(error)) => return (written, Some(error.kind())),
            Err(_) => return (written, None),
        }
    }
}

/// Sockets left on a host that have a peer.
fn sockets(_: Engine, host: &str) -> usize {
    let host = super::index(host);
    wire(|wire| wire.pairs.of_host(host).into_iter().filter(|local| wire.socket(*local).is_some()).count())
}

/// Connections of which anything is left, on any host.
fn remains() -> usize {
    wire(|wire| wire.pairs.iter().count())
}
