//! The fate of each packet at the end of its way: it gets through, waits, or is lost and tried again.

use std::io;
use std::time::Duration;

use crate::time::Time;

use super::Wire;
use super::ending::Ending;
use super::segment::{Flow, Kind, Segment};
use super::socket::{Socket, State};

/// A sender without progress for this long fails with `TimedOut`. Linux: about 15 minutes.
const GIVE_UP: Duration = Duration::from_secs(15);
/// First wait before a packet that did not get through is tried again. Linux: 200 ms.
const RETRY: Duration = Duration::from_millis(200);
/// The same for a SYN. Linux: 1 s.
pub(super) const SYN_RETRY: Duration = Duration::from_secs(1);

impl Wire {
    /// The head of a flow is due.
    pub(super) fn arrive(&mut self, flow: Flow, at: Time, now: Time) {
        if self.fifo(flow).is_none_or(|fifo| fifo.due != Some(at)) {
            return;
        }
        while let Some(half) = self.half_mut(flow) {
            let Some((_, kind)) = half.fifo.head().filter(|(at, _)| *at <= now) else { break };
            if half.is_stalled {
                break;
            }
            if kind == Kind::Syn && half.socket.as_ref().map(Socket::state) != Some(State::SynSent) {
                self.forget(flow); // the connector gave up
                break;
            }
            if !self.gets_through(flow) {
                self.lose(flow, kind, now);
            } else if let Some(segment) = self.fifo(flow).and_then(|fifo| fifo.pop()) {
                self.receive(segment, now);
            }
        }
        self.fifo(flow).into_iter().for_each(|fifo| fifo.due = None);
        self.schedule(flow);
    }

    /// Returns true if packets along `flow` reach their host.
    pub(super) fn gets_through(&self, flow: Flow) -> bool {
        let Some(pair) = self.pairs.get(flow.connection) else { return false };
        let (sender, receiver) = (pair.half(flow.from), pair.half(flow.reversed().from));
        !sender.is_swallowed
            && !self.links.is_partitioned(sender.host, receiver.host)
            && self.hosts[usize::from(receiver.host.0)].is_up()
    }

    /// A packet gets through to its host.
    pub(super) fn receive(&mut self, segment: Segment, now: Time) {
        let (kind, local) = (segment.kind, segment.flow.reversed());
        let Some(half) = self.half_mut(local) else { return };
        match half.ending {
            // The application still holds it, so the kernel does.
            Some(Ending::Aborted(_)) if kind != Kind::Rst => {
                return self.send(Segment::bare(local, Kind::Rst), now);
            }
            // No process will ever read these bytes.
            Some(Ending::Orphaned) if kind == Kind::Data => {
                self.abort(local, io::ErrorKind::ConnectionReset, now);
                return self.send(Segment::bare(local, Kind::Rst), now);
            }
            _ => {}
        }
        match kind {
            Kind::Syn => self.unanswered.push(segment.clone()),
            _ => half.is_mid_handshake = false,
        }
        self.deliver(segment);
    }

    /// Handles the head of a flow that does not get through.
    fn lose(&mut self, flow: Flow, kind: Kind, now: Time) {
        let Some((from, to)) = self.way(flow) else { return };
        let receiver_up = self.host(to).is_up();
        let Some(half) = self.half_mut(flow) else { return };
        let is_swallowed = half.is_swallowed;
        let first = half.fifo.stick(now);
        match kind {
            // An RST is never repeated. An acknowledgement is no loss to a dead machine. Repeated until the restart, it
            // would bring its sender an RST that no real sender ever gets.
            Kind::Rst => drop(half.fifo.pop()),
            Kind::Ack if !receiver_up => drop(half.fifo.pop()),
            Kind::Syn => half.fifo.back_off(SYN_RETRY, now),
            _ if !is_swallowed && self.give_up(flow, now) => {}
            _ => self.fifo(flow).into_iter().for_each(|fifo| fifo.back_off(RETRY, now)),
        }
        let link = self.links.get(from, to);
        if first && link.partitioned {
            link.held += 1;
        }
    }

    /// A socket that has waited too long for an acknowledgement fails with `TimedOut`: the sender for one of what is under
    /// way here, the receiver for one that is itself under way. The other end stays half open, as in life, and an idle
    /// connection outlives any partition. True if the sender gave up.
    fn give_up(&mut self, flow: Flow, now: Time) -> bool {
        let overdue = |since: Option<Time>| since.is_some_and(|since| now - since >= GIVE_UP);
        let Some(fifo) = self.fifo(flow) else { return false };
        let (acks_overdue, data_overdue) = (overdue(fifo.stuck_since()), overdue(fifo.unanswered_since()));
        let receiver = flow.reversed();
        if acks_overdue && self.socket(receiver).is_some_and(Socket::awaits_acknowledgement) {
            self.abort(receiver, io::ErrorKind::TimedOut, now);
        }
        if data_overdue {
            self.abort(flow, io::ErrorKind::TimedOut, now);
            self.forget(flow);
        }
        data_overdue
    }
}
