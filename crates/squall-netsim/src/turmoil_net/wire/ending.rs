//! The ends of connections, where the kernel needs help.
//!
//! The kernel has no timers and forgets no orphan, and it knows one way only to abort a socket: an RST from its peer,
//! which it matches by addresses and ports alone. So every abnormal end is a forged RST, and the wire remembers the
//! error for the application, and the answer to later packets.

use std::io;
use std::time::Duration;

use tokio::time::Instant;
use turmoil_net::NetstatState;

use super::Wire;
use super::agenda::Task;
use super::segment::{self, Endpoint, Flow, HostIndex};

/// The time an orphan waits for its peer to close too. Linux: `tcp_fin_timeout`.
pub(crate) const FIN_TIMEOUT: Duration = Duration::from_secs(60);
/// The time for which the end of an aborted orphan is remembered, so that packets under way are answered.
const LINGER: Duration = Duration::from_secs(1);
/// The interval of keep-alive. A connection found without its other end twice running fails, so it takes one to two
/// periods. Linux: two hours and eleven minutes.
const KEEPALIVE_PERIOD: Duration = Duration::from_secs(60);

/// The end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Aborted, for the reason that its application reads. All packets are answered with RST.
    Aborted(io::ErrorKind),
    /// Closed by its application; its kernel still says goodbye. Data is answered with RST.
    Orphaned,
}

impl Wire {
    /// Aborts one end only; its application sees `reason`. The other end learns of it by the next packet it sends.
    pub(crate) fn abort(&mut self, local: Flow, reason: io::ErrorKind, now: Instant) {
        let Some(socket) = self.socket(local) else { return };
        if socket.state != Some(NetstatState::SynSent) {
            let before = self.ended.insert(local, Ending::Aborted(reason));
            if before == Some(Ending::Orphaned) {
                self.agenda.push(now + LINGER, Task::Reap(local));
            }
        }
        self.complete_handshake(local);
        self.net.deliver(segment::rst(local.reversed()));
    }

    /// An RST to a server socket in mid-handshake would leave a socket that no process can close, and its port bound for
    /// ever. The handshake is completed first.
    pub(crate) fn complete_handshake(&mut self, local: Flow) {
        if let Some(ack) = self.half_open.remove(&local) {
            self.net.deliver(segment::ack(local.reversed(), ack, u16::MAX));
        }
    }

    /// Records that an application has closed a socket.
    pub(crate) fn closed(&mut self, local: Flow, now: Instant) {
        self.held.remove(&local);
        if self.ended.remove(&local).is_none() {
            self.ended.insert(local, Ending::Orphaned);
        }
        self.reap_later(local, now);
    }

    /// Schedules the clean-up after a socket that was closed or failed to connect.
    pub(crate) fn reap_later(&mut self, local: Flow, now: Instant) {
        self.agenda.push(now + FIN_TIMEOUT, Task::Reap(local));
        self.poke();
    }

    /// Ends a socket that was closed long ago, and forgets it once nothing of it is left.
    pub(crate) fn reap(&mut self, local: Flow, now: Instant) {
        if self.held.contains_key(&local) {
            return; // its ports are in use again
        }
        if self.ended.get(&local) == Some(&Ending::Orphaned) && self.socket(local).is_some() {
            return self.abort(local, io::ErrorKind::ConnectionReset, now);
        }
        self.ended.remove(&local);
        for flow in [local, local.reversed()] {
            let Some(fifo) = self.fifos.get(&flow) else { continue };
            if !fifo.is_empty() {
                self.agenda.push(now + FIN_TIMEOUT, Task::Reap(local));
            } else if self.socket(flow).is_none() {
                self.fifos.remove(&flow);
            }
        }
    }

    /// Fails sockets whose peer's socket no longer exists, and that no packet will ever notify.
    pub(crate) fn keepalive(&mut self, now: Instant) {
        self.agenda.push(now + KEEPALIVE_PERIOD, Task::Keepalive);
        let lone: Vec<Flow> = self.held.keys().copied().filter(|local| self.is_alone(*local)).collect();
        for local in &lone {
            if self.suspects.contains(local) {
                self.abort(*local, io::ErrorKind::TimedOut, now);
            }
        }
        self.suspects = lone.into_iter().collect();
    }

    fn is_alone(&self, local: Flow) -> bool {
        let quiet = |flow: &Flow| self.fifos.get(flow).is_none_or(|fifo| fifo.is_empty());
        let peer = local.reversed();
        quiet(&local)
            && quiet(&peer)
            && !self.ended.contains_key(&local)
            && self.socket(local).is_some()
            && self.socket(peer).is_none()
    }

    /// Silently resets every connection in a host's kernel: nothing reaches the peers. Orphans in FIN_WAIT would hold
    /// their port, and the next process could not bind it.
    pub(crate) fn clear_kernel(&mut self, host: HostIndex, now: Instant) {
        for socket in turmoil_net::netstat(host.ip()).entries {
            let Some(peer) = socket.peer else { continue };
            let local = Flow { from: Endpoint::of(socket.local), to: Endpoint::of(peer) };
            self.abort(local, io::ErrorKind::ConnectionAborted, now);
        }
        self.egress(now); // the kernel removes closed sockets in an egress pass
    }

    /// A machine without power repeats nothing: drops what was lost on its way from `host` and waits to be sent again.
    pub(crate) fn forget_retries(&mut self, host: HostIndex) {
        self.fifos.retain(|flow, fifo| flow.from.host != host || fifo.stuck_since().is_none());
    }
}
