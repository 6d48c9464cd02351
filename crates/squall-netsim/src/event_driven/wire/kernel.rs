//! The network stack of one host: what its sockets have to send, and what they do with what arrives.

use std::collections::BTreeMap;
use std::io;
use std::task::{Context, Poll, ready};

use crate::time::Time;
use tokio::io::ReadBuf;

use super::Wire;
use super::agenda::Task;
use super::ending::{Ending, FIN_TIMEOUT};
use super::listening::Listening;
use super::pair::Pair;
use super::segment::{Flow, HostIndex, Kind, Segment};
use super::socket::{Closing, RECEIVE_BUFFER, Reply, Socket, State, WINDOW_MAX};
use crate::Side;

/// The network stack of a host. Its sockets are with their connections.
#[derive(Default)]
pub(crate) struct Kernel {
    /// The open ports.
    pub listening: BTreeMap<u16, Listening>,
    /// Segments that leave at the next egress pass.
    outbound: Vec<Segment>,
    /// The sockets that may have something to send, with their serial numbers.
    senders: Vec<(u64, Flow)>,
    /// The sockets that linger after their application has closed them.
    orphans: Vec<Flow>,
    /// True if the next egress pass looks at this host.
    is_marked: bool,
}

impl Wire {
    /// Has the next egress pass look at a host.
    pub(crate) fn mark(&mut self, host: HostIndex) {
        if !std::mem::replace(&mut self.host(host).kernel.is_marked, true) {
            self.marked.push(host);
            self.agenda.wake();
        }
    }

    /// Queues a segment for the next egress pass of its host.
    pub(crate) fn emit(&mut self, host: HostIndex, segment: Segment) {
        self.host(host).kernel.outbound.push(segment);
        self.mark(host);
    }

    /// Has the next egress pass look at a socket, if it has something to send.
    pub(crate) fn list(&mut self, local: Flow) {
        let Some(half) = self.half_mut(local) else { return };
        let host = half.host;
        let Some(socket) = half.socket.as_mut().filter(|socket| !socket.is_listed && socket.has_unsent()) else {
            return;
        };
        socket.is_listed = true;
        let serial = socket.serial;
        self.host(host).kernel.senders.push((serial, local));
        self.mark(host);
    }

    /// The hosts that have something to send, in order.
    pub(crate) fn take_marked(&mut self) -> Vec<HostIndex> {
        let mut marked = std::mem::take(&mut self.marked);
        marked.sort_unstable();
        marked
    }

    /// Takes what a host has to send, in the order in which it sends it. Empty if that is nothing.
    pub(crate) fn drain(&mut self, host: HostIndex, segments: &mut Vec<Segment>, now: Time) {
        segments.append(&mut self.host(host).kernel.outbound);
        loop {
            let mut senders = std::mem::take(&mut self.host(host).kernel.senders);
            if senders.is_empty() {
                break;
            }
            senders.sort_unstable_by_key(|(serial, _)| *serial);
            for (_, local) in senders {
                self.socket_mut(local).into_iter().for_each(|socket| socket.is_listed = false);
                self.take_segments(local, segments, now);
            }
        }
    }

    /// Takes what a socket can send.
    fn take_segments(&mut self, local: Flow, segments: &mut Vec<Segment>, now: Time) {
        let needs_window = self.socket(local).is_some_and(Socket::needs_window);
        if needs_window {
            self.settle(local.reversed(), now);
        }
        let Some(socket) = self.socket_mut(local) else { return };
        segments.extend(std::iter::from_fn(|| socket.next_segment(local)));
        if needs_window {
            self.schedule(local.reversed());
        }
    }

    /// Ends the egress pass of a host: removes the orphans that are over.
    pub(crate) fn unmark(&mut self, host: HostIndex) {
        let Wire { hosts, pairs, .. } = self;
        let kernel = &mut hosts[usize::from(host.0)].kernel;
        kernel.is_marked = false;
        kernel.orphans.retain(|local| {
            let half = pairs.get_mut(local.connection).map(|pair| pair.half_mut(local.from));
            let Some(half) = half else { return false };
            let is_over = half.socket.as_ref().is_none_or(Socket::is_over);
            if is_over {
                half.socket = None;
                pairs.remove_if_over(local.connection);
            }
            !is_over
        });
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Dials: makes connection `id`, and its client's socket.
    pub(crate) fn dial(&mut self, id: u64, client: HostIndex, server: HostIndex, port: u16) -> Flow {
        let key = self.pairs.add(id, client, server, port);
        let local = Flow { connection: key, from: Side::Client };
        let socket = Socket::dialling(self.next_serial());
        self.half_mut(local).expect("just added").socket = Some(socket);
        self.emit(client, Segment { window: WINDOW_MAX, ..Segment::bare(local, Kind::Syn) });
        local
    }

    /// Waits until a dialling socket is connected.
    pub(crate) fn poll_connected(&mut self, local: Flow, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.held_socket(local).poll_connected(cx)
    }

    /// Reads at most `limit` bytes into `buf`. At the end of the stream it reads nothing.
    pub(crate) fn poll_read(
        &mut self,
        local: Flow,
        cx: &Context<'_>,
        buf: &mut ReadBuf<'_>,
        limit: usize,
    ) -> Poll<io::Result<()>> {
        let read = match buf.remaining() > limit {
            false => ready!(self.held_socket(local).poll_read(cx, buf)),
            true => {
                let mut part = ReadBuf::new(buf.initialize_unfilled_to(limit));
                let read = ready!(self.held_socket(local).poll_read(cx, &mut part));
                let filled = part.filled().len();
                buf.advance(filled);
                read
            }
        };
        let read = read.map_err(|error| self.explain(local, error))?;
        if read >= RECEIVE_BUFFER / 2 {
            let (host, socket) = (self.host_of(local), self.held_socket(local));
            let acknowledgement = socket.acknowledgement(local);
            self.emit(host, acknowledgement);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes bytes to send, as many as there is room for.
    pub(crate) fn poll_write(&mut self, local: Flow, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.held_socket(local).is_crowded(bytes.len()) {
            self.settle(local.reversed(), Time::now());
        }
        let taken = ready!(self.held_socket(local).poll_write(cx, bytes));
        let taken = taken.map_err(|error| self.explain(local, error))?;
        self.list(local);
        Poll::Ready(Ok(taken))
    }

    /// Ends the direction of a socket.
    pub(crate) fn shut_down(&mut self, local: Flow) -> io::Result<()> {
        let ended = self.held_socket(local).shut_down();
        ended.map_err(|error| self.explain(local, error))?;
        self.schedule(local.reversed());
        self.list(local);
        Ok(())
    }

    fn held_socket(&mut self, local: Flow) -> &mut Socket {
        self.socket_mut(local).expect("a socket stays until its application closes it")
    }

    fn host_of(&self, local: Flow) -> HostIndex {
        self.half(local).expect("an end stays until its application closes it").host
    }

    /// A socket knows that it was reset; the wire may know why.
    fn explain(&self, local: Flow, error: io::Error) -> io::Error {
        match self.half(local).and_then(|half| half.ending) {
            Some(Ending::Aborted(reason)) if error.kind() == io::ErrorKind::ConnectionReset => reason.into(),
            _ => error,
        }
    }

    /// Opens a port. Fails with `AddrInUse` where it is open already.
    pub(crate) fn listen(&mut self, host: HostIndex, port: u16) -> io::Result<()> {
        let listening = &mut self.host(host).kernel.listening;
        if listening.contains_key(&port) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        listening.insert(port, Listening::default());
        Ok(())
    }

    /// Waits for the next connection to an open port.
    pub(crate) fn poll_accept(&mut self, host: HostIndex, port: u16, cx: &Context<'_>) -> Poll<io::Result<Flow>> {
        match self.host(host).kernel.listening.get_mut(&port) {
            Some(listening) => listening.poll_accept(cx),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Closes a port, and resets the connections that were not accepted.
    pub(crate) fn close_port(&mut self, host: HostIndex, port: u16, now: Time) {
        let Some(listening) = self.host(host).kernel.listening.remove(&port) else { return };
        let mut children: Vec<Flow> = listening.into_ready().into();
        let shaking = |pair: &&Pair| {
            let server = pair.half(Side::Server);
            let state = server.socket.as_ref().map(Socket::state);
            server.host == host && pair.port == port && state == Some(State::SynReceived)
        };
        let mut handshakes: Vec<Flow> =
            self.pairs.iter().filter(shaking).map(|pair| Flow { connection: pair.key, from: Side::Server }).collect();
        handshakes.sort_unstable();
        children.append(&mut handshakes);
        for child in children {
            self.emit(host, Segment::bare(child, Kind::Rst));
            if let Some(half) = self.half_mut(child) {
                half.socket = None;
            }
            self.agenda.push(now + FIN_TIMEOUT, Task::Reap(child));
        }
    }

    /// Closes a socket for its application.
    pub(crate) fn close_socket(&mut self, local: Flow) {
        let Some(half) = self.half_mut(local) else { return };
        let host = half.host;
        let Some(socket) = &mut half.socket else { return };
        match socket.close() {
            Closing::Removed => half.socket = None,
            Closing::Reset => {
                half.socket = None;
                self.emit(host, Segment::bare(local, Kind::Rst));
            }
            Closing::Lingers => {
                self.host(host).kernel.orphans.push(local);
                self.list(local);
            }
        }
        self.mark(host);
        self.schedule(local.reversed());
    }

    /// Hands a segment to the host that it is for.
    pub(crate) fn deliver(&mut self, segment: Segment) {
        let local = segment.flow.reversed();
        let Some(half) = self.half_mut(local) else { return };
        let host = half.host;
        match segment.kind {
            Kind::Syn => self.answer_syn(local, &segment),
            Kind::Rst => self.reset_socket(local),
            kind => {
                let Some(socket) = self.socket_mut(local) else {
                    return self.emit(host, Segment::bare(local, Kind::Rst));
                };
                let reply = socket.receive(segment);
                let (is_orphan, acknowledgement) = (socket.is_orphan, socket.acknowledgement(local));
                match reply {
                    Reply::None => {}
                    Reply::Ack => self.emit(host, acknowledgement),
                    Reply::Established => self.established(local),
                }
                if is_orphan {
                    self.mark(host);
                }
                if kind != Kind::SynAck {
                    self.list(local); // the window may have opened
                }
            }
        }
    }

    /// A client asks for a connection. A full backlog drops it without notice.
    fn answer_syn(&mut self, local: Flow, syn: &Segment) {
        let pair = self.pairs.get(local.connection).expect("it is delivered to a pair");
        let (host, port) = (pair.half(Side::Server).host, pair.port);
        let answer = match self.host(host).kernel.listening.get_mut(&port) {
            Some(listening) if listening.is_full() => return,
            Some(listening) => {
                listening.handshake();
                let socket = Socket::answering(self.next_serial(), syn);
                self.half_mut(local).expect("it is delivered to a pair").socket = Some(socket);
                Kind::SynAck
            }
            None => Kind::Rst,
        };
        self.emit(host, Segment { window: WINDOW_MAX, ..Segment::bare(local, answer) });
    }

    /// A handshake is complete on the server's side.
    pub(crate) fn established(&mut self, local: Flow) {
        let Some(pair) = self.pairs.get(local.connection) else { return };
        let (host, port) = (pair.half(local.from).host, pair.port);
        if let Some(listening) = self.host(host).kernel.listening.get_mut(&port) {
            listening.established(local);
        }
    }

    /// Resets a socket. One in mid-handshake is established first, so that its listener's application learns of the reset.
    pub(crate) fn reset_socket(&mut self, local: Flow) {
        let Some(socket) = self.socket_mut(local) else { return };
        let is_mid_handshake = socket.state() == State::SynReceived;
        if is_mid_handshake {
            self.established(local);
        }
        if let Some(socket) = self.socket_mut(local) {
            socket.reset();
        }
        self.mark(self.host_of(local));
        self.schedule(local.reversed());
    }
}
