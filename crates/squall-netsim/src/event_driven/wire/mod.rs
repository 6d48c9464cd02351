//! Everything between the applications: the hosts' network stacks, the packets under way, and the fate of each.
//!
//! The whole state is one thread-local. Streams must be `Send` (hyper and the `redis` client ask for it) and must
//! reach it from their `Drop`, so they cannot hold an `Rc` to it.

pub(super) mod acks;
pub(super) mod agenda;
mod arrival;
mod connection;
pub(super) mod ending;
pub(super) mod flow;
pub(super) mod host;
mod kernel;
pub(super) mod link;
mod listening;
pub(super) mod pair;
pub(super) mod segment;
pub(super) mod socket;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::time::Time;

use agenda::{Agenda, Task};
use flow::Fifo;
use host::Host;
use link::Links;
use pair::{Half, Pairs};
use segment::{Flow, HostIndex, Kind, Segment};
use socket::Socket;

use super::super::{LatencyRange, Tap};
use squall_env::SeedTree;

/// The least bytes a reader must have freed before a window update is worth a packet.
pub(super) const WINDOW_STEP: usize = 8 * 1024;
/// A window at least this large keeps its sender busy without updates.
const WINDOW_AMPLE: usize = 32 * 1024;

/// The state of the simulated network.
pub(super) struct Wire {
    pub hosts: Vec<Host>,
    pub names: BTreeMap<Arc<str>, HostIndex>,
    pub tap: Rc<dyn Tap>,
    pub links: Links,
    pub pairs: Pairs,
    pub agenda: Agenda,
    /// Attempts so far.
    pub attempts: u64,
    /// Sockets so far.
    serial: u64,
    /// The hosts at which the next egress pass looks.
    marked: Vec<HostIndex>,
    /// Sockets whose reader has freed some space.
    freed: Vec<Flow>,
    /// SYNs delivered since the last egress pass.
    unanswered: Vec<Segment>,
    /// Room for what one host sends in one pass.
    outbound: Vec<Segment>,
}

thread_local! {
    static WIRE: RefCell<Option<Wire>> = const { RefCell::new(None) };
}

/// Runs `f` on this thread's wire. Wakers may be woken inside; tasks must not be dropped there, for their streams come
/// here too.
pub(super) fn wire<R>(f: impl FnOnce(&mut Wire) -> R) -> R {
    WIRE.with(|wire| f(wire.borrow_mut().as_mut().expect("only used inside a simulation")))
}

/// The same for `Drop` implementations, which may run when the simulation is over.
pub(super) fn try_wire<R>(f: impl FnOnce(&mut Wire) -> R) -> Option<R> {
    WIRE.with(|wire| wire.borrow_mut().as_mut().map(f))
}

/// Installs this thread's wire, or takes it away.
pub(super) fn install(wire: Option<Wire>) -> Option<Wire> {
    WIRE.with(|slot| std::mem::replace(&mut *slot.borrow_mut(), wire))
}

impl Wire {
    /// A wire between `hosts`. The latencies of the link from `a` to `b` are drawn from `a>b` of `link_seeds`.
    pub(super) fn new(hosts: Vec<Host>, link_seeds: SeedTree, latency: LatencyRange, tap: Rc<dyn Tap>) -> Self {
        let name = |(n, host): (usize, &Host)| (host.name.clone(), HostIndex(n as u16));
        let names: BTreeMap<_, _> = hosts.iter().enumerate().map(name).collect();
        assert_eq!(names.len(), hosts.len(), "every host has a name of its own");
        let links = Links::new(hosts.iter().map(|host| Arc::clone(&host.name)).collect(), link_seeds, latency);
        Wire {
            hosts,
            tap,
            links,
            names,
            pairs: Pairs::default(),
            agenda: Agenda::default(),
            attempts: 0,
            serial: 0,
            marked: Vec::new(),
            freed: Vec::new(),
            unanswered: Vec::new(),
            outbound: Vec::new(),
        }
    }

    /// The host numbered `index`.
    pub(super) fn host(&mut self, index: HostIndex) -> &mut Host {
        &mut self.hosts[usize::from(index.0)]
    }

    /// The end of a connection that has the name of this flow.
    pub(super) fn half(&self, local: Flow) -> Option<&Half> {
        Some(self.pairs.get(local.connection)?.half(local.from))
    }

    /// The same, to change it.
    pub(super) fn half_mut(&mut self, local: Flow) -> Option<&mut Half> {
        Some(self.pairs.get_mut(local.connection)?.half_mut(local.from))
    }

    /// The socket at that end.
    pub(super) fn socket(&self, local: Flow) -> Option<&Socket> {
        self.half(local)?.socket.as_ref()
    }

    /// The same, to change it.
    pub(super) fn socket_mut(&mut self, local: Flow) -> Option<&mut Socket> {
        self.half_mut(local)?.socket.as_mut()
    }

    /// The hosts of a flow: its sender's and its receiver's.
    fn way(&self, flow: Flow) -> Option<(HostIndex, HostIndex)> {
        let pair = self.pairs.get(flow.connection)?;
        Some((pair.half(flow.from).host, pair.half(flow.reversed().from).host))
    }

    /// Does all that is due.
    pub(super) fn step(&mut self, now: Time) {
        loop {
            while let Some((at, task)) = self.agenda.pop_due(now) {
                match task {
                    Task::Arrive(flow) => self.arrive(flow, at, now),
                    Task::Reap(local) => self.reap(local, now),
                    Task::Keepalive => self.keepalive(now),
                }
            }
            self.egress(now);
            self.update_windows(now);
            self.repeat_unanswered(now);
            if self.marked.is_empty() && self.agenda.next().is_none_or(|next| next > now) {
                return;
            }
        }
    }

    /// Sends what the hosts have to send. What is for the sender's own host is delivered at once, and may have it send more.
    pub(super) fn egress(&mut self, now: Time) {
        for host in self.take_marked() {
            let mut segments = std::mem::take(&mut self.outbound);
            loop {
                self.drain(host, &mut segments, now);
                if segments.is_empty() {
                    break;
                }
                for segment in segments.drain(..) {
                    let pair = self.pairs.get(segment.flow.connection);
                    match pair.is_some_and(|pair| pair.is_loopback()) {
                        true => self.deliver(segment),
                        false => self.send(segment, now),
                    }
                }
            }
            self.outbound = segments;
            self.unmark(host);
        }
    }

    /// Sends a packet from its host.
    pub(super) fn send(&mut self, segment: Segment, now: Time) {
        let flow = segment.flow;
        self.unanswered.retain(|syn| syn.flow.reversed() != flow);
        self.settle(flow, now);
        let Some(pair) = self.pairs.get_mut(flow.connection) else { return };
        let (from, to) = (pair.half(flow.from).host, pair.half(flow.reversed().from).host);
        if !self.hosts[usize::from(from.0)].is_up() {
            return;
        }
        let kind = segment.kind;
        // A socket in SYN_RCVD takes an acknowledgement and loses the bytes that came on it: the one that completes a
        // handshake travels bare.
        let travels_bare = kind != Kind::Ack && pair.half(flow.reversed().from).is_mid_handshake;
        let half = pair.half_mut(flow.from);
        if kind == Kind::SynAck {
            half.is_mid_handshake = true;
        }
        if !matches!(kind, Kind::Syn | Kind::Rst) {
            (half.fifo.acknowledged, half.fifo.window) = (segment.acknowledged, segment.window);
        }
        let acknowledges = matches!(kind, Kind::Ack | Kind::Data | Kind::Fin);
        let link = self.links.get(from, to);
        if !acknowledges || travels_bare || link.is_limited() || !half.fifo.ends_with_ack_of(now) {
            let at = link.arrival(now, segment.size() as u32);
            half.fifo.push(segment, now, at);
        } else {
            half.fifo.replace_last(segment);
        }
        self.schedule(flow);
    }

    /// Sends the SYNs again that a full backlog dropped without notice, as their clients would.
    fn repeat_unanswered(&mut self, now: Time) {
        for syn in std::mem::take(&mut self.unanswered) {
            let flow = syn.flow;
            let Some(fifo) = self.fifo(flow) else { continue };
            fifo.push_front(syn, now);
            fifo.back_off(arrival::SYN_RETRY, now);
            self.schedule(flow);
        }
    }

    /// Records that the reader of a socket has freed some space.
    pub(super) fn freed(&mut self, local: Flow) {
        let Some(half) = self.half_mut(local) else { return };
        if !std::mem::replace(&mut half.has_freed, true) {
            self.freed.push(local);
            self.agenda.wake();
        }
    }

    /// A socket announces freed space only if one single read frees half the buffer, so a reader of small pieces would leave
    /// its sender before a closed window for ever. This announces it on the socket's behalf, in order behind its last
    /// acknowledgement.
    fn update_windows(&mut self, now: Time) {
        let mut freed = std::mem::take(&mut self.freed);
        freed.sort_unstable();
        for local in freed {
            let Some(half) = self.half_mut(local) else { continue };
            half.has_freed = false;
            let Some(socket) = half.live_socket() else { continue };
            let announced = half.fifo.window;
            let (position, window) = (half.fifo.acknowledged, socket.room());
            let update = Segment { acknowledged: position, window, ..Segment::bare(local, Kind::Ack) };
            if self.pairs.get(local.connection).is_some_and(|pair| pair.is_loopback()) {
                // At once: what a loop-back sender sends meanwhile would make a travelling window too large, and what
                // overruns the buffer is lost.
                self.deliver(update);
            } else if announced < WINDOW_AMPLE && window >= announced + WINDOW_STEP {
                self.send(update, now);
            }
        }
    }

    /// The packets under way along `flow`.
    pub(super) fn fifo(&mut self, flow: Flow) -> Option<&mut Fifo> {
        self.half_mut(flow).map(|half| &mut half.fifo)
    }

    /// Drops all packets under way along `flow`.
    pub(super) fn forget(&mut self, flow: Flow) {
        if let Some(fifo) = self.fifo(flow) {
            *fifo = Fifo::default();
        }
    }

    /// Sets what the link from one host to another carries. When a limit is lifted, what was queued before it arrives
    /// within the time that any packet may take.
    pub(super) fn set_bandwidth(&mut self, from: HostIndex, to: HostIndex, bytes_per_sec: Option<u64>, now: Time) {
        let link = self.links.get(from, to);
        link.set_bandwidth(bytes_per_sec);
        if bytes_per_sec.is_some() {
            return;
        }
        let latest = now + Duration::from_micros(link.latency.max_us.max(link.latency.min_us));
        for flow in self.pairs.of_host(from) {
            if self.way(flow) != Some((from, to)) {
                continue;
            }
            if let Some(fifo) = self.fifo(flow) {
                fifo.hasten(latest);
            }
            self.schedule(flow);
        }
    }

    /// Puts the arrival of the head of `flow` on the agenda. Acknowledgements that change nothing need no arrival of their
    /// own: see [`Wire::settle`].
    pub(super) fn schedule(&mut self, flow: Flow) {
        let acks_can_wait = self.acks_can_wait(flow) && !acks::none_waits();
        let Some(half) = self.half_mut(flow).filter(|half| !half.is_stalled) else { return };
        let at = match acks_can_wait {
            true => half.fifo.first_but_acks(),
            false => half.fifo.head().map(|(at, _)| at),
        };
        if half.fifo.due != at {
            half.fifo.due = at;
            at.into_iter().for_each(|at| self.agenda.push(at, Task::Arrive(flow)));
        }
    }
}
