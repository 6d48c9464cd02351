//! Acknowledgements that wait.
//!
//! Half of all packets are bare acknowledgements, and most of them change nothing that anything could notice: their
//! receiver has room in its send buffer, and nothing waits for the window. Such a packet keeps its place and its time of
//! arrival, but the driver does not wake for it. It takes effect with the next packet of its flow, or before anything
//! that could tell the difference: a fault on its way, a full buffer, a closed window, the end of its receiver.

use crate::time::Time;

use super::Wire;
use super::segment::{Flow, HostIndex, Kind};
use super::socket::Socket;

#[cfg(test)]
thread_local! {
    /// True in a test's runs in which each acknowledgement takes effect when it arrives.
    pub(in super::super) static NONE_WAITS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Returns true if no acknowledgement waits, as a test has it. All else must be the same.
pub(super) fn none_waits() -> bool {
    #[cfg(test)]
    return NONE_WAITS.get();
    #[cfg(not(test))]
    false
}

impl Wire {
    /// Returns true if a bare acknowledgement along `flow` has no effect that anything could notice.
    pub(super) fn acks_can_wait(&self, flow: Flow) -> bool {
        let Some(pair) = self.pairs.get(flow.connection) else { return false };
        let (sender, receiver) = (pair.half(flow.from), pair.half(flow.reversed().from));
        receiver.socket.as_ref().is_some_and(Socket::can_wait_for_acks)
            && !self.links.is_partitioned(sender.host, receiver.host)
    }

    /// Has the acknowledgements along `flow` that have arrived by now take effect, up to the first other packet.
    pub(super) fn settle(&mut self, flow: Flow, now: Time) {
        while let Some(half) = self.half_mut(flow).filter(|half| !half.is_stalled) {
            let has_arrived = half.fifo.head().is_some_and(|(at, kind)| kind == Kind::Ack && at <= now);
            if !has_arrived || !self.gets_through(flow) {
                return;
            }
            if let Some(segment) = self.fifo(flow).and_then(|fifo| fifo.pop()) {
                self.receive(segment, now);
            }
        }
    }

    /// Makes a change that acknowledgements could notice: first those that have arrived take effect, and after it the others
    /// are on the agenda if they can wait no longer.
    pub(super) fn change<R>(
        &mut self,
        now: Time,
        concerns: impl Fn(HostIndex, HostIndex) -> bool,
        change: impl FnOnce(&mut Wire) -> R,
    ) -> R {
        let flows: Vec<Flow> = self.pairs.flows_between(concerns);
        flows.iter().for_each(|flow| self.settle(*flow, now));
        let result = change(self);
        flows.iter().for_each(|flow| self.schedule(*flow));
        result
    }

    /// Lets nothing through from one host to another.
    pub(crate) fn partition(&mut self, from: HostIndex, to: HostIndex, now: Time) {
        self.change(now, |a, b| (a, b) == (from, to), |wire| wire.links.get(from, to).partitioned = true);
    }
}
