//! Broadcasts reach all.
//!
//! A command that concerns every instance reaches each of them once. That a remote server is up again is said once, and
//! is never repeated: an instance that misses it goes on holding back what it has for that server. Over TCP the master
//! relays the command (Synapse #7352), over Redis the broker does. `amplification_bounded` counts the lines that are
//! sent; this counts the commands that arrive:
//!
//! 1. On sound connections each other instance hears the command within [`Topology::in_time_ms`].
//! 2. No instance hears a command more often than it was sent. On sound connections the sender hears its own once over a
//!    broker, and never over TCP.
//!
//! The storm sends `REMOTE_SERVER_UP`. `LOCK_RELEASED` goes the same way, and no instance of the storm has locks.
//!
//! No false alarm: commands are sent once and never again, so one that meets a disturbance may be lost. It is due only
//! where the sender, the receiver, the master and the broker are sound from its beginning to its deadline, and where their
//! connections have lasted all that time and were seen to work since the hosts are sound: a connection that is dead at one
//! end does not count. It is not due if the same command was begun again in that time. A sender whose connection was lost
//! may hear its own command over TCP: the master reads it on the old connection, and relays it on the new one.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
use thiserror::Error;

use crate::disturbances::Disturbances;
use crate::invariant::Invariant;
use crate::observation::{Observation, SimTime};
use crate::topology::{PUBLICATIONS, SUBSCRIPTION, Topology};
use squall_protocol::{InstanceName, MASTER};

/// A command that an instance did not hear once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A connected instance has not heard a command in time.
    #[error("{instance} has not heard {command} {argument} within {within_ms} ms, which {sender} sent at {begun}")]
    Missed {
        instance: InstanceName,
        sender: InstanceName,
        command: &'static str,
        argument: String,
        begun: SimTime,
        within_ms: u64,
    },
    /// An instance heard a command more often than it was sent.
    #[error("{instance} has heard {command} {argument} {heard} times, and it was sent {sent} times")]
    HeardAgain { instance: InstanceName, command: &'static str, argument: String, heard: u64, sent: u64 },
}

/// A command with its argument.
type Words = (&'static str, String);

/// A command that an instance has to hear.
#[derive(Debug)]
struct Due {
    instance: InstanceName,
    sender: InstanceName,
    words: Words,
    begun: SimTime,
}

/// A connection to the master or the broker.
#[derive(Debug)]
struct Connection {
    instance: InstanceName,
    target: InstanceName,
    /// The time at which it was first known to work, and the last time.
    works: Option<(SimTime, SimTime)>,
}

/// Checks that each instance hears each command once.
#[derive(Debug)]
pub struct BroadcastsReachAll {
    topology: Topology,
    disturbances: Disturbances,
    connections: BTreeMap<u64, Connection>,
    has_broker: bool,
    /// The times at which each command was begun, with the sender.
    begun: BTreeMap<Words, Vec<(SimTime, InstanceName)>>,
    /// The times at which each instance heard each command.
    heard: BTreeMap<(InstanceName, Words), Vec<SimTime>>,
    /// The commands that are due, in the order of their deadlines.
    due: VecDeque<Due>,
    judged: u64,
}

impl BroadcastsReachAll {
    /// Returns the time since which `instance` has had a connection to `target` that is known to work, and the time of the
    /// last sign of it.
    fn works(&self, instance: &InstanceName, target: &str) -> Option<(SimTime, SimTime)> {
        let is_it = |connection: &&Connection| connection.instance == *instance && connection.target.as_str() == target;
        self.connections.values().filter(is_it).filter_map(|connection| connection.works).max()
    }

    /// Returns true if the path from `sender` to `instance` is sound at `at`, and has been since `since`.
    fn is_sound(&self, at: SimTime, since: SimTime, sender: &InstanceName, instance: &InstanceName) -> bool {
        let master = InstanceName::from(MASTER);
        let is_path_sound = |one: &InstanceName, target: &str| {
            let sound_since = self.disturbances.sound_since(at, one, if self.has_broker { one } else { &master });
            let works = self.works(one, target);
            sound_since.is_some_and(|sound| {
                sound <= since && works.is_some_and(|(first, last)| first <= since && sound <= last)
            })
        };
        if self.has_broker {
            return is_path_sound(sender, PUBLICATIONS) && is_path_sound(instance, SUBSCRIPTION);
        }
        [sender, instance].into_iter().all(|end| *end == master || is_path_sound(end, MASTER))
    }

    fn begin(&mut self, at: SimTime, sender: &InstanceName, words: Words) {
        self.begun.entry(words.clone()).or_default().push((at, sender.clone()));
        for instance in self.topology.instances() {
            if self.is_sound(at, at, sender, instance) {
                let (instance, sender, words) = (instance.clone(), sender.clone(), words.clone());
                self.due.push_back(Due { instance, sender, words, begun: at });
            }
        }
    }

    fn hear(&mut self, at: SimTime, instance: &InstanceName, words: Words) -> Result<(), Violation> {
        self.judged += 1;
        let times = self.heard.entry((instance.clone(), words.clone())).or_default();
        times.push(at);
        let heard = times.len() as u64;
        let sent = self.begun.get(&words).map_or(0, Vec::len) as u64;
        if heard > sent {
            let (command, argument) = words;
            return Err(Violation::HeardAgain { instance: instance.clone(), command, argument, heard, sent });
        }
        Ok(())
    }

    /// Returns the first command that should have been heard before `at`, and was not.
    fn overdue(&mut self, at: SimTime) -> Option<Violation> {
        let within_ms = self.topology.in_time_ms();
        while self.due.front().is_some_and(|due| within_ms < at.ms_since(due.begun)) {
            let Due { instance, sender, words, begun } = self.due.pop_front()?;
            let again = self.begun.get(&words).into_iter().flatten();
            let is_again = again.filter(|(other, _)| other.ms_since(begun) <= within_ms && begun <= *other).count() > 1;
            if is_again || !self.is_sound(at, begun, &sender, &instance) {
                continue;
            }
            self.judged += 1;
            let times = self.heard.get(&(instance.clone(), words.clone())).into_iter().flatten();
            let heard = times.filter(|heard| **heard >= begun).count() as u64;
            let is_own = instance == sender && !self.has_broker;
            let (command, argument) = words;
            match (is_own, heard) {
                (true, 1..) => return Some(Violation::HeardAgain { instance, command, argument, heard, sent: 0 }),
                (false, 0) => return Some(Violation::Missed { instance, sender, command, argument, begun, within_ms }),
                _ => {}
            }
        }
        None
    }

    fn works_now(&mut self, at: SimTime, attempt: u64) {
        if let Some(connection) = self.connections.get_mut(&attempt) {
            let first = connection.works.map_or(at, |(first, _)| first);
            connection.works = Some((first, at));
        }
    }
}

impl Invariant for BroadcastsReachAll {
    type Violation = Violation;

    fn new(topology: &Topology) -> Self {
        BroadcastsReachAll {
            topology: topology.clone(),
            disturbances: Disturbances::default(),
            connections: BTreeMap::new(),
            has_broker: false,
            begun: BTreeMap::new(),
            heard: BTreeMap::new(),
            due: VecDeque::new(),
            judged: 0,
        }
    }

    fn observe(&mut self, at: SimTime, observation: &Observation) -> Result<(), Violation> {
        let overdue = self.overdue(at);
        self.disturbances.observe(at, observation);
        match observation {
            Observation::Connecting { instance, target, attempt }
                if [MASTER, SUBSCRIPTION, PUBLICATIONS].contains(&target.as_str()) =>
            {
                self.has_broker |= target.as_str() == SUBSCRIPTION;
                let (instance, target) = (instance.clone(), target.clone());
                self.connections.insert(*attempt, Connection { instance, target, works: None });
            }
            Observation::Greeted { attempt, .. }
            | Observation::Ponged { attempt, .. }
            | Observation::Announced { attempt, .. } => self.works_now(at, *attempt),
            Observation::Failed { attempt, .. }
            | Observation::GivenUp { attempt, .. }
            | Observation::HalfOpened { attempt, .. }
            | Observation::Closed { attempt, .. } => drop(self.connections.remove(attempt)),
            Observation::Stopped { instance, .. } => {
                self.connections.retain(|_, connection| connection.instance != *instance);
            }
            Observation::Began { instance, command, argument } => self.begin(at, instance, (command, argument.clone())),
            Observation::Heard { instance, command, argument } => {
                return overdue.map_or_else(|| self.hear(at, instance, (command, argument.clone())), Err);
            }
            _ => {}
        }
        overdue.map_or(Ok(()), Err)
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::violation::kind;

    /// A master and two workers over TCP, which are connected at 10 s.
    struct Story {
        judge: BroadcastsReachAll,
        verdicts: Vec<String>,
    }

    impl Story {
        fn new() -> Self {
            let topology = Topology::new(["worker1".into(), "worker2".into(), MASTER.into()]);
            let mut story = Story { judge: BroadcastsReachAll::new(&topology), verdicts: Vec::new() };
            for (instance, attempt) in [("worker1", 1), ("worker2", 2)] {
                let instance = InstanceName::from(instance);
                story.see(
                    10_000,
                    Observation::Connecting { instance: instance.clone(), target: MASTER.into(), attempt },
                );
                story.see(10_000, Observation::Greeted { instance, attempt });
            }
            story
        }

        fn see(&mut self, at: u64, observation: Observation) {
            let verdict = self.judge.observe(SimTime(at), &observation);
            self.verdicts.extend(verdict.is_err().then(|| kind(&verdict)));
        }

        fn begin(&mut self, at: u64, instance: &str) {
            let (instance, argument) = (instance.into(), "other.test".into());
            self.see(at, Observation::Began { instance, command: "REMOTE_SERVER_UP", argument });
        }

        fn hear(&mut self, at: u64, instance: &str) {
            let (instance, argument) = (instance.into(), "other.test".into());
            self.see(at, Observation::Heard { instance, command: "REMOTE_SERVER_UP", argument });
        }

        fn end(mut self) -> Vec<String> {
            self.see(60_000, Observation::Calm);
            self.verdicts
        }
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn every_other_instance_hears_a_command_in_time() {
        for (heard_by, violations) in [(&["master", "worker2"][..], 0), (&["master"], 1), (&["worker2"], 1)] {
            let mut story = Story::new();
            story.begin(20_000, "worker1");
            for instance in heard_by {
                story.hear(20_050, instance);
            }
            assert_eq!(story.end(), vec!["missed"; violations], "{heard_by:?}");
        }
    }

    #[test]
    fn a_command_is_not_due_where_something_is_disturbed_or_not_connected() {
        let told = |at: u64, happens: Observation| {
            let mut story = Story::new();
            story.see(at, happens.clone());
            story.begin(20_000, "worker1");
            story.hear(20_050, "master");
            story.end()
        };
        let hosts = || vec!["worker2".into()];
        assert_eq!(told(19_000, Observation::FaultBegan { hosts: hosts() }), NOTHING);
        assert_eq!(told(19_000, Observation::FaultEnded { hosts: hosts(), lingers_ms: 0 }), NOTHING);
        assert_eq!(told(19_000, Observation::Closed { instance: "worker2".into(), attempt: 2 }), NOTHING);
        assert_eq!(told(19_000, Observation::HalfOpened { survivor: "worker2".into(), attempt: 2 }), NOTHING);
        assert_eq!(told(19_000, Observation::Calm), ["missed"]);
    }

    #[test]
    fn a_fault_before_the_deadline_excuses_a_command() {
        let mut story = Story::new();
        story.begin(20_000, "worker1");
        story.hear(20_050, "master");
        story.see(20_500, Observation::FaultBegan { hosts: vec!["worker2".into()] });
        assert_eq!(story.end(), NOTHING);
    }

    #[test]
    fn no_instance_hears_a_command_again_and_no_sender_its_own() {
        let mut story = Story::new();
        story.begin(20_000, "worker1");
        for instance in ["master", "worker2"] {
            story.hear(20_050, instance);
        }
        story.hear(20_060, "worker2");
        story.hear(20_070, "worker1");
        assert_eq!(story.end(), ["heard_again", "heard_again"]);
    }

    #[test]
    fn over_a_broker_a_sender_hears_its_own_command_once() {
        let mut story = Story::new();
        let (instance, target) = ("worker1".into(), SUBSCRIPTION.into());
        story.see(11_000, Observation::Connecting { instance, target, attempt: 3 });
        story.begin(20_000, "worker1");
        story.hear(20_050, "worker1");
        assert_eq!(story.verdicts, NOTHING);
        story.hear(20_060, "worker1");
        assert_eq!(story.end(), ["heard_again"]);
    }
}
