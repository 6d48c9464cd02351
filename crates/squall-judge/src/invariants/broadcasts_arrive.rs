//! Broadcasts arrive.
//!
//! A command that concerns every instance reaches each of them once. Without a broker the master relays it. An instance
//! that the master leaves out goes on taking the remote server for down, and sends it nothing for hours (Synapse #6706).
//! `amplification_bounded` limits the lines that are written. This invariant counts those that are received:
//!
//! - no instance receives a command more often than instances have begun to send it;
//! - on a sound path it is received within [`Topology::in_time_ms`].
//!
//! No false alarm: a command is due only while every host is sound, from before it is sent until its deadline. A
//! connection counts once a position, an answer or a pong has come on it since then, and only if it is still the same at the
//! deadline. Over TCP the path leads over the master. Nothing is due to a process that was not there, or is asked to stop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;
use strum::VariantArray;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::observation::{Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::{PUBLICATIONS, SUBSCRIPTION, Topology};
use squall_protocol::{InstanceName, MASTER};

/// A broadcast that did not arrive, or arrived too often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// An instance has not received a command in time.
    #[error("{instance} did not receive {command} {words} of {sender} within {within_ms} ms, on a sound path")]
    NotReceived { instance: InstanceName, sender: InstanceName, command: &'static str, words: String, within_ms: u64 },
    /// An instance has received a command more often than it was sent.
    #[error("{instance} received {command} {words} {received} times, which was sent {sent} times")]
    ReceivedTooOften { instance: InstanceName, command: &'static str, words: String, received: u64, sent: u64 },
}

/// A command with its words.
type Broadcast = (&'static str, String);

/// Counts the broadcasts that each instance receives.
pub struct BroadcastsArrive {
    within_ms: u64,
    /// The processes that run, and were not asked to stop.
    running: BTreeSet<InstanceName>,
    /// The open connections of the line protocol and to the broker, by attempt.
    connections: BTreeMap<u64, Connection>,
    sent: BTreeMap<Broadcast, u64>,
    received: BTreeMap<(InstanceName, Broadcast), u64>,
    due: VecDeque<Due>,
    judged: u64,
}

struct Connection {
    instance: InstanceName,
    target: InstanceName,
    /// The last time at which it was seen to work.
    worked: Option<SimTime>,
}

/// A broadcast that an instance has to receive.
struct Due {
    sent_at: SimTime,
    sound_since: SimTime,
    sender: InstanceName,
    instance: InstanceName,
    broadcast: Broadcast,
    /// The number of these broadcasts that the instance had received before.
    received: u64,
    /// The connections of the path.
    path: [Option<u64>; 2],
}

impl BroadcastsArrive {
    /// Returns the connections from `sender` to `instance`, if all of them work since `sound`.
    fn path(&self, sound: SimTime, sender: &InstanceName, instance: &InstanceName) -> Option<[Option<u64>; 2]> {
        let works = |from: &InstanceName, target: &str| {
            let connections = self.connections.iter();
            let mut working = connections.filter(|(_, connection)| {
                let is_this = connection.instance == *from && connection.target.as_str() == target;
                is_this && connection.worked.is_some_and(|worked| sound <= worked)
            });
            working.next().map(|(attempt, _)| *attempt)
        };
        if let (Some(publishing), Some(subscription)) = (works(sender, PUBLICATIONS), works(instance, SUBSCRIPTION)) {
            return Some([Some(publishing), Some(subscription)]);
        }
        let to_master = |from: &InstanceName| match from.as_str() {
            MASTER => Some(None),
            _ => works(from, MASTER).map(Some),
        };
        Some([to_master(sender)?, to_master(instance)?])
    }

    fn send(&mut self, at: SimTime, sender: &InstanceName, broadcast: &Broadcast, scene: &Scene) {
        *self.sent.entry(broadcast.clone()).or_default() += 1;
        let Some(sound_since) = scene.disturbances.all_sound_since(at) else { return };
        if !self.running.contains(sender) {
            return;
        }
        for instance in self.running.iter().filter(|instance| *instance != sender) {
            let Some(path) = self.path(sound_since, sender, instance) else { continue };
            let received = self.received.get(&(instance.clone(), broadcast.clone())).copied().unwrap_or(0);
            self.due.push_back(Due {
                sent_at: at,
                sound_since,
                sender: sender.clone(),
                instance: instance.clone(),
                broadcast: broadcast.clone(),
                received,
                path,
            });
        }
    }

    fn receive(&mut self, instance: &InstanceName, broadcast: &Broadcast) -> Result<(), Violation> {
        self.judged += 1;
        let received = self.received.entry((instance.clone(), broadcast.clone())).or_default();
        *received += 1;
        let sent = self.sent.get(broadcast).copied().unwrap_or(0);
        if *received <= sent {
            return Ok(());
        }
        let (command, words) = broadcast.clone();
        Err(Violation::ReceivedTooOften { instance: instance.clone(), command, words, received: *received, sent })
    }

    /// Returns the first broadcast that should have arrived before `at`, and has not.
    fn overdue(&mut self, at: SimTime, scene: &Scene) -> Option<Violation> {
        let within_ms = self.within_ms;
        while self.due.front().is_some_and(|due| within_ms < at.ms_since(due.sent_at)) {
            let due = self.due.pop_front()?;
            let Due { sound_since, sender, instance, broadcast, received, path, .. } = due;
            let is_sound = scene.disturbances.all_sound_since(at) == Some(sound_since)
                && [&sender, &instance].iter().all(|name| self.running.contains(*name))
                && self.path(sound_since, &sender, &instance) == Some(path);
            if !is_sound {
                continue;
            }
            self.judged += 1;
            let now = self.received.get(&(instance.clone(), broadcast.clone())).copied().unwrap_or(0);
            if now == received {
                let (command, words) = broadcast;
                return Some(Violation::NotReceived { instance, sender, command, words, within_ms });
            }
        }
        None
    }
}

impl Invariant for BroadcastsArrive {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = Kind::VARIANTS;

    fn new(topology: &Topology) -> Self {
        BroadcastsArrive {
            within_ms: topology.in_time_ms(),
            running: BTreeSet::new(),
            connections: BTreeMap::new(),
            sent: BTreeMap::new(),
            received: BTreeMap::new(),
            due: VecDeque::new(),
            judged: 0,
        }
    }

    fn observe(&mut self, at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        let overdue = self.overdue(at, scene);
        let mut received = Ok(());
        match observation {
            Observation::Started { instance, .. } => drop(self.running.insert(instance.clone())),
            Observation::AskedToStop { instance, .. } => drop(self.running.remove(instance)),
            Observation::Stopped { instance, .. } => {
                self.running.remove(instance);
                self.connections.retain(|_, connection| connection.instance != *instance);
            }
            Observation::Connecting { instance, target, attempt } => {
                let (instance, target) = (instance.clone(), target.clone());
                self.connections.insert(*attempt, Connection { instance, target, worked: None });
            }
            Observation::Announced { attempt, .. }
            | Observation::Greeted { attempt, .. }
            | Observation::Ponged { attempt, .. } => {
                self.connections.entry(*attempt).and_modify(|connection| connection.worked = Some(at));
            }
            Observation::Failed { attempt, .. }
            | Observation::GivenUp { attempt, .. }
            | Observation::Closed { attempt, .. } => drop(self.connections.remove(attempt)),
            Observation::Began { instance, command, words } => {
                self.send(at, instance, &(*command, words.clone()), scene);
            }
            Observation::Received { instance, command, words } => {
                received = self.receive(instance, &(*command, words.clone()));
            }
            _ => {}
        }
        overdue.map_or(received, Err)
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::Alone;
    use crate::violation;

    const COMMAND: &str = "REMOTE_SERVER_UP";
    const WITHIN_MS: u64 = 1_000;

    fn began(at: u64, instance: &str) -> (u64, Observation) {
        (at, Observation::Began { instance: instance.into(), command: COMMAND, words: "remote".into() })
    }

    fn received(at: u64, instance: &str) -> (u64, Observation) {
        (at, Observation::Received { instance: instance.into(), command: COMMAND, words: "remote".into() })
    }

    fn greeted(at: u64, attempt: u64) -> (u64, Observation) {
        (at, Observation::Greeted { instance: "worker1".into(), attempt })
    }

    /// Returns the story in which both workers are connected, by the targets of their connections.
    fn connected(targets: &[&str]) -> Vec<(u64, Observation)> {
        let started = |name: &str| (0, Observation::Started { instance: name.into(), boot: 1 });
        let mut story = vec![started(MASTER), started("worker1"), started("worker2")];
        let mut attempt = 0;
        for instance in ["worker1", "worker2"] {
            for target in targets {
                attempt += 1;
                let target = (*target).into();
                story.push((0, Observation::Connecting { instance: instance.into(), target, attempt }));
            }
        }
        // All hosts are sound five seconds after they started.
        story.extend((1..=attempt).map(|attempt| greeted(9_000, attempt)));
        story
    }

    fn judge(targets: &[&str], rest: &[(u64, Observation)]) -> String {
        let mut invariant = Alone::<BroadcastsArrive>::new(&Topology::default().with_in_time_ms(WITHIN_MS));
        let story = connected(targets).into_iter().chain(rest.iter().cloned());
        let verdicts = story.map(|(at, observation)| invariant.observe(SimTime(at), &observation));
        verdicts.fold("none".into(), |kind, verdict| match verdict {
            Ok(()) => kind,
            Err(violation) => violation::kind(&Err::<(), _>(violation)),
        })
    }

    const TCP: &[&str] = &[MASTER];
    const REDIS: &[&str] = &[PUBLICATIONS, SUBSCRIPTION];

    #[test]
    fn every_other_instance_receives_it_in_time() {
        let later = (10_000 + WITHIN_MS + 1, Observation::Calm);
        let sent = began(10_000, "worker1");
        let all = [sent.clone(), received(10_010, MASTER), received(10_020, "worker2"), later.clone()];
        assert_eq!(judge(TCP, &all), "none");
        assert_eq!(judge(TCP, &[all[0].clone(), all[1].clone(), later.clone()]), "not_received", "by worker2");
        assert_eq!(judge(TCP, &[all[0].clone(), all[2].clone(), later.clone()]), "not_received", "by the master");
        assert_eq!(judge(REDIS, &[sent.clone(), received(10_020, "worker2"), later.clone()]), "none");
        assert_eq!(judge(REDIS, &[sent, later]), "not_received");
    }

    #[test]
    fn nothing_is_due_on_a_path_that_is_not_sound() {
        let later = (10_000 + WITHIN_MS + 1, Observation::Calm);
        let hosts: Vec<InstanceName> = vec!["worker2".into()];
        let (instance, boot) = ("worker2".into(), 1);
        let target = MASTER.into();
        for excuse in [
            vec![(9_900, Observation::FaultBegan { hosts: hosts.clone() })],
            vec![(10_500, Observation::FaultBegan { hosts })],
            vec![(10_500, Observation::AskedToStop { instance, boot })],
            vec![(9_900, Observation::Closed { instance: "worker2".into(), attempt: 2 })],
            vec![(10_500, Observation::GivenUp { instance: "worker2".into(), attempt: 2 })],
            vec![
                (9_900, Observation::Closed { instance: "worker2".into(), attempt: 2 }),
                (9_950, Observation::Connecting { instance: "worker2".into(), target, attempt: 3 }),
            ],
        ] {
            let mut story = vec![began(10_000, "worker1"), received(10_010, MASTER)];
            story.extend(excuse.clone());
            story.sort_by_key(|(at, _)| *at);
            story.push(later.clone());
            assert_eq!(judge(TCP, &story), "none", "{excuse:?}");
        }
    }

    #[test]
    fn no_instance_receives_it_more_often_than_it_was_sent() {
        let (sent, heard) = (began(10_000, "worker1"), received(10_010, "worker2"));
        let again = began(10_020, "master");
        assert_eq!(judge(TCP, &[sent.clone(), heard.clone(), again, heard.clone()]), "none");
        assert_eq!(judge(TCP, &[sent, heard.clone(), heard.clone()]), "received_too_often");
        assert_eq!(judge(TCP, &[heard]), "received_too_often");
    }
}
