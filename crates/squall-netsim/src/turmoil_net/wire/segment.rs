//! TCP segments and the flows they belong to.
//!
//! Hosts are numbered, and host `n` owns the address `10.0.n`: a flow is then eight bytes that compare fast, which
//! matters because every packet looks up a few.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use turmoil_net::{Packet, TcpFlags, TcpSegment, Transport};

/// A host's number: its place in [`Options::hosts`](crate::Options::hosts).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostIndex(pub u16);

impl HostIndex {
    /// The host's only address.
    pub(crate) fn ip(self) -> IpAddr {
        let [high, low] = self.0.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
    }

    fn of(ip: IpAddr) -> Self {
        let IpAddr::V4(ip) = ip else { panic!("hosts have IPv4 addresses only, not {ip}") };
        let [_, _, high, low] = ip.octets();
        HostIndex(u16::from_be_bytes([high, low]))
    }
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    pub host: HostIndex,
    pub port: u16,
}

impl Endpoint {
    /// The endpoint at a socket address of the simulated network.
    pub(crate) fn of(address: SocketAddr) -> Self {
        Endpoint { host: HostIndex::of(address.ip()), port: address.port() }
    }

    /// Its socket address.
    pub(crate) fn address(self) -> SocketAddr {
        SocketAddr::new(self.host.ip(), self.port)
    }
}

/// One direction of a connection. A socket is named by the flow that leaves it: `from` is its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    pub from: Endpoint,
    pub to: Endpoint,
}

impl Flow {
    /// The flow `packet` belongs to.
    pub(crate) fn of(packet: &Packet) -> Self {
        let segment = tcp(packet);
        Flow {
            from: Endpoint { host: HostIndex::of(packet.src), port: segment.src_port },
            to: Endpoint { host: HostIndex::of(packet.dst), port: segment.dst_port },
        }
    }

    /// The other direction; the socket at the other end.
    pub(crate) fn reversed(self) -> Self {
        Flow { from: self.to, to: self.from }
    }

    /// Returns true if both ends are on one host. Its kernel loops such segments back; they never reach the wire.
    pub(crate) fn is_loopback(self) -> bool {
        self.from.host == self.to.host
    }
}

/// The TCP segment in `packet`.
pub(crate) fn tcp(packet: &Packet) -> &TcpSegment {
    match &packet.payload {
        Transport::Tcp(segment) => segment,
        Transport::Udp(_) => panic!("the stack speaks TCP only"),
    }
}

/// The meaning of a segment to the wire.
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

impl Kind {
    /// The kind of the segment in `packet`.
    pub(crate) fn of(packet: &Packet) -> Self {
        let segment = tcp(packet);
        let flags = segment.flags;
        match () {
            () if flags.rst => Kind::Rst,
            () if flags.syn && flags.ack => Kind::SynAck,
            () if flags.syn => Kind::Syn,
            () if !segment.payload.is_empty() => Kind::Data,
            () if flags.fin => Kind::Fin,
            () => Kind::Ack,
        }
    }
}

/// An RST along `flow`. A kernel matches it by addresses and ports alone.
pub(crate) fn rst(flow: Flow) -> Packet {
    forge(flow, 0, 0, TcpFlags { rst: true, ..TcpFlags::default() })
}

/// An acknowledgement along `flow`.
pub(crate) fn ack(flow: Flow, ack: u32, window: u16) -> Packet {
    forge(flow, ack, window, TcpFlags { ack: true, ..TcpFlags::default() })
}

fn forge(flow: Flow, ack: u32, window: u16, flags: TcpFlags) -> Packet {
    let segment = TcpSegment {
        src_port: flow.from.port,
        dst_port: flow.to.port,
        seq: 0,
        ack,
        flags,
        window,
        payload: bytes::Bytes::new(),
    };
    Packet { src: flow.from.host.ip(), dst: flow.to.host.ip(), ttl: 64, payload: Transport::Tcp(segment) }
}
