//! User syncs cleared.
//!
//! Whoever syncs is not offline, and whoever does not is. In detail:
//!
//! 1. A process that is stopped gracefully, with users announced on a connection that is open to the presence writer,
//!    says `CLEAR_USER_SYNC` there before it ends: see [`stops`] (Synapse #7128; measured on 1.163: 0 of 6 stops did).
//! 2. A user with a live sync does not go offline while their instance's connection to the presence writer is sound:
//!    see [`sound`] for when it is (Synapse #16771: nothing refreshed a steady sync, and it expired).
//! 3. Once the storm is over, users without a live sync become offline and those with one do not stay so, within the
//!    calm bound (Synapse #6212: the check that expires crashed processes never ran). Until then they are pending.
//!
//! No false alarm: under partitions, crashes, and restarts of the presence writer users go offline rightly, for
//! somebody who is not heard of cannot be told from somebody who is gone. So 1 and 2 are judged by what the instance
//! itself wrote to its own network, and 3 in the calm alone. Clients that set themselves offline while they sync are
//! not known here; the storm has none.

mod connections;
mod sound;
mod stops;

use std::collections::{BTreeMap, BTreeSet};

use self::connections::Connections;
use self::stops::Stops;
use super::Invariant;
use crate::judge::observation::{Device, Moment, Observation};
use crate::judge::pending::{Lack, Pending};
use crate::judge::topology::{Feed, Topology};
use crate::judge::violation::Violation;
use crate::protocol::{InstanceName, Token};
use crate::streams::Row;

/// The stream that tells everybody's presence.
const STREAM: &str = "presence";
/// Its word for users who cannot be reached.
const OFFLINE: &str = "offline";

/// Judges what becomes of those who sync and of those who do not.
pub struct UserSyncsCleared {
    writer: Option<InstanceName>,
    expiry_ms: u64,
    connections: Connections,
    stops: Stops,
    /// The syncs that are under way, and how many of each device.
    live: BTreeMap<(InstanceName, u64, Device), usize>,
    /// The newest state of each user: its token, and whether it is offline.
    states: BTreeMap<String, (Token, bool)>,
    calm_at: Option<Moment>,
    judged: u64,
}

impl UserSyncsCleared {
    /// Knows from `topology` who decides who is present.
    pub fn new(topology: &Topology) -> Self {
        let writer =
            topology.writers().find(|(stream, ..)| stream.as_str() == STREAM).map(|(.., writer)| writer.clone());
        UserSyncsCleared {
            connections: Connections::new(writer.clone()),
            writer,
            expiry_ms: topology.process_expiry_ms(),
            stops: Stops::default(),
            live: BTreeMap::new(),
            states: BTreeMap::new(),
            calm_at: None,
            judged: 0,
        }
    }

    /// The instances on which the user syncs, with the devices.
    fn syncs_of(&self, user: &str) -> impl Iterator<Item = (&InstanceName, &Device)> {
        let of_user = self.live.keys().filter(move |(.., device)| device.user == user);
        of_user.map(|(instance, _, device)| (instance, device))
    }

    fn went_offline(&self, at: Moment, user: &str) -> Result<(), Violation> {
        for (instance, device) in self.syncs_of(user) {
            for connection in self.connections.of(instance) {
                let Some(said) = connection.said(device) else { continue };
                if sound::is_to_blame(at, connection, said, self.expiry_ms, self.calm_at) {
                    return Err(Violation::OfflineWhileSyncing {
                        user: user.to_owned(),
                        instance: instance.clone(),
                        announced_ms: at.ms_since(said.first),
                        silent_ms: at.ms_since(said.last),
                    });
                }
            }
        }
        Ok(())
    }

    /// Users that sync and are offline, and users that are not offline and do not sync.
    fn wrong(&self) -> (Vec<String>, Vec<String>) {
        let syncing: BTreeSet<&String> = self.live.keys().map(|(.., device)| &device.user).collect();
        let is_offline = |user: &String| self.states.get(user).is_none_or(|(_, is_offline)| *is_offline);
        let offline = syncing.iter().filter(|user| is_offline(user)).map(|user| user.to_string()).collect();
        let online = self.states.keys().filter(|user| !syncing.contains(user) && !is_offline(user)).cloned().collect();
        (offline, online)
    }
}

impl Invariant for UserSyncsCleared {
    fn name(&self) -> &'static str {
        "user_syncs_cleared"
    }

    fn observe(&mut self, at: Moment, observation: &Observation) -> Result<(), Violation> {
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

    fn pending(&self) -> Vec<Pending> {
        let Some(writer) = self.writer.as_ref().filter(|_| self.calm_at.is_some()) else { return Vec::new() };
        let (offline, online) = self.wrong();
        if offline.is_empty() && online.is_empty() {
            return Vec::new();
        }
        let feed = Feed::new(writer, &STREAM.into(), writer);
        vec![Pending { feed, what: Lack::Presence { offline, online } }]
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests;
