//! The states of one user's devices, and the state of the user that follows from them: the highest of
//! `busy > online > unavailable > offline` (Synapse #16066).
//!
//! ```text
//!       online --IDLE_TIMER--> unavailable
//!       any, not syncing --time-out--> forgotten, which counts as offline
//! ```
//!
//! The idle timer counts from the device's last activity. The time-out counts from its last activity or its last sync,
//! whichever is later, so that a device does not go offline between two syncs. It is longer for a busy device.
//!
//! A sync brings an unknown device online. It leaves the state of a known device alone, because the client may have set
//! that state, and a process announces its syncs again on every new connection. A state is kept as long as the device
//! syncs, and for the time-out after that.
//!
//! The database has one state for each user. After a restart of the presence writer it counts as the state of an unnamed
//! device (as in Synapse). A device that is announced before the time-out of that one takes the state over: what its user
//! has set is not lost.
//!
//! All times are milliseconds on a clock that never jumps.

use super::PresenceState;
use super::config::Limits;
use super::processes::SYNCING_OF_USER_MAX;

/// A device id; none if it is unknown.
type DeviceId = Option<String>;

/// The devices of one user that are not offline, or that the client set offline a short while ago.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Devices {
    /// A user has few, and a map for each user would take most of the memory.
    devices: Vec<(DeviceId, Device)>,
    /// The user's state before the restart of the presence writer, and the time until which a device may take it over.
    before_restart: Option<(Device, i64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Device {
    state: PresenceState,
    active_at: i64,
    /// The time of the last sign of a sync.
    synced_at: i64,
}

impl Device {
    /// Returns the time at which the device is forgotten, unless it syncs.
    fn forgotten_at(&self, limits: &Limits) -> i64 {
        let time_out = if self.state == PresenceState::Busy { limits.busy_ms } else { limits.offline_ms };
        self.synced_at.max(self.active_at) + time_out
    }

    /// Returns the time at which the device becomes idle.
    fn idle_at(&self, limits: &Limits) -> Option<i64> {
        (self.state == PresenceState::Online).then_some(self.active_at + limits.idle_ms)
    }
}

impl Devices {
    /// Returns the devices of a user whose stored state is `state`, at the start of the presence writer.
    pub(super) fn after_restart(state: PresenceState, active_at: i64, now: i64, limits: &Limits) -> Self {
        let device = Device { state, active_at, synced_at: now };
        let before_restart = Some((device, now + limits.offline_ms));
        Devices { devices: vec![(None, device)], before_restart }
    }

    fn get(&mut self, device_id: &DeviceId) -> Option<&mut Device> {
        self.devices.iter_mut().find(|(known, _)| known == device_id).map(|(_, device)| device)
    }

    /// Returns true if there is nothing to remember.
    pub(super) fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.before_restart.is_none()
    }

    /// Records that a device began to sync. Returns true if that is an activity of the user: the device was offline.
    pub(super) fn began(&mut self, device_id: &DeviceId, now: i64) -> bool {
        if self.get(device_id).is_some() || self.devices.len() >= SYNCING_OF_USER_MAX {
            return false;
        }
        let (device, is_new) = match self.before_restart.filter(|(_, until)| now < *until) {
            Some((before, _)) => (Device { synced_at: now, ..before }, false),
            None => (Device { state: PresenceState::Online, active_at: now, synced_at: now }, true),
        };
        self.devices.push((device_id.clone(), device));
        is_new
    }

    /// Records that a known device was syncing at `at`.
    pub(super) fn synced(&mut self, device_id: &DeviceId, at: i64) {
        if let Some(device) = self.get(device_id) {
            device.synced_at = device.synced_at.max(at);
        }
    }

    /// Sets a device's state as the client requested. With a sync a busy device stays busy.
    pub(super) fn set(&mut self, device_id: &DeviceId, state: PresenceState, is_sync: bool, now: i64) {
        let before = self.get(device_id).copied();
        let stays_busy = is_sync && before.is_some_and(|device| device.state == PresenceState::Busy);
        let is_active = matches!(state, PresenceState::Online | PresenceState::Busy);
        let device = Device {
            state: if stays_busy { PresenceState::Busy } else { state },
            active_at: if is_active { now } else { before.map_or(i64::MIN / 2, |device| device.active_at) },
            synced_at: now,
        };
        match self.get(device_id) {
            Some(known) => *known = device,
            None => self.devices.push((device_id.clone(), device)),
        }
    }

    /// Records an activity on a device, which ends its idleness. An offline device stays offline.
    pub(super) fn bump(&mut self, device_id: &DeviceId, now: i64) {
        let Some(device) = self.get(device_id) else { return };
        if device.state != PresenceState::Offline {
            device.active_at = now;
        }
        if device.state == PresenceState::Unavailable {
            device.state = PresenceState::Online;
        }
    }

    /// Makes the changes due by `now`. Returns the user's state, and the time of the next change.
    pub(super) fn advance(
        &mut self,
        now: i64,
        is_syncing: impl Fn(&DeviceId) -> bool,
        limits: &Limits,
    ) -> (PresenceState, Option<i64>) {
        self.before_restart.take_if(|(_, until)| *until <= now);
        self.devices.retain(|(device_id, device)| is_syncing(device_id) || now < device.forgotten_at(limits));
        let mut next = self.before_restart.map(|(_, until)| until);
        let mut combined = PresenceState::Offline;
        for (device_id, device) in &mut self.devices {
            if device.idle_at(limits).is_some_and(|at| at <= now) {
                device.state = PresenceState::Unavailable;
            }
            combined = combined.max(device.state);
            let forgotten_at = (!is_syncing(device_id)).then(|| device.forgotten_at(limits));
            next = next.into_iter().chain(forgotten_at).chain(device.idle_at(limits)).min();
        }
        (combined, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PresenceState::{Busy, Offline, Online, Unavailable};

    const LIMITS: Limits = Limits { offline_ms: 30_000, idle_ms: 300_000, busy_ms: 3_600_000 };

    fn id(name: &str) -> DeviceId {
        Some(name.to_owned())
    }

    /// Returns the state at `now` and the next change, while the devices called `syncing` sync.
    fn at(devices: &mut Devices, now: i64, syncing: &[&str]) -> (PresenceState, Option<i64>) {
        devices.advance(now, |device_id| device_id.as_deref().is_some_and(|id| syncing.contains(&id)), &LIMITS)
    }

    #[test]
    fn the_highest_state_of_all_devices_counts() {
        let mut devices = Devices::default();
        devices.set(&id("a"), Online, false, 0);
        devices.set(&id("b"), Unavailable, false, 1);
        assert_eq!(at(&mut devices, 1, &[]).0, Online, "not the last one");
        devices.set(&id("c"), Busy, false, 2);
        devices.set(&id("d"), Offline, false, 3);
        assert_eq!(at(&mut devices, 3, &[]).0, Busy);
        devices.set(&id("c"), Offline, false, 4);
        devices.set(&id("a"), Offline, false, 5);
        assert_eq!(at(&mut devices, 5, &[]), (Unavailable, Some(30_001)));
        assert_eq!(at(&mut devices, 30_001, &[]), (Offline, Some(30_003)));
        assert_eq!(at(&mut devices, 30_005, &[]), (Offline, None));
        assert!(devices.is_empty(), "forgotten devices cost no memory");
    }

    #[test]
    fn a_syncing_device_becomes_idle_and_never_goes_offline() {
        let mut devices = Devices::default();
        assert!(devices.began(&id("a"), 0));
        assert_eq!(at(&mut devices, 0, &["a"]), (Online, Some(300_000)));
        assert_eq!(at(&mut devices, 299_999, &["a"]), (Online, Some(300_000)));
        assert_eq!(at(&mut devices, 300_000, &["a"]), (Unavailable, None));
        assert_eq!(at(&mut devices, 10_000_000, &["a"]), (Unavailable, None));
        devices.bump(&id("b"), 10_000_000);
        assert_eq!(at(&mut devices, 10_000_000, &["a"]).0, Unavailable, "another device");
        devices.bump(&id("a"), 10_000_000);
        assert_eq!(at(&mut devices, 10_000_000, &["a"]), (Online, Some(10_300_000)));
    }

    #[test]
    fn a_device_goes_offline_in_time_after_its_last_sign_of_life_and_a_busy_one_much_later() {
        for (state, time_out) in [(Online, 30_000), (Unavailable, 30_000), (Busy, 3_600_000)] {
            let mut devices = Devices::default();
            devices.set(&id("a"), state, false, 0);
            devices.synced(&id("a"), 5_000);
            let offline_at = 5_000 + time_out;
            let before = at(&mut devices, offline_at - 1, &[]);
            assert_eq!(before, (state, Some(offline_at)));
            assert_eq!(at(&mut devices, offline_at, &[]), (Offline, None));
        }
    }

    #[test]
    fn a_sync_does_not_override_what_the_client_has_set() {
        for state in [Busy, Unavailable, Offline] {
            let mut devices = Devices::default();
            devices.set(&id("a"), state, false, 0);
            assert!(!devices.began(&id("a"), 1));
            assert_eq!(at(&mut devices, 100_000, &["a"]).0, state, "as long as it syncs");
            // Its process has announced the sync again, on a new connection.
            assert!(!devices.began(&id("a"), 100_001));
            assert_eq!(at(&mut devices, 100_001, &["a"]).0, state);
            // It has been forgotten, and comes back.
            assert_eq!(at(&mut devices, 10_000_000, &[]).0, Offline);
            assert!(devices.began(&id("a"), 10_000_001));
            assert_eq!(at(&mut devices, 10_000_001, &["a"]).0, Online);
        }
    }

    #[test]
    fn a_request_with_a_sync_sets_the_state_unless_the_device_is_busy() {
        let mut devices = Devices::default();
        devices.set(&id("a"), Unavailable, false, 0);
        devices.set(&id("a"), Online, true, 1);
        assert_eq!(at(&mut devices, 1, &[]).0, Online);
        devices.set(&id("a"), Busy, false, 2);
        devices.set(&id("a"), Online, true, 3);
        assert_eq!(at(&mut devices, 3, &[]).0, Busy);
        devices.set(&id("a"), Online, false, 4);
        assert_eq!(at(&mut devices, 4, &[]).0, Online);
    }

    #[test]
    fn an_offline_device_stays_offline_when_it_is_active() {
        let mut devices = Devices::default();
        devices.bump(&id("a"), 0);
        assert_eq!(at(&mut devices, 0, &[]), (Offline, None));
        devices.set(&id("a"), Offline, false, 0);
        devices.bump(&id("a"), 1);
        assert_eq!(at(&mut devices, 1, &[]), (Offline, Some(30_000)));
    }

    #[test]
    fn a_device_takes_over_the_state_from_before_the_restart_while_that_is_recent() {
        for (announced_at, state) in [(29_999, Unavailable), (30_000, Online)] {
            let mut devices = Devices::after_restart(Unavailable, -5_000, 0, &LIMITS);
            assert_eq!(at(&mut devices, 0, &[]), (Unavailable, Some(30_000)));
            devices.began(&id("a"), announced_at);
            assert_eq!(at(&mut devices, 30_000, &["a"]).0, state);
        }
        let mut devices = Devices::after_restart(Busy, -5_000, 0, &LIMITS);
        devices.set(&None, Online, false, 1);
        assert_eq!(at(&mut devices, 1, &[]).0, Online, "set without a device id");
    }

    #[test]
    fn devices_that_begin_and_end_in_turn_are_remembered_up_to_a_number() {
        let mut devices = Devices::default();
        for number in 0..2 * SYNCING_OF_USER_MAX {
            devices.began(&id(&number.to_string()), 0);
            at(&mut devices, 1, &[]);
        }
        assert_eq!(devices.devices.len(), SYNCING_OF_USER_MAX);
        assert_eq!(at(&mut devices, 30_000, &[]), (Offline, None));
        assert!(devices.is_empty());
    }
}
