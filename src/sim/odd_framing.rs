//! A network that delivers lines as other peers would frame them.
//!
//! Reads return a few bytes at a time, so that every line and every reply of a broker is split everywhere. Between two lines
//! come odd ones: blank lines, pings with any text, commands of a newer version, a line of the greatest length, and one that is
//! too long, for which the reader has to close the connection. All of this happens between the network and the instance that reads. No line of the peer is lost or
//! changed.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncRead, ReadBuf};

use super::input::{Content, Injected, InjectedLine, Place};
use super::switch::{Rate, Switch};
use super::wire;
use crate::transport::altered::{Alter, Altered};
use squall_env::{Address, BoxStream, Listener, LocalBoxFuture, Network, SeedTree};
use squall_judge::{NAME_CHECK, PUBLICATIONS};
use squall_protocol::{InstanceName, LINE_BYTES_MAX};

/// The greatest number of bytes that a read returns while the fault lasts.
const READ_BYTES_MAX: usize = 32;

/// The odd framing of the input of one host: its switch hits places between two lines, and makes every read short. It outlives
/// the host's processes.
#[derive(Debug, Clone)]
pub(super) struct OddFraming {
    switch: Switch,
    injected: Injected,
}

impl OddFraming {
    /// Creates an odd framing that is off. Lines that are injected once it is on are reported through `injected`.
    pub(super) fn new(injected: Injected) -> Self {
        OddFraming { switch: Switch::default(), injected }
    }

    /// Returns the switch.
    pub(super) fn switch(&self) -> &Switch {
        &self.switch
    }

    /// Wraps the network of `instance`. Every draw comes from `seeds`.
    pub(super) fn wrap(&self, network: Rc<dyn Network>, instance: InstanceName, seeds: SeedTree) -> Rc<dyn Network> {
        let readers = Rc::new(Readers { framing: self.clone(), instance, seeds, connections: Cell::new(0) });
        Rc::new(OddNetwork { network, readers })
    }
}

/// Draws an odd line for a place, and says if the reader may close the connection because of it. `has_client` is true if a
/// client reads it.
fn odd_line(rng: &mut ChaCha8Rng, place: &Place, has_client: bool) -> (String, Content) {
    let is_payload = matches!(place, Place::Replies(_));
    let drawn = rng.random_range(0..16);
    match drawn {
        0 if !is_payload => (ping_of(LINE_BYTES_MAX), Content::Harmless("a line of the greatest length")),
        1 if !is_payload => (ping_of(LINE_BYTES_MAX + 1), Content::Refused("a line that is too long")),
        2..4 => ("NEWER_COMMAND 7 a b".to_owned(), Content::Harmless("an unknown command")),
        4..6 if has_client => {
            let longer = "POSITION org.squall.newer newer 3 7 8".to_owned();
            (longer, Content::Harmless("a command with one argument more"))
        }
        6..11 => (["PING", "PING -1", "PING two words", "PING \u{2603}"][drawn % 4].to_owned(), harmless_ping()),
        _ => (["", " ", "\r", "\t \r"][drawn % 4].to_owned(), Content::Harmless("a blank line")),
    }
}

fn harmless_ping() -> Content {
    Content::Harmless("a ping with any text")
}

/// Returns a `PING` of that many bytes.
fn ping_of(bytes: usize) -> String {
    format!("PING {}", "7".repeat(bytes - "PING ".len()))
}

/// The network of one process, which reads odd lines.
struct OddNetwork {
    network: Rc<dyn Network>,
    readers: Rc<Readers>,
}

/// Everything that the readers of a process have in common.
struct Readers {
    framing: OddFraming,
    instance: InstanceName,
    seeds: SeedTree,
    connections: Cell<u64>,
}

impl Readers {
    /// Wraps one end of a connection on `port`. A client knows its `target`.
    fn wrap(&self, stream: BoxStream, port: u16, target: Option<InstanceName>) -> BoxStream {
        let ordinal = self.connections.get();
        self.connections.set(ordinal + 1);
        let rng = self.seeds.child(ordinal).rng();
        let (framing, instance) = (self.framing.clone(), self.instance.clone());
        let (pending, place) = (Bytes::new(), Place::start_of(port));
        let alter = OddInput { framing, instance, target, rng, read_bytes: 1, pending, place };
        Box::new(Altered { stream, alter })
    }
}

impl Network for OddNetwork {
    fn connect(&self, to: &Address) -> LocalBoxFuture<'static, io::Result<BoxStream>> {
        let connecting = self.network.connect(to);
        let (target, port) = (wire::target(to), to.port);
        if !wire::is_of_replication(port) || [PUBLICATIONS, NAME_CHECK].contains(&target.as_str()) {
            return connecting;
        }
        let readers = Rc::clone(&self.readers);
        Box::pin(async move { Ok(readers.wrap(connecting.await?, port, Some(target))) })
    }

    fn listen(&self, port: u16) -> LocalBoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let listening = self.network.listen(port);
        if !wire::is_of_replication(port) {
            return listening;
        }
        let readers = Rc::clone(&self.readers);
        Box::pin(async move { Ok(Box::new(OddListener { listener: listening.await?, readers, port }) as _) })
    }
}

/// A port whose connections are read oddly.
struct OddListener {
    listener: Box<dyn Listener>,
    readers: Rc<Readers>,
    port: u16,
}

impl Listener for OddListener {
    fn accept(&mut self) -> LocalBoxFuture<'_, io::Result<BoxStream>> {
        Box::pin(async { Ok(self.readers.wrap(self.listener.accept().await?, self.port, None)) })
    }
}

/// The input of one end of a connection.
struct OddInput {
    framing: OddFraming,
    instance: InstanceName,
    /// The other end, if this is the client's.
    target: Option<InstanceName>,
    rng: ChaCha8Rng,
    /// The greatest number of bytes that the next read returns.
    read_bytes: usize,
    /// The part of an injected line that was not read yet.
    pending: Bytes,
    /// The place in the input after the bytes that were read.
    place: Place,
}

impl OddInput {
    /// Injects an odd line here, if one is drawn.
    fn inject(&mut self, rate: &Rate) {
        if !self.place.is_between() || !rate.is_hit(self.rng.random_range(0..1_000)) {
            return;
        }
        let (line, content) = odd_line(&mut self.rng, &self.place, self.target.is_some());
        self.pending = self.place.encode(line);
        rate.count();
        if let Some(target) = self.target.clone() {
            self.framing.injected.push(InjectedLine { instance: self.instance.clone(), target, content });
        }
    }
}

impl Alter for OddInput {
    fn poll_read(
        &mut self,
        stream: Pin<&mut BoxStream>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.pending.has_remaining() {
            let length = self.pending.len().min(buf.remaining());
            buf.put_slice(&self.pending.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let Some(rate) = self.framing.switch.first() else {
            let before = buf.filled().len();
            ready!(stream.poll_read(cx, buf))?;
            self.place.read(&buf.filled()[before..]);
            return Poll::Ready(Ok(()));
        };
        let mut bytes = [0; READ_BYTES_MAX];
        let most = self.read_bytes.min(buf.remaining());
        let mut part = ReadBuf::new(&mut bytes[..most]);
        ready!(stream.poll_read(cx, &mut part))?;
        // Not before the read: polls that find nothing must draw nothing.
        self.read_bytes = self.rng.random_range(1..=READ_BYTES_MAX);
        let read = part.filled();
        buf.put_slice(read);
        if !read.is_empty() {
            self.place.read(read);
            rate.count();
            self.inject(&rate);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::sim::deployment::{BROKER_PORT, REPLICATION_PORT, SERVER_NAME};
    use crate::transport::redis::resp::{Reply, ReplyDecoder};
    use squall_judge::SUBSCRIPTION;
    use squall_protocol::{Command, LineDecoder, Newer};

    /// Returns what a client reads of `sent`, read by read, and the lines that were injected.
    fn read(sent: &str, port: u16, per_mille: Option<u32>) -> (Vec<Vec<u8>>, Vec<InjectedLine>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let injected = Injected::default();
            let framing = OddFraming::new(injected.clone());
            let guard = per_mille.map(|per_mille| framing.switch().begin(per_mille));
            let seeds = SeedTree::from_seed(1);
            let readers = Readers { framing, instance: "worker".into(), seeds, connections: Cell::new(0) };
            let (mut peer, stream) = tokio::io::duplex(sent.len());
            let target = if port == BROKER_PORT { SUBSCRIPTION } else { "writer" };
            let mut stream = readers.wrap(Box::new(stream), port, Some(target.into()));
            peer.write_all(sent.as_bytes()).await.unwrap();
            drop(peer);
            let (mut reads, mut bytes) = (Vec::new(), [0; 4_096]);
            loop {
                match stream.read(&mut bytes).await.unwrap() {
                    0 => break,
                    length => reads.push(bytes[..length].to_vec()),
                }
            }
            assert_eq!(guard.is_some_and(|guard| guard.hits() > 0), per_mille.is_some());
            (reads, injected.take())
        })
    }

    fn pings(count: usize) -> String {
        (0..count).map(|number| format!("PING {number}\n")).collect()
    }

    #[test]
    fn without_the_fault_everything_is_read_at_once() {
        let sent = pings(100);
        assert_eq!(read(&sent, REPLICATION_PORT, None), (vec![sent.into_bytes()], Vec::new()));
    }

    #[test]
    fn reads_are_short_and_together_the_same() {
        let sent = pings(100);
        let (reads, injected) = read(&sent, REPLICATION_PORT, Some(0));
        assert!(
            reads.len() > sent.len() / READ_BYTES_MAX && reads.iter().all(|read| read.len() <= READ_BYTES_MAX),
            "{}",
            reads.len()
        );
        let lengths: BTreeSet<usize> = reads.iter().map(Vec::len).collect();
        assert!(lengths.len() > READ_BYTES_MAX / 2, "a line may be split anywhere: {lengths:?}");
        assert_eq!(reads.concat(), sent.as_bytes());
        assert_eq!(injected, []);
    }

    #[test]
    fn odd_lines_come_between_the_lines_and_only_those_that_are_too_long_are_refused() {
        let sent = pings(1_000);
        let (reads, injected) = read(&sent, REPLICATION_PORT, Some(1_000));
        let mut decoder = LineDecoder::default();
        let (mut newer, mut refused) = (0, 0);
        let mut own = Vec::new();
        for read in reads {
            decoder.extend(&read);
            while let Some(line) = decoder.next_line() {
                match line.as_deref().map(|line| Command::parse(line).map_err(|error| Newer::of(line, &error))) {
                    Ok(Ok(Command::Ping(text))) if text.len() < 4 && text.parse::<u32>().is_ok() => own.push(text),
                    Ok(Ok(_)) => {}
                    Ok(Err(Some(_))) => newer += 1,
                    Ok(Err(None)) | Err(_) => refused += 1,
                }
            }
        }
        let expected: Vec<String> = (0..1_000).map(|number: u32| number.to_string()).collect();
        assert_eq!(own, expected);
        let is_refused = |line: &&InjectedLine| matches!(line.content, Content::Refused(_));
        assert_eq!(injected.iter().filter(is_refused).count(), refused);
        assert!(refused > 0 && newer > 10, "{refused} and {newer} of {}", injected.len());
    }

    #[test]
    fn at_a_broker_odd_payloads_come_in_whole_messages() {
        let message =
            |payload: String| String::from_utf8(Reply::message(SERVER_NAME, payload).to_bytes().to_vec()).unwrap();
        let subscribed = "*3\r\n$9\r\nsubscribe\r\n$11\r\nsquall.test\r\n:1\r\n";
        let sent =
            subscribed.to_owned() + &(0..100).map(|number| message(format!("PING {number}"))).collect::<String>();
        let (reads, injected) = read(&sent, BROKER_PORT, Some(1_000));
        let mut decoder = ReplyDecoder::default();
        let mut replies = 0;
        for read in reads {
            decoder.extend(&read);
            while decoder.next_reply().is_some() {
                replies += 1;
            }
        }
        assert!(decoder.pending().is_empty());
        assert_eq!(replies, 101 + injected.len());
        assert!(injected.iter().all(|line| matches!(line.content, Content::Harmless(_))), "{injected:?}");
    }
}
