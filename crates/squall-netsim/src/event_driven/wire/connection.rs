//! Open connections, as the world sees and cuts them.

use crate::time::Time;

use super::Wire;
use super::pair::{Half, Pair};
use super::segment::{Flow, HostIndex};
use super::socket::{Socket, State};
use crate::{Connection, Side};

impl Wire {
    /// The connections between two hosts that are open at both ends, oldest first.
    pub(crate) fn connections(&self, a: HostIndex, b: HostIndex) -> Vec<Connection> {
        self.open_where(|client, server, _| (client, server) == (a, b) || (client, server) == (b, a))
    }

    /// The connections from one host to a port of another that are open at both ends, oldest first.
    pub(crate) fn connections_to(&self, from: HostIndex, to: HostIndex, to_port: u16) -> Vec<Connection> {
        self.open_where(|client, server, port| (client, server, port) == (from, to, to_port))
    }

    fn open_where(&self, is_wanted: impl Fn(HostIndex, HostIndex, u16) -> bool) -> Vec<Connection> {
        let is_wanted = |pair: &Pair| is_wanted(pair.half(Side::Client).host, pair.half(Side::Server).host, pair.port);
        let open = self.pairs.iter().filter(|pair| is_wanted(pair) && is_open(pair));
        let mut connections: Vec<Connection> = open.map(|pair| self.connection(pair)).collect();
        connections.sort_unstable_by_key(|connection| connection.id);
        connections
    }

    /// Resets both ends of a connection and drops what is under way between them. False if it was not open any more.
    pub(crate) fn cut(&mut self, connection: &Connection, now: Time) -> bool {
        let Some(flow) = self.open(connection) else { return false };
        for local in [flow, flow.reversed()] {
            self.abort(local, std::io::ErrorKind::ConnectionReset, now);
            self.forget(local);
        }
        true
    }

    /// Aborts the end on `gone` and has the other end's packets dropped. What `gone` has sent still arrives. False if the
    /// connection was not open any more.
    ///
    /// A firewall that lost its state (a fail-over, a full table) does this: it answers an unknown packet from the inside
    /// with a reset, and drops one from the outside without notice.
    pub(crate) fn half_open(&mut self, connection: &Connection, gone: HostIndex, now: Time) -> bool {
        let Some(local) = self.open_end(connection, gone) else { return false };
        self.settle(local.reversed(), now);
        if let Some(peer) = self.half_mut(local.reversed()) {
            peer.is_swallowed = true;
        }
        self.abort(local, std::io::ErrorKind::ConnectionReset, now);
        true
    }

    /// Has both ends' packets arrive again. What is waiting is tried again within two seconds.
    pub(crate) fn answer(&mut self, connection: &Connection) {
        for pair in self.pairs.iter_mut().filter(|pair| pair.key.id == connection.id) {
            for side in [Side::Client, Side::Server] {
                pair.half_mut(side).is_swallowed = false;
            }
        }
    }

    /// Lets the packets that `from` sends on a connection wait. False if the connection was not open any more.
    pub(crate) fn stall(&mut self, connection: &Connection, from: HostIndex, now: Time) -> bool {
        let Some(flow) = self.open_end(connection, from) else { return false };
        self.settle(flow, now);
        self.half_mut(flow).into_iter().for_each(|half| half.is_stalled = true);
        true
    }

    /// Has the packets that waited arrive now. Returns their number.
    pub(crate) fn release(&mut self, connection: &Connection, now: Time) -> usize {
        let Some(pair) = self.pairs.iter().find(|pair| pair.key.id == connection.id) else { return 0 };
        let Some(from) = [Side::Client, Side::Server].into_iter().find(|side| pair.half(*side).is_stalled) else {
            return 0;
        };
        let flow = Flow { connection: pair.key, from };
        let Some(half) = self.half_mut(flow) else { return 0 };
        half.is_stalled = false;
        half.fifo.hasten(now);
        let waited = half.fifo.len();
        self.schedule(flow);
        waited
    }

    /// The flow of a connection from its client, if it is open.
    fn open(&self, connection: &Connection) -> Option<Flow> {
        let pair = self.pairs.iter().find(|pair| pair.key.id == connection.id)?;
        is_open(pair).then_some(Flow { connection: pair.key, from: Side::Client })
    }

    /// The end of an open connection on a host.
    fn open_end(&self, connection: &Connection, host: HostIndex) -> Option<Flow> {
        let flow = self.open(connection)?;
        let is_there = |end: &Flow| self.half(*end).is_some_and(|half| half.host == host);
        Some([flow, flow.reversed()].into_iter().find(is_there).expect("the connection has an end there"))
    }

    fn connection(&self, pair: &Pair) -> Connection {
        let name = |side| self.hosts[usize::from(pair.half(side).host.0)].name.clone();
        Connection { id: pair.key.id, client: name(Side::Client), server: name(Side::Server), port: pair.port }
    }
}

/// Returns true if both ends are established and held by applications.
fn is_open(pair: &Pair) -> bool {
    let is_open = |half: &Half| half.is_held && half.socket.as_ref().map(Socket::state) == Some(State::Established);
    [Side::Client, Side::Server].into_iter().all(|side| is_open(pair.half(side)))
}
