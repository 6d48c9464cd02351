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
use tokio::io::{AsyncRead, ReadBuf, ReadHalf};

use super::wire;
use super::world::{BROKER_PORT, SERVER_NAME};
use crate::env::{Address, BoxStream, Chance, Listener, LocalBoxFuture, Network};
use crate::judge::{PUBLICATIONS, SUBSCRIPTION};
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
        let target = wire::target(to);
        if !wire::is_of_replication(to.port) || target.as_str() == PUBLICATIONS {
            return connecting;
        }
        let ordinal = self.connections.get();
        self.connections.set(ordinal + 1);
        let (strangers, rng) = (self.strangers.clone(), self.chance.of(ordinal).rng());
        let instance = self.instance.clone();
        let place = if to.port == BROKER_PORT { Place::Replies(Replies::default()) } else { Place::Lines(true) };
        Box::pin(async move {
            let (stream, writing) = tokio::io::split(connecting.await?);
            let reading = Strained { stream, strangers, instance, target, rng, next: None, place };
            Ok(Box::new(tokio::io::join(reading, writing)) as BoxStream)
        })
    }

    fn listen(&self, port: u16) -> LocalBoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.network.listen(port)
    }
}

/// What the dialling end reads of a connection to a peer that may be strange.
struct Strained {
    stream: ReadHalf<BoxStream>,
    strangers: Strangers,
    instance: InstanceName,
    target: InstanceName,
    rng: ChaCha8Rng,
    /// What is to come as soon as there is a place for it.
    next: Option<(Strange, Arc<Active>)>,
    /// Where the bytes that were read have come to.
    place: Place,
}

/// Where in what the other end says a reader is.
enum Place {
    /// Among lines: whether the last byte ended one.
    Lines(bool),
    /// Among a broker's replies.
    Replies(Replies),
}

impl Place {
    /// Whether something of another kind may come next.
    fn is_between(&self) -> bool {
        match self {
            Place::Lines(is_at_start) => *is_at_start,
            Place::Replies(replies) => replies.is_between(),
        }
    }

    /// Whether the next byte begins a line.
    fn is_at_line_start(&self) -> bool {
        match self {
            Place::Lines(is_at_start) => *is_at_start,
            Place::Replies(replies) => replies.head.is_empty(),
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        match self {
            Place::Lines(is_at_start) => *is_at_start = bytes.last().map_or(*is_at_start, |last| *last == b'\n'),
            Place::Replies(replies) => bytes.iter().for_each(|byte| replies.read(*byte)),
        }
    }
}

/// Follows where one reply of a broker ends and the next begins. Payloads are of one line.
#[derive(Debug, Default)]
struct Replies {
    /// The line that is not over yet.
    head: Vec<u8>,
    /// Whether the line after this one is the word whose length was told.
    is_word: bool,
    /// How many replies are due until the whole one is over.
    due: u64,
    /// Whether the subscription was acknowledged: before that nothing is published to it.
    is_subscribed: bool,
}

impl Replies {
    fn is_between(&self) -> bool {
        self.is_subscribed && self.due == 0 && self.head.is_empty()
    }

    fn read(&mut self, byte: u8) {
        self.head.push(byte);
        if byte != b'\n' {
            return;
        }
        let line = std::mem::take(&mut self.head);
        let number = || std::str::from_utf8(&line[1..]).ok().and_then(|text| text.trim_end().parse::<u64>().ok());
        match line[0] {
            _ if self.is_word => {
                self.is_word = false;
                self.due -= 1;
            }
            b'$' if number().is_some() => {
                self.is_word = true;
                self.due = self.due.max(1);
            }
            b'*' => {
                self.is_subscribed = true;
                self.due = self.due.saturating_sub(1) + number().unwrap_or(0);
            }
            _ => self.due = self.due.saturating_sub(1),
        }
    }
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
        let writer = if self.target.as_str() == SUBSCRIPTION { "newer" } else { self.target.as_str() };
        let line = match strange {
            Strange::Rows => format!("RDATA {UNKNOWN_STREAM} {writer} 7 [\"a row\"]"),
            Strange::Position => format!("POSITION {UNKNOWN_STREAM} {writer} 3 7"),
            Strange::Shape => return false,
        };
        let line = match self.place {
            Place::Lines(_) => line + "\n",
            Place::Replies(_) => {
                let word = |word: &str| format!("${}\r\n{word}\r\n", word.len());
                format!("*3\r\n{}{}{}", word("message"), word(SERVER_NAME), word(&line))
            }
        };
        if !self.place.is_between() || buf.remaining() < line.len() {
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
        let mut from = if self.place.is_at_line_start() { 0 } else { line_end(bytes) };
        while from < bytes.len() {
            let end = from + line_end(&bytes[from..]);
            if bytes[end - 1] == b'\n'
                && let line = bytes[from..end - 1].strip_suffix(b"\r").unwrap_or(&bytes[from..end - 1])
                && let Some((stream, row)) = row_in(line, &self.instance)
            {
                let row = from + row..from + line.len();
                bytes[row.clone()].fill(b'x');
                (bytes[row.start], bytes[row.end - 1]) = (b'"', b'"');
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

/// The stream of an `RDATA` line, and where its row begins. None if `reader` wrote it: over Redis it comes back.
fn row_in(line: &[u8], reader: &InstanceName) -> Option<(String, usize)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.strip_prefix("RDATA ")?.splitn(4, ' ');
    let (stream, writer, _token, row) = (words.next()?, words.next()?, words.next()?, words.next()?);
    (row.len() >= 2 && writer != reader.as_str()).then(|| (stream.to_owned(), line.len() - row.len()))
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
        self.place.read(read);
        if !read.is_empty() && self.next.is_none() {
            let Strained { strangers, rng, .. } = &mut *self;
            self.next = strangers.draw(rng);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What is read of `sent`, in pieces of that many bytes, and what was brought meanwhile.
    fn read(strange: Strange, sent: &str, piece: usize) -> (String, Vec<Stranger>) {
        read_at(Place::Lines(false), "writer", strange, sent, piece)
    }

    fn read_at(place: Place, target: &str, strange: Strange, sent: &str, piece: usize) -> (String, Vec<Stranger>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let brought = Brought::default();
            let strangers = Strangers::new(brought.clone());
            let active = Arc::new(Active { per_mille: 1_000, hits: AtomicU64::new(0) });
            let (mut peer, stream) = tokio::io::duplex(64);
            let (instance, target) = ("worker".into(), target.into());
            let (rng, next) = (Chance::from_seed(1).rng(), Some((strange, active)));
            let (stream, _writing) = tokio::io::split(Box::new(stream) as BoxStream);
            let mut strained = Strained { stream, strangers, instance, target, rng, next, place };
            let mut read = String::new();
            for piece in sent.as_bytes().chunks(piece) {
                peer.write_all(piece).await.unwrap();
                let mut bytes = [0; 256];
                // A line of a stranger comes by itself.
                while !piece.is_empty() {
                    let n = strained.read(&mut bytes).await.unwrap();
                    read.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
                    if bytes[..n].ends_with(&piece[piece.len() - 1..]) && !read.trim_end().ends_with("3 7") {
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
    fn at_a_broker_a_line_of_an_unknown_stream_comes_between_two_messages() {
        let message = |payload: &str| {
            let length = payload.len();
            format!("*3\r\n$7\r\nmessage\r\n$11\r\nsquall.test\r\n${length}\r\n{payload}\r\n")
        };
        let subscribed = "*3\r\n$9\r\nsubscribe\r\n$11\r\nsquall.test\r\n:1\r\n";
        let sent = format!("+OK\r\n{subscribed}{}{}", message("PING 1"), message("*2"));
        let whole = |piece| {
            let place = || Place::Replies(Replies::default());
            let (text, brought) = read_at(place(), SUBSCRIPTION, Strange::Position, &sent, piece);
            assert_eq!(brought[0].target.as_str(), SUBSCRIPTION);
            text
        };
        let strange = message("POSITION org.squall.newer newer 3 7");
        let at = 5 + subscribed.len();
        assert_eq!(whole(at), format!("{}{strange}{}", &sent[..at], &sent[at..]));
        let mut replies = Replies::default();
        let places = sent.bytes().map(|byte| {
            replies.read(byte);
            replies.is_between()
        });
        let between: Vec<usize> = places.zip(1..).filter_map(|(is_between, at)| is_between.then_some(at)).collect();
        assert_eq!(between, [at, at + message("PING 1").len(), sent.len()]);
    }

    #[test]
    fn only_rows_are_made_something_else() {
        for line in ["POSITION events writer 5 7", "RDATA events writer 5", "RDATA events writer 5 7", "PING [1,2]"] {
            assert_eq!(row_in(line.as_bytes(), &"worker".into()), None, "{line}");
        }
        let row = |reader: &str| row_in(b"RDATA events writer batch [\"a b\"]", &reader.into());
        assert_eq!(row("worker"), Some(("events".to_owned(), 26)));
        assert_eq!(row("writer"), None, "over Redis it comes back to whoever wrote it");
    }
}
