//! Everything between the hosts: the packets under way, and the fate of each.
//!
//! The whole state is one thread-local. Streams must be `Send` (hyper and the `redis` client ask for it) and must
//! reach it from their `Drop`, so they cannot hold an `Rc` to it.

pub(super) mod agenda;
mod connection;
pub(super) mod ending;
pub(super) mod flow;
pub(super) mod host;
pub(super) mod link;
pub(super) mod segment;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;
use turmoil_net::{EnterGuard, NetstatEntry, NetstatState, Packet};

use agenda::{Agenda, Task};
use ending::Ending;
use flow::Fifo;
use host::Host;
use link::Link;
use segment::{Flow, HostIndex, Kind, tcp};

use super::super::{LatencyRange, Side, Tap};
use squall_env::SeedTree;

/// Bytes a socket's receive buffer holds. The kernel's SYN-ACK always announces 65 535, so it must not be less.
pub(super) const RECEIVE_BUFFER: usize = 64 * 1024;

/// A sender without progress for this long fails with `TimedOut`. Linux: about 15 minutes.
const GIVE_UP: Duration = Duration::from_secs(15);
/// First wait before a packet that did not get through is tried again. Linux: 200 ms.
const RETRY: Duration = Duration::from_millis(200);
/// The same for a SYN. Linux: 1 s.
const SYN_RETRY: Duration = Duration::from_secs(1);

/// The least bytes a reader must have freed before a window update is worth a packet.
pub(super) const WINDOW_STEP: usize = 8 * 1024;
/// A window at least this large keeps its sender busy without updates.
const WINDOW_AMPLE: u16 = 32 * 1024;

/// The state of the simulated network.
pub(super) struct Wire {
    pub net: EnterGuard,
    pub hosts: Vec<Host>,
    pub names: BTreeMap<Arc<str>, HostIndex>,
    pub tap: Rc<dyn Tap>,
    /// The latency of every link that has none of its own.
    pub latency: LatencyRange,
    /// The links in use, one for each pair of hosts, ordered by sender first. A link is made when it is first used.
    links: Vec<Option<Box<Link>>>,
    /// The source of every link's draws.
    link_seeds: SeedTree,
    pub fifos: BTreeMap<Flow, Fifo>,
    pub agenda: Agenda,
    pub driver: Option<Waker>,
    /// Connections by their client's socket, from the dialling until the server accepts.
    pub dialled: BTreeMap<Flow, u64>,
    /// Attempts so far.
    pub attempts: u64,
    /// Sockets held by applications: their connections' numbers, and which end they are.
    pub held: BTreeMap<Flow, (u64, Side)>,
    /// Sockets that came to an end their kernel does not fully know of.
    pub ended: BTreeMap<Flow, Ending>,
    /// Flows whose packets are dropped without notice, because the other end is gone, and their connections' numbers.
    pub swallowed: BTreeMap<Flow, u64>,
    /// Flows whose packets wait, and their connections' numbers.
    pub stalled: BTreeMap<Flow, u64>,
    /// Server sockets in mid-handshake, and the acknowledgement that completes it.
    pub half_open: BTreeMap<Flow, u32>,
    /// Sockets whose peer's socket was gone when keep-alive last looked.
    pub suspects: BTreeSet<Flow>,
    /// Sockets whose reader has freed some space.
    pub freed: BTreeSet<Flow>,
    /// SYNs delivered since the last egress pass.
    unanswered: Vec<Packet>,
    egress: Vec<Packet>,
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
    /// A wire between `hosts`, whose kernels `net` holds. The latencies of the link from `a` to `b` are drawn from `a>b` of
    /// `link_seeds`.
    pub(super) fn new(
        net: EnterGuard,
        hosts: Vec<Host>,
        link_seeds: SeedTree,
        latency: LatencyRange,
        tap: Rc<dyn Tap>,
    ) -> Self {
        let name = |(n, host): (usize, &Host)| (host.name.clone(), HostIndex(n as u16));
        let names: BTreeMap<_, _> = hosts.iter().enumerate().map(name).collect();
        assert_eq!(names.len(), hosts.len(), "every host has a name of its own");
        Wire {
            net,
            hosts,
            tap,
            latency,
            links: (0..names.len().pow(2)).map(|_| None).collect(),
            link_seeds,
            names,
            fifos: BTreeMap::new(),
            agenda: Agenda::default(),
            driver: None,
            dialled: BTreeMap::new(),
            attempts: 0,
            held: BTreeMap::new(),
            ended: BTreeMap::new(),
            swallowed: BTreeMap::new(),
            stalled: BTreeMap::new(),
            half_open: BTreeMap::new(),
            suspects: BTreeSet::new(),
            freed: BTreeSet::new(),
            unanswered: Vec::new(),
            egress: Vec::new(),
        }
    }

    /// The host numbered `index`.
    pub(super) fn host(&mut self, index: HostIndex) -> &mut Host {
        &mut self.hosts[usize::from(index.0)]
    }

    /// The link from one host to another.
    pub(super) fn link(&mut self, from: HostIndex, to: HostIndex) -> &mut Link {
        let (from, to) = (usize::from(from.0), usize::from(to.0));
        let Wire { hosts, links, link_seeds, latency, .. } = self;
        links[from * hosts.len() + to].get_or_insert_with(|| {
            let seeds = link_seeds.child(format_args!("{}>{}", hosts[from].name, hosts[to].name));
            Box::new(Link::new(seeds.rng(), *latency))
        })
    }

    /// All links in use.
    pub(super) fn links(&mut self) -> impl Iterator<Item = &mut Link> {
        self.links.iter_mut().flatten().map(Box::as_mut)
    }

    /// Makes the driver look: some socket may have something to send.
    pub(super) fn poke(&self) {
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }

    /// Looks a socket up in its kernel. Scans the host's whole table: not for every packet.
    pub(super) fn socket(&self, local: Flow) -> Option<NetstatEntry> {
        let (own, peer) = (local.from.address(), Some(local.to.address()));
        let sockets = turmoil_net::netstat(own.ip()).entries;
        sockets.into_iter().find(|socket| socket.local == own && socket.peer == peer)
    }

    /// Does all that is due, and returns the time of the next task.
    pub(super) fn step(&mut self, now: Instant) -> Option<Instant> {
        loop {
            while let Some((at, task)) = self.agenda.pop_due(now) {
                match task {
                    Task::Arrive(flow) => self.arrive(flow, at, now),
                    Task::Reap(local) => self.reap(local, now),
                    Task::Keepalive => self.keepalive(now),
                }
            }
            // One egress pass scans every socket of every host three times and is the dearest part of a step: there is
            // no second one just to find nothing.
            self.egress(now);
            while let Some(local) = self.freed.pop_first() {
                self.update_window(local, now);
            }
            self.repeat_unanswered(now);
            if self.agenda.next().is_none_or(|next| next > now) {
                return self.agenda.next();
            }
        }
    }

    /// Sends what the kernels have to send.
    pub(super) fn egress(&mut self, now: Instant) {
        let mut packets = std::mem::take(&mut self.egress);
        self.net.egress_all(&mut packets);
        for packet in packets.drain(..) {
            self.send(packet, now);
        }
        self.egress = packets;
    }

    /// Sends a packet from its host.
    pub(super) fn send(&mut self, packet: Packet, now: Instant) {
        let (flow, kind) = (Flow::of(&packet), Kind::of(&packet));
        if !self.host(flow.from.host).is_up() {
            return;
        }
        match kind {
            Kind::Syn => self.begin(flow),
            Kind::SynAck => drop(self.half_open.insert(flow, tcp(&packet).seq.wrapping_add(1))),
            _ => {}
        }
        self.unanswered.retain(|syn| Flow::of(syn).reversed() != flow);

        let bandwidth_limited = self.link(flow.from.host, flow.to.host).is_limited();
        // A socket in SYN_RCVD takes an acknowledgement and loses the bytes that came on it: the one that completes a
        // handshake travels bare.
        let travels_bare = kind != Kind::Ack && self.half_open.contains_key(&flow.reversed());
        let acknowledges = matches!(kind, Kind::Ack | Kind::Data | Kind::Fin);

        let fifo = self.fifos.entry(flow).or_default();
        if tcp(&packet).flags.ack {
            (fifo.ack, fifo.window) = (tcp(&packet).ack, tcp(&packet).window);
        }
        let packet = if acknowledges && !travels_bare && !bandwidth_limited {
            match fifo.replace_ack(packet, now) {
                Ok(()) => return,
                Err(packet) => packet,
            }
        } else {
            packet
        };
        let at = self.link(flow.from.host, flow.to.host).arrival(now, packet.size());
        self.fifo(flow).push(packet, now, at);
        self.schedule(flow);
    }

    /// The head of a flow is due: it gets through, or is lost and tried again.
    fn arrive(&mut self, flow: Flow, at: Instant, now: Instant) {
        let Some(fifo) = self.fifos.get_mut(&flow).filter(|fifo| fifo.due == Some(at)) else { return };
        fifo.due = None;
        while let Some((_, kind)) = self.head(flow).filter(|(at, _)| *at <= now) {
            if self.stalled.contains_key(&flow) {
                return;
            }
            if kind == Kind::Syn && !self.is_connecting(flow) {
                self.forget(flow); // the connector gave up
                self.dialled.remove(&flow);
                break;
            }
            let is_swallowed = self.swallowed.contains_key(&flow);
            if is_swallowed || self.link(flow.from.host, flow.to.host).partitioned || !self.host(flow.to.host).is_up() {
                self.lose(flow, kind, now);
            } else if let Some(packet) = self.fifo(flow).pop() {
                self.receive(flow, kind, packet, now);
            }
        }
        self.schedule(flow);
    }

    /// Delivers a packet to its host, and forges what its kernel needs besides the packet to go on correctly.
    fn receive(&mut self, flow: Flow, kind: Kind, packet: Packet, now: Instant) {
        let local = flow.reversed();
        match self.ended.get(&local) {
            Some(_) if kind == Kind::Syn => drop(self.ended.remove(&local)),
            // A reset socket that its application still holds swallows everything in silence.
            Some(Ending::Aborted(_)) if kind != Kind::Rst => return self.send(segment::rst(local), now),
            // The kernel goes on acknowledging bytes that no process will ever read; a real one answers with RST.
            Some(Ending::Orphaned) if kind == Kind::Data => {
                self.abort(local, std::io::ErrorKind::ConnectionReset, now);
                return self.send(segment::rst(local), now);
            }
            _ => {}
        }
        if kind == Kind::Syn {
            // The kernel ignores a SYN for addresses it still has a connection of. Make an end to that one.
            if self.socket(local).is_some() {
                self.abort(local, std::io::ErrorKind::ConnectionReset, now);
                self.ended.remove(&local);
            }
            self.unanswered.push(packet.clone());
        } else if kind == Kind::Rst {
            self.complete_handshake(local);
        } else {
            self.half_open.remove(&local);
        }
        self.net.deliver(packet);
    }

    /// Handles the head of a flow that does not get through.
    fn lose(&mut self, flow: Flow, kind: Kind, now: Instant) {
        let receiver_up = self.host(flow.to.host).is_up();
        let fifo = self.fifo(flow);
        let first = fifo.stick(now);
        match kind {
            // An RST is never repeated. An acknowledgement is no loss to a dead machine. Repeated until the restart, it
            // would bring its sender an RST that no real sender ever gets.
            Kind::Rst => drop(fifo.pop()),
            Kind::Ack if !receiver_up => drop(fifo.pop()),
            Kind::Syn => fifo.back_off(SYN_RETRY, now),
            _ if !self.swallowed.contains_key(&flow) && self.give_up(flow, now) => {}
            _ => self.fifo(flow).back_off(RETRY, now),
        }
        let link = self.link(flow.from.host, flow.to.host);
        if first && link.partitioned {
            link.held += 1;
        }
    }

    /// A socket that has waited too long for an acknowledgement fails with `TimedOut`: the sender for one of what is under
    /// way here, the receiver for one that is itself under way. The other end stays half open, as in life, and an idle
    /// connection outlives any partition. True if the sender gave up.
    fn give_up(&mut self, flow: Flow, now: Instant) -> bool {
        let overdue = |since: Option<Instant>| since.is_some_and(|since| now - since >= GIVE_UP);
        let fifo = self.fifo(flow);
        let (acks_overdue, data_overdue) = (overdue(fifo.stuck_since()), overdue(fifo.unanswered_since()));
        let receiver = flow.reversed();
        if acks_overdue && self.socket(receiver).is_some_and(|socket| socket.send_q > 0) {
            self.abort(receiver, std::io::ErrorKind::TimedOut, now);
        }
        if data_overdue {
            self.abort(flow, std::io::ErrorKind::TimedOut, now);
            self.forget(flow);
        }
        data_overdue
    }

    /// Sends the SYNs again that a full backlog dropped without notice, as their clients would.
    fn repeat_unanswered(&mut self, now: Instant) {
        for syn in std::mem::take(&mut self.unanswered) {
            let flow = Flow::of(&syn);
            let fifo = self.fifo(flow);
            fifo.push_front(syn, now);
            fifo.back_off(SYN_RETRY, now);
            self.schedule(flow);
        }
    }

    /// The kernel announces freed space only if one single read frees half the buffer, so a reader of small pieces
    /// would leave its sender before a closed window for ever. This announces it on the kernel's behalf, in order
    /// behind its last acknowledgement.
    fn update_window(&mut self, local: Flow, now: Instant) {
        let (ack, announced) = (self.fifo(local).ack, self.fifo(local).window);
        if announced >= WINDOW_AMPLE && !local.is_loopback() {
            return;
        }
        let Some(socket) = self.socket(local) else { return };
        let window = RECEIVE_BUFFER.saturating_sub(socket.recv_q).min(usize::from(u16::MAX)) as u16;
        if local.is_loopback() {
            // At once: what a loop-back sender sends meanwhile would make a travelling window too large, and what
            // overruns the buffer is lost. The kernel takes no notice of the stale acknowledgement number.
            self.net.deliver(segment::ack(local, ack, window));
            self.poke(); // the sender is in this very kernel and may go on
        } else if usize::from(window) >= usize::from(announced) + WINDOW_STEP {
            self.send(segment::ack(local, ack, window), now);
        }
    }

    fn head(&self, flow: Flow) -> Option<(Instant, Kind)> {
        self.fifos.get(&flow)?.head()
    }

    /// The packets under way along `flow`.
    fn fifo(&mut self, flow: Flow) -> &mut Fifo {
        self.fifos.entry(flow).or_default()
    }

    /// Drops all packets under way along `flow`.
    pub(super) fn forget(&mut self, flow: Flow) {
        self.fifos.remove(&flow);
    }

    /// A socket dials: the state of an earlier connection of its addresses is over.
    fn begin(&mut self, flow: Flow) {
        self.ended.remove(&flow);
        for flow in [flow, flow.reversed()] {
            self.swallowed.remove(&flow);
            self.stalled.remove(&flow);
        }
    }

    /// Sets what the link from one host to another carries. When a limit is lifted, what was queued before it arrives
    /// within the time that any packet may take.
    pub(super) fn set_bandwidth(&mut self, from: HostIndex, to: HostIndex, bytes_per_sec: Option<u64>, now: Instant) {
        let link = self.link(from, to);
        link.set_bandwidth(bytes_per_sec);
        if bytes_per_sec.is_some() {
            return;
        }
        let latest = now + Duration::from_micros(link.latency.max_us.max(link.latency.min_us));
        let queued: Vec<Flow> =
            self.fifos.keys().copied().filter(|flow| (flow.from.host, flow.to.host) == (from, to)).collect();
        for flow in queued {
            self.fifo(flow).hasten(latest);
            self.schedule(flow);
        }
        self.poke();
    }

    /// Puts the arrival of the head of `flow` on the agenda.
    pub(super) fn schedule(&mut self, flow: Flow) {
        let Some((at, _)) = self.head(flow).filter(|_| !self.stalled.contains_key(&flow)) else { return };
        let fifo = self.fifo(flow);
        if fifo.due != Some(at) {
            fifo.due = Some(at);
            self.agenda.push(at, Task::Arrive(flow));
        }
    }

    fn is_connecting(&self, local: Flow) -> bool {
        self.socket(local).is_some_and(|socket| socket.state == Some(NetstatState::SynSent))
    }
}
