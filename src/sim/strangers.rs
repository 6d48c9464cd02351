//! Peers of another version: on connections between instances come lines of a stream that this version does not have, and
//! rows of a shape that it does not know.
//!
//! Both come in the middle of what the peer really says, between the network and the instance that reads: a line of an
//! unknown stream between two others, and in the place of a row something that is JSON and no row. The row is in the
//! database all the same; only this way of telling it cannot be understood.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::world::REPLICATION_PORT;
use crate::env::{Address, BoxStream, Chance, Listener, LocalBoxFuture, Network};
use crate::protocol::{InstanceName, StreamName};

/// The stream that nobody here knows.
pub const UNKNOWN_STREAM: &str = "org.squall.newer";

/// Something strange that was brought to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// Who read it.
    pub instance: InstanceName,
    /// Who seemed to say it.
    pub target: InstanceName,
    /// The stream it is of.
    pub stream: StreamName,
}

/// What was brought and has not been told to the judge. Connections are `Send` and the judge is not, so it lies here.
#[derive(Debug, Clone, Default)]
pub struct Brought(Arc<Mutex<Vec<Stranger>>>);

impl Brought {
    /// Takes what has been brought since the last time.
    pub fn take(&self) -> Vec<Stranger> {
        std::mem::take(&mut *lock(&self.0))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How strange the peers of one host are. It outlives the host's processes.
#[derive(Debug, Clone)]
pub struct Strangers {
    active: Arc<Mutex<Vec<Arc<Active>>>>,
    brought: Brought,
}

#[derive(Debug)]
struct Active {
    per_mille: u32,
    hits: AtomicU64,
}

impl Strangers {
    /// Peers of the same version. What is brought once they are not is put into `brought`.
    pub fn new(brought: Brought) -> Self {
        Strangers { active: Arc::default(), brought }
    }

    /// From now on `per_mille` of a thousand reads bring something strange, until the guard is dropped.
    pub fn begin(&self, per_mille: u32) -> StrangersFault {
        let active = Arc::new(Active { per_mille, hits: AtomicU64::new(0) });
        lock(&self.active).push(Arc::clone(&active));
        StrangersFault { strangers: self.clone(), active }
    }

    /// `network` as `instance` has it, with strangers at the other ends. Every draw comes from `chance`.
    pub fn on(&self, network: Rc<dyn Network>, instance: InstanceName, chance: Chance) -> Rc<dyn Network> {
        Rc::new(Border { network, strangers: self.clone(), instance, chance, connections: Cell::new(0) })
    }

    /// What, if anything, the next read brings.
    fn draw(&self, rng: &mut ChaCha8Rng) -> Option<(Strange, Arc<Active>)> {
        let active = lock(&self.active);
        if active.is_empty() {
            return None;
        }
        let drawn = rng.random_range(0..1_000);
        let strange = [Strange::Rows, Strange::Position, Strange::Shape][rng.random_range(0..3)];
        active.iter().find(|active| drawn < active.per_mille).map(|active| (strange, Arc::clone(active)))
    }
}

/// Peers are strange until this is dropped.
pub struct StrangersFault {
    strangers: Strangers,
    active: Arc<Active>,
}

impl StrangersFault {
    /// How many strange things were read: whether the fault took effect.
    pub fn hits(&self) -> u64 {
        self.active.hits.load(Ordering::Relaxed)
    }
}

impl Drop for StrangersFault {
    fn drop(&mut self) {
        lock(&self.strangers.active).retain(|active| !Arc::ptr_eq(active, &self.active));
    }
}

/// What may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strange {
    /// A row of an unknown stream.
    Rows,
    /// A position of an unknown stream.
    Position,
    /// A row of a known stream in an unknown shape.
    Shape,
}

/// The network of one process, whose peers may be strange.
struct Border {
    network: Rc<dyn Network>,
    strangers: Strangers,
    instance: InstanceName,
    chance: Chance,
    connections: Cell<u64>,
}

impl Network for Border {
    fn connect(&self, to: &Address) -> LocalBoxFuture<'static, io::Result<BoxStream>> {
        let connecting = self.network.connect(to);
        if to.port != REPLICATION_PORT {
            return connecting;
        }
        let ordinal = self.connections.get();
        self.connections.set(ordinal + 1);
        let (strangers, rng) = (self.strangers.clone(), self.chance.of(ordinal).rng());
        let (instance, target) = (self.instance.clone(), InstanceName::from(Arc::clone(&to.host)));
        Box::pin(async move {
            let stream = connecting.await?;
            let (next, at_line_start) = (None, true);
            Ok(Box::new(Strained { stream, strangers, instance, target, rng, next, at_line_start }) as BoxStream)
        })
    }

    fn listen(&self, port: u16) -> LocalBoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.network.listen(port)
    }
}

/// The dialling end of a connection to a peer that may be strange.
struct Strained {
    stream: BoxStream,
    strangers: Strangers,
    instance: InstanceName,
    target: InstanceName,
    rng: ChaCha8Rng,
    /// What is to come as soon as there is a place for it.
    next: Option<(Strange, Arc<Active>)>,
    /// Whether the last byte that was read ended a line.
    at_line_start: bool,
}

impl Strained {
    fn bring(&self, active: &Active, stream: &str) {
        active.hits.fetch_add(1, Ordering::Relaxed);
        let (instance, target) = (self.instance.clone(), self.target.clone());
        lock(&self.strangers.brought.0).push(Stranger { instance, target, stream: stream.into() });
    }

    /// Puts a whole line of its own before the peer's next one, if that is due and there is room.
    fn insert(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let Some((strange, active)) = &self.next else { return false };
        let line = match strange {
            Strange::Rows => format!("RDATA {UNKNOWN_STREAM} {} 7 [\"a row\"]\n", self.target),
            Strange::Position => format!("POSITION {UNKNOWN_STREAM} {} 3 7\n", self.target),
            Strange::Shape => return false,
        };
        if !self.at_line_start || buf.remaining() < line.len() {
            return false;
        }
        buf.put_slice(line.as_bytes());
        self.bring(active, UNKNOWN_STREAM);
        self.next = None;
        true
    }

    /// Makes something else of the first whole row among `bytes`, if that is due.
    fn distort(&mut self, bytes: &mut [u8]) {
        let Some((Strange::Shape, active)) = &self.next else { return };
        let mut from = if self.at_line_start { 0 } else { line_end(bytes) };
        while from < bytes.len() {
            let end = from + line_end(&bytes[from..]);
            if bytes[end - 1] == b'\n'
                && let Some((stream, row)) = row_in(&bytes[from..end - 1])
            {
                bytes[from + row..end - 1].fill(b'x');
                (bytes[from + row], bytes[end - 2]) = (b'"', b'"');
                self.bring(active, &stream);
                self.next = None;
                return;
            }
            from = end;
        }
    }
}

/// Where the first line of `bytes` ends: behind its line break, or at the end of all.
fn line_end(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1)
}

/// The stream of an `RDATA` line, and where its row begins.
fn row_in(line: &[u8]) -> Option<(String, usize)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.strip_prefix("RDATA ")?.splitn(4, ' ');
    let (stream, _writer, _token, row) = (words.next()?, words.next()?, words.next()?, words.next()?);
    (row.len() >= 2).then(|| (stream.to_owned(), line.len() - row.len()))
}

impl AsyncRead for Strained {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.insert(buf) {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = &mut buf.filled_mut()[before..];
        self.distort(read);
        if let Some(last) = read.last() {
            self.at_line_start = *last == b'\n';
            if self.next.is_none() {
                let Strained { strangers, rng, .. } = &mut *self;
                self.next = strangers.draw(rng);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Strained {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What is read of `sent`, in pieces of that many bytes, and what was brought meanwhile.
    fn read(strange: Strange, sent: &str, piece: usize) -> (String, Vec<Stranger>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let brought = Brought::default();
            let strangers = Strangers::new(brought.clone());
            let active = Arc::new(Active { per_mille: 1_000, hits: AtomicU64::new(0) });
            let (mut peer, stream) = tokio::io::duplex(64);
            let (instance, target) = ("worker".into(), "writer".into());
            let (rng, next) = (Chance::from_seed(1).rng(), Some((strange, active)));
            let stream = Box::new(stream);
            let mut strained = Strained { stream, strangers, instance, target, rng, next, at_line_start: false };
            let mut read = String::new();
            for piece in sent.as_bytes().chunks(piece) {
                peer.write_all(piece).await.unwrap();
                let mut bytes = [0; 256];
                // A line of a stranger comes by itself.
                while !piece.is_empty() {
                    let n = strained.read(&mut bytes).await.unwrap();
                    read.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
                    if bytes[..n].ends_with(&piece[piece.len() - 1..]) && !read.ends_with("3 7\n") {
                        break;
                    }
                }
            }
            (read, brought.take())
        })
    }

    fn stranger(stream: &str) -> Vec<Stranger> {
        vec![Stranger { instance: "worker".into(), target: "writer".into(), stream: stream.into() }]
    }

    #[test]
    fn a_line_of_an_unknown_stream_comes_between_two_others() {
        let (text, brought) = read(Strange::Position, "PING 1\nPING 2\n", 7);
        assert_eq!(text, "PING 1\nPOSITION org.squall.newer writer 3 7\nPING 2\n");
        assert_eq!(brought, stranger(UNKNOWN_STREAM));
    }

    #[test]
    fn a_row_is_made_something_else_of_the_same_length_where_it_comes_whole() {
        let (text, brought) = read(Strange::Shape, "half\nRDATA events writer 5 [1,2]\nPING 1\n", 64);
        assert_eq!(text, "half\nRDATA events writer 5 \"xxx\"\nPING 1\n");
        assert_eq!(brought, stranger("events"));
        let (text, brought) = read(Strange::Shape, "half\nRDATA events writer 5 [1,2]\nPING 1\n", 8);
        assert_eq!(text, "half\nRDATA events writer 5 [1,2]\nPING 1\n", "it never came whole");
        assert_eq!(brought, []);
    }

    #[test]
    fn only_rows_are_made_something_else() {
        for line in ["POSITION events writer 5 7", "RDATA events writer 5", "RDATA events writer 5 7", "PING [1,2]"] {
            assert_eq!(row_in(line.as_bytes()), None, "{line}");
        }
        assert_eq!(row_in(b"RDATA events writer batch [\"a b\"]"), Some(("events".to_owned(), 26)));
    }
}
