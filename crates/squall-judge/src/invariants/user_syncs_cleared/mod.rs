//! User syncs cleared.
//!
//! A user who syncs is not offline, and a user who does not sync is. In detail:
//!
//! 1. A process that is stopped gracefully, with users announced on an open connection to the presence writer, writes
//!    `CLEAR_USER_SYNC` there before it ends: see `stops` (Synapse #7128; measured on 1.163: 0 of 6 stops did).
//! 2. A user with a live sync does not go offline while the connection of their instance to the presence writer is sound:
//!    see `sound` (Synapse #16771: a steady sync was never refreshed, and expired).
//! 3. After the storm, users without a live sync go offline, and users with one do not stay offline, within the calm bound
//!    (Synapse #6212: the check that expires crashed processes never ran). Until then they are pending.
//!
//! No false alarm: in partitions, crashes, and restarts of the presence writer users rightly go offline, because a silent
//! process cannot be told from a dead one. So 1 and 2 are judged by the lines that the instance itself wrote, and 3 in the
//! calm alone. A device that its client asked to be offline may sync and be offline; `presence_as_set` judges those.

mod connections;
mod sound;
mod stops;
mod violation;

use std::collections::{BTreeMap, BTreeSet};
use std::iter;

use self::connections::Connections;
use self::stops::Stops;
pub use self::violation::Violation;
use crate::invariant::Invariant;
use crate::observation::{Device, Kind, Observation, SimTime};
use crate::pending::{Pending, PendingReason};
use crate::scene::Scene;
use crate::topology::{FollowerKey, Topology};
use squall_protocol::rows::Row;
use squall_protocol::{InstanceName, Token};

/// The stream of all users' presence.
const STREAM: &str = "presence";
/// The state of users who are not reachable.
const OFFLINE: &str = "offline";

/// Checks the presence of users who sync and of users who do not.
pub struct UserSyncsCleared {
    writer: Option<InstanceName>,
    expiry_ms: u64,
    connections: Connections,
    stops: Stops,
    /// The number of unfinished syncs of each device.
    live: BTreeMap<(InstanceName, u64, Device), usize>,
    /// The devices whose clients asked to be offline.
    hidden: BTreeSet<Device>,
    /// The newest state of each user: its token, and true if it is offline.
    states: BTreeMap<String, (Token, bool)>,
    calm_at: Option<SimTime>,
    judged: u64,
}

impl UserSyncsCleared {
    /// Returns the instances on which the user syncs, with the devices.
    fn syncs_of(&self, user: &str) -> impl Iterator<Item = (&InstanceName, &Device)> {
        let of_user = self.live.keys().filter(move |(.., device)| device.user == user);
        of_user.map(|(instance, _, device)| (instance, device))
    }

    fn went_offline(&self, at: SimTime, user: &str) -> Result<(), Violation> {
        for (instance, device) in self.syncs_of(user).filter(|(_, device)| !self.hidden.contains(device)) {
            for connection in self.connections.of(instance) {
                let Some(announced) = connection.announcement(device) else { continue };
                if sound::is_at_fault(at, connection, announced, self.expiry_ms, self.calm_at) {
                    return Err(Violation::OfflineWhileSyncing {
                        user: user.to_owned(),
                        instance: instance.clone(),
                        announced_ms: at.ms_since(announced.first),
                        silent_ms: at.ms_since(announced.last),
                    });
                }
            }
        }
        Ok(())
    }

    /// Returns the users that sync and are offline, and the users that do not sync and are not offline.
    fn wrong(&self) -> (Vec<String>, Vec<String>) {
        let syncing: BTreeSet<&String> = self.live.keys().map(|(.., device)| &device.user).collect();
        let visible = self.live.keys().map(|(.., device)| device).filter(|device| !self.hidden.contains(device));
        let visible: BTreeSet<&String> = visible.map(|device| &device.user).collect();
        let is_offline = |user: &String| self.states.get(user).is_none_or(|(_, is_offline)| *is_offline);
        let offline = visible.iter().filter(|user| is_offline(user)).map(|user| user.to_string()).collect();
        let online = self.states.keys().filter(|user| !syncing.contains(user) && !is_offline(user)).cloned().collect();
        (offline, online)
    }
}

impl Invariant for UserSyncsCleared {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[
        Kind::Started,
        Kind::AskedToStop,
        Kind::Stopped,
        Kind::Committed,
        Kind::Connecting,
        Kind::Failed,
        Kind::Greeted,
        Kind::Announced,
        Kind::SyncSaid,
        Kind::SyncsCleared,
        Kind::GivenUp,
        Kind::Closed,
        Kind::SyncBegan,
        Kind::SyncEnded,
        Kind::Calm,
        Kind::CalmOver,
        Kind::PresenceAsked,
    ];

    fn new(topology: &Topology) -> Self {
        let writer =
            topology.writers().find(|(stream, ..)| stream.as_str() == STREAM).map(|(.., writer)| writer.clone());
        UserSyncsCleared {
            connections: Connections::new(writer.clone()),
            writer,
            expiry_ms: topology.process_expiry_ms(),
            stops: Stops::default(),
            live: BTreeMap::new(),
            hidden: BTreeSet::new(),
            states: BTreeMap::new(),
            calm_at: None,
            judged: 0,
        }
    }

    fn observe(&mut self, at: SimTime, observation: &Observation, _scene: &Scene) -> Result<(), Violation> {
        let verdict = self.stops.observe(at, observation, &self.connections);
        self.connections.observe(at, observation);
        match observation {
            Observation::AskedToStop { .. } => self.judged += u64::from(self.stops.is_anything_due()),
            Observation::SyncBegan { instance, boot, device } => {
                self.judged += 1;
                *self.live.entry((instance.clone(), *boot, device.clone())).or_default() += 1;
            }
            Observation::SyncEnded { instance, boot, device } => {
                let key = (instance.clone(), *boot, device.clone());
                if let Some(count) = self.live.get_mut(&key) {
                    *count -= 1;
                    if *count == 0 {
                        self.live.remove(&key);
                    }
                }
            }
            Observation::Started { instance, .. } | Observation::Stopped { instance, .. } => {
                self.live.retain(|(on, ..), _| on != instance);
            }
            Observation::Committed { row: Row::Presence(row), token, .. } => {
                let is_offline = row.state == OFFLINE;
                let newest = self.states.entry(row.user_id.clone()).or_insert((*token, is_offline));
                if newest.0 <= *token {
                    *newest = (*token, is_offline);
                }
                if is_offline {
                    self.judged += 1;
                    return verdict.and(self.went_offline(at, &row.user_id));
                }
            }
            Observation::PresenceAsked { device, state, .. } if state == OFFLINE => {
                self.hidden.insert(device.clone());
            }
            Observation::Calm => self.calm_at = Some(at),
            Observation::CalmOver => {
                let (offline, online) = self.wrong();
                let still_online = online.into_iter().map(|user| Violation::StillOnline { user });
                let still_offline = offline.into_iter().map(|user| Violation::StillOffline { user });
                return still_online.chain(still_offline).next().map_or(verdict, Err);
            }
            _ => {}
        }
        verdict
    }

    fn pending<'a>(&'a self, _scene: &'a Scene) -> Box<dyn Iterator<Item = Pending> + 'a> {
        let Some(writer) = self.writer.as_ref().filter(|_| self.calm_at.is_some()) else {
            return Box::new(iter::empty());
        };
        let (offline, online) = self.wrong();
        let is_wrong = !offline.is_empty() || !online.is_empty();
        let follower = || FollowerKey::new(writer, &STREAM.into(), writer);
        let what = is_wrong.then_some(PendingReason::Presence { offline, online });
        Box::new(what.map(|what| Pending { follower: follower(), what }).into_iter())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests;
