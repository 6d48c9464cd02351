//! The traffic from one host to another, and the settings of turmoil that follow from it.

use std::net::IpAddr;
use std::time::Duration;

use ::turmoil::Sim;

use super::State;
use super::host::HostIndex;
use crate::LatencyRange;
use crate::turmoil::TICK;

/// A directed link between two hosts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    /// The latency of this link, if it differs from that of every link.
    pub latency: Option<LatencyRange>,
    /// True if nothing gets through.
    pub partitioned: bool,
    /// The number of messages that met the partition.
    pub held: u64,
    /// The number of messages sent.
    pub sent: u64,
}

/// The state that the two links between two hosts are to have in turmoil.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Between {
    pub a: IpAddr,
    pub b: IpAddr,
    latency: LatencyRange,
    a_to_b_partitioned: bool,
    b_to_a_partitioned: bool,
}

impl Between {
    /// Makes the change. Packets that turmoil held before arrive now, unless they are to be held or lost anew.
    pub(crate) fn refit(self, sim: &Sim<'_>) {
        let Between { a, b, latency, .. } = self;
        let at_least_a_tick = |micros| Duration::from_micros(micros).max(TICK);
        sim.set_link_latency(a, b, at_least_a_tick(latency.min_us));
        sim.set_link_max_message_latency(a, b, at_least_a_tick(latency.min_us.max(latency.max_us)));
        sim.release(a, b);
        match (self.a_to_b_partitioned, self.b_to_a_partitioned) {
            (false, false) => {}
            (true, true) => sim.hold(a, b),
            (true, false) => sim.partition_oneway(a, b),
            (false, true) => sim.partition_oneway(b, a),
        }
    }
}

impl State {
    /// The link from one host to another.
    pub(crate) fn link(&mut self, from: HostIndex, to: HostIndex) -> &mut Link {
        let hosts = self.hosts.len();
        &mut self.links[from.0 * hosts + to.0]
    }

    /// Counts a message that leaves one host for another.
    pub(crate) fn sends(&mut self, from: HostIndex, to: HostIndex) {
        let link = self.link(from, to);
        link.sent += 1;
        link.held += u64::from(link.partitioned);
    }

    /// Changes the link from one host to another, here and later in turmoil.
    pub(crate) fn change_link(&mut self, from: HostIndex, to: HostIndex, change: impl FnOnce(&mut Link)) {
        change(self.link(from, to));
        self.changed.insert((from.min(to), from.max(to)));
    }

    /// Schedules all links of a host to be set in turmoil anew.
    pub(crate) fn refit_all(&mut self, host: HostIndex) {
        let others = (0..self.hosts.len()).map(HostIndex).filter(|other| *other != host);
        self.changed.extend(others.map(|other| (host.min(other), host.max(other))));
    }

    /// Takes the changes that turmoil has yet to make, each once.
    pub(crate) fn take_changed(&mut self) -> Vec<Between> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|(a, b)| self.between(a, b)).collect()
    }

    fn between(&mut self, a: HostIndex, b: HostIndex) -> Between {
        let (there, back) = (self.link(a, b).clone(), self.link(b, a).clone());
        let set = [there.latency, back.latency].into_iter().flatten().max_by_key(|latency| latency.max_us);
        Between {
            a: self.hosts[a.0].address,
            b: self.hosts[b.0].address,
            latency: set.unwrap_or(self.latency),
            a_to_b_partitioned: there.partitioned,
            b_to_a_partitioned: back.partitioned,
        }
    }
}
