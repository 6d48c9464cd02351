//! A process that stops serving users clears their syncs.
//!
//! A process that stops sends `CLEAR_USER_SYNC`. Otherwise the presence writer believes for another five minutes that its
//! users sync with it (Synapse #7128), and they stay online. Unmodified Synapse never gets the command onto the wire: its
//! sockets close before the command is written.
//!
//! A process of Squall sends heartbeats as long as any user syncs with it ([`SIGNS_OF_LIFE`]). If it has been silent for
//! [`LIFELESS_AFTER_MS`], it has ended without `CLEAR_USER_SYNC`.
//!
//! A process of Synapse sends no heartbeats. While it lives, it sends `end` at most 20 s after a user moved to another
//! process. If every device that it announced has moved to other processes, and [`SILENT_FOR_MS`] later it has not sent
//! `end` for any of them, it has ended, too.
//!
//! No false alarm: a process of Synapse is judged only if it sends nothing about its devices, and if none of them stayed.
//! A process whose users all left before it ended has nothing to clear. If the process that a device left announces the
//! device again, the device has not moved back. The traffic does not show whether a process was stopped or killed, and a
//! killed one could not have sent the command. A process that hangs, or is cut off from the broker, until it counts as
//! dead is dead for every other instance, too, as long as that lasts.
//!
//! Class: loss. The end of the syncs is lost, so their users stay online for five minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use crate::audit::bounds::{Bound, DELAY_MS_MAX, NAMES_LISTED_MAX};
use crate::audit::class::Class;
use crate::audit::finding::{Findings, RuleViolation};
use crate::audit::payload::ParsedPayload;
use crate::audit::rule::Rule;
use crate::observation::SimTime;
use crate::violation::list;
use squall_protocol::{Command, SIGN_OF_LIFE_INTERVAL, SIGNS_OF_LIFE, UserSync};

/// Silence after which a process with heartbeats counts as dead, in milliseconds: the heartbeat interval and
/// [`DELAY_MS_MAX`].
pub const LIFELESS_AFTER_MS: u64 = SIGN_OF_LIFE_INTERVAL.as_millis() as u64 + DELAY_MS_MAX;

/// Silence after which a process counts as dead when its last device has moved, in milliseconds.
///
/// A living process sends `end` within two thirds of it.
pub const SILENT_FOR_MS: u64 = 30_000;

/// Number of processes that are remembered. Beyond it, the one that has been silent for longest is forgotten.
pub const PROCESSES_MAX: usize = 1_000;

/// Number of devices of all processes that are remembered. Beyond it, the same process is forgotten.
pub const DEVICES_MAX: usize = 500_000;

/// A violation of this rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error, IntoStaticStr, VariantNames)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum Violation {
    /// All users of a process moved to other processes, and it did not clear their syncs.
    #[error(
        "process {instance_id} did not send CLEAR_USER_SYNC: its {devices} devices now sync with {}, and it sent `end` for \
         none of them",
        list(successors)
    )]
    NotCleared {
        instance_id: String,
        devices: usize,
        /// The first of the other processes.
        successors: Vec<String>,
    },
    /// A process sent no heartbeat for too long, and did not clear its users' syncs.
    #[error(
        "process {instance_id} did not send CLEAR_USER_SYNC: {devices} devices still sync with it, and it has sent nothing \
         for {silent_ms} ms"
    )]
    Lifeless { instance_id: String, devices: usize, silent_ms: u64 },
}

impl RuleViolation for Violation {
    fn class(&self) -> Class {
        Class::Loss
    }
}

/// Checks the end of every process that serves users.
#[derive(Debug, Default)]
pub(super) struct SyncsCleared {
    /// The processes, by their ids.
    processes: BTreeMap<Rc<str>, Process>,
    /// Number of the devices of all processes.
    devices: usize,
    judged: u64,
    /// Number of processes that were forgotten because there were too many.
    processes_forgotten: u64,
    /// Number of devices that were forgotten because there were too many.
    devices_forgotten: u64,
}

/// The hash of a user and of one of their devices. There are too many of them for their names to be remembered.
type DeviceHash = u128;

/// Returns the hash of the device that a command names.
fn device_of(sync: &UserSync) -> DeviceHash {
    let mut hash = Xxh3::new();
    hash.update(sync.user_id.as_bytes());
    if let Some(device_id) = &sync.device_id {
        // No text has this byte.
        hash.update(&[0xff]);
        hash.update(device_id.as_bytes());
    }
    hash.digest128()
}

/// A process that serves users.
#[derive(Debug, Default)]
struct Process {
    /// The line of its last `USER_SYNC`.
    line: u64,
    /// The time of its last `USER_SYNC`.
    last_sync: Option<SimTime>,
    /// Its devices. A device that moved has its new process.
    devices: BTreeMap<DeviceHash, Option<Rc<str>>>,
    /// The time of the last move.
    last_move: Option<SimTime>,
    /// Number of devices that have not moved.
    staying: usize,
}

impl Process {
    /// Returns a violation if its next heartbeat is overdue.
    fn lifeless(&self, now: SimTime, instance_id: &str) -> Option<Violation> {
        let silent_ms = now.ms_since(self.last_sync?);
        let is_dead = silent_ms > LIFELESS_AFTER_MS;
        let devices = self.devices.len();
        is_dead.then(|| Violation::Lifeless { instance_id: instance_id.to_owned(), devices, silent_ms })
    }

    /// Returns a violation if all its devices have moved, and its `end` is overdue.
    fn deserted(&self, now: SimTime, instance_id: &str) -> Option<Violation> {
        if self.staying > 0 {
            return None;
        }
        if self.devices.is_empty() || now.ms_since(self.last_move?) <= SILENT_FOR_MS {
            return None;
        }
        let successors: BTreeSet<&str> = self.devices.values().flatten().map(|id| &**id).collect();
        let successors = successors.into_iter().take(NAMES_LISTED_MAX).map(str::to_owned).collect();
        Some(Violation::NotCleared { instance_id: instance_id.to_owned(), devices: self.devices.len(), successors })
    }

    /// Adds a device that syncs with it. Returns true if the device was not announced before.
    fn add(&mut self, device: DeviceHash) -> bool {
        let before = self.devices.insert(device, None);
        if before != Some(None) {
            self.staying += 1;
        }
        before.is_none()
    }

    /// Moves one of its devices to another process. Other devices are ignored.
    fn move_away(&mut self, device: DeviceHash, to: &Rc<str>, at: SimTime) {
        let Some(moved) = self.devices.get_mut(&device) else { return };
        if moved.replace(Rc::clone(to)).is_none() {
            self.staying -= 1;
        }
        self.last_move = Some(at);
    }

    /// Removes a device whose sync ended.
    fn remove(&mut self, device: DeviceHash) {
        if matches!(self.devices.remove(&device), Some(None)) {
            self.staying -= 1;
        }
    }
}

impl SyncsCleared {
    /// Takes a `USER_SYNC` into account.
    fn user_sync(&mut self, line: u64, at: Option<SimTime>, sync: &UserSync) {
        let device = device_of(sync);
        let known = self.processes.get_key_value(&*sync.instance_id).map(|(id, _)| Rc::clone(id));
        let id = known.unwrap_or_else(|| sync.instance_id.as_str().into());
        let process = self.processes.entry(Rc::clone(&id)).or_default();
        process.line = line;
        process.last_sync = at;
        let before = process.devices.len();
        if sync.is_syncing {
            let began = process.add(device);
            self.devices = self.devices + process.devices.len() - before;
            // Without times no silence is ever long enough.
            if let Some(at) = at.filter(|_| began) {
                for (_, other) in self.processes.iter_mut().filter(|(other, _)| **other != id) {
                    other.move_away(device, &id, at);
                }
            }
        } else {
            process.remove(device);
            self.devices = self.devices + process.devices.len() - before;
            if process.devices.is_empty() {
                self.processes.remove(&id);
            }
            self.judged += 1;
        }
        if self.processes.len() > PROCESSES_MAX {
            self.forget_oldest();
            self.processes_forgotten += 1;
        } else if self.devices > DEVICES_MAX {
            self.devices_forgotten += self.forget_oldest();
        }
    }

    /// Forgets the process that has been silent for longest. Returns the number of its devices.
    fn forget_oldest(&mut self) -> u64 {
        let oldest = self.processes.iter().min_by_key(|(_, process)| process.line);
        let Some(id) = oldest.map(|(id, _)| Rc::clone(id)) else { return 0 };
        let before = self.devices;
        self.forget(&id);
        (before - self.devices) as u64
    }

    fn forget(&mut self, instance_id: &str) {
        let forgotten = self.processes.remove(instance_id);
        self.devices -= forgotten.map_or(0, |process| process.devices.len());
    }

    /// Reports the processes that have ended, and forgets them.
    fn report_dead(&mut self, now: Option<SimTime>, findings: &mut Findings<Violation>) {
        let Some(now) = now else { return };
        self.processes.retain(|instance_id, process| {
            let violation = if instance_id.starts_with(SIGNS_OF_LIFE) {
                process.lifeless(now, instance_id)
            } else {
                process.deserted(now, instance_id)
            };
            let Some(violation) = violation else { return true };
            self.judged += 1;
            self.devices -= process.devices.len();
            findings.add(process.line, violation);
            false
        });
    }
}

impl Rule for SyncsCleared {
    type Violation = Violation;

    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Violation>) {
        self.report_dead(payload.at, findings);
        match payload.command {
            Ok(Command::UserSync(sync)) => self.user_sync(payload.line, payload.at, sync),
            Ok(Command::ClearUserSync(instance_id)) => {
                self.judged += 1;
                self.forget(instance_id);
            }
            _ => {}
        }
    }

    fn tick(&mut self, now: Option<SimTime>, findings: &mut Findings<Violation>) {
        self.report_dead(now, findings);
    }

    fn end(&mut self, at: Option<SimTime>, findings: &mut Findings<Violation>) {
        self.report_dead(at, findings);
    }

    fn missed(&mut self, _now: Option<SimTime>) {
        self.processes.clear();
        self.devices = 0;
    }

    fn judged(&self) -> u64 {
        self.judged
    }

    fn bounds(&self) -> Vec<Bound> {
        vec![
            Bound { things: "processes with syncing users", max: PROCESSES_MAX, unjudged: self.processes_forgotten },
            Bound { things: "devices that sync", max: DEVICES_MAX, unjudged: self.devices_forgotten },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::{found_at, kinds};

    fn found(payloads: &[(u64, &str)]) -> Vec<(u64, &'static str)> {
        kinds(&found_at(SyncsCleared::default(), payloads))
    }

    const BEGINNING: [(u64, &str); 4] = [
        (0, "USER_SYNC old @a:h D start 0"),
        (1_000, "USER_SYNC old @b:h D start 0"),
        (9_000, "USER_SYNC new @a:h D start 0"),
        (10_000, "USER_SYNC new @b:h D start 0"),
    ];

    #[test]
    fn a_silent_process_whose_users_all_moved_is_found() {
        assert_eq!(found(&[&BEGINNING[..], &[(40_000, "PING 1")]].concat()), []);
        assert_eq!(found(&[&BEGINNING[..], &[(40_001, "PING 1")]].concat()), [(2, "not_cleared")]);
    }

    const LIVELY: (u64, &str) = (1_000, "USER_SYNC squall.a @a:h D start 0");

    #[test]
    fn a_process_that_sends_no_more_heartbeats_is_found() {
        let again = (4_000, "USER_SYNC squall.a @a:h D start 3");
        assert_eq!(found(&[LIVELY, (9_000, "PING 1")]), []);
        assert_eq!(found(&[LIVELY, (9_001, "PING 1")]), [(1, "lifeless")]);
        assert_eq!(found(&[LIVELY, again, (12_000, "PING 1")]), []);
        assert_eq!(found(&[LIVELY, again, (12_001, "PING 1"), (90_000, "PING 2")]), [(2, "lifeless")]);
        // The heartbeat of another process does not count.
        let other = [(5_000, "USER_SYNC squall.b @b:h D start 0"), (9_001, "USER_SYNC squall.b @b:h D end 0")];
        assert_eq!(found(&[&[LIVELY], &other[..]].concat()), [(1, "lifeless")]);
    }

    #[test]
    fn a_process_that_sends_no_heartbeats_is_not_found_for_its_silence() {
        let cleared = (2_000, "CLEAR_USER_SYNC squall.a");
        let ended = (2_000, "USER_SYNC squall.a @a:h D end 0");
        let foreign = (2_000, "USER_SYNC other @a:h D start 0");
        for last in [cleared, ended] {
            assert_eq!(found(&[LIVELY, last, (90_000, "PING 1")]), []);
        }
        assert_eq!(found(&[foreign, (90_000, "PING 1")]), []);
    }

    #[test]
    fn a_device_does_not_move_back_to_a_process_that_announces_it_again() {
        let came = (2_000, "USER_SYNC synapse @a:h D start 0");
        let again = (3_000, "USER_SYNC squall.a @a:h D start 0");
        let ended = (9_000, "USER_SYNC squall.a @a:h D end 0");
        assert_eq!(found(&[LIVELY, came, again, ended, (90_000, "PING 1")]), []);
        // But it may move there later.
        let back = (10_000, "USER_SYNC other @a:h D start 0");
        assert_eq!(found(&[LIVELY, came, again, ended, back, (40_001, "PING 1")]), [(2, "not_cleared")]);
    }

    #[test]
    fn a_process_that_is_found_was_judged() {
        let mut rule = SyncsCleared::default();
        let mut findings = Findings::default();
        let Ok(Command::UserSync(sync)) = Command::parse(LIVELY.1) else { panic!() };
        rule.user_sync(1, Some(SimTime(LIVELY.0)), &sync);
        assert_eq!(rule.judged(), 0);
        rule.tick(Some(SimTime(LIVELY.0 + LIFELESS_AFTER_MS + 1)), &mut findings);
        assert_eq!((findings.0.len(), rule.judged()), (1, 1));
    }

    #[test]
    fn a_process_that_cleared_its_syncs_is_fine() {
        let cleared = [(10_500, "CLEAR_USER_SYNC old"), (90_000, "PING 1")];
        assert_eq!(found(&[&BEGINNING[..], &cleared].concat()), []);
        let ended =
            [(20_000, "USER_SYNC old @a:h D end 0"), (25_000, "USER_SYNC old @b:h D end 0"), (90_000, "PING 1")];
        assert_eq!(found(&[&BEGINNING[..], &ended].concat()), []);
    }

    #[test]
    fn the_process_that_is_silent_for_longest_is_forgotten_if_there_are_too_many() {
        let mut rule = SyncsCleared::default();
        let mut sync = |instance_id: &str, number: usize| {
            let sync = format!("USER_SYNC {instance_id} @u{number}:h D start 0");
            let Ok(Command::UserSync(sync)) = Command::parse(&sync) else { panic!("{sync}") };
            rule.user_sync(number as u64, Some(SimTime(0)), &sync);
        };
        sync("old", 0);
        for number in 1..=DEVICES_MAX / 2 {
            sync("one", number);
        }
        for number in 1..DEVICES_MAX / 2 {
            sync("other", DEVICES_MAX + number);
        }
        sync("one", 1);
        assert_eq!(rule.processes.keys().map(|id| &**id).collect::<Vec<_>>(), ["old", "one", "other"]);
        assert!(rule.bounds().iter().all(|bound| bound.unjudged == 0));
        let Ok(Command::UserSync(last)) = Command::parse("USER_SYNC one @last:h D start 0") else { panic!() };
        rule.user_sync(u64::MAX, Some(SimTime(0)), &last);
        assert_eq!(rule.processes.keys().map(|id| &**id).collect::<Vec<_>>(), ["one", "other"]);
        assert_eq!(rule.bounds()[1], Bound { things: "devices that sync", max: DEVICES_MAX, unjudged: 1 });
        assert_eq!(rule.devices, DEVICES_MAX);
    }

    #[test]
    fn a_process_that_still_serves_a_user_is_not_judged() {
        let other = [(10_500, "USER_SYNC old @c:h D start 0"), (90_000, "PING 1")];
        assert_eq!(found(&[&BEGINNING[..], &other].concat()), []);
        let again = [(20_000, "USER_SYNC old @a:h D start 0"), (90_000, "PING 1")];
        assert_eq!(found(&[&BEGINNING[..], &again].concat()), []);
    }
}
