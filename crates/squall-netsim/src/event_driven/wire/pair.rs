//! The two ends of each connection, and all that is known of them.

use crate::Side;

use super::ending::Ending;
use super::flow::Fifo;
use super::segment::{Flow, HostIndex, Key};
use super::socket::Socket;

/// One end of a connection.
pub(crate) struct Half {
    pub host: HostIndex,
    /// Its socket. None before the kernel has made it, and after the kernel has removed it.
    pub socket: Option<Socket>,
    /// The packets that it has sent and that are under way.
    pub fifo: Fifo,
    /// True while an application holds it.
    pub is_held: bool,
    /// Its end, if TCP alone does not explain it.
    pub ending: Option<Ending>,
    /// True for a server's end from the SYN-ACK until the packet that completes the handshake.
    pub is_mid_handshake: bool,
    /// True if its packets are dropped without notice, because the other end is gone.
    pub is_swallowed: bool,
    /// True if its packets wait.
    pub is_stalled: bool,
    /// True if the other end was gone when keep-alive last looked.
    pub is_suspect: bool,
    /// True if its reader has freed some space since the last step.
    pub has_freed: bool,
}

impl Half {
    fn new(host: HostIndex) -> Self {
        Half {
            host,
            socket: None,
            fifo: Fifo::default(),
            is_held: false,
            ending: None,
            is_mid_handshake: false,
            is_swallowed: false,
            is_stalled: false,
            is_suspect: false,
            has_freed: false,
        }
    }

    /// Its socket, if that is not over.
    pub(crate) fn live_socket(&self) -> Option<&Socket> {
        self.socket.as_ref().filter(|socket| !socket.is_over())
    }

    /// Returns true if it takes part in nothing more. While an application holds it, it has a socket.
    fn is_over(&self) -> bool {
        self.socket.is_none() && self.fifo.is_empty()
    }
}

/// Both ends of a connection.
pub(crate) struct Pair {
    pub key: Key,
    /// The server's port.
    pub port: u16,
    /// The client's end, and the server's.
    halves: [Half; 2],
}

impl Pair {
    /// The end on this side.
    pub(crate) fn half(&self, side: Side) -> &Half {
        &self.halves[side as usize]
    }

    /// The same, to change it.
    pub(crate) fn half_mut(&mut self, side: Side) -> &mut Half {
        &mut self.halves[side as usize]
    }

    /// Returns true if both ends are on one host. Its kernel loops such segments back; they never reach the wire.
    pub(crate) fn is_loopback(&self) -> bool {
        self.halves[0].host == self.halves[1].host
    }

    /// Returns true if both ends are over. Then no packet can come for which an end would have to be remembered.
    fn is_over(&self) -> bool {
        self.halves.iter().all(Half::is_over)
    }
}

/// All connections. A place is used again when its connection has been removed.
#[derive(Default)]
pub(crate) struct Pairs {
    places: Vec<Option<Box<Pair>>>,
    free: Vec<u32>,
}

impl Pairs {
    /// Adds connection `id` of two hosts, without sockets.
    pub(crate) fn add(&mut self, id: u64, client: HostIndex, server: HostIndex, port: u16) -> Key {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u32 - 1
        });
        let key = Key { id, place };
        let pair = Pair { key, port, halves: [client, server].map(Half::new) };
        self.places[place as usize] = Some(Box::new(pair));
        key
    }

    /// The connection of this name, unless it was removed.
    pub(crate) fn get(&self, key: Key) -> Option<&Pair> {
        self.places.get(key.place as usize)?.as_deref().filter(|pair| pair.key.id == key.id)
    }

    /// The same, to change it.
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Pair> {
        self.places.get_mut(key.place as usize)?.as_deref_mut().filter(|pair| pair.key.id == key.id)
    }

    /// Removes a connection if both of its ends are over.
    pub(crate) fn remove_if_over(&mut self, key: Key) {
        if self.get(key).is_some_and(Pair::is_over) {
            self.places[key.place as usize] = None;
            self.free.push(key.place);
        }
    }

    /// All connections, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pair> {
        self.places.iter().flatten().map(Box::as_ref)
    }

    /// The same, to change them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pair> {
        self.places.iter_mut().flatten().map(Box::as_mut)
    }

    /// The ends on a host, oldest connection first.
    pub(crate) fn of_host(&self, host: HostIndex) -> Vec<Flow> {
        self.flows_between(|from, _| from == host)
    }

    /// The flows from and to such hosts, oldest connection first.
    pub(crate) fn flows_between(&self, is_wanted: impl Fn(HostIndex, HostIndex) -> bool) -> Vec<Flow> {
        let ends = |pair: &Pair| [Side::Client, Side::Server].map(|from| Flow { connection: pair.key, from });
        let hosts =
            |flow: Flow| self.get(flow.connection).map(|pair| (pair.half(flow.from), pair.half(flow.reversed().from)));
        let wanted = |flow: &Flow| hosts(*flow).is_some_and(|(from, to)| is_wanted(from.host, to.host));
        let mut flows: Vec<Flow> = self.iter().flat_map(ends).filter(wanted).collect();
        flows.sort_unstable();
        flows
    }
}
