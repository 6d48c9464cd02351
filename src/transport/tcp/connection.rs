//! One TCP connection, from greeting to end. Both ends behave alike but for the direction of commands.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::Instant;

use crate::env::observer::Trouble;
use crate::env::{BoxStream, Env};
use crate::protocol::{Command, Direction, LineDecoder, LineError, ParseError};
use crate::replication::{CommandHandler, Link, Side};

/// With nothing else to say for this long, an end says `PING`.
pub const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A server that says nothing for this long is gone, and a client that has pinged once and then says nothing.
pub const PING_TIMEOUT: Duration = Duration::from_secs(25);
/// How long a closing connection may take to send what is left.
pub const CLOSE_GRACE: Duration = Duration::from_secs(25);

/// How much is read from the socket at once.
const READ_BYTES: usize = 16 * 1024;

/// Why a connection ended.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other end closed it.
    #[error("closed by the other end")]
    Closed,
    /// What came was not a line.
    #[error("{0}")]
    Line(#[from] LineError),
    /// What came was not a command.
    #[error("{0}")]
    Parse(#[from] ParseError),
    /// The command may not come from that end.
    #[error("the other end may not send {0}")]
    Direction(&'static str),
    /// The other end was silent for [`PING_TIMEOUT`].
    #[error("ping timeout")]
    PingTimeout,
    /// We closed it, and said why.
    #[error("closed by this end")]
    ClosedHere,
}

/// Carries the commands of `link` over `stream` until either end is done.
pub async fn run(link: Rc<Link>, stream: BoxStream, handler: &Rc<CommandHandler>, env: &Env) -> ConnectionError {
    let (read_half, write_half) = tokio::io::split(stream);
    let health = Health { pings: Cell::new(link.side() == Side::Client), heard: Cell::new(Instant::now()) };
    let error = tokio::select! {
        biased;
        error = receive(&link, read_half, handler, &health, env) => error,
        error = send(&link, write_half, env) => error,
        error = watch(&link, &health, env) => error,
    };
    link.closed();
    handler.lost(&link);
    error
}

/// What is known of the other end's being alive.
struct Health {
    /// Whether it is known to ping. A client that never does (a person with netcat) is not timed out. Servers all do: one
    /// that was lost before its first word would be waited for for ever.
    pings: Cell<bool>,
    /// When the last valid command came.
    heard: Cell<Instant>,
}

/// Hands what comes to the handler.
async fn receive(
    link: &Rc<Link>,
    mut stream: ReadHalf<BoxStream>,
    handler: &Rc<CommandHandler>,
    health: &Health,
    env: &Env,
) -> ConnectionError {
    let incoming = match link.side() {
        Side::Client => Direction::ServerToClient,
        Side::Server => Direction::ClientToServer,
        Side::Subscriber | Side::Publisher => unreachable!("connections to a broker are made elsewhere"),
    };
    let mut lines = LineDecoder::default();
    let mut bytes = BytesMut::with_capacity(READ_BYTES);
    let error = loop {
        bytes.clear();
        match stream.read_buf(&mut bytes).await {
            Ok(0) => return ConnectionError::Closed,
            Ok(_) => lines.extend(&bytes),
            Err(error) => return error.into(),
        }
        match receive_lines(link, &mut lines, incoming, handler, health) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    // The other end broke the protocol: it is told, and what it still sends is not looked at. The connection ends
    // when that has been sent, or when the grace for it is over.
    env.observer.trouble(Trouble::Connection { peer: &link.peer(), error: &error });
    link.close_with_error(&error.to_string());
    std::future::pending().await
}

fn receive_lines(
    link: &Rc<Link>,
    lines: &mut LineDecoder,
    incoming: Direction,
    handler: &Rc<CommandHandler>,
    health: &Health,
) -> Result<(), ConnectionError> {
    while let Some(line) = lines.next_line() {
        if !link.is_open() {
            continue; // what comes after our goodbye no longer counts, least of all from another server
        }
        let command = Command::parse(&line?)?;
        if !incoming.allows(&command) {
            return Err(ConnectionError::Direction(command.name()));
        }
        health.heard.set(Instant::now());
        if matches!(command, Command::Ping(_)) {
            health.pings.set(true);
        }
        handler.received(link, command);
    }
    Ok(())
}

/// Sends what is in the outbox, until the connection is to be closed and nothing is left.
async fn send(link: &Link, mut stream: WriteHalf<BoxStream>, env: &Env) -> ConnectionError {
    let mut bytes = BytesMut::new();
    while let Some(lines) = link.outgoing().await {
        bytes.clear();
        for line in lines {
            env.observer.sent(&line);
            bytes.extend_from_slice(&line);
        }
        if let Err(error) = stream.write_all(&bytes).await {
            return error.into();
        }
    }
    if let Err(error) = stream.shutdown().await {
        return error.into();
    }
    ConnectionError::ClosedHere
}

/// Pings the other end, and gives it up when it has been silent for too long or takes too long to be told goodbye.
async fn watch(link: &Link, health: &Health, env: &Env) -> ConnectionError {
    let mut closing_since = None;
    loop {
        let ping_at = link.last_sent() + PING_INTERVAL;
        let lost_at = health.heard.get() + PING_TIMEOUT;
        tokio::time::sleep_until(if health.pings.get() { ping_at.min(lost_at) } else { ping_at }).await;
        let now = Instant::now();
        if !link.is_open() {
            if now >= *closing_since.get_or_insert(now) + CLOSE_GRACE {
                return ConnectionError::ClosedHere;
            }
            tokio::time::sleep(PING_INTERVAL).await;
        } else if health.pings.get() && now >= health.heard.get() + PING_TIMEOUT {
            env.observer.trouble(Trouble::Connection { peer: &link.peer(), error: &ConnectionError::PingTimeout });
            link.close_with_error("ping timeout");
        } else if now >= link.last_sent() + PING_INTERVAL {
            let ping = Command::Ping(env.clock.now_ms().to_string());
            link.send(&ping).expect("a number fits a line");
        }
    }
}
