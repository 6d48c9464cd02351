//! One TCP connection, from its greeting to its end. Both ends behave alike but for the direction of commands.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::Instant;

use crate::observer::Env;
use crate::observer::InstanceEvent;
use crate::replication::{CommandHandler, Connection};
use squall_env::BoxStream;
use squall_protocol::{Command, Direction, LineDecoder, LineError, ParseError, RdataHeader, Role};

/// Time after which an end that has sent nothing else sends `PING`.
pub const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Time after which a silent peer is considered dead: a server, or a client that has sent `PING` before.
pub const PING_TIMEOUT: Duration = Duration::from_secs(25);
/// Time within which a line must be complete, and within which a client must send its first line.
pub const LINE_TIMEOUT: Duration = Duration::from_secs(25);
/// Time within which a client must have sent `PING` and `REPLICATE`, as each instance does at once. Synapse lets a client
/// that never sends `PING` stay for ever, so that idle clients can take all connections.
pub const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Time that a closing connection has to send its queued lines.
pub const CLOSE_GRACE: Duration = Duration::from_secs(25);

/// Number of bytes that are read from the socket at once.
const READ_BYTES: usize = 16 * 1024;

/// An error that ended a connection.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer closed the connection.
    #[error("closed by the peer")]
    Closed,
    /// A received line is too long or is not UTF-8.
    #[error("{0}")]
    Line(#[from] LineError),
    /// A received line is not a command, of no version.
    #[error("{0}")]
    Parse(#[from] ParseError),
    /// The peer sent a command that only this end may send.
    #[error("the peer may not send {0}")]
    Direction(&'static str),
    /// The peer was silent for [`PING_TIMEOUT`].
    #[error("ping timeout")]
    PingTimeout,
    /// A line was not complete within [`LINE_TIMEOUT`].
    #[error("a line was not complete within {LINE_TIMEOUT:?}")]
    LineTimeout,
    /// A client did not send `PING` and `REPLICATE` within [`INTRODUCTION_TIMEOUT`].
    #[error("no {missing} within {INTRODUCTION_TIMEOUT:?}")]
    NotIntroduced {
        /// The command that is missing.
        missing: &'static str,
    },
    /// This instance closed the connection and sent the reason.
    #[error("closed by this end")]
    ClosedHere,
}

impl ConnectionError {
    /// Reports the end of the connection to `peer`, except that of an orderly stop.
    pub(super) fn report(&self, peer: &str, env: &Env) {
        let is_orderly = matches!(self, ConnectionError::ClosedHere | ConnectionError::Closed);
        if !(is_orderly && env.tasks.is_stopped()) {
            env.observer.event(InstanceEvent::Connection { peer, error: self });
        }
    }
}

/// Carries the commands of `connection` over `stream` until either end closes it.
pub(super) async fn run(
    connection: Rc<Connection>,
    stream: BoxStream,
    handler: &Rc<CommandHandler>,
    env: &Env,
) -> ConnectionError {
    let (read_half, write_half) = tokio::io::split(stream);
    let health = Health::of(connection.role());
    let error = tokio::select! {
        biased;
        error = receive(&connection, read_half, handler, &health, env) => error,
        error = send(&connection, write_half, env) => error,
        error = watch(&connection, &health, env) => error,
    };
    connection.closed();
    handler.lost(&connection);
    error
}

/// The signs of life of the peer.
struct Health {
    /// The time at which the connection was established.
    opened: Instant,
    /// True if silence of the peer is a sign that it is dead: it is a server, which always sends `PING`, or has sent one.
    pings: Cell<bool>,
    /// True if the peer is a server, or has sent `REPLICATE`.
    replicates: Cell<bool>,
    /// The time of the last valid command.
    last_command: Cell<Instant>,
    /// The time since which a line has been incomplete. A client's first line is awaited from the start.
    line_since: Cell<Option<Instant>>,
    /// True once the peer has sent a command.
    has_sent_command: Cell<bool>,
}

impl Health {
    fn of(role: Role) -> Self {
        let (now, is_server) = (Instant::now(), role == Role::Client);
        Health {
            opened: now,
            pings: Cell::new(is_server),
            replicates: Cell::new(is_server),
            last_command: Cell::new(now),
            line_since: Cell::new((!is_server).then_some(now)),
            has_sent_command: Cell::new(is_server),
        }
    }

    /// Records a command that is no row.
    fn command_received(&self, command: &Command) {
        match command {
            Command::Ping(_) => self.pings.set(true),
            Command::Replicate => self.replicates.set(true),
            _ => {}
        }
        self.received();
    }

    /// Records a command.
    fn received(&self) {
        self.last_command.set(Instant::now());
        self.line_since.set(None);
        self.has_sent_command.set(true);
    }

    /// Records that every complete line was handled, and if part of another line has been received.
    fn lines_handled(&self, is_partial: bool) {
        if is_partial && self.line_since.get().is_none() {
            self.line_since.set(Some(Instant::now()));
        } else if !is_partial && self.has_sent_command.get() {
            self.line_since.set(None);
        }
    }

    /// Returns the time at which the peer times out unless it sends something, and the error.
    fn times_out_at(&self) -> Option<(Instant, ConnectionError)> {
        let silent = self.pings.get().then(|| (self.last_command.get() + PING_TIMEOUT, ConnectionError::PingTimeout));
        let slow = self.line_since.get().map(|since| (since + LINE_TIMEOUT, ConnectionError::LineTimeout));
        let missing = if self.pings.get() { "REPLICATE" } else { "PING" };
        let is_introduced = self.pings.get() && self.replicates.get();
        let strange =
            (!is_introduced).then(|| (self.opened + INTRODUCTION_TIMEOUT, ConnectionError::NotIntroduced { missing }));
        silent.into_iter().chain(slow).chain(strange).min_by_key(|(at, _)| *at)
    }
}

/// Hands received commands to the handler until the connection fails.
async fn receive(
    connection: &Rc<Connection>,
    mut stream: ReadHalf<BoxStream>,
    handler: &Rc<CommandHandler>,
    health: &Health,
    env: &Env,
) -> ConnectionError {
    let incoming = match connection.role() {
        Role::Client => Direction::ServerToClient,
        Role::Server => Direction::ClientToServer,
        Role::Subscriber | Role::Publisher => unreachable!("a connection to a broker is not a TCP connection"),
    };
    let mut lines = LineDecoder::default();
    let error = loop {
        let buffer = lines.buffer();
        buffer.reserve(READ_BYTES);
        match stream.read_buf(&mut buffer.limit(READ_BYTES)).await {
            Ok(0) => return ConnectionError::Closed,
            Ok(_) => {}
            Err(error) => return error.into(),
        }
        match receive_lines(connection, &mut lines, incoming, handler, health).await {
            Ok(()) => health.lines_handled(lines.is_partial()),
            Err(error) => break error,
        }
    };
    // The peer broke the protocol. It is sent the error, and its further lines are ignored. The connection ends when the
    // error has been sent or `CLOSE_GRACE` is over.
    env.observer.event(InstanceEvent::Connection { peer: &connection.peer(), error: &error });
    connection.close_with_error(&error.to_string());
    std::future::pending().await
}

async fn receive_lines(
    connection: &Rc<Connection>,
    lines: &mut LineDecoder,
    incoming: Direction,
    handler: &Rc<CommandHandler>,
    health: &Health,
) -> Result<(), ConnectionError> {
    while let Some(line) = lines.next_str() {
        if !connection.is_open() {
            continue; // this end is closing: further commands are ignored, above all those of a server of another homeserver
        }
        receive_line(connection, line?, incoming, handler, health)?;
        // Yields now and then, so that the followers run even under a flood of lines.
        tokio::task::consume_budget().await;
    }
    Ok(())
}

fn receive_line(
    connection: &Rc<Connection>,
    line: &str,
    incoming: Direction,
    handler: &CommandHandler,
    health: &Health,
) -> Result<(), ConnectionError> {
    if incoming == Direction::ServerToClient
        && let Some(header) = RdataHeader::of(line)
        && handler.received_row(connection, &header)
    {
        health.received();
        return Ok(());
    }
    let command = match Command::parse(line) {
        Ok(command) => command,
        // Not a sign of life, and not the first command that is due from a client.
        Err(error) => return Ok(handler.newer(connection, line, error)?),
    };
    if !incoming.allows(&command) {
        return Err(ConnectionError::Direction(command.name()));
    }
    health.command_received(&command);
    handler.received(connection, command);
    Ok(())
}

/// Sends the outbox until the connection is to be closed and the outbox is empty.
async fn send(connection: &Connection, mut stream: WriteHalf<BoxStream>, env: &Env) -> ConnectionError {
    let mut bytes = BytesMut::new();
    while let Some(lines) = connection.outgoing().await {
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

/// Pings the peer, and ends the connection when the peer times out or closing takes too long.
async fn watch(connection: &Connection, health: &Health, env: &Env) -> ConnectionError {
    let mut closing_since = None;
    loop {
        let ping_at = connection.last_sent() + PING_INTERVAL;
        let times_out_at = health.times_out_at().map_or(ping_at, |(at, _)| at);
        tokio::time::sleep_until(ping_at.min(times_out_at)).await;
        let now = Instant::now();
        if !connection.is_open() {
            if now >= *closing_since.get_or_insert(now) + CLOSE_GRACE {
                return ConnectionError::ClosedHere;
            }
            tokio::time::sleep(PING_INTERVAL).await;
        } else if let Some((_, error)) = health.times_out_at().filter(|(at, _)| now >= *at) {
            env.observer.event(InstanceEvent::Connection { peer: &connection.peer(), error: &error });
            connection.close_with_error(&error.to_string());
        } else if now >= connection.last_sent() + PING_INTERVAL {
            let ping = Command::Ping(env.clock.now_ms().to_string());
            connection.send(&ping).expect("a number fits a line");
        }
    }
}
