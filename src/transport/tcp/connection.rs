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
/// How long a line may take to come whole, and whoever connects to us to say their first one. Otherwise a byte now and
/// then would hold a connection for ever: a client that does not ping is not timed out.
pub const LINE_TIMEOUT: Duration = Duration::from_secs(25);
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
    /// A line was begun, or none at all, and [`LINE_TIMEOUT`] is over.
    #[error("a line did not come whole within {LINE_TIMEOUT:?}")]
    LineTimeout,
    /// There are [`CONNECTIONS_MAX`](super::CONNECTIONS_MAX) already.
    #[error("too many connections")]
    TooMany,
    /// We closed it, and said why.
    #[error("closed by this end")]
    ClosedHere,
}

/// Carries the commands of `link` over `stream` until either end is done.
pub async fn run(link: Rc<Link>, stream: BoxStream, handler: &Rc<CommandHandler>, env: &Env) -> ConnectionError {
    let (read_half, write_half) = tokio::io::split(stream);
    let health = Health::of(link.side());
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
    /// Since when a line is waited for that is not there yet. A client owes its first one from the start.
    line_since: Cell<Option<Instant>>,
    /// Whether it has said a command.
    has_spoken: Cell<bool>,
}

impl Health {
    fn of(side: Side) -> Self {
        let (now, is_server) = (Instant::now(), side == Side::Client);
        Health {
            pings: Cell::new(is_server),
            heard: Cell::new(now),
            line_since: Cell::new((!is_server).then_some(now)),
            has_spoken: Cell::new(is_server),
        }
    }

    /// A command came.
    fn spoke(&self) {
        self.heard.set(Instant::now());
        self.line_since.set(None);
        self.has_spoken.set(true);
    }

    /// All that came is looked at, and there is a part of a line behind it, or none.
    fn waits_for_line(&self, is_partial: bool) {
        if is_partial && self.line_since.get().is_none() {
            self.line_since.set(Some(Instant::now()));
        } else if !is_partial && self.has_spoken.get() {
            self.line_since.set(None);
        }
    }

    /// When it counts as lost unless something comes before, and what that is called.
    fn lost_at(&self) -> Option<(Instant, ConnectionError)> {
        let silent = self.pings.get().then(|| (self.heard.get() + PING_TIMEOUT, ConnectionError::PingTimeout));
        let slow = self.line_since.get().map(|since| (since + LINE_TIMEOUT, ConnectionError::LineTimeout));
        silent.into_iter().chain(slow).min_by_key(|(at, _)| *at)
    }
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
        match receive_lines(link, &mut lines, incoming, handler, health).await {
            Ok(()) => health.waits_for_line(lines.is_partial()),
            Err(error) => break error,
        }
    };
    // The other end broke the protocol: it is told, and what it still sends is not looked at. The connection ends
    // when that has been sent, or when the grace for it is over.
    env.observer.trouble(Trouble::Connection { peer: &link.peer(), error: &error });
    link.close_with_error(&error.to_string());
    std::future::pending().await
}

async fn receive_lines(
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
        health.spoke();
        if matches!(command, Command::Ping(_)) {
            health.pings.set(true);
        }
        handler.received(link, command);
        // Whoever deals with what came has to get a turn, however much there is.
        tokio::task::consume_budget().await;
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
        let lost_at = health.lost_at().map_or(ping_at, |(at, _)| at);
        tokio::time::sleep_until(ping_at.min(lost_at)).await;
        let now = Instant::now();
        if !link.is_open() {
            if now >= *closing_since.get_or_insert(now) + CLOSE_GRACE {
                return ConnectionError::ClosedHere;
            }
            tokio::time::sleep(PING_INTERVAL).await;
        } else if let Some((_, error)) = health.lost_at().filter(|(at, _)| now >= *at) {
            env.observer.trouble(Trouble::Connection { peer: &link.peer(), error: &error });
            link.close_with_error(&error.to_string());
        } else if now >= link.last_sent() + PING_INTERVAL {
            let ping = Command::Ping(env.clock.now_ms().to_string());
            link.send(&ping).expect("a number fits a line");
        }
    }
}
