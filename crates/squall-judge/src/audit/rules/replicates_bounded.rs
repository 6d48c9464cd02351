//! REPLICATEs are few.
//!
//! An instance sends REPLICATE when it has connected, and every writer answers with the positions of all its streams, to
//! every instance. An instance that reconnects in a loop keeps the whole deployment busy. An old Synapse among new ones,
//! which closes its connection at a `POSITION` of a stream that it does not have, sent 59 REPLICATEs a minute.
//!
//! The finding names the instances that connect and the payloads that came right before, as far as the traffic shows them:
//! an instance by its positions (`Connections`), or by the id under which its users sync; a payload if it came before
//! most of the REPLICATEs (`Preceding`). Where all instances reconnect at once, not every connection is recognised. But an
//! instance that answered some REPLICATEs and not all of them was away meanwhile.
//!
//! No false alarm: within [`WINDOW_MS`] every instance that was ever named may connect [`CONNECTIONS_MAX`] times. Some
//! instances are never named, so [`REPLICATES_MIN`] are always allowed. One instance that is recognised may connect
//! [`CONNECTIONS_OF_ONE_MAX`] times, more often than an operator restarts it within a minute.
//!
//! Class: load. Every instance reads and answers each of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{self, Write as _};
use std::rc::Rc;

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;

use crate::audit::bounds::{NAMES_LISTED_MAX, WRITERS_MAX};
use crate::audit::class::Class;
use crate::audit::connections::Shown;
use crate::audit::finding::{Findings, RuleViolation};
use crate::audit::origin::Origin;
use crate::audit::payload::ParsedPayload;
use crate::audit::preceding::{PayloadKind, Preceding, Suspicion};
use crate::audit::rule::Rule;
use crate::audit::streams;
use crate::observation::SimTime;
use crate::violation::list;
use squall_protocol::{Command, InstanceName, Position};

/// Length of the window in which REPLICATEs are counted, in milliseconds.
pub const WINDOW_MS: u64 = 60_000;

/// Number of connections that are allowed to each instance within the window.
pub const CONNECTIONS_MAX: usize = 2;

/// Number of connections that are allowed to one instance within the window, however many others there are.
pub const CONNECTIONS_OF_ONE_MAX: usize = 5;

/// Number of REPLICATEs that are always allowed within the window.
pub const REPLICATES_MIN: usize = 10;

/// Time for which the last answers are awaited, in milliseconds: they show which instances connected.
const ANSWERED_MS: u64 = 1_000;

/// Time before a REPLICATE in which a process announces its users' syncs anew, in milliseconds.
const ANNOUNCED_MS: u64 = 100;

/// Number of REPLICATEs that are remembered: one more than can be allowed.
const RECENT_MAX: usize = CONNECTIONS_MAX * WRITERS_MAX + 1;

/// Number of connections that are remembered.
const CONNECTED_MAX: usize = 4_000;

/// Number of answers that are remembered. Of a storm with more, it is not known which instances were away.
const ANSWERS_MAX: usize = 50_000;

/// Number of processes with syncing users that are remembered.
const PROCESSES_MAX: usize = 100;

/// Number of payloads and of processes that a finding names.
const NAMED_MAX: usize = 3;

/// Number of instances that connected of which a finding names the most frequent.
const CONNECTED_LISTED_MAX: usize = 100;

/// A violation of this rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error, IntoStaticStr, VariantNames)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum Violation {
    /// The instances cannot need so many REPLICATEs.
    #[error(
        "{replicates} REPLICATEs came within {within_ms} ms, from {instances} known instances. {}",
        explanation(*replicates, connected, away, processes, before)
    )]
    Storm {
        replicates: usize,
        within_ms: u64,
        instances: usize,
        /// The instances that connected most often. Each connected at least as often as it says.
        connected: Vec<Connected>,
        /// The first of the other instances that did not answer every REPLICATE.
        away: Vec<InstanceName>,
        /// The processes whose users' syncs were announced or cleared right before most REPLICATEs.
        processes: Vec<String>,
        /// The payloads that came right before most REPLICATEs.
        before: Vec<Before>,
    },
}

/// An instance that connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Connected {
    /// Its name.
    pub instance: InstanceName,
    /// Least number of times.
    pub times: usize,
}

/// A payload that came right before REPLICATEs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Before {
    /// The payload.
    #[serde(flatten)]
    pub payload: PayloadKind,
    /// Number of REPLICATEs that it came before.
    pub times: usize,
}

impl fmt::Display for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.instance, self.times)
    }
}

impl fmt::Display for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (before {})", self.payload, self.times)
    }
}

impl RuleViolation for Violation {
    fn class(&self) -> Class {
        Class::Load
    }
}

/// Returns the part of the message that says which instances connected, and after what.
fn explanation(
    replicates: usize,
    connected: &[Connected],
    away: &[InstanceName],
    processes: &[String],
    before: &[Before],
) -> String {
    let mut text = if connected.is_empty() {
        "The traffic does not show which instances connected".to_owned()
    } else {
        format!("Those that connected, at least so many times: {}", list(connected))
    };
    let known: usize = connected.iter().map(|each| each.times).sum();
    if !connected.is_empty() && known < replicates {
        let _ = write!(text, ", and {} unknown", replicates - known);
    }
    if !away.is_empty() {
        let _ = write!(text, "; {} did not answer every REPLICATE, as if away meanwhile", list(away));
    }
    if !processes.is_empty() {
        let _ = write!(text, "; the syncs of process {} were announced with them", list(processes));
    }
    let Some(Before { payload: PayloadKind { suspicion, .. }, .. }) = before.first() else {
        text.push_str(". No payload is known to have come right before most of them");
        return text;
    };
    let _ = write!(text, ". Right before came {}", list(before));
    text.push_str(match suspicion {
        Suspicion::UnknownStream => {
            ". Synapse 1.163 does not have the stream, and reconnects at its position: stop its writer, or upgrade"
        }
        Suspicion::NewStream(_) => {
            ". An older Synapse that does not have the stream reconnects at its position: upgrade what connects"
        }
        Suspicion::NotACommand => {
            ". Synapse drops what it cannot read and stays connected, so look for another cause, too"
        }
        Suspicion::Known => "",
    });
    text
}

/// Counts REPLICATEs.
#[derive(Debug, Default)]
pub(super) struct ReplicatesBounded {
    instances: BTreeSet<InstanceName>,
    recent: VecDeque<Replicate>,
    /// A storm whose last answers are awaited.
    storm: Option<Storm>,
    /// The connections that were recognised within the window.
    connected: VecDeque<(SimTime, InstanceName)>,
    /// The answers of each writer of a known stream within the window.
    answers: VecDeque<(SimTime, Origin)>,
    preceding: Preceding,
    /// The time at which each process last announced or cleared syncs.
    processes: BTreeMap<String, SimTime>,
    judged: u64,
}

/// A REPLICATE, and what came right before it.
#[derive(Debug)]
struct Replicate {
    at: SimTime,
    before: Vec<Rc<PayloadKind>>,
    processes: Vec<String>,
}

/// The REPLICATE that was one too many.
#[derive(Debug)]
struct Storm {
    line: u64,
    at: SimTime,
}

impl ReplicatesBounded {
    fn allowed(&self) -> usize {
        (CONNECTIONS_MAX * self.instances.len()).max(REPLICATES_MIN)
    }

    fn add_instance(&mut self, instance: &InstanceName) {
        if !self.instances.contains(instance) {
            self.instances.insert(instance.clone());
        }
    }

    fn replicate_came(&mut self, line: u64, at: SimTime) {
        self.judged += 1;
        let announced = self.processes.iter().filter(|(_, then)| at.ms_since(**then) <= ANNOUNCED_MS);
        let processes = announced.map(|(id, _)| id.clone()).take(NAMED_MAX).collect();
        self.recent.push_back(Replicate { at, before: self.preceding.before(at), processes });
        while self.recent.len() > RECENT_MAX
            || self.recent.front().is_some_and(|first| at.ms_since(first.at) >= WINDOW_MS)
        {
            self.recent.pop_front();
        }
        if self.recent.len() > self.allowed() {
            self.storm.get_or_insert(Storm { line, at });
        }
    }

    fn instance_connected(&mut self, line: u64, at: SimTime, instance: &InstanceName) {
        self.connected.push_back((at, instance.clone()));
        while self.connected.len() > CONNECTED_MAX
            || self.connected.front().is_some_and(|(then, _)| at.ms_since(*then) >= WINDOW_MS)
        {
            self.connected.pop_front();
        }
        let times = self.connected.iter().filter(|(_, connected)| connected == instance).count();
        if times > CONNECTIONS_OF_ONE_MAX {
            self.storm.get_or_insert(Storm { line, at });
        }
    }

    fn process_announced(&mut self, at: SimTime, id: &str) {
        self.processes.insert(id.to_owned(), at);
        if self.processes.len() > PROCESSES_MAX {
            self.processes.retain(|_, then| at.ms_since(*then) <= ANNOUNCED_MS);
        }
        if self.processes.len() > PROCESSES_MAX {
            self.processes.clear();
        }
    }

    /// Reports a storm whose last answers have come.
    fn report_answered(&mut self, is_answered: impl Fn(&Storm) -> bool, findings: &mut Findings<Violation>) {
        let Some(Storm { line, at }) = self.storm.take_if(|storm| is_answered(storm)) else { return };
        let (replicates, instances) = (self.recent.len(), self.instances.len());
        let mut connected = self.most_connected();
        let mut away = self.away(at);
        away.retain(|instance| connected.iter().all(|each| each.instance != *instance));
        connected.truncate(CONNECTED_LISTED_MAX);
        away.truncate(NAMES_LISTED_MAX);
        let (processes, before) = (self.accompanying(), self.suspects());
        let ends = self.recent.front().zip(self.recent.back());
        let within_ms = ends.map_or(0, |(first, last)| last.at.ms_since(first.at));
        findings.add(line, Violation::Storm { replicates, within_ms, instances, connected, away, processes, before });
        // A storm that goes on is found again in each window.
        self.recent.clear();
        self.connected.clear();
        self.answers.clear();
    }

    /// Returns the instances that answered fewer REPLICATEs than came until `at`.
    fn away(&self, at: SimTime) -> Vec<InstanceName> {
        let Some(first) = self.recent.front().filter(|_| self.answers.len() < ANSWERS_MAX) else { return Vec::new() };
        let replicates = self.recent.iter().filter(|replicate| replicate.at <= at).count();
        let answers = self.answers.iter().filter(|(then, _)| *then >= first.at);
        let mut answered: BTreeMap<&InstanceName, usize> = BTreeMap::new();
        for (origin, times) in count(answers.map(|(_, origin)| origin)) {
            let most = answered.entry(&origin.writer).or_default();
            *most = times.max(*most);
        }
        let away = answered.into_iter().filter(|(_, times)| *times < replicates);
        away.map(|(instance, _)| instance.clone()).collect()
    }

    fn answer_came(&mut self, at: SimTime, position: &Position) {
        if self.recent.is_empty() || position.prev != position.new || !streams::is_known(position.stream.as_str()) {
            return;
        }
        self.answers.push_back((at, Origin::from(position)));
        while self.answers.len() > ANSWERS_MAX
            || self.answers.front().is_some_and(|(then, _)| at.ms_since(*then) >= WINDOW_MS)
        {
            self.answers.pop_front();
        }
    }

    /// Returns the instances that connected, the most frequent first.
    fn most_connected(&self) -> Vec<Connected> {
        let counts = count(self.connected.iter().map(|(_, instance)| instance.clone()));
        counts.into_iter().map(|(instance, times)| Connected { instance, times }).collect()
    }

    /// Returns the processes that announced or cleared syncs right before most REPLICATEs.
    fn accompanying(&self) -> Vec<String> {
        let counts = count(self.recent.iter().flat_map(|replicate| replicate.processes.iter().cloned()));
        let frequent = counts.into_iter().filter(|(_, times)| 2 * times > self.recent.len());
        frequent.map(|(id, _)| id).take(NAMED_MAX).collect()
    }

    /// Returns the most suspicious payloads that came right before most REPLICATEs, the most frequent first.
    fn suspects(&self) -> Vec<Before> {
        let counts = count(self.recent.iter().flat_map(|replicate| &replicate.before).map(Rc::as_ref));
        // An instance has the streams that it writes.
        let has_it = |writer: &InstanceName| self.connected.iter().any(|(_, instance)| instance == writer);
        let mut before: Vec<Before> = counts
            .into_iter()
            .filter(|(_, times)| 2 * times > self.recent.len())
            .map(|(payload, times)| Before { payload: PayloadKind::clone(payload), times })
            .collect();
        before.retain(|Before { payload, .. }| {
            !matches!(payload.suspicion, Suspicion::NewStream(_)) || !payload.writer.as_ref().is_some_and(has_it)
        });
        let most = before.iter().map(|before| before.payload.suspicion).min();
        before.retain(|before| Some(before.payload.suspicion) == most);
        before.truncate(NAMED_MAX);
        before
    }
}

/// Returns each thing with the number of times that it occurs, the most frequent first.
fn count<T: Ord>(things: impl Iterator<Item = T>) -> Vec<(T, usize)> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    for thing in things {
        *counts.entry(thing).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
    counts
}

impl Rule for ReplicatesBounded {
    type Violation = Violation;

    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Violation>) {
        self.tick(payload.at, findings);
        match payload.command {
            Ok(Command::Rdata(rdata)) => self.add_instance(&rdata.writer),
            Ok(Command::Position(position)) => self.add_instance(&position.writer),
            Ok(Command::FederationAck(ack)) => self.add_instance(&ack.instance),
            _ => {}
        }
        let Some(at) = payload.at else { return };
        match payload.command {
            Ok(Command::Replicate) => self.replicate_came(payload.line, at),
            Ok(Command::Position(position)) => {
                self.answer_came(at, position);
                if payload.shown == (Shown::Connected { is_first: true }) {
                    self.instance_connected(payload.line, at, &position.writer);
                }
            }
            Ok(Command::UserSync(sync)) => self.process_announced(at, &sync.instance_id),
            Ok(Command::ClearUserSync(id)) => self.process_announced(at, id),
            _ => {}
        }
        self.preceding.payload(at, payload.command);
    }

    fn tick(&mut self, now: Option<SimTime>, findings: &mut Findings<Violation>) {
        self.report_answered(|storm| now.is_some_and(|now| now.ms_since(storm.at) >= ANSWERED_MS), findings);
    }

    fn missed(&mut self, _now: Option<SimTime>) {
        // The other instances may have lost the broker, too, and are right to connect again. A storm that was noticed
        // before remains one.
        if self.storm.is_none() {
            self.recent.clear();
            self.connected.clear();
        }
        // Without all answers it is not known which instances were away.
        self.answers.clear();
        self.preceding.missed();
        self.processes.clear();
    }

    fn end(&mut self, _at: Option<SimTime>, findings: &mut Findings<Violation>) {
        self.report_answered(|_| true, findings);
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::finding::Finding;
    use crate::audit::testing::{Traffic, found_at};

    fn every(ms: u64, times: u64) -> Vec<(u64, &'static str)> {
        (0..times).map(|ordinal| (ordinal * ms, "REPLICATE")).collect()
    }

    #[test]
    fn a_reconnect_each_second_is_a_storm_for_as_long_as_it_lasts() {
        assert_eq!(found_at(ReplicatesBounded::default(), &every(1_000, 60)).len(), 5);
    }

    #[test]
    fn the_replicates_of_a_storm_came_within_the_time_it_says() {
        let found = found_at(ReplicatesBounded::default(), &every(100, 30));
        let [Finding { line: 11, violation: Violation::Storm { replicates, within_ms, .. } }] = found[..] else {
            panic!("{found:?}")
        };
        assert_eq!((replicates, within_ms), (20, 1_900), "those that came while the last answers were awaited, too");
    }

    #[test]
    fn few_replicates_are_remembered_if_time_stands_still() {
        let mut traffic = Traffic::default();
        let mut rule = ReplicatesBounded::default();
        let mut findings = Findings::default();
        for line in 0..2 * RECENT_MAX as u64 {
            traffic.check(&mut rule, line, Some(SimTime(7)), "REPLICATE", &mut findings);
            assert!(rule.recent.len() <= RECENT_MAX);
        }
        rule.end(Some(SimTime(7)), &mut findings);
        let [Finding { violation: Violation::Storm { replicates, .. }, .. }] = &findings.0[..] else {
            panic!("{findings:?}")
        };
        assert_eq!(*replicates, RECENT_MAX);
    }

    #[test]
    fn a_reconnect_now_and_then_is_no_storm() {
        assert_eq!(found_at(ReplicatesBounded::default(), &every(6_000, 100)), []);
    }

    #[test]
    fn a_large_deployment_may_start_at_once() {
        let lines: Vec<String> = (0..20).map(|writer| format!("POSITION caches w{writer} 1 1")).collect();
        let mut payloads: Vec<(u64, &str)> = lines.iter().map(|line| (0, &**line)).collect();
        payloads.extend(every(100, 40));
        assert_eq!(found_at(ReplicatesBounded::default(), &payloads), []);
        payloads.push((4_000, "REPLICATE"));
        assert_eq!(found_at(ReplicatesBounded::default(), &payloads).len(), 1);
    }

    /// Returns the first storm, if each second these payloads come, before a REPLICATE that two instances answer and one
    /// of them sent.
    fn storm_after(before: &[&'static str]) -> Finding<Violation> {
        let mut payloads = Vec::new();
        for second in 0..10 {
            payloads.extend(before.iter().map(|text| (second * 1_000, *text)));
            let answers = ["REPLICATE", "POSITION caches b 1 1", "POSITION caches a 1 1", "POSITION caches a 1 1"];
            payloads.extend(answers.map(|text| (second * 1_000 + 50, text)));
        }
        found_at(ReplicatesBounded::default(), &payloads).remove(0)
    }

    #[test]
    fn an_instance_that_reconnects_in_a_loop_is_named_soon() {
        let Finding { line, violation: Violation::Storm { replicates, connected, before, .. } } = storm_after(&[]);
        let a = |times| Connected { instance: "a".into(), times };
        assert_eq!((line, replicates, connected, before), (24, 6, vec![a(6)], vec![]));
    }

    #[test]
    fn the_payloads_that_come_right_before_are_named() {
        let message = |before: &[&'static str]| storm_after(before).violation.to_string();
        let nothing = message(&[]);
        assert!(nothing.contains("at least so many times: a 6. No payload is known"), "{nothing}");
        let unknown = message(&["POSITION nonesuch c 5 5", "POSITION profile_updates b 1 1"]);
        assert!(unknown.contains(". Right before came POSITION nonesuch of c (before 6). Synapse 1.163"), "{unknown}");
        let newer = message(&["POSITION profile_updates b 1 1", r#"RDATA caches b 2 ["x"]"#]);
        assert!(newer.contains("POSITION profile_updates of b (before 6). An older Synapse"), "{newer}");
        let own = message(&["POSITION profile_updates a 1 1"]);
        assert!(own.contains("No payload is known"), "it has the stream: {own}");
        let unreadable = message(&["NOSUCH 1"]);
        assert!(unreadable.contains("came a payload that is no command (NOSUCH) (before 6). Synapse drops"));
        let both = message(&["NOSUCH 1", "POSITION profile_updates b 1 1"]);
        assert!(both.contains("POSITION profile_updates of b (before 6). An older Synapse"), "{both}");
        let synced = message(&["USER_SYNC xyz @u:h D start 0"]);
        assert!(
            synced.contains("a 6; the syncs of process xyz were announced with them. Right before came USER_SYNC"),
            "{synced}"
        );
    }

    #[test]
    fn an_instance_that_does_not_answer_every_replicate_was_away() {
        let mut payloads = Vec::new();
        for second in 0..11 {
            payloads.extend([(second * 500, "REPLICATE"), (second * 500 + 1, "POSITION caches a 1 1")]);
            payloads.push((second * 500 + 2, "POSITION nonesuch c 1 1"));
            if second != 4 {
                payloads.push((second * 500 + 3, "POSITION caches b 1 1"));
            }
        }
        let found = found_at(ReplicatesBounded::default(), &payloads);
        let [Finding { violation: Violation::Storm { connected, away, .. }, .. }] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!((connected.len(), &away[..]), (0, &["b".into()][..]), "c writes a stream that others do not have");
    }

    #[test]
    fn a_gap_excuses_the_reconnects_before_it_but_no_storm() {
        let storm_with_gap_after = |replicates: u64| {
            let mut traffic = Traffic::default();
            let mut rule = ReplicatesBounded::default();
            let mut findings = Findings::default();
            for (line, (at, text)) in (1..).zip(every(100, replicates)) {
                traffic.check(&mut rule, line, Some(SimTime(at)), text, &mut findings);
            }
            rule.missed(Some(SimTime(2_000)));
            rule.tick(Some(SimTime(9_000)), &mut findings);
            findings.0.len()
        };
        assert_eq!((storm_with_gap_after(10), storm_with_gap_after(11)), (0, 1));
    }
}
