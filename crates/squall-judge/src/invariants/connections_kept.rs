//! Connections are kept.
//!
//! A connection lasts as long as both of its ends run, unless something disturbs it. An instance that closes a sound
//! connection loses nothing: it reconnects at once and catches up. So no other invariant notices an end that pings too
//! seldom, or one that takes a line that is complete for one that never ends. Yet each such close costs a handshake and
//! queries for every stream, again and again; before Synapse #7128 it also ended what a process had announced.
//!
//! No false alarm: a close has its reason at most `REASON_MS` earlier, because every time-out of a connection is shorter.
//! So a connection must have been sound for that long, and so must the broker. A host whose plan lets few commands wait for
//! a peer is not sound after it has dropped one. Not judged are
//!
//! - the connections of a process that stops, and those that lead to one;
//! - a close within `DEAF_MS` of a loss that one end may not have noticed: a connection that is half open, or a broker
//!   that another one has replaced;
//! - subscriptions, where the broker drops a subscriber for which little is waiting (seed 253 of `redis_swarm`: a burst over
//!   a long way);
//! - the checks of the broker's name, which open a connection to close it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::observation::{Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::set_up::Pair;
use crate::topology::{NAME_CHECK, SUBSCRIPTION, Topology};
use squall_protocol::InstanceName;

/// Longest time from the reason of a close to the close: a line or a ping is awaited for 25 s, and checked every 5 s.
const REASON_MS: u64 = 35_000;

/// A connection that was closed without a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A connection was closed although nothing was disturbed.
    #[error("the connection of {instance} to {target} was closed after {lasted_ms} ms, and nothing was disturbed")]
    Closed { instance: InstanceName, target: InstanceName, lasted_ms: u64 },
}

/// Checks the closes of connections on which nothing was disturbed.
#[derive(Debug, Default)]
pub struct ConnectionsKept {
    has_low_output_limit: bool,
    connections: BTreeMap<u64, Connection>,
    /// The instances that were asked to stop, and those that do not run.
    stopping: BTreeSet<InstanceName>,
    judged: u64,
}

/// A connection, or an attempt at one.
#[derive(Debug)]
struct Connection {
    pair: Pair,
    instance: InstanceName,
    target: InstanceName,
    /// The time at which it was made.
    since: Option<SimTime>,
    /// True once it has to be kept.
    is_judged: bool,
}

impl ConnectionsKept {
    /// Returns true if nothing can be the reason for a close of the connection.
    fn must_last(&self, at: SimTime, Connection { pair, instance, target, .. }: &Connection, scene: &Scene) -> bool {
        let is_stopping = self.stopping.contains(instance) || self.stopping.contains(target);
        let sound_since = scene.sound_since(at, pair.0, pair.1);
        let is_sound = sound_since.is_some_and(|since| at.ms_since(since) >= REASON_MS);
        let is_judged = match target.as_str() {
            NAME_CHECK => false,
            SUBSCRIPTION => !self.has_low_output_limit,
            _ => true,
        };
        is_judged && is_sound && !is_stopping && at >= scene.disturbances.deaf_until()
    }

    fn closed(&self, at: SimTime, connection: Connection, scene: &Scene) -> Result<(), Violation> {
        let Some(since) = connection.since else { return Ok(()) };
        if !self.must_last(at, &connection, scene) {
            return Ok(());
        }
        let Connection { instance, target, .. } = connection;
        Err(Violation::Closed { instance, target, lasted_ms: at.ms_since(since) })
    }

    /// Counts a connection that has lasted for so long that it is certainly judged.
    fn in_use(&mut self, at: SimTime, attempt: u64, scene: &Scene) {
        let Some(connection) = self.connections.get(&attempt) else { return };
        let is_old = connection.since.is_some_and(|since| at.ms_since(since) >= REASON_MS);
        if is_old && !connection.is_judged && self.must_last(at, connection, scene) {
            self.connections.entry(attempt).and_modify(|connection| connection.is_judged = true);
            self.judged += 1;
        }
    }
}

impl Invariant for ConnectionsKept {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[
        Kind::Started,
        Kind::AskedToStop,
        Kind::Stopped,
        Kind::Connecting,
        Kind::Connected,
        Kind::Failed,
        Kind::Wrote,
        Kind::Closed,
    ];

    fn new(topology: &Topology) -> Self {
        ConnectionsKept { has_low_output_limit: topology.has_low_output_limit(), ..Self::default() }
    }

    fn observe(&mut self, at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::Started { instance, .. } => drop(self.stopping.remove(instance)),
            Observation::AskedToStop { instance, .. } | Observation::Stopped { instance, .. } => {
                self.stopping.insert(instance.clone());
            }
            Observation::Connecting { instance, target, attempt } => {
                let Some(pair) = scene.pair() else { return Ok(()) };
                let (instance, target) = (instance.clone(), target.clone());
                self.connections.insert(*attempt, Connection { pair, instance, target, since: None, is_judged: false });
            }
            Observation::Connected { attempt, .. } => {
                if let Some(connection) = self.connections.get_mut(attempt) {
                    connection.since = Some(at);
                }
            }
            Observation::Wrote { attempt, .. } => self.in_use(at, *attempt, scene),
            Observation::Failed { attempt, .. } => drop(self.connections.remove(attempt)),
            Observation::Closed { attempt, .. } => {
                if let Some(connection) = self.connections.remove(attempt) {
                    return self.closed(at, connection, scene);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disturbances::{DEAF_MS, OUTBOX_OVERFLOWED};
    use crate::invariant::Alone;
    use crate::topology::PUBLICATIONS;
    use crate::violation::kind;

    const LONG: u64 = 100_000;

    fn start() -> Vec<(u64, Observation)> {
        let (instance, target) = (InstanceName::from("worker"), InstanceName::from("writer"));
        vec![
            (0, Observation::Started { instance: "worker".into(), boot: 1 }),
            (0, Observation::Started { instance: "writer".into(), boot: 1 }),
            (10, Observation::Connecting { instance: instance.clone(), target, attempt: 1 }),
            (10, Observation::Connected { instance, attempt: 1 }),
        ]
    }

    fn closed() -> Observation {
        Observation::Closed { instance: "worker".into(), attempt: 1 }
    }

    fn fault(host: &str) -> [Observation; 2] {
        let hosts = || vec![InstanceName::from(host)];
        [Observation::FaultBegan { hosts: hosts() }, Observation::FaultEnded { hosts: hosts(), lingers_ms: 0 }]
    }

    /// The kind of the first violation of a connection with this story, which is closed at `close_at`.
    fn verdict(topology: &Topology, story: &[(u64, Observation)], close_at: u64) -> String {
        let mut judge = Alone::<ConnectionsKept>::new(topology);
        let mut verdict = Ok(());
        for (at, observation) in [&start()[..], story, &[(close_at, closed())]].concat() {
            verdict = verdict.and(judge.observe(SimTime(at), &observation));
        }
        kind(&verdict)
    }

    fn closes(story: &[(u64, Observation)], close_at: u64) -> String {
        verdict(&Topology::default(), story, close_at)
    }

    #[test]
    fn a_connection_on_which_nothing_was_disturbed_is_kept() {
        assert_eq!(closes(&[], LONG), "closed");
        let stops = |instance: &str| Observation::AskedToStop { instance: instance.into(), boot: 1 };
        for instance in ["worker", "writer"] {
            assert_eq!(closes(&[(LONG, stops(instance))], LONG + 10), "none", "{instance} stops");
        }
        assert_eq!(closes(&[(LONG, stops("other"))], LONG + 10), "closed");
        let ended = Observation::Stopped { instance: "writer".into(), boot: 1 };
        assert_eq!(closes(&[(LONG, ended)], LONG + 10), "none");
    }

    #[test]
    fn a_fault_explains_a_close_for_as_long_as_time_outs_last() {
        for (host, late) in [("worker", "closed"), ("writer", "closed"), ("broker", "closed")] {
            let [began, ended] = fault(host);
            let story = [(LONG, began), (LONG + 1_000, ended)];
            assert_eq!(closes(&story[..1], LONG + 500), "none", "{host}: under way");
            // A host is sound five seconds after its fault.
            assert_eq!(closes(&story, LONG + 6_000 + REASON_MS - 1), "none", "{host}");
            assert_eq!(closes(&story, LONG + 6_000 + REASON_MS), late, "{host}");
        }
        let [began, ended] = fault("elsewhere");
        assert_eq!(closes(&[(LONG, began), (LONG + 1, ended)], LONG + 2), "closed");
    }

    #[test]
    fn an_end_that_is_gone_unnoticed_explains_a_close_for_longer() {
        let half_opened = Observation::HalfOpened { survivor: "worker".into(), attempt: 1 };
        for loss in [half_opened, Observation::BrokerFailedOver] {
            assert_eq!(closes(&[(LONG, loss.clone())], LONG + DEAF_MS - 1), "none");
            assert_eq!(closes(&[(LONG, loss)], LONG + DEAF_MS), "closed");
        }
    }

    #[test]
    fn a_dropped_peer_explains_a_close_only_where_the_plan_has_small_limits() {
        let dropped = Observation::LimitHit { instance: "writer".into(), limit: OUTBOX_OVERFLOWED };
        let short = Topology::default().with_short_outboxes();
        assert_eq!(verdict(&short, &[(LONG, dropped.clone())], LONG + 10), "none");
        assert_eq!(verdict(&short, &[(LONG, dropped.clone())], LONG + 15_000 + REASON_MS), "closed");
        assert_eq!(closes(&[(LONG, dropped)], LONG + 10), "closed");
    }

    #[test]
    fn the_broker_may_drop_a_subscription_soon_and_a_check_of_its_name_is_closed_at_once() {
        let closes = |topology: Topology, target: &str| {
            let mut judge = Alone::<ConnectionsKept>::new(&topology);
            let instance = InstanceName::from("worker");
            let (target, attempt) = (target.into(), 2);
            let connecting = Observation::Connecting { instance: instance.clone(), target, attempt };
            for observation in [connecting, Observation::Connected { instance: instance.clone(), attempt }] {
                judge.observe(SimTime(LONG), &observation).expect("nothing is closed");
            }
            kind(&judge.observe(SimTime(LONG + 5), &Observation::Closed { instance, attempt }))
        };
        let low = || Topology::default().with_low_output_limit();
        assert_eq!(closes(low(), SUBSCRIPTION), "none");
        assert_eq!(closes(Topology::default(), SUBSCRIPTION), "closed");
        assert_eq!(closes(low(), PUBLICATIONS), "closed");
        assert_eq!(closes(Topology::default(), NAME_CHECK), "none");
    }

    #[test]
    fn only_a_connection_that_has_lasted_without_disturbance_exercises_it() {
        let wrote = |at| {
            let line = crate::observation::Line::Other("PING");
            let (instance, role) = ("worker".into(), crate::observation::Role::Client);
            (at, Observation::Wrote { instance, attempt: 1, role, line })
        };
        let exercised = |story: &[(u64, Observation)]| {
            let mut judge = Alone::<ConnectionsKept>::default();
            for (at, observation) in [&start()[..], story].concat() {
                judge.observe(SimTime(at), &observation).expect("nothing is closed");
            }
            judge.exercised()
        };
        let late = 10 + 5_000 + REASON_MS;
        assert_eq!(exercised(&[wrote(REASON_MS)]), 0, "it has not lasted");
        assert_eq!(exercised(&[wrote(late), wrote(late + 1)]), 1, "a connection counts once");
        let [began, ended] = fault("writer");
        assert_eq!(exercised(&[(late - 10, began), (late - 5, ended), wrote(late)]), 0, "it was disturbed");
    }
}
