//! A TCP socket: its states, its two buffers, and the tasks that wait for it.
//!
//! The wire loses nothing and keeps the order of each flow, so a socket needs neither timers nor sequence numbers from a
//! random start, and keeps no byte after it has sent it.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, Waker};

use tokio::io::ReadBuf;

use super::segment::{Flow, Kind, SEGMENT_MAX, Segment};

/// Bytes that a socket's send buffer holds, sent or not, until they are acknowledged.
const SEND_BUFFER: usize = 64 * 1024;
/// Bytes that a socket's receive buffer holds.
pub(crate) const RECEIVE_BUFFER: usize = 64 * 1024;
/// The largest window that a segment can announce.
pub(crate) const WINDOW_MAX: usize = u16::MAX as usize;

// So a full send buffer has something left to send.
const _: () = assert!(SEND_BUFFER > WINDOW_MAX);

/// The states of TCP. A socket in TIME_WAIT is `Closed`: no late packet ever comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    SynSent,
    SynReceived,
    Established,
    /// Its end was sent, and is not yet acknowledged.
    FinWait1,
    /// Its end was acknowledged; the other end's is awaited.
    FinWait2,
    /// The other end has ended its direction.
    CloseWait,
    /// Both have ended; the acknowledgement of its own end is awaited.
    LastAck,
    /// As `LastAck`, if both ended at the same time.
    Closing,
    Closed,
}

/// The effect of a segment on the socket that it has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Nothing.
    None,
    /// It acknowledges.
    Ack,
    /// The handshake is complete on the server's side: the listener gets it.
    Established,
}

/// The effect of closing a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// It is removed.
    Removed,
    /// It is removed, and resets the other end: bytes lay unread.
    Reset,
    /// It sends what it holds, and its end.
    Lingers,
}

/// A TCP socket.
pub(crate) struct Socket {
    state: State,
    /// Its number: the sockets of a host send in the order in which they were made.
    pub serial: u64,
    /// True if it was reset, by either end.
    is_reset: bool,
    /// True if its application has closed it and it lingers.
    pub is_orphan: bool,
    /// True if its host knows that it may have something to send.
    pub is_listed: bool,

    /// Bytes not yet sent, from `unsent_from` on.
    unsent: Vec<u8>,
    unsent_from: usize,
    /// The position of the next byte to send.
    sent_to: u64,
    /// The position up to which the other end has acknowledged everything.
    acknowledged_to: u64,
    /// The window that the other end has last announced.
    window: usize,
    /// True if its application ends its direction, after the bytes that are still to be sent.
    has_ended: bool,
    /// True if that end was sent.
    end_sent: bool,

    /// Bytes received and not yet read, as they came; of the first, those from `read_from` on.
    received: VecDeque<Vec<u8>>,
    read_from: usize,
    unread: usize,
    /// The position up to which everything was received.
    received_to: u64,
    /// True if the other end has ended its direction.
    peer_ended: bool,

    readers: Vec<Waker>,
    writers: Vec<Waker>,
    connector: Option<Waker>,
}

impl Socket {
    fn new(state: State, serial: u64, window: usize) -> Self {
        Socket {
            state,
            serial,
            is_reset: false,
            is_orphan: false,
            is_listed: false,
            unsent: Vec::new(),
            unsent_from: 0,
            sent_to: 0,
            acknowledged_to: 0,
            window,
            has_ended: false,
            end_sent: false,
            received: VecDeque::new(),
            read_from: 0,
            unread: 0,
            received_to: 0,
            peer_ended: false,
            readers: Vec::new(),
            writers: Vec::new(),
            connector: None,
        }
    }

    /// A socket that has sent its SYN.
    pub(crate) fn dialling(serial: u64) -> Self {
        Self::new(State::SynSent, serial, WINDOW_MAX)
    }

    /// A socket that answers a SYN.
    pub(crate) fn answering(serial: u64, syn: &Segment) -> Self {
        Self::new(State::SynReceived, serial, syn.window)
    }

    /// Its state.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Returns true if nothing more will happen to it.
    pub(crate) fn is_over(&self) -> bool {
        self.state == State::Closed || self.is_reset
    }

    /// Returns true if it holds bytes that are not acknowledged, sent or not.
    pub(crate) fn awaits_acknowledgement(&self) -> bool {
        self.unacknowledged() > 0
    }

    /// Returns true if there are bytes, or its end, that it has not sent.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.is_reset && (!self.unsent.is_empty() || (self.has_ended && !self.end_sent))
    }

    /// Returns true if the window is too small for all that it has to send.
    pub(crate) fn needs_window(&self) -> bool {
        self.has_unsent() && self.open_window() <= self.unsent.len() - self.unsent_from
    }

    /// The bytes that it may send now.
    fn open_window(&self) -> usize {
        self.window.saturating_sub((self.sent_to - self.acknowledged_to) as usize)
    }

    /// Returns true if an acknowledgement would neither wake anything nor let it send more. A writer waits only
    /// while there are bytes that it has not sent.
    pub(crate) fn can_wait_for_acks(&self) -> bool {
        self.state == State::Established && !self.has_unsent()
    }

    /// Returns true if its send buffer has no room for so many bytes.
    pub(crate) fn is_crowded(&self, more: usize) -> bool {
        self.unacknowledged() + more > SEND_BUFFER
    }

    /// The bytes that it can still receive.
    pub(crate) fn room(&self) -> usize {
        RECEIVE_BUFFER.saturating_sub(self.unread).min(WINDOW_MAX)
    }

    /// Waits for the handshake.
    pub(crate) fn poll_connected(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        match self.state {
            State::Established => Poll::Ready(Ok(())),
            State::SynSent | State::SynReceived => {
                self.connector = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
        }
    }

    /// Reads what has come. Returns the number of bytes, which is zero at the end of the stream.
    pub(crate) fn poll_read(&mut self, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        if self.is_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.unread > 0 {
            return Poll::Ready(Ok(self.read(buf)));
        }
        match self.state {
            _ if self.peer_ended => Poll::Ready(Ok(0)),
            State::Established | State::FinWait1 | State::FinWait2 => {
                register(&mut self.readers, cx.waker());
                Poll::Pending
            }
            _ => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn read(&mut self, buf: &mut ReadBuf<'_>) -> usize {
        let before = self.unread;
        while let Some(bytes) = self.received.front().filter(|_| buf.remaining() > 0) {
            let part = &bytes[self.read_from..];
            let part = &part[..part.len().min(buf.remaining())];
            buf.put_slice(part);
            self.read_from += part.len();
            self.unread -= part.len();
            if self.read_from == bytes.len() {
                self.received.pop_front();
                self.read_from = 0;
            }
        }
        before - self.unread
    }

    /// Takes bytes to send, as many as there is room for.
    pub(crate) fn poll_write(&mut self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let refused = match self.state {
            _ if self.is_reset => io::ErrorKind::ConnectionReset,
            _ if self.has_ended => io::ErrorKind::BrokenPipe,
            State::Established | State::CloseWait => {
                let room = SEND_BUFFER.saturating_sub(self.unacknowledged());
                if room == 0 {
                    register(&mut self.writers, cx.waker());
                    return Poll::Pending;
                }
                let taken = &bytes[..bytes.len().min(room)];
                self.unsent.extend_from_slice(taken);
                return Poll::Ready(Ok(taken.len()));
            }
            _ => io::ErrorKind::NotConnected,
        };
        Poll::Ready(Err(refused.into()))
    }

    /// Ends its direction, after the bytes that are still to be sent.
    pub(crate) fn shut_down(&mut self) -> io::Result<()> {
        if self.is_reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.end();
        Ok(())
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.state = match self.state {
                State::Established => State::FinWait1,
                State::CloseWait => State::LastAck,
                other => other,
            };
        }
    }

    /// Its application closes it.
    pub(crate) fn close(&mut self) -> Closing {
        match self.state {
            State::Closed | State::SynSent | State::SynReceived => Closing::Removed,
            _ if self.is_reset => Closing::Removed,
            _ if self.unread > 0 => Closing::Reset,
            _ => {
                self.is_orphan = true;
                self.end();
                Closing::Lingers
            }
        }
    }

    /// Aborts it, and wakes all who wait for it.
    pub(crate) fn reset(&mut self) {
        self.state = State::Closed;
        self.is_reset = true;
        self.unsent = Vec::new();
        self.unsent_from = 0;
        self.acknowledged_to = self.sent_to;
        self.received.clear();
        self.unread = 0;
        self.connector.take().into_iter().for_each(Waker::wake);
        self.readers.drain(..).for_each(Waker::wake);
        self.writers.drain(..).for_each(Waker::wake);
    }

    /// Takes a segment that has arrived; not a SYN or an RST.
    pub(crate) fn receive(&mut self, segment: Segment) -> Reply {
        match self.state {
            State::SynSent if segment.kind == Kind::SynAck => {
                self.state = State::Established;
                self.window = segment.window;
                self.connector.take().into_iter().for_each(Waker::wake);
                Reply::Ack
            }
            State::SynReceived if segment.kind != Kind::SynAck => {
                self.state = State::Established;
                self.window = segment.window;
                Reply::Established
            }
            State::SynSent | State::SynReceived | State::Closed => Reply::None,
            _ => {
                self.acknowledged(&segment);
                let has_more = match segment.kind {
                    Kind::Data => self.take(segment),
                    Kind::Fin => self.take_end(&segment),
                    _ => false,
                };
                self.writers.drain(..).for_each(Waker::wake);
                if !has_more {
                    return Reply::None;
                }
                self.readers.drain(..).for_each(Waker::wake);
                Reply::Ack
            }
        }
    }

    fn acknowledged(&mut self, segment: &Segment) {
        if (self.acknowledged_to + 1..=self.sent_to).contains(&segment.acknowledged) {
            self.acknowledged_to = segment.acknowledged;
            if self.end_sent && self.acknowledged_to == self.sent_to {
                self.state = match self.state {
                    State::FinWait1 => State::FinWait2,
                    State::Closing | State::LastAck => State::Closed,
                    other => other,
                };
            }
        }
        self.window = segment.window;
    }

    /// Takes bytes that come in order, as many as there is room for. Returns true if it took any.
    fn take(&mut self, segment: Segment) -> bool {
        let room = RECEIVE_BUFFER.saturating_sub(self.unread);
        if segment.position != self.received_to || self.peer_ended || room == 0 {
            return false;
        }
        let mut bytes = segment.payload;
        bytes.truncate(room);
        self.unread += bytes.len();
        self.received_to += bytes.len() as u64;
        self.received.push_back(bytes);
        true
    }

    /// Takes the end of the other direction, if it comes in order.
    fn take_end(&mut self, segment: &Segment) -> bool {
        if segment.position != self.received_to || self.peer_ended {
            return false;
        }
        self.peer_ended = true;
        self.received_to += 1;
        self.state = match self.state {
            State::Established => State::CloseWait,
            State::FinWait1 => State::Closing,
            State::FinWait2 => State::Closed,
            other => other,
        };
        true
    }

    /// The next segment to send along `flow`, if there is any and the window is open for it.
    pub(crate) fn next_segment(&mut self, flow: Flow) -> Option<Segment> {
        let may_send = matches!(
            self.state,
            State::Established | State::CloseWait | State::FinWait1 | State::Closing | State::LastAck
        );
        let window = self.open_window();
        if !may_send || window == 0 {
            return None;
        }
        let position = self.sent_to;
        let unsent = self.unsent.len() - self.unsent_from;
        let (kind, payload) = match unsent.min(SEGMENT_MAX).min(window) {
            0 if self.has_ended && !self.end_sent => {
                self.end_sent = true;
                self.sent_to += 1;
                (Kind::Fin, Vec::new())
            }
            0 => return None,
            size => {
                self.sent_to += size as u64;
                (Kind::Data, self.take_unsent(size))
            }
        };
        Some(Segment { kind, position, payload, ..self.acknowledgement(flow) })
    }

    fn take_unsent(&mut self, size: usize) -> Vec<u8> {
        if self.unsent_from == 0 && size == self.unsent.len() {
            return std::mem::take(&mut self.unsent);
        }
        let bytes = self.unsent[self.unsent_from..self.unsent_from + size].to_vec();
        self.unsent_from += size;
        if self.unsent_from == self.unsent.len() {
            self.unsent.clear();
            self.unsent_from = 0;
        }
        bytes
    }

    /// An acknowledgement of all that it has received.
    pub(crate) fn acknowledgement(&self, flow: Flow) -> Segment {
        let (acknowledged, window) = (self.received_to, self.room());
        Segment { position: self.sent_to, acknowledged, window, ..Segment::bare(flow, Kind::Ack) }
    }

    /// The bytes in its send buffer: those on their way count until they are acknowledged.
    fn unacknowledged(&self) -> usize {
        let under_way = self.sent_to - self.acknowledged_to - u64::from(self.end_sent && !self.is_end_acknowledged());
        under_way as usize + self.unsent.len() - self.unsent_from
    }

    fn is_end_acknowledged(&self) -> bool {
        self.acknowledged_to == self.sent_to
    }
}

fn register(waiting: &mut Vec<Waker>, waker: &Waker) {
    if !waiting.iter().any(|registered| registered.will_wake(waker)) {
        waiting.push(waker.clone());
    }
}
