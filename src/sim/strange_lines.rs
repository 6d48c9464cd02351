//! A network on which an instance hears lines that its peers do not send: those of peers of a newer version, which have a stream
//! that this version does not have, and rows of a shape that it does not know, or positions that are made up.
//!
//! They are injected into the lines that the peer really sends, between the network and the instance that reads: a line of an
//! unknown stream between two others, and a JSON string in the place of a row. The row itself is in the database; only this
//! copy of it cannot be parsed.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncRead, ReadBuf};

use super::input::{Content, Injected, InjectedLine, Place};
use super::switch::{Rate, Switch};
use super::wire;
use crate::transport::altered::{Alter, Altered};
use squall_env::{Address, BoxStream, Listener, LocalBoxFuture, Network, SeedTree};
use squall_judge::{NAME_CHECK, PUBLICATIONS, SUBSCRIPTION};
use squall_protocol::{InstanceName, StreamName};

/// The name of the stream that no instance knows.
pub(super) const UNKNOWN_STREAM: &str = "org.squall.newer";

/// Tokens of positions that are made up: beyond every id of a run.
const FORGED_TOKENS: [i64; 2] = [1_000_000, i64::MAX];

/// The strange lines of one kind that one host reads: its switch hits reads. It outlives the host's processes.
#[derive(Debug, Clone)]
pub(super) struct StrangeLines {
    switch: Switch,
    injected: Injected,
    senders: Senders,
}

/// The senders of strange lines.
#[derive(Debug, Clone)]
enum Senders {
    /// Peers of a newer version.
    Newer,
    /// Something that makes up positions of these streams and writers.
    Forgers(Arc<[(StreamName, InstanceName)]>),
}

impl StrangeLines {
    /// Creates lines of peers of a newer version, which are off. Those that are injected once they are on are reported through
    /// `injected`.
    pub(super) fn of_newer_peers(injected: Injected) -> Self {
        StrangeLines { switch: Switch::default(), injected, senders: Senders::Newer }
    }

    /// Creates positions of these streams and writers that are made up. They are off too.
    pub(super) fn of_forgers(injected: Injected, written: Arc<[(StreamName, InstanceName)]>) -> Self {
        StrangeLines { switch: Switch::default(), injected, senders: Senders::Forgers(written) }
    }

    /// Returns the switch.
    pub(super) fn switch(&self) -> &Switch {
        &self.switch
    }

    /// Wraps the network of `instance`, so that it reads such lines. Every draw comes from `seeds`.
    pub(super) fn wrap(&self, network: Rc<dyn Network>, instance: InstanceName, seeds: SeedTree) -> Rc<dyn Network> {
        Rc::new(StrangeNetwork { network, lines: self.clone(), instance, seeds, connections: Cell::new(0) })
    }

    /// Draws the line to inject next, if any. While the fault is off, nothing is drawn.
    fn draw(&self, rng: &mut ChaCha8Rng) -> Option<(Strange, Arc<Rate>)> {
        self.switch.first()?;
        let drawn = rng.random_range(0..1_000);
        match &self.senders {
            Senders::Newer => {
                let strange = [Strange::Rows, Strange::Position, Strange::Shape][rng.random_range(0..3)].clone();
                self.switch.hit_by(drawn).map(|rate| (strange, rate))
            }
            Senders::Forgers(written) => {
                let (stream, writer) = &written[rng.random_range(0..written.len())];
                let token = FORGED_TOKENS[rng.random_range(0..FORGED_TOKENS.len())];
                let line = format!("POSITION {stream} {writer} 3 {token}");
                let forged = || Strange::Forged(stream.clone(), line);
                self.switch.hit_by(drawn).map(|rate| (forged(), rate))
            }
        }
    }
}

/// A kind of line that is injected.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Strange {
    /// A row of an unknown stream.
    Rows,
    /// A position of an unknown stream.
    Position,
    /// A row of a known stream in an unknown shape.
    Shape,
    /// A position of this known stream and of a known writer: this line.
    Forged(StreamName, String),
}

/// The network of one process that reads strange lines.
struct StrangeNetwork {
    network: Rc<dyn Network>,
    lines: StrangeLines,
    instance: InstanceName,
    seeds: SeedTree,
    connections: Cell<u64>,
}

impl Network for StrangeNetwork {
    fn connect(&self, to: &Address) -> LocalBoxFuture<'static, io::Result<BoxStream>> {
        let connecting = self.network.connect(to);
        let target = wire::target(to);
        if !wire::is_of_replication(to.port) || [PUBLICATIONS, NAME_CHECK].contains(&target.as_str()) {
            return connecting;
        }
        let ordinal = self.connections.get();
        self.connections.set(ordinal + 1);
        let lines = self.lines.clone();
        let rng = self.seeds.child(ordinal).rng();
        let instance = self.instance.clone();
        let place = Place::start_of(to.port);
        Box::pin(async move {
            let stream = connecting.await?;
            let alter = StrangeInput { lines, instance, target, rng, next: None, place };
            Ok(Box::new(Altered { stream, alter }) as BoxStream)
        })
    }

    fn listen(&self, port: u16) -> LocalBoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.network.listen(port)
    }
}

/// The input of the client end of a connection.
struct StrangeInput {
    lines: StrangeLines,
    instance: InstanceName,
    target: InstanceName,
    rng: ChaCha8Rng,
    /// The line to inject as soon as there is a place for it.
    next: Option<(Strange, Arc<Rate>)>,
    /// The place in the input after the bytes that were read.
    place: Place,
}

impl StrangeInput {
    /// Counts and reports an injected line.
    fn report(&self, rate: &Rate, content: Content) {
        rate.count();
        let instance = self.instance.clone();
        let target = self.target.clone();
        self.lines.injected.push(InjectedLine { instance, target, content });
    }

    /// Injects a whole line before the peer's next one, if that is due and there is room. Returns true if it did.
    fn insert(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let Some((strange, rate)) = &self.next else { return false };
        let writer = if self.target.as_str() == SUBSCRIPTION { "newer" } else { self.target.as_str() };
        let unknown = || Content::Unknown(UNKNOWN_STREAM.into());
        let (line, content) = match strange {
            Strange::Rows => (format!("RDATA {UNKNOWN_STREAM} {writer} 7 [\"a row\"]"), unknown()),
            Strange::Position => (format!("POSITION {UNKNOWN_STREAM} {writer} 3 7"), unknown()),
            Strange::Forged(stream, line) => (line.clone(), Content::Forged(stream.clone())),
            Strange::Shape => return false,
        };
        let line = self.place.encode(line);
        if !self.place.is_between() || buf.remaining() < line.len() {
            return false;
        }
        buf.put_slice(&line);
        self.report(rate, content);
        self.next = None;
        true
    }

    /// Replaces the first whole row among `bytes`, if that is due.
    fn distort(&mut self, bytes: &mut [u8]) {
        let Some((Strange::Shape, rate)) = &self.next else { return };
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
                self.report(rate, Content::Unknown(stream.as_str().into()));
                self.next = None;
                return;
            }
            from = end;
        }
    }
}

/// Returns the end of the first line of `bytes`: after its line break, or the end of `bytes`.
fn line_end(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1)
}

/// Returns the stream of an `RDATA` line, and the start of its row. Returns none if `reader` itself wrote the row: over Redis
/// it comes back.
fn row_in(line: &[u8], reader: &InstanceName) -> Option<(String, usize)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.strip_prefix("RDATA ")?.splitn(4, ' ');
    let (stream, writer, _token, row) = (words.next()?, words.next()?, words.next()?, words.next()?);
    (row.len() >= 2 && writer != reader.as_str()).then(|| (stream.to_owned(), line.len() - row.len()))
}

impl Alter for StrangeInput {
    fn poll_read(
        &mut self,
        stream: Pin<&mut BoxStream>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.insert(buf) {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(stream.poll_read(cx, buf))?;
        let read = &mut buf.filled_mut()[before..];
        self.distort(read);
        self.place.read(read);
        if !read.is_empty() && self.next.is_none() {
            self.next = self.lines.draw(&mut self.rng);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::sim::deployment::{BROKER_PORT, SERVER_NAME};
    use crate::transport::redis::resp::Reply;

    /// Sends text in pieces of that many bytes. Returns the text that is read, and the injected lines.
    fn read(strange: Strange, sent: &str, piece: usize) -> (String, Vec<InjectedLine>) {
        read_at(Place::Lines(false), "writer", strange, sent, piece)
    }

    fn read_at(place: Place, target: &str, strange: Strange, sent: &str, piece: usize) -> (String, Vec<InjectedLine>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let injected = Injected::default();
            let lines = StrangeLines::of_newer_peers(injected.clone());
            let _guard = lines.switch().begin(1_000);
            let rate = lines.switch().first().unwrap();
            let (mut peer, stream) = tokio::io::duplex(64);
            let (instance, target) = ("worker".into(), target.into());
            let (rng, next) = (SeedTree::from_seed(1).rng(), Some((strange, rate)));
            let alter = StrangeInput { lines, instance, target, rng, next, place };
            let mut reader = Altered { stream: Box::new(stream), alter };
            let mut read = String::new();
            for piece in sent.as_bytes().chunks(piece) {
                peer.write_all(piece).await.unwrap();
                let mut bytes = [0; 256];
                // An injected line comes in a read of its own.
                while !piece.is_empty() {
                    let n = reader.read(&mut bytes).await.unwrap();
                    read.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
                    if bytes[..n].ends_with(&piece[piece.len() - 1..]) && !read.trim_end().ends_with("3 7") {
                        break;
                    }
                }
            }
            (read, injected.take())
        })
    }

    fn injected_line(stream: &str) -> Vec<InjectedLine> {
        vec![InjectedLine {
            instance: "worker".into(),
            target: "writer".into(),
            content: Content::Unknown(stream.into()),
        }]
    }

    #[test]
    fn a_line_of_an_unknown_stream_comes_between_two_others() {
        let (text, injected) = read(Strange::Position, "PING 1\nPING 2\n", 7);
        assert_eq!(text, "PING 1\nPOSITION org.squall.newer writer 3 7\nPING 2\n");
        assert_eq!(injected, injected_line(UNKNOWN_STREAM));
    }

    #[test]
    fn a_position_that_is_made_up_comes_between_two_others_and_is_harmless() {
        let forged = Strange::Forged("events".into(), "POSITION events writer 3 1000000 3 7".into());
        let (text, injected) = read(forged, "PING 1\nPING 2\n", 7);
        assert_eq!(text, "PING 1\nPOSITION events writer 3 1000000 3 7\nPING 2\n");
        assert!(matches!(injected[..], [InjectedLine { content: Content::Forged(_), .. }]), "{injected:?}");
    }

    #[test]
    fn what_forgers_make_up_is_of_known_writers_and_beyond_every_id() {
        let written = [("events".into(), "a".into()), ("typing".into(), "b".into())];
        let lines = StrangeLines::of_forgers(Injected::default(), written.into());
        let mut rng = SeedTree::from_seed(1).rng();
        assert!(lines.draw(&mut rng).is_none(), "it is off");
        let _guard = lines.switch().begin(1_000);
        let drawn: std::collections::BTreeSet<String> = (0..100)
            .map(|_| match lines.draw(&mut rng).unwrap().0 {
                Strange::Forged(_, line) => line,
                other => panic!("{other:?}"),
            })
            .collect();
        let all = ["events a", "typing b"].map(|of| FORGED_TOKENS.map(|token| format!("POSITION {of} 3 {token}")));
        let mut all = all.concat();
        all.sort();
        assert!(drawn.iter().eq(&all), "{drawn:?}");
    }

    #[test]
    fn a_row_is_made_something_else_of_the_same_length_where_it_comes_whole() {
        let (text, injected) = read(Strange::Shape, "half\nRDATA events writer 5 [1,2]\nPING 1\n", 64);
        assert_eq!(text, "half\nRDATA events writer 5 \"xxx\"\nPING 1\n");
        assert_eq!(injected, injected_line("events"));
        let (text, injected) = read(Strange::Shape, "half\nRDATA events writer 5 [1,2]\nPING 1\n", 8);
        assert_eq!(text, "half\nRDATA events writer 5 [1,2]\nPING 1\n", "it never came whole");
        assert_eq!(injected, []);
    }

    #[test]
    fn at_a_broker_a_line_of_an_unknown_stream_comes_between_two_messages() {
        let message = |payload: &str| {
            String::from_utf8(Reply::message(SERVER_NAME, payload.to_owned()).to_bytes().to_vec()).unwrap()
        };
        let subscribed = "*3\r\n$9\r\nsubscribe\r\n$11\r\nsquall.test\r\n:1\r\n";
        let sent = format!("+OK\r\n{subscribed}{}{}", message("PING 1"), message("*2"));
        let whole = |piece| {
            let place = || Place::start_of(BROKER_PORT);
            let (text, injected) = read_at(place(), SUBSCRIPTION, Strange::Position, &sent, piece);
            assert_eq!(injected[0].target.as_str(), SUBSCRIPTION);
            text
        };
        let unknown = message("POSITION org.squall.newer newer 3 7");
        let at = 5 + subscribed.len();
        assert_eq!(whole(at), format!("{}{unknown}{}", &sent[..at], &sent[at..]));
    }

    #[test]
    fn only_rows_are_made_something_else() {
        for line in ["POSITION events writer 5 7", "RDATA events writer 5", "RDATA events writer 5 7", "PING [1,2]"] {
            assert_eq!(row_in(line.as_bytes(), &"worker".into()), None, "{line}");
        }
        let row = |reader: &str| row_in(b"RDATA events writer batch [\"a b\"]", &reader.into());
        assert_eq!(row("worker"), Some(("events".to_owned(), 26)));
        assert_eq!(row("writer"), None, "over Redis it comes back to its writer");
    }
}
