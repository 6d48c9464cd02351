//! Open connections, as the world sees and cuts them.

use tokio::time::Instant;
use turmoil_net::NetstatState;

use super::Wire;
use super::segment::{Endpoint, Flow, HostIndex};
use crate::{Connection, Side};

impl Wire {
    /// The connections between two hosts that are open at both ends, oldest first.
    pub(crate) fn connections(&self, a: HostIndex, b: HostIndex) -> Vec<Connection> {
        let there = self.dialled(a, |to| to.host == b);
        let mut connections = if a == b { there } else { [there, self.dialled(b, |to| to.host == a)].concat() };
        connections.sort_by_key(|connection| connection.id);
        connections
    }

    /// The connections from one host to a port of another that are open at both ends, oldest first.
    pub(crate) fn connections_to(&self, client: HostIndex, server: Endpoint) -> Vec<Connection> {
        let mut connections = self.dialled(client, |to| to == server);
        connections.sort_by_key(|connection| connection.id);
        connections
    }

    /// The open connections that a host has dialled to such endpoints. Only for these, the sockets are looked up.
    fn dialled(&self, client: HostIndex, is_wanted: impl Fn(Endpoint) -> bool) -> Vec<Connection> {
        let first = Endpoint { host: client, port: 0 };
        let held = self.held.range(Flow { from: first, to: Endpoint { host: HostIndex(0), port: 0 } }..);
        let of_client = held.take_while(|(flow, _)| flow.from.host == client);
        let wanted = of_client.filter(|(flow, (_, side))| *side == Side::Client && is_wanted(flow.to));
        let open = wanted.filter(|(flow, _)| self.is_open(**flow));
        open.map(|(flow, (id, _))| self.connection(*flow, *id)).collect()
    }

    /// Resets both ends of a connection and drops what is under way between them. False if it was not open any more.
    pub(crate) fn cut(&mut self, connection: &Connection, now: Instant) -> bool {
        let Some(flow) = self.open(connection) else { return false };
        for local in [flow, flow.reversed()] {
            self.abort(local, std::io::ErrorKind::ConnectionReset, now);
            self.forget(local);
        }
        self.poke();
        true
    }

    /// Aborts the end on `gone` and has the other end's packets dropped. What `gone` has sent still arrives. False if the
    /// connection was not open any more.
    ///
    /// A firewall that lost its state (a fail-over, a full table) does this: it answers an unknown packet from the inside
    /// with a reset, and drops one from the outside without notice.
    pub(crate) fn half_open(&mut self, connection: &Connection, gone: HostIndex, now: Instant) -> bool {
        let Some(flow) = self.open(connection) else { return false };
        let mut ends = [flow, flow.reversed()].into_iter();
        let local = ends.find(|end| end.from.host == gone).expect("the connection has an end there");
        self.swallowed.insert(local.reversed(), connection.id);
        self.abort(local, std::io::ErrorKind::ConnectionReset, now);
        self.poke();
        true
    }

    /// Has both ends' packets arrive again. What is waiting is tried again within two seconds.
    pub(crate) fn answer(&mut self, connection: &Connection) {
        self.swallowed.retain(|_, id| *id != connection.id);
    }

    /// Lets the packets that `from` sends on a connection wait. False if the connection was not open any more.
    pub(crate) fn stall(&mut self, connection: &Connection, from: HostIndex) -> bool {
        let Some(flow) = self.open(connection) else { return false };
        let sent = if flow.from.host == from { flow } else { flow.reversed() };
        self.stalled.insert(sent, connection.id);
        true
    }

    /// Has the packets that waited arrive now. Returns their number.
    pub(crate) fn release(&mut self, connection: &Connection, now: Instant) -> usize {
        let Some((&flow, _)) = self.stalled.iter().find(|(_, id)| **id == connection.id) else { return 0 };
        self.stalled.remove(&flow);
        let Some(fifo) = self.fifos.get_mut(&flow) else { return 0 };
        fifo.hasten(now);
        let waited = fifo.len();
        self.schedule(flow);
        self.poke();
        waited
    }

    /// The flow of a connection from its client, if it is open.
    fn open(&self, connection: &Connection) -> Option<Flow> {
        let (flow, _) = self.held.iter().find(|(_, end)| **end == (connection.id, Side::Client))?;
        self.is_open(*flow).then_some(*flow)
    }

    /// Returns true if both ends are established and held by applications.
    fn is_open(&self, flow: Flow) -> bool {
        let state = |local: Flow| self.socket(local)?.state;
        let open = |local: Flow| self.held.contains_key(&local) && state(local) == Some(NetstatState::Established);
        open(flow) && open(flow.reversed())
    }

    fn connection(&self, flow: Flow, id: u64) -> Connection {
        let name = |host: HostIndex| self.hosts[usize::from(host.0)].name.clone();
        Connection { id, client: name(flow.from.host), server: name(flow.to.host), port: flow.to.port }
    }
}
