//! Who is syncing through which process, as the presence writer has heard.
//!
//! A process is known by an id that it drew itself, not by its connection (Synapse #7128). One that crashed says
//! nothing any more; what it said last counts until it has been silent for the expiry (whose check never ran in
//! Synapse #6212). One that is alive repeats what it said long before that (Synapse #16771).
//!
//! `CLEAR_USER_SYNC` is final: whatever comes under that id afterwards is ignored. A process takes a new id on every
//! new connection and clears the old one, so that lines of the lost connection which are read late, after the first
//! ones of the new connection, bring nobody back who has stopped syncing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::UserSync;

/// A user's device that syncs.
type Device = (String, Option<String>);

/// What every process has said.
#[derive(Debug)]
pub struct Processes {
    expiry: Duration,
    processes: BTreeMap<String, Process>,
    /// When each id was cleared. Remembered for as long as the expiry: anything still later that comes under it
    /// expires by itself.
    cleared: BTreeMap<String, Instant>,
    /// How many devices each user syncs with, over all processes.
    users: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Process {
    syncing: BTreeSet<Device>,
    heard: Instant,
}

/// What a `USER_SYNC` has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The device was not known to sync through that process, and does now.
    Began,
    /// It is as it was: still syncing, or not syncing anyway.
    Repeated,
    /// The device no longer syncs through that process.
    Ended,
    /// The process's id was cleared before.
    Void,
}

impl Processes {
    /// Nobody syncs. A process that is silent for `expiry` is gone.
    pub fn new(expiry: Duration) -> Self {
        let (processes, cleared, users) = Default::default();
        Processes { expiry, processes, cleared, users }
    }

    /// Whether the user syncs through any process.
    pub fn is_syncing(&self, user_id: &str) -> bool {
        self.users.contains_key(user_id)
    }

    /// A process says that a device began to sync, still does, or stopped.
    pub fn said(&mut self, now: Instant, sync: &UserSync) -> Heard {
        if self.cleared.contains_key(&sync.instance_id) {
            return Heard::Void;
        }
        let new = || Process { syncing: BTreeSet::new(), heard: now };
        let process = self.processes.entry(sync.instance_id.clone()).or_insert_with(new);
        process.heard = now;
        let device = (sync.user_id.clone(), sync.device_id.clone());
        if sync.is_syncing {
            if !process.syncing.insert(device) {
                return Heard::Repeated;
            }
            *self.users.entry(sync.user_id.clone()).or_default() += 1;
            Heard::Began
        } else if process.syncing.remove(&device) {
            self.forget([device]);
            Heard::Ended
        } else {
            Heard::Repeated
        }
    }

    /// A process serves nobody any more. Returns whom it served.
    pub fn clear(&mut self, now: Instant, instance_id: &str) -> BTreeSet<String> {
        self.cleared.insert(instance_id.to_owned(), now);
        let process = self.processes.remove(instance_id);
        self.forget(process.into_iter().flat_map(|process| process.syncing))
    }

    /// Forgets processes that have been silent for too long. Returns whom they served.
    pub fn expire(&mut self, now: Instant) -> BTreeSet<String> {
        let expiry = self.expiry;
        self.cleared.retain(|_, at| now.duration_since(*at) < expiry);
        let expired = self.processes.extract_if(.., |_, process| now.duration_since(process.heard) >= expiry);
        let devices: Vec<Device> = expired.flat_map(|(_, process)| process.syncing).collect();
        self.forget(devices)
    }

    /// These devices no longer sync through some process. Returns whose they are.
    fn forget(&mut self, devices: impl IntoIterator<Item = Device>) -> BTreeSet<String> {
        let mut whose = BTreeSet::new();
        for (user_id, _) in devices {
            if let Some(count) = self.users.get_mut(&user_id) {
                *count -= 1;
                if *count == 0 {
                    self.users.remove(&user_id);
                }
            }
            whose.insert(user_id);
        }
        whose
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

    fn users(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn a_user_syncs_until_the_last_of_their_devices_has_stopped_everywhere() {
        let (mut processes, now) = (Processes::new(EXPIRY), Instant::now());
        let mut say = |instance_id: &str, device_id, is_syncing| {
            let heard = processes.said(now, &sync(instance_id, "@a", device_id, is_syncing));
            (heard, processes.is_syncing("@a"))
        };
        assert_eq!(say("p1", Some("phone"), true), (Heard::Began, true));
        assert_eq!(say("p1", Some("phone"), true), (Heard::Repeated, true));
        assert_eq!(say("p1", None, true), (Heard::Began, true));
        assert_eq!(say("p2", Some("phone"), true), (Heard::Began, true));
        assert_eq!(say("p1", Some("phone"), false), (Heard::Ended, true));
        assert_eq!(say("p1", Some("phone"), false), (Heard::Repeated, true));
        assert_eq!(say("p2", Some("phone"), false), (Heard::Ended, true));
        assert_eq!(say("p1", None, false), (Heard::Ended, false));
    }

    #[test]
    fn a_process_that_is_silent_for_the_expiry_serves_nobody() {
        let (mut processes, start) = (Processes::new(EXPIRY), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        processes.said(start, &sync("silent", "@a", None, true));
        processes.said(start, &sync("steady", "@a", None, true));
        processes.said(start, &sync("steady", "@b", None, true));
        processes.said(after(15), &sync("steady", "@b", None, true));
        assert_eq!(processes.expire(after(19)), users(&[]));
        assert_eq!(processes.expire(after(20)), users(&["@a"]));
        assert!(processes.is_syncing("@a"), "steady serves them too");
        assert_eq!(processes.expire(after(35)), users(&["@a", "@b"]));
        assert!(!processes.is_syncing("@a"));
        // It was only held up.
        assert_eq!(processes.said(after(36), &sync("silent", "@a", None, true)), Heard::Began);
    }

    #[test]
    fn what_a_process_said_before_it_cleared_is_void_even_if_it_comes_later() {
        let (mut processes, start) = (Processes::new(EXPIRY), Instant::now());
        processes.said(start, &sync("old", "@a", None, true));
        processes.said(start, &sync("old", "@b", None, true));
        assert_eq!(processes.clear(start, "old"), users(&["@a", "@b"]));
        processes.said(start, &sync("new", "@a", None, true));
        assert_eq!(processes.said(start, &sync("old", "@b", None, true)), Heard::Void);
        assert_eq!(processes.said(start, &sync("old", "@a", None, false)), Heard::Void);
        assert!(processes.is_syncing("@a") && !processes.is_syncing("@b"));
        // Clearing what was never heard of is no less final.
        assert_eq!(processes.clear(start, "unheard"), users(&[]));
        assert_eq!(processes.said(start, &sync("unheard", "@c", None, true)), Heard::Void);
        processes.expire(start + EXPIRY);
        assert!(processes.cleared.is_empty(), "it is not remembered for ever");
    }
}
