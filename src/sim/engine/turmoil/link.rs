//! What goes from one host to another, and what turmoil is told of it.

use std::net::IpAddr;
use std::time::Duration;

use ::turmoil::Sim;

use super::host::HostIndex;
use super::state::State;
use super::{LatencyRange, TICK};

/// A directed link between two hosts.
#[derive(Debug, Clone, Default)]
pub(super) struct Link {
    /// How long messages travel, if not as long as on every link.
    pub latency: Option<LatencyRange>,
    /// Whether nothing gets through.
    pub partitioned: bool,
    /// How many messages met the partition.
    pub held: u64,
    /// How many messages were sent.
    pub sent: u64,
}

/// What turmoil is to make of the two links between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Between {
    pub a: IpAddr,
    pub b: IpAddr,
    latency: LatencyRange,
    a_to_b_partitioned: bool,
    b_to_a_partitioned: bool,
}

impl Between {
    /// Does it. Whatever turmoil held before comes now, unless it is to be held or lost anew.
    pub fn refit(self, sim: &Sim<'_>) {
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
    pub fn link(&mut self, from: HostIndex, to: HostIndex) -> &mut Link {
        let hosts = self.hosts.len();
        &mut self.links[from.0 * hosts + to.0]
    }

    /// A message leaves one host for another.
    pub fn sends(&mut self, from: HostIndex, to: HostIndex) {
        let link = self.link(from, to);
        link.sent += 1;
        link.held += u64::from(link.partitioned);
    }

    /// Changes the link from one host to another, and sees to it that turmoil is told.
    pub fn change_link(&mut self, from: HostIndex, to: HostIndex, change: impl FnOnce(&mut Link)) {
        change(self.link(from, to));
        self.changed.insert((from.min(to), from.max(to)));
    }

    /// Sees to it that turmoil is told of all links of a host anew.
    pub fn refit_all(&mut self, host: HostIndex) {
        let others = (0..self.hosts.len()).map(HostIndex).filter(|other| *other != host);
        self.changed.extend(others.map(|other| (host.min(other), host.max(other))));
    }

    /// What turmoil is to be told, each once.
    pub fn take_changed(&mut self) -> Vec<Between> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|(a, b)| self.between(a, b)).collect()
    }

    fn between(&mut self, a: HostIndex, b: HostIndex) -> Between {
        let (there, back) = (self.link(a, b).clone(), self.link(b, a).clone());
        let asked = [there.latency, back.latency].into_iter().flatten().max_by_key(|latency| latency.max_us);
        Between {
            a: self.hosts[a.0].address,
            b: self.hosts[b.0].address,
            latency: asked.unwrap_or(self.latency),
            a_to_b_partitioned: there.partitioned,
            b_to_a_partitioned: back.partitioned,
        }
    }
}
