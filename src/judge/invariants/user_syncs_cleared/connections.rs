//! The connections to the presence writer, and what was said on each, as their client ends' networks saw it.

use std::collections::BTreeMap;

use crate::judge::observation::{Device, Moment, Observation};
use crate::judge::topology::PUBLICATIONS;
use crate::protocol::InstanceName;

/// How far apart positions may come on a connection that counts as steady: a writer sends one every five seconds.
const STEADY_GAP_MS: u64 = 10_000;

/// Every connection that is open at its client end, and whose other end's process still runs.
pub(super) struct Connections {
    writer: Option<InstanceName>,
    open: BTreeMap<u64, Connection>,
}

/// One connection.
pub(super) struct Connection {
    pub instance: InstanceName,
    /// The devices that were announced and have not been called off, under each id.
    announced: BTreeMap<String, BTreeMap<Device, Said>>,
    /// When a position last came, and since when they come without a gap.
    heard: Option<(Moment, Moment)>,
}

/// When a device was said to sync.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    pub first: Moment,
    pub last: Moment,
}

impl Connection {
    /// When `device` was said to sync, if that still holds.
    pub fn said(&self, device: &Device) -> Option<Said> {
        self.announced.values().find_map(|devices| devices.get(device)).copied()
    }

    /// The ids under which somebody is announced.
    pub fn ids(&self) -> impl Iterator<Item = &String> {
        self.announced.iter().filter(|(_, devices)| !devices.is_empty()).map(|(id, _)| id)
    }

    /// Since when both ends have been alive and the writer's words have come through without a pause.
    pub fn steady_since(&self, at: Moment) -> Option<Moment> {
        let (last, since) = self.heard?;
        (at.ms_since(last) <= STEADY_GAP_MS).then_some(since)
    }
}

impl Connections {
    /// Connections to `writer`; none are looked at if there is none.
    pub fn new(writer: Option<InstanceName>) -> Self {
        Connections { writer, open: BTreeMap::new() }
    }

    /// All of them, by attempt.
    pub fn all(&self) -> impl Iterator<Item = (u64, &Connection)> {
        self.open.iter().map(|(attempt, connection)| (*attempt, connection))
    }

    /// Those of `instance`.
    pub fn of(&self, instance: &InstanceName) -> impl Iterator<Item = &Connection> {
        self.open.values().filter(move |connection| connection.instance == *instance)
    }

    /// Over Redis everybody hears what is published, and so does the writer.
    fn reaches_writer(&self, instance: &InstanceName, target: &InstanceName) -> bool {
        self.writer
            .as_ref()
            .is_some_and(|writer| target == writer || (target.as_str() == PUBLICATIONS && instance != writer))
    }

    pub fn observe(&mut self, at: Moment, observation: &Observation) {
        match observation {
            Observation::Connecting { instance, target, attempt } if self.reaches_writer(instance, target) => {
                let instance = instance.clone();
                self.open.insert(*attempt, Connection { instance, announced: BTreeMap::new(), heard: None });
            }
            Observation::SyncSaid { attempt, instance_id, device, is_syncing, .. } => {
                let Some(connection) = self.open.get_mut(attempt) else { return };
                let devices = connection.announced.entry(instance_id.clone()).or_default();
                if *is_syncing {
                    devices.entry(device.clone()).or_insert(Said { first: at, last: at }).last = at;
                } else {
                    devices.remove(device);
                }
            }
            Observation::SyncsCleared { attempt, instance_id, .. } => {
                let connection = self.open.get_mut(attempt);
                connection.into_iter().for_each(|connection| drop(connection.announced.remove(instance_id)));
            }
            Observation::Announced { attempt, .. } => {
                if let Some(connection) = self.open.get_mut(attempt) {
                    connection.heard = Some((at, connection.steady_since(at).unwrap_or(at)));
                }
            }
            Observation::Failed { attempt, .. }
            | Observation::GivenUp { attempt, .. }
            | Observation::Closed { attempt, .. } => drop(self.open.remove(attempt)),
            Observation::Started { instance, .. } | Observation::Stopped { instance, .. } => {
                if Some(instance) == self.writer.as_ref() {
                    self.open.clear();
                } else {
                    self.open.retain(|_, connection| connection.instance != *instance);
                }
            }
            _ => {}
        }
    }
}
