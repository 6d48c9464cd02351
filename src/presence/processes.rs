//! The presence writer's record of the users who sync through each process.
//!
//! A process is identified by an id that it drew itself, not by its connection (Synapse #7128). A crashed process sends
//! nothing more. Its announcements count until it has been silent for the expiry, whose check never ran in Synapse #6212.
//! A live process repeats its announcements long before that (Synapse #16771).
//!
//! `CLEAR_USER_SYNC` is final: later announcements under the cleared id are ignored. A process takes a new id on every
//! new connection and clears the old one. So lines of the lost connection that are read late, after the first lines of
//! the new one, cannot mark a user as syncing who has stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use squall_protocol::UserSync;

/// Largest number of devices that are recorded as syncing, each once for each process that it syncs through. They take up to
/// 250 MB while their presence is written, and are forgotten when their processes are.
pub const SYNCING_MAX: usize = 200_000;
/// Largest number of syncing devices of one user.
pub const SYNCING_OF_USER_MAX: usize = 100;
/// Largest number of ids of processes that are remembered: of those that announce users, and again of those that were cleared.
pub const PROCESSES_MAX: usize = 1_000;

/// A syncing device: the user id, and the device id if it is known.
pub(super) type Device = (String, Option<String>);

/// The syncing devices of every process.
#[derive(Debug)]
pub(super) struct Processes {
    expiry: Duration,
    processes: BTreeMap<String, Process>,
    /// The time at which each id was cleared, remembered for the expiry. An announcement under the id after that expires
    /// by itself.
    cleared: BTreeMap<String, Instant>,
    /// Number of processes that each device of each user syncs through.
    devices: BTreeMap<Device, usize>,
    /// Sum of these numbers.
    syncing: usize,
}

#[derive(Debug)]
struct Process {
    syncing: BTreeSet<Device>,
    last_heard: Instant,
}

impl Process {
    fn new(now: Instant) -> Self {
        Process { syncing: BTreeSet::new(), last_heard: now }
    }
}

/// The change made by a `USER_SYNC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The device was not recorded as syncing through the process, and now is.
    Began,
    /// Nothing changed: the device still syncs, or was not recorded as syncing.
    Repeated,
    /// The device no longer syncs through the process.
    Ended,
    /// The announcement is ignored, because the process's id was cleared before.
    Void,
    /// The announcement is ignored, because as many are remembered as may be.
    TooMany,
}

impl Processes {
    /// Returns a record without processes. A process that is silent for `expiry` is taken for dead.
    pub(super) fn new(expiry: Duration) -> Self {
        Processes { expiry, processes: BTreeMap::new(), cleared: BTreeMap::new(), devices: BTreeMap::new(), syncing: 0 }
    }

    /// Returns true if the user syncs through any process.
    pub(super) fn is_syncing(&self, user_id: &str) -> bool {
        self.devices_of(user_id).next().is_some()
    }

    fn devices_of(&self, user_id: &str) -> impl Iterator<Item = &Device> {
        let from: Device = (user_id.to_owned(), None);
        self.devices.range(from..).map(|(device, _)| device).take_while(move |(of, _)| of == user_id)
    }

    /// Returns true if the device syncs through any process.
    pub(super) fn is_device_syncing(&self, user_id: &str, device_id: &Option<String>) -> bool {
        self.devices.contains_key(&(user_id.to_owned(), device_id.clone()))
    }

    /// Records an announcement that a device began to sync, still does, or stopped.
    pub(super) fn user_sync(&mut self, now: Instant, sync: &UserSync) -> Change {
        if self.cleared.contains_key(&sync.instance_id) {
            return Change::Void;
        }
        let device = (sync.user_id.clone(), sync.device_id.clone());
        let known = self.processes.get(&sync.instance_id);
        let is_new = sync.is_syncing && known.is_none_or(|process| !process.syncing.contains(&device));
        if known.is_none() && self.processes.len() >= PROCESSES_MAX || is_new && self.is_full_for(&device) {
            return Change::TooMany;
        }
        let process = self.processes.entry(sync.instance_id.clone()).or_insert_with(|| Process::new(now));
        process.last_heard = now;
        if is_new {
            process.syncing.insert(device.clone());
            *self.devices.entry(device).or_default() += 1;
            self.syncing += 1;
            Change::Began
        } else if !sync.is_syncing && process.syncing.remove(&device) {
            self.forget([device]);
            Change::Ended
        } else {
            Change::Repeated
        }
    }

    /// Returns true if no other device, like this one, may be recorded.
    fn is_full_for(&self, device: &Device) -> bool {
        let is_known = self.devices.contains_key(device);
        self.syncing >= SYNCING_MAX || !is_known && self.devices_of(&device.0).count() >= SYNCING_OF_USER_MAX
    }

    /// Records that a process serves no syncs any more. Returns the devices that it served.
    pub(super) fn clear(&mut self, now: Instant, instance_id: &str) -> BTreeSet<Device> {
        if self.cleared.len() < PROCESSES_MAX || self.processes.contains_key(instance_id) {
            self.cleared.insert(instance_id.to_owned(), now);
        }
        let process = self.processes.remove(instance_id);
        self.forget(process.into_iter().flat_map(|process| process.syncing))
    }

    /// Removes the processes that have been silent for the expiry. Returns the devices that they served.
    pub(super) fn expire(&mut self, now: Instant) -> BTreeSet<Device> {
        let expiry = self.expiry;
        self.cleared.retain(|_, at| now.duration_since(*at) < expiry);
        let expired = self.processes.extract_if(.., |_, process| now.duration_since(process.last_heard) >= expiry);
        let devices: Vec<Device> = expired.flat_map(|(_, process)| process.syncing).collect();
        self.forget(devices)
    }

    /// Removes devices that no longer sync through one process. Returns them.
    fn forget(&mut self, devices: impl IntoIterator<Item = Device>) -> BTreeSet<Device> {
        let mut forgotten = BTreeSet::new();
        for device in devices {
            if let Some(count) = self.devices.get_mut(&device) {
                *count -= 1;
                self.syncing -= 1;
                if *count == 0 {
                    self.devices.remove(&device);
                }
            }
            forgotten.insert(device);
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRY: Duration = Duration::from_secs(20);

    fn sync(instance_id: &str, user_id: &str, device_id: Option<&str>, is_syncing: bool) -> UserSync {
        UserSync {
            instance_id: instance_id.into(),
            user_id: user_id.into(),
            device_id: device_id.map(str::to_owned),
            is_syncing,
            last_sync_ms: 0,
        }
    }

    fn devices(users: &[&str]) -> BTreeSet<Device> {
        users.iter().map(|user| (user.to_string(), None)).collect()
    }

    #[test]
    fn a_device_syncs_until_it_has_stopped_everywhere_and_a_user_until_all_devices_have() {
        let mut processes = Processes::new(EXPIRY);
        let now = Instant::now();
        let mut announce = |instance_id: &str, device_id, is_syncing| {
            let change = processes.user_sync(now, &sync(instance_id, "@a", device_id, is_syncing));
            let phone = Some("phone".to_owned());
            (change, processes.is_syncing("@a"), processes.is_device_syncing("@a", &phone))
        };
        assert_eq!(announce("p1", Some("phone"), true), (Change::Began, true, true));
        assert_eq!(announce("p1", Some("phone"), true), (Change::Repeated, true, true));
        assert_eq!(announce("p1", None, true), (Change::Began, true, true));
        assert_eq!(announce("p2", Some("phone"), true), (Change::Began, true, true));
        assert_eq!(announce("p1", Some("phone"), false), (Change::Ended, true, true));
        assert_eq!(announce("p1", Some("phone"), false), (Change::Repeated, true, true));
        assert_eq!(announce("p2", Some("phone"), false), (Change::Ended, true, false));
        assert_eq!(announce("p1", None, false), (Change::Ended, false, false));
    }

    #[test]
    fn a_process_that_is_silent_for_the_expiry_is_taken_for_dead() {
        let mut processes = Processes::new(EXPIRY);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        processes.user_sync(start, &sync("silent", "@a", None, true));
        processes.user_sync(start, &sync("steady", "@a", None, true));
        processes.user_sync(start, &sync("steady", "@b", None, true));
        processes.user_sync(after(15), &sync("steady", "@b", None, true));
        assert_eq!(processes.expire(after(19)), devices(&[]));
        assert_eq!(processes.expire(after(20)), devices(&["@a"]));
        assert!(processes.is_syncing("@a"), "they sync through steady too");
        assert_eq!(processes.expire(after(35)), devices(&["@a", "@b"]));
        assert!(!processes.is_syncing("@a"));
        // The process was only delayed.
        assert_eq!(processes.user_sync(after(36), &sync("silent", "@a", None, true)), Change::Began);
    }

    #[test]
    fn an_announcement_under_a_cleared_id_is_ignored_even_if_it_arrives_late() {
        let mut processes = Processes::new(EXPIRY);
        let start = Instant::now();
        processes.user_sync(start, &sync("old", "@a", None, true));
        processes.user_sync(start, &sync("old", "@b", None, true));
        assert_eq!(processes.clear(start, "old"), devices(&["@a", "@b"]));
        processes.user_sync(start, &sync("new", "@a", None, true));
        assert_eq!(processes.user_sync(start, &sync("old", "@b", None, true)), Change::Void);
        assert_eq!(processes.user_sync(start, &sync("old", "@a", None, false)), Change::Void);
        assert!(processes.is_syncing("@a") && !processes.is_syncing("@b"));
        // Clearing an unknown id is final too.
        assert_eq!(processes.clear(start, "unheard"), devices(&[]));
        assert_eq!(processes.user_sync(start, &sync("unheard", "@c", None, true)), Change::Void);
        processes.expire(start + EXPIRY);
        assert!(processes.cleared.is_empty(), "a cleared id is not remembered for ever");
    }

    #[test]
    fn no_peer_makes_it_remember_more_than_the_limits() {
        let mut processes = Processes::new(EXPIRY);
        let start = Instant::now();
        let mut announce = |instance_id: String, user: usize, device: usize| {
            processes.user_sync(start, &sync(&instance_id, &format!("@{user}"), Some(&device.to_string()), true))
        };
        for device in 0..SYNCING_OF_USER_MAX {
            assert_eq!(announce("p0".into(), 0, device), Change::Began);
        }
        assert_eq!(announce("p0".into(), 0, SYNCING_OF_USER_MAX), Change::TooMany);
        for process in 1..PROCESSES_MAX {
            assert_eq!(announce(format!("p{process}"), process, 0), Change::Began);
        }
        assert_eq!(announce("another".into(), 1, 0), Change::TooMany);
        let before = SYNCING_OF_USER_MAX + PROCESSES_MAX - 1;
        for user in before..SYNCING_MAX {
            assert_eq!(announce("p1".into(), user, 0), Change::Began);
        }
        assert_eq!(announce("p1".into(), SYNCING_MAX, 0), Change::TooMany);
        assert_eq!(announce("p1".into(), before, 0), Change::Repeated, "those that are known are not affected");
        for process in 0..2 * PROCESSES_MAX {
            processes.clear(start, &format!("unheard{process}"));
        }
        assert_eq!(processes.cleared.len(), PROCESSES_MAX);
        processes.clear(start, "p1");
        assert_eq!(processes.user_sync(start, &sync("p1", "@a", None, true)), Change::Void, "of a known process");
        assert_eq!(processes.user_sync(start, &sync("p2", "@a", None, true)), Change::Began);
        processes.expire(start + EXPIRY);
        assert_eq!((processes.syncing, processes.devices.len(), processes.processes.len()), (0, 0, 0));
    }
}
