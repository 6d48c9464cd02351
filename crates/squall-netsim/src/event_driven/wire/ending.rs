//! The ends of connections that are not a matter of TCP: applications that are gone, keep-alive, and what is remembered so
//! that packets still under way are answered.

use std::io;
use std::time::Duration;

use crate::time::Time;

use super::Wire;
use super::agenda::Task;
use super::segment::{Flow, HostIndex};
use super::socket::State;
use crate::Side;

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
    pub(crate) fn abort(&mut self, local: Flow, reason: io::ErrorKind, now: Time) {
        self.settle(local.reversed(), now);
        let Some(half) = self.half_mut(local) else { return };
        let Some(socket) = half.live_socket() else { return };
        if socket.state() != State::SynSent {
            let before = half.ending.replace(Ending::Aborted(reason));
            if before == Some(Ending::Orphaned) {
                self.agenda.push(now + LINGER, Task::Reap(local));
            }
        }
        self.reset_socket(local);
    }

    /// An application has closed a socket, or given up a dial.
    pub(crate) fn close(&mut self, local: Flow, now: Time) {
        self.settle(local.reversed(), now);
        let Some(half) = self.half_mut(local) else { return };
        half.is_held = false;
        if half.ending.take().is_none() {
            half.ending = Some(Ending::Orphaned);
        }
        self.agenda.push(now + FIN_TIMEOUT, Task::Reap(local));
        self.close_socket(local);
    }

    /// Ends a socket that was closed long ago, and forgets it once nothing of it is left.
    pub(crate) fn reap(&mut self, local: Flow, now: Time) {
        let Some(half) = self.half_mut(local) else { return };
        if half.ending == Some(Ending::Orphaned) && half.live_socket().is_some() {
            return self.abort(local, io::ErrorKind::ConnectionReset, now);
        }
        half.ending = None;
        [local, local.reversed()].into_iter().for_each(|flow| self.settle(flow, now));
        self.pairs.remove_if_over(local.connection);
        let Some(pair) = self.pairs.get(local.connection) else { return };
        if [Side::Client, Side::Server].iter().any(|side| !pair.half(*side).fifo.is_empty()) {
            self.agenda.push(now + FIN_TIMEOUT, Task::Reap(local));
        }
    }

    /// Fails sockets whose peer's socket no longer exists, and that no packet will ever notify.
    pub(crate) fn keepalive(&mut self, now: Time) {
        self.agenda.push(now + KEEPALIVE_PERIOD, Task::Keepalive);
        self.change(now, |_, _| true, |_| ());
        for local in self.pairs.flows_between(|_, _| true) {
            let is_alone = self.is_alone(local);
            let Some(half) = self.half_mut(local).filter(|half| half.is_held) else { continue };
            let was_alone = std::mem::replace(&mut half.is_suspect, is_alone);
            if is_alone && was_alone {
                self.abort(local, io::ErrorKind::TimedOut, now);
            }
        }
    }

    fn is_alone(&self, local: Flow) -> bool {
        let (Some(half), Some(peer)) = (self.half(local), self.half(local.reversed())) else { return false };
        half.fifo.is_empty()
            && peer.fifo.is_empty()
            && half.ending.is_none()
            && half.live_socket().is_some()
            && peer.live_socket().is_none()
    }

    /// Silently resets every connection in a host's kernel: nothing reaches the peers.
    pub(crate) fn clear_kernel(&mut self, host: HostIndex, now: Time) {
        for local in self.pairs.of_host(host) {
            self.abort(local, io::ErrorKind::ConnectionAborted, now);
        }
        self.egress(now); // it removes the orphans among them
    }

    /// A machine without power repeats nothing: drops what was lost on its way from `host` and waits to be sent again.
    pub(crate) fn forget_retries(&mut self, host: HostIndex) {
        for flow in self.pairs.of_host(host) {
            if self.fifo(flow).is_some_and(|fifo| fifo.stuck_since().is_some()) {
                self.forget(flow);
            }
        }
    }
}
