//! TCP segments, and the flows along which they travel.

use crate::Side;

/// Bytes of the headers of a packet: 20 of IPv4 and 20 of TCP.
pub(crate) const HEADERS: usize = 40;
/// The most bytes that one segment carries, on Ethernet.
pub(crate) const SEGMENT_MAX: usize = 1500 - HEADERS;

/// A host's number: its place in [`Options::hosts`](crate::Options::hosts).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostIndex(pub u16);

/// The name of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The number of the attempt that made it. It tells an earlier connection of the same place apart.
    pub id: u64,
    /// Its place among all connections.
    pub place: u32,
}

/// One direction of a connection. A socket has the name of the flow that leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    pub connection: Key,
    /// The end that sends.
    pub from: Side,
}

impl Flow {
    /// The other direction; the socket at the other end.
    pub(crate) fn reversed(self) -> Self {
        let from = match self.from {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        };
        Flow { connection: self.connection, from }
    }
}

/// The meaning of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Asks for a connection.
    Syn,
    /// Grants one.
    SynAck,
    /// Aborts one.
    Rst,
    /// Acknowledges, and carries nothing.
    Ack,
    /// Carries bytes.
    Data,
    /// Ends a direction.
    Fin,
}

/// A TCP segment. Positions count the bytes of a direction from 0; the end of the direction counts as one more byte.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub flow: Flow,
    pub kind: Kind,
    /// The position of its first byte, or of the end.
    pub position: u64,
    /// The position in the other direction up to which its sender has received everything.
    pub acknowledged: u64,
    /// Bytes that its sender can receive from there on.
    pub window: usize,
    pub payload: Vec<u8>,
}

impl Segment {
    /// A segment that only its kind and flow describe.
    pub(crate) fn bare(flow: Flow, kind: Kind) -> Self {
        Segment { flow, kind, position: 0, acknowledged: 0, window: 0, payload: Vec::new() }
    }

    /// Its size on the wire, in bytes.
    pub(crate) fn size(&self) -> usize {
        HEADERS + self.payload.len()
    }
}
