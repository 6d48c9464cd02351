//! The connections to the presence writer, with the users announced on each, as the networks of their client ends saw
//! them.

use std::collections::BTreeMap;

use crate::observation::{Device, Observation, SimTime};
use crate::topology::PUBLICATIONS;
use squall_protocol::InstanceName;

/// Longest gap between two positions on a steady connection. A writer sends one every five seconds.
const STEADY_GAP_MS: u64 = 10_000;

/// The connections that are open at their client end and whose other end's process still runs.
pub(super) struct Connections {
    writer: Option<InstanceName>,
    open: BTreeMap<u64, Connection>,
}

/// One connection.
pub(super) struct Connection {
    pub instance: InstanceName,
    /// The devices announced as syncing, under each id.
    announced: BTreeMap<String, BTreeMap<Device, Announcement>>,
    /// The time of the last position, and the time since which positions arrive without a gap.
    positions: Option<(SimTime, SimTime)>,
}

/// The first and last time at which a device was announced.
#[derive(Debug, Clone, Copy)]
pub(super) struct Announcement {
    pub first: SimTime,
    pub last: SimTime,
}

impl Connection {
    /// Returns the announcement of `device`, if it still holds.
    pub(super) fn announcement(&self, device: &Device) -> Option<Announcement> {
        self.announced.values().find_map(|devices| devices.get(device)).copied()
    }

    /// Returns the ids under which a device is announced.
    pub(super) fn ids(&self) -> impl Iterator<Item = &String> {
        self.announced.iter().filter(|(_, devices)| !devices.is_empty()).map(|(id, _)| id)
    }

    /// Returns the time since which both ends are alive and the writer's positions arrive without a gap.
    pub(super) fn steady_since(&self, at: SimTime) -> Option<SimTime> {
        let (last, since) = self.positions?;
        (at.ms_since(last) <= STEADY_GAP_MS).then_some(since)
    }
}

impl Connections {
    /// Returns no connections yet. Without a writer, none is followed.
    pub(super) fn new(writer: Option<InstanceName>) -> Self {
        Connections { writer, open: BTreeMap::new() }
    }

    /// Returns every connection, by attempt.
    pub(super) fn all(&self) -> impl Iterator<Item = (u64, &Connection)> {
        self.open.iter().map(|(attempt, connection)| (*attempt, connection))
    }

    /// Returns the connections of `instance`.
    pub(super) fn of(&self, instance: &InstanceName) -> impl Iterator<Item = &Connection> {
        self.open.values().filter(move |connection| connection.instance == *instance)
    }

    /// Returns true if the writer reads the lines of this connection. Over Redis every instance reads what is published.
    fn reaches_writer(&self, instance: &InstanceName, target: &InstanceName) -> bool {
        self.writer
            .as_ref()
            .is_some_and(|writer| target == writer || (target.as_str() == PUBLICATIONS && instance != writer))
    }

    /// Takes one observation into account.
    pub(super) fn observe(&mut self, at: SimTime, observation: &Observation) {
        match observation {
            Observation::Connecting { instance, target, attempt } if self.reaches_writer(instance, target) => {
                let instance = instance.clone();
                self.open.insert(*attempt, Connection { instance, announced: BTreeMap::new(), positions: None });
            }
            Observation::SyncSaid { attempt, instance_id, device, is_syncing, .. } => {
                let Some(connection) = self.open.get_mut(attempt) else { return };
                let devices = connection.announced.entry(instance_id.clone()).or_default();
                if *is_syncing {
                    devices.entry(device.clone()).or_insert(Announcement { first: at, last: at }).last = at;
                } else {
                    devices.remove(device);
                }
            }
            Observation::SyncsCleared { attempt, instance_id, .. } => {
                if let Some(connection) = self.open.get_mut(attempt) {
                    connection.announced.remove(instance_id);
                }
            }
            Observation::Announced { attempt, .. } => {
                if let Some(connection) = self.open.get_mut(attempt) {
                    connection.positions = Some((at, connection.steady_since(at).unwrap_or(at)));
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
