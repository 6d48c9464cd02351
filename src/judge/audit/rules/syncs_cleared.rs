//! Whoever stops serving users says so.
//!
//! A process that stops says `CLEAR_USER_SYNC`; otherwise the presence writer believes for another five minutes that its
//! users sync with it (Synapse #7128), and they stay online. Unmodified Synapse never gets it onto the wire: the sockets
//! close while it is still waiting to be sent.
//!
//! A process of Squall gives signs of life as long as anybody syncs with it ([`SIGNS_OF_LIFE`]): one that has been silent
//! for [`LIFELESS_AFTER_MS`] has ended without a word.
//!
//! One of Synapse's does not. But if it lives it says `end` at most 20 s after a user went elsewhere. So one that has not,
//! of any of the devices that it announced, [`SILENT_FOR_MS`] after every one of them began to sync with another process,
//! has ended, too.
//!
//! No false alarm: a process that says anything about one of its devices is not judged; nor is one whose users all left
//! before it ended, which has nothing to clear, nor one of Synapse's that has a device which went nowhere else: where the
//! process that a device left announces it once more, it has not gone back. Whether a process was stopped or killed cannot
//! be told from traffic; only who was stopped could have said it. A process that stands still,
//! or is cut off from the broker, for so long as to be taken for dead is dead for everybody else, too, as long as that goes
//! on.

use std::collections::{BTreeMap, BTreeSet};

use super::Rule;
use crate::judge::audit::bounds::HEARD_LATE_MS;
use crate::judge::audit::{Findings, Heard, Violation};
use crate::judge::observation::{Device, Moment};
use crate::protocol::{Command, SIGN_OF_LIFE_INTERVAL, SIGNS_OF_LIFE, UserSync};

/// How long a process that gives signs of life is silent before it is taken for dead: as long as one that lives is, and
/// [`HEARD_LATE_MS`].
pub const LIFELESS_AFTER_MS: u64 = SIGN_OF_LIFE_INTERVAL.as_millis() as u64 + HEARD_LATE_MS;
/// How long after its last device went elsewhere a process is taken for dead: half as long again as it may take to say so.
pub const SILENT_FOR_MS: u64 = 30_000;

/// How many processes are remembered, and how many devices of all of them; then the one that was silent for longest is
/// forgotten.
const PROCESSES_MAX: usize = 1_000;
const DEVICES_MAX: usize = 200_000;

/// Judges what becomes of processes that serve users.
#[derive(Debug, Default)]
pub struct SyncsCleared {
    /// By their ids: the devices that sync with each.
    processes: BTreeMap<String, Process>,
    judged: u64,
}

#[derive(Debug, Default)]
struct Process {
    line: u64,
    /// When it said something last.
    heard: Option<Moment>,
    /// Where each device went, and when, if it did.
    devices: BTreeMap<Device, Option<(String, Moment)>>,
    /// How many of them did not.
    staying: usize,
}

impl Process {
    /// That it should have given a sign of life by now, if so.
    fn lifeless(&self, now: Moment, instance_id: &str) -> Option<Violation> {
        let silent_ms = now.ms_since(self.heard?);
        let (instance_id, devices) = (instance_id.to_owned(), self.devices.len());
        (silent_ms > LIFELESS_AFTER_MS).then_some(Violation::Lifeless { instance_id, devices, silent_ms })
    }

    /// That it should have said by now that the last of its devices went elsewhere, if so: if none of them stayed.
    fn deserted(&self, now: Moment, instance_id: &str) -> Option<Violation> {
        if self.staying > 0 {
            return None;
        }
        let deserted = self.devices.values().flatten().map(|(_, at)| *at).max()?;
        if now.ms_since(deserted) <= SILENT_FOR_MS {
            return None;
        }
        let successors: BTreeSet<&String> = self.devices.values().flatten().map(|(id, _)| id).collect();
        let successors = successors.into_iter().cloned().collect();
        Some(Violation::NotCleared { instance_id: instance_id.to_owned(), devices: self.devices.len(), successors })
    }

    /// A device syncs with it. Says whether it began to: whoever has been announced before is only announced again.
    fn stays(&mut self, device: Device) -> bool {
        let before = self.devices.insert(device, None);
        if before != Some(None) {
            self.staying += 1;
        }
        before.is_none()
    }

    /// One of its devices, if it is one, began to sync with another process.
    fn went(&mut self, device: &Device, to: (String, Moment)) {
        let Some(went) = self.devices.get_mut(device) else { return };
        if went.replace(to).is_none() {
            self.staying -= 1;
        }
    }

    fn ended(&mut self, device: &Device) {
        if matches!(self.devices.remove(device), Some(None)) {
            self.staying -= 1;
        }
    }
}

impl SyncsCleared {
    fn synced(&mut self, line: u64, at: Option<Moment>, sync: &UserSync) {
        let device = Device { user: sync.user_id.clone(), device: sync.device_id.clone() };
        let process = self.processes.entry(sync.instance_id.clone()).or_default();
        (process.line, process.heard) = (line, at);
        if sync.is_syncing {
            let began = process.stays(device.clone());
            let others = self.processes.iter_mut().filter(|(id, _)| **id != sync.instance_id);
            // Without times, nobody is ever deserted for long enough.
            if let Some(at) = at.filter(|_| began) {
                others.for_each(|(_, process)| process.went(&device, (sync.instance_id.clone(), at)));
            }
        } else {
            process.ended(&device);
            if process.devices.is_empty() {
                self.processes.remove(&sync.instance_id);
            }
            self.judged += 1;
        }
        let devices: usize = self.processes.values().map(|process| process.devices.len()).sum();
        if self.processes.len() > PROCESSES_MAX || devices > DEVICES_MAX {
            let longest_silent =
                self.processes.iter().min_by_key(|(_, process)| process.line).map(|(id, _)| id.clone());
            longest_silent.map(|id| self.processes.remove(&id));
        }
    }

    fn find_dead(&mut self, now: Option<Moment>, findings: &mut Findings) {
        let Some(now) = now else { return };
        self.processes.retain(|instance_id, process| {
            let ended = if instance_id.starts_with(SIGNS_OF_LIFE) {
                process.lifeless(now, instance_id)
            } else {
                process.deserted(now, instance_id)
            };
            let Some(violation) = ended else { return true };
            self.judged += 1;
            findings.add(process.line, violation);
            false
        });
    }
}

impl Rule for SyncsCleared {
    fn name(&self) -> &'static str {
        "syncs_cleared"
    }

    fn hear(&mut self, heard: &Heard<'_>, findings: &mut Findings) {
        self.find_dead(heard.at, findings);
        match heard.said {
            Ok(Command::UserSync(sync)) => self.synced(heard.line, heard.at, sync),
            Ok(Command::ClearUserSync(instance_id)) => {
                self.judged += 1;
                self.processes.remove(instance_id);
            }
            _ => {}
        }
    }

    fn tick(&mut self, now: Option<Moment>, findings: &mut Findings) {
        self.find_dead(now, findings);
    }

    fn end(&mut self, at: Option<Moment>, findings: &mut Findings) {
        self.find_dead(at, findings);
    }

    fn missed(&mut self, _now: Option<Moment>) {
        self.processes.clear();
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::audit::testing::found_at;

    fn found(payloads: &[(u64, &str)]) -> Vec<(u64, &'static str)> {
        let found = found_at(SyncsCleared::default(), payloads);
        found.iter().map(|finding| (finding.line, finding.violation.kind())).collect()
    }

    const BEGINNING: [(u64, &str); 4] = [
        (0, "USER_SYNC old @a:h D start 0"),
        (1_000, "USER_SYNC old @b:h D start 0"),
        (9_000, "USER_SYNC new @a:h D start 0"),
        (10_000, "USER_SYNC new @b:h D start 0"),
    ];

    #[test]
    fn a_process_whose_users_all_went_elsewhere_without_a_word_is_found() {
        assert_eq!(found(&[&BEGINNING[..], &[(40_000, "PING 1")]].concat()), []);
        assert_eq!(found(&[&BEGINNING[..], &[(40_001, "PING 1")]].concat()), [(2, "not_cleared")]);
    }

    const LIVELY: (u64, &str) = (1_000, "USER_SYNC squall.a @a:h D start 0");

    #[test]
    fn a_process_that_gives_no_sign_of_life_is_found() {
        let again = (4_000, "USER_SYNC squall.a @a:h D start 3");
        assert_eq!(found(&[LIVELY, (9_000, "PING 1")]), []);
        assert_eq!(found(&[LIVELY, (9_001, "PING 1")]), [(1, "lifeless")]);
        assert_eq!(found(&[LIVELY, again, (12_000, "PING 1")]), []);
        assert_eq!(found(&[LIVELY, again, (12_001, "PING 1"), (90_000, "PING 2")]), [(2, "lifeless")]);
        // A word of another one is none.
        let other = [(5_000, "USER_SYNC squall.b @b:h D start 0"), (9_001, "USER_SYNC squall.b @b:h D end 0")];
        assert_eq!(found(&[&[LIVELY], &other[..]].concat()), [(1, "lifeless")]);
    }

    #[test]
    fn a_process_that_need_not_give_signs_of_life_is_not_found_for_that() {
        let cleared = (2_000, "CLEAR_USER_SYNC squall.a");
        let ended = (2_000, "USER_SYNC squall.a @a:h D end 0");
        let foreign = (2_000, "USER_SYNC other @a:h D start 0");
        for last in [cleared, ended] {
            assert_eq!(found(&[LIVELY, last, (90_000, "PING 1")]), []);
        }
        assert_eq!(found(&[foreign, (90_000, "PING 1")]), []);
    }

    #[test]
    fn a_device_does_not_go_back_to_whoever_only_announces_it_again() {
        let came = (2_000, "USER_SYNC synapse @a:h D start 0");
        let again = (3_000, "USER_SYNC squall.a @a:h D start 0");
        let ended = (9_000, "USER_SYNC squall.a @a:h D end 0");
        assert_eq!(found(&[LIVELY, came, again, ended, (90_000, "PING 1")]), []);
        // But it may go there again.
        let back = (10_000, "USER_SYNC other @a:h D start 0");
        assert_eq!(found(&[LIVELY, came, again, ended, back, (40_001, "PING 1")]), [(2, "not_cleared")]);
    }

    #[test]
    fn who_is_found_was_judged() {
        let (mut rule, mut findings) = (SyncsCleared::default(), Findings::default());
        let Ok(Command::UserSync(sync)) = Command::parse(LIVELY.1) else { panic!() };
        rule.synced(1, Some(Moment(LIVELY.0)), &sync);
        assert_eq!(rule.judged(), 0);
        rule.tick(Some(Moment(LIVELY.0 + LIFELESS_AFTER_MS + 1)), &mut findings);
        assert_eq!((findings.0.len(), rule.judged()), (1, 1));
    }

    #[test]
    fn a_process_that_said_so_is_fine() {
        let cleared = [(10_500, "CLEAR_USER_SYNC old"), (90_000, "PING 1")];
        assert_eq!(found(&[&BEGINNING[..], &cleared].concat()), []);
        let ended =
            [(20_000, "USER_SYNC old @a:h D end 0"), (25_000, "USER_SYNC old @b:h D end 0"), (90_000, "PING 1")];
        assert_eq!(found(&[&BEGINNING[..], &ended].concat()), []);
    }

    #[test]
    fn whoever_is_silent_for_longest_is_forgotten_if_there_are_too_many() {
        let mut rule = SyncsCleared::default();
        let mut sync = |instance_id: &str, number: usize| {
            let sync = format!("USER_SYNC {instance_id} @u{number}:h D start 0");
            let Ok(Command::UserSync(sync)) = Command::parse(&sync) else { panic!("{sync}") };
            rule.synced(number as u64, Some(Moment(0)), &sync);
        };
        sync("old", 0);
        (1..=DEVICES_MAX / 2).for_each(|number| sync("one", number));
        (1..DEVICES_MAX / 2).for_each(|number| sync("other", DEVICES_MAX + number));
        sync("one", 1);
        assert_eq!(rule.processes.keys().collect::<Vec<_>>(), ["old", "one", "other"]);
        let Ok(Command::UserSync(last)) = Command::parse("USER_SYNC one @last:h D start 0") else { panic!() };
        rule.synced(u64::MAX, Some(Moment(0)), &last);
        assert_eq!(rule.processes.keys().collect::<Vec<_>>(), ["one", "other"]);
    }

    #[test]
    fn a_process_that_still_serves_somebody_is_not_judged() {
        let other = [(10_500, "USER_SYNC old @c:h D start 0"), (90_000, "PING 1")];
        assert_eq!(found(&[&BEGINNING[..], &other].concat()), []);
        let again = [(20_000, "USER_SYNC old @a:h D start 0"), (90_000, "PING 1")];
        assert_eq!(found(&[&BEGINNING[..], &again].concat()), []);
    }
}
