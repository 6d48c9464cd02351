//! The times at which an instance, and its path to the others, is sound.
//!
//! Bounds of a second hold only where nothing is disturbed. The storm reports each fault with the hosts that it touches,
//! when it begins and when it is over. A host is sound again some time after its last fault, because a fault leaves work
//! behind: packets to send again, connections to give up, and transactions that began while the database was slow. Where
//! the plan lets instances have few connections, an instance that refuses one is not sound either: the peer comes back
//! later (seed 9009 of `redis_swarm`). The same holds where the plan lets few commands wait for a peer, and an instance drops
//! one that has too many (seed 164 of `redis_swarm`: much was published at once after the broker had stood still). Elsewhere
//! neither is an excuse, because it is the stack's own word.
//!
//! Where one end of a connection is gone unnoticed, or the broker's name leads to another server, no host is disturbed, and
//! an instance may be deaf until it finds out by its pings.

use super::names::{Instance, Names, Table};
use super::observation::{Observation, SimTime};
use super::topology::Topology;

/// Time after the end of a fault at which its hosts are sound again. Packets that were held back are sent again within two
/// seconds.
const SETTLED_AFTER_MS: u64 = 5_000;

/// Time after which a connection that a limit has cost is made again, and rows are caught up: the longest delay, and the
/// set-up.
const RECONNECTED_AFTER_MS: u64 = 10_000;

/// Time after which an instance knows of a connection that is dead at its other end, and has made another one.
pub(super) const DEAF_MS: u64 = 120_000;

/// The name of the limit of connections.
pub(super) const CONNECTION_REFUSED: &str = "connection_refused";

/// The name of the limit at which an instance drops a peer.
pub(super) const OUTBOX_OVERFLOWED: &str = "outbox_overflowed";

/// The host of the broker, in a deployment that has one.
const BROKER: &str = "broker";

/// The hosts that are disturbed, and the times since which the others are sound.
pub(crate) struct Disturbances {
    /// True if instances have to refuse connections in a healthy deployment.
    has_few_connections: bool,
    /// True if instances have to drop peers in a healthy deployment.
    has_short_outboxes: bool,
    hosts: Table<Instance, Host>,
    broker: Instance,
    deaf_until: SimTime,
}

#[derive(Debug, Default)]
struct Host {
    /// The number of faults under way.
    faults: u64,
    /// The time since which the host is sound, if no fault is under way.
    sound_since: SimTime,
}

impl Disturbances {
    /// Creates the disturbances of a deployment in which every host is sound.
    pub(crate) fn new(topology: &Topology, names: &mut Names) -> Self {
        Disturbances {
            has_few_connections: topology.has_few_connections(),
            has_short_outboxes: topology.has_short_outboxes(),
            hosts: Table::default(),
            broker: names.instance(&BROKER.into()),
            deaf_until: SimTime(0),
        }
    }

    /// Takes note of faults and of the lives of processes.
    pub(crate) fn observe(&mut self, at: SimTime, observation: &Observation, names: &mut Names) {
        match observation {
            Observation::FaultBegan { hosts } => {
                for host in hosts {
                    self.hosts.or_default(names.instance(host)).faults += 1;
                }
            }
            Observation::FaultEnded { hosts, lingers_ms } => {
                for host in hosts {
                    let host = self.hosts.or_default(names.instance(host));
                    host.faults = host.faults.saturating_sub(1);
                    host.settles(SimTime(at.0 + lingers_ms + SETTLED_AFTER_MS));
                }
            }
            Observation::Started { instance, .. }
            | Observation::Stopped { instance, .. }
            | Observation::Thawed { instance } => {
                self.hosts.or_default(names.instance(instance)).settles(SimTime(at.0 + SETTLED_AFTER_MS));
            }
            Observation::HalfOpened { .. } | Observation::BrokerFailedOver => self.deaf_until = SimTime(at.0 + DEAF_MS),
            Observation::LimitHit { instance, limit } if self.has_few_connections && *limit == CONNECTION_REFUSED => {
                self.hosts.or_default(names.instance(instance)).settles(SimTime(at.0 + SETTLED_AFTER_MS));
            }
            Observation::LimitHit { instance, limit } if self.has_short_outboxes && *limit == OUTBOX_OVERFLOWED => {
                self.hosts.or_default(names.instance(instance)).settles(SimTime(at.0 + RECONNECTED_AFTER_MS));
            }
            _ => {}
        }
    }

    /// Returns the time until which an instance may be deaf although every host is sound.
    pub(crate) fn deaf_until(&self) -> SimTime {
        self.deaf_until
    }

    /// Returns the time since which every host is sound; none if one of them is not sound at `at`.
    pub(crate) fn all_sound_since(&self, at: SimTime) -> Option<SimTime> {
        let mut since = SimTime(0);
        for (_, host) in self.hosts.iter() {
            if host.faults > 0 || at < host.sound_since {
                return None;
            }
            since = since.max(host.sound_since);
        }
        Some(since)
    }

    /// Returns the time since which the path between two instances is sound, over the broker if there is one; none if it
    /// is not sound at `at`.
    pub(crate) fn sound_since(&self, at: SimTime, one: Instance, other: Instance) -> Option<SimTime> {
        let mut since = SimTime(0);
        for host in [one, other, self.broker] {
            let Some(host) = self.hosts.get(host) else { continue };
            if host.faults > 0 || at < host.sound_since {
                return None;
            }
            since = since.max(host.sound_since);
        }
        Some(since)
    }
}

impl Host {
    fn settles(&mut self, at: SimTime) {
        self.sound_since = self.sound_since.max(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use squall_protocol::InstanceName;

    #[test]
    fn an_instance_that_refuses_or_drops_connections_is_not_sound_for_a_while() {
        let few = || Topology::default().with_few_connections();
        let short = || Topology::default().with_short_outboxes();
        let sound_after = |topology: Topology, limit: &'static str, ms: u64| {
            let mut names = Names::new(&topology);
            let mut disturbances = Disturbances::new(&topology, &mut names);
            let instance = InstanceName::from("master");
            let (one, other) = (names.instance(&instance), names.instance(&"worker1".into()));
            disturbances.observe(SimTime(100), &Observation::LimitHit { instance, limit }, &mut names);
            disturbances.sound_since(SimTime(100 + ms), one, other).is_some()
        };
        assert!(!sound_after(few(), CONNECTION_REFUSED, SETTLED_AFTER_MS - 1));
        assert!(sound_after(few(), CONNECTION_REFUSED, SETTLED_AFTER_MS));
        assert!(sound_after(few(), "answer_evicted", 0), "that delays nothing");
        assert!(!sound_after(short(), OUTBOX_OVERFLOWED, RECONNECTED_AFTER_MS - 1));
        assert!(sound_after(short(), OUTBOX_OVERFLOWED, RECONNECTED_AFTER_MS));
        assert!(sound_after(few(), OUTBOX_OVERFLOWED, 0), "with long outboxes it is no excuse");
        assert!(sound_after(Topology::default(), CONNECTION_REFUSED, 0), "with many connections it is no excuse");
    }
}
