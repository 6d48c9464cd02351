//! The follower: audits live payloads and reports events.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use strum::IntoEnumIterator;
use tokio::time::Instant;

use super::event::{Event, Unheard};
use super::journal::Journal;
use crate::transport::redis::BrokerError;
use squall_judge::audit::bounds::DELAY_MS_MAX;
use squall_judge::audit::rules::positions_meet;
use squall_judge::audit::{Audit, Class, DatedRow, Entry, Exceeded, Finding, Gap, Gaps, Origin, Tally, Violation};
use squall_judge::observation::SimTime;

#[cfg(test)]
mod tests;

/// Number of findings of one kind that are reported one by one within [`REPORT_WINDOW_MS`]. The others are counted.
pub const REPORTED_MAX: u64 = 20;

/// Length of the window in which findings are counted for that, in milliseconds.
pub const REPORT_WINDOW_MS: u64 = 10_000;

/// Time within which something is heard of a deployment, in milliseconds. A silence that is longer is reported once.
pub const HEARD_WITHIN_MS: u64 = 10_000;

/// The reason for a gap after which payloads came late.
const HUNG: &str = "the broker or this process hung";

/// The reason for a gap before the first subscription.
const NOT_YET_SUBSCRIBED: &str = "not yet subscribed";

/// A receiver of a follower's events.
pub trait Watcher {
    /// Receives an event. The time is counted from the follower's beginning.
    fn on_event(&mut self, now: SimTime, event: Event<'_>, follower: &Follower);
}

/// Audits the payloads it receives, and reports events to a [`Watcher`].
pub struct Follower {
    audit: Audit,
    journal: Journal,
    state: State,
    /// Time before which every payload was received, as the broker's last answer proves.
    proven: SimTime,
    /// Time of the last payload.
    last_payload: SimTime,
    /// Time of the last tick.
    last_tick: SimTime,
    /// End of the last time in which this process stood still, so that the tick came late.
    last_stall: Option<SimTime>,
    /// By fingerprint.
    found: BTreeMap<String, BTreeMap<Class, FindingsOfKind>>,
    found_of: BTreeMap<Origin, FindingsOfOrigin>,
    gaps: Gaps,
    /// The bounds that were reported as exceeded: the rule, and what there was too much of.
    exceeded: BTreeSet<(&'static str, &'static str)>,
    recording_error: Option<String>,
    /// The time of the subscription, until something was heard or the silence was reported.
    listening_since: Option<SimTime>,
    /// The time at which the REPLICATE was sent, until it was answered or the silence was reported.
    asked_at: Option<SimTime>,
    /// True once a payload came that this process did not send.
    has_heard: bool,
}

/// The state of the subscription.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Not subscribed yet.
    New,
    Subscribed,
    /// Not subscribed any more.
    Disconnected {
        /// The reason why the subscription ended.
        first: String,
        /// The reason why the last attempt failed.
        last: String,
    },
    Ended,
}

/// Findings of one kind and class.
#[derive(Debug, Clone)]
pub struct FindingsOfKind {
    /// Their number.
    pub count: u64,
    /// The first of them.
    pub first: Finding,
    window: SimTime,
    reported: u64,
    suppressed: u64,
}

/// Findings about one writer and stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FindingsOfOrigin {
    /// Number of losses and loads.
    pub count: u64,
    /// Number of habits.
    pub habits: u64,
    /// Number of tokens that the writer skipped and no instance sent.
    pub skipped: u64,
}

impl Follower {
    /// Returns a follower that is not subscribed yet.
    pub fn new(audit: Audit, journal: Journal, watcher: &mut dyn Watcher) -> Self {
        let mut follower = Follower {
            audit,
            journal,
            state: State::New,
            proven: SimTime(0),
            last_payload: SimTime(0),
            last_tick: SimTime(0),
            last_stall: None,
            found: BTreeMap::new(),
            found_of: BTreeMap::new(),
            gaps: Gaps::default(),
            exceeded: BTreeSet::new(),
            recording_error: None,
            listening_since: None,
            asked_at: None,
            has_heard: false,
        };
        // The times of a recording count from its first line.
        follower.enter(SimTime(0), Entry::Mark, true, watcher);
        follower
    }

    /// Returns the time since the beginning.
    pub fn now(&self) -> SimTime {
        self.journal.now()
    }

    /// Converts a time to seconds since the Unix epoch.
    pub fn seconds(&self, at: SimTime) -> f64 {
        self.journal.seconds(at)
    }

    /// Returns how late a row arrived, in milliseconds, by the clocks of both machines.
    pub fn late_ms(&self, row: DatedRow) -> u64 {
        self.journal.ms(row.at).saturating_sub(row.written_ms)
    }

    /// Returns the counts of the payloads.
    pub fn tally(&self) -> &Tally {
        self.audit.tally()
    }

    /// Returns the number of times that each rule could have been violated, with the rule's name.
    pub fn judged(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.audit.judged()
    }

    /// Returns the findings of each kind and class, with the fingerprint.
    pub fn found(&self) -> impl Iterator<Item = (&str, Class, &FindingsOfKind)> {
        self.found.iter().flat_map(|(fingerprint, by_class)| {
            by_class.iter().map(|(class, found)| (fingerprint.as_str(), *class, found))
        })
    }

    /// Returns the number of findings of each kind, by fingerprint.
    pub fn counts_by_kind(&self) -> BTreeMap<&str, u64> {
        let mut counts = BTreeMap::new();
        for (fingerprint, _, found) in self.found() {
            *counts.entry(fingerprint).or_default() += found.count;
        }
        counts
    }

    /// Returns the number of findings of each class, also of those without any.
    pub fn counts_by_class(&self) -> BTreeMap<Class, u64> {
        let mut counts: BTreeMap<Class, u64> = Class::iter().map(|class| (class, 0)).collect();
        for (_, class, found) in self.found() {
            *counts.entry(class).or_default() += found.count;
        }
        counts
    }

    /// Returns the number of findings that the operator left out.
    pub fn ignored(&self) -> u64 {
        self.audit.ignored()
    }

    /// Returns the bounds of the rules that the traffic exceeded: not all of it was judged.
    pub fn exceeded(&self) -> Vec<Exceeded> {
        self.audit.exceeded()
    }

    /// Returns the findings about one writer and stream.
    pub fn found_of(&self, origin: &Origin) -> FindingsOfOrigin {
        self.found_of.get(origin).copied().unwrap_or_default()
    }

    /// Returns the times in which payloads may have been missed.
    pub fn gaps(&self) -> &Gaps {
        &self.gaps
    }

    /// Returns the reason why there is no subscription, if there is none.
    pub fn disconnected(&self) -> Option<&str> {
        match &self.state {
            State::New => Some(NOT_YET_SUBSCRIBED),
            State::Subscribed | State::Ended => None,
            State::Disconnected { last, .. } => Some(last),
        }
    }

    /// Returns true if any payload was heard besides a REPLICATE, which may be this process's own.
    pub fn has_heard(&self) -> bool {
        self.has_heard
    }

    /// Returns the reason why the recording ended early, if it did.
    pub fn recording_error(&self) -> Option<&str> {
        self.recording_error.as_deref()
    }

    /// Returns true if this process stood still within this time.
    pub fn has_stalled_within(&self, ms: u64) -> bool {
        let now = self.now();
        let stalls_now = now.ms_since(self.last_tick) > DELAY_MS_MAX;
        stalls_now || self.last_stall.is_some_and(|at| now.ms_since(at) < ms)
    }

    /// Notes that the subscription is in place: from now on every payload is received.
    pub fn subscribed(&mut self, watcher: &mut dyn Watcher) {
        let now = self.now();
        if let State::Disconnected { first, .. } = std::mem::replace(&mut self.state, State::Subscribed) {
            self.add_gap(now, first, watcher);
        }
        self.proven = now;
        self.last_payload = now;
        if !self.has_heard {
            self.listening_since = Some(now);
        }
        watcher.on_event(now, Event::Subscribed, self);
    }

    /// Notes that a REPLICATE was sent, which every writer answers.
    pub fn replicate_sent(&mut self) {
        self.asked_at = Some(self.now());
    }

    /// Notes that the subscription ended, or that an attempt to subscribe failed.
    pub fn connection_lost(&mut self, error: &BrokerError, watcher: &mut dyn Watcher) {
        let why = error.to_string();
        let is_new = self.disconnected() != Some(&*why);
        let first = match std::mem::replace(&mut self.state, State::New) {
            State::Disconnected { first, .. } => first,
            _ => why.clone(),
        };
        self.state = State::Disconnected { first, last: why };
        if is_new {
            watcher.on_event(self.now(), Event::Disconnected(error), self);
        }
    }

    /// Audits a payload that was published.
    pub fn received(&mut self, channel: &str, data: &[u8], watcher: &mut dyn Watcher) {
        let now = self.now();
        self.check_delay(now, watcher);
        self.last_payload = now;
        self.heard(data);
        let entry = Entry::Payload { channel: Some(channel.to_owned()), data: data.to_owned() };
        self.enter(now, entry, true, watcher);
    }

    /// Notes that the broker answered a ping that was sent at `pinged`: every payload from before was received.
    pub fn ponged(&mut self, pinged: Instant, watcher: &mut dyn Watcher) {
        let pinged = self.journal.at(pinged);
        self.check_delay(self.now(), watcher);
        self.proven = self.proven.max(pinged);
        self.enter(self.proven, Entry::Mark, false, watcher);
    }

    /// Notes that a payload came.
    fn heard(&mut self, data: &[u8]) {
        if data.trim_ascii() != b"REPLICATE" {
            self.has_heard = true;
            self.listening_since = None;
        }
        if data.starts_with(b"POSITION ") {
            self.asked_at = None;
        }
    }

    /// Reports a silence that has lasted too long, once.
    fn report_silence(&mut self, now: SimTime, watcher: &mut dyn Watcher) {
        if self.state != State::Subscribed {
            return;
        }
        let is_too_long = |since: &mut SimTime| now.ms_since(*since) >= HEARD_WITHIN_MS;
        let unheard = if self.asked_at.take_if(is_too_long).is_some() {
            Unheard::NoAnswer
        } else if self.asked_at.is_none() && self.listening_since.take_if(is_too_long).is_some() {
            Unheard::Nothing
        } else {
            return;
        };
        self.listening_since = None;
        watcher.on_event(now, Event::Unheard(unheard), self);
    }

    /// Notes that time has passed.
    pub fn tick(&mut self, watcher: &mut dyn Watcher) {
        let now = self.now();
        self.report_silence(now, watcher);
        if now.ms_since(self.last_tick) > DELAY_MS_MAX {
            self.last_stall = Some(now);
        }
        self.last_tick = now;
        self.report_suppressed(watcher, |found| now.ms_since(found.window) >= REPORT_WINDOW_MS);
        self.report_exceeded(watcher);
        if let Err(error) = self.journal.flush() {
            self.recording_failed(&error, watcher);
        }
        watcher.on_event(now, Event::Tick, self);
    }

    /// Ends the audit.
    pub fn end(&mut self, watcher: &mut dyn Watcher) {
        let now = self.now();
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Subscribed => self.enter(self.proven, Entry::Mark, true, watcher),
            State::Disconnected { first, .. } => self.add_gap(now, first, watcher),
            State::New => self.add_gap(now, NOT_YET_SUBSCRIBED.to_owned(), watcher),
            State::Ended => {}
        }
        for finding in self.audit.end() {
            self.add_finding(now, finding, watcher);
        }
        self.report_suppressed(watcher, |_| true);
        self.report_exceeded(watcher);
        if let Err(error) = self.journal.flush() {
            self.recording_failed(&error, watcher);
        }
    }

    /// Adds a gap if the broker's last answer is too old: the broker or this process hung, and may have dropped payloads.
    fn check_delay(&mut self, now: SimTime, watcher: &mut dyn Watcher) {
        if now.ms_since(self.proven) > DELAY_MS_MAX {
            self.add_gap(now, HUNG.to_owned(), watcher);
            self.proven = now;
        }
    }

    fn add_gap(&mut self, until: SimTime, why: String, watcher: &mut dyn Watcher) {
        // The answers may be among the missed payloads.
        self.asked_at = None;
        let gap = Gap { since: self.proven.max(self.last_payload).min(until), until, why };
        self.enter(until, Entry::Gap(gap.clone()), true, watcher);
        self.gaps.add(gap.clone());
        watcher.on_event(until, Event::Gap(&gap), self);
    }

    /// Audits a line. The line is recorded if it `is_kept`, or if it shows a finding.
    fn enter(&mut self, at: SimTime, entry: Entry, is_kept: bool, watcher: &mut dyn Watcher) {
        let recorded = self.journal.line(at, entry);
        let findings = self.audit.check_line(&recorded);
        if (is_kept || !findings.is_empty())
            && let Err(error) = self.journal.keep(&recorded)
        {
            self.recording_failed(&error, watcher);
        }
        for finding in findings {
            self.add_finding(at, finding, watcher);
        }
    }

    fn add_finding(&mut self, at: SimTime, finding: Finding, watcher: &mut dyn Watcher) {
        if let Some(origin) = finding.violation.origin() {
            let found_of = self.found_of.entry(origin.clone()).or_default();
            if finding.violation.class().is_reason_to_act() {
                found_of.count += 1;
            } else {
                found_of.habits += 1;
            }
            if let Violation::PositionsMeet(positions_meet::Violation::Skipped { count, .. }) = &finding.violation {
                found_of.skipped = found_of.skipped.saturating_add(*count);
            }
        }
        let by_class = self.found.entry(finding.violation.fingerprint()).or_default();
        let new = || FindingsOfKind { count: 0, first: finding.clone(), window: at, reported: 0, suppressed: 0 };
        let found = by_class.entry(finding.violation.class()).or_insert_with(new);
        found.count += 1;
        if found.suppressed == 0 && at.ms_since(found.window) >= REPORT_WINDOW_MS {
            found.window = at;
            found.reported = 0;
        }
        if found.reported >= REPORTED_MAX {
            found.suppressed += 1;
        } else {
            found.reported += 1;
            watcher.on_event(at, Event::Finding(&finding), self);
        }
    }

    /// Reports the number of suppressed findings of each kind whose window `is_over`.
    fn report_suppressed(&mut self, watcher: &mut dyn Watcher, is_over: impl Fn(&FindingsOfKind) -> bool) {
        let now = self.now();
        let mut suppressed = Vec::new();
        for found in self.found.values_mut().flat_map(BTreeMap::values_mut) {
            if found.suppressed > 0 && is_over(found) {
                suppressed.push((found.first.clone(), found.suppressed));
                found.suppressed = 0;
                found.window = now;
                found.reported = 0;
            }
        }
        for (first, count) in suppressed {
            watcher.on_event(now, Event::Suppressed(&first, count), self);
        }
    }

    /// Reports each bound that was exceeded, once.
    fn report_exceeded(&mut self, watcher: &mut dyn Watcher) {
        for exceeded in self.exceeded() {
            if self.exceeded.insert((exceeded.rule, exceeded.bound.things)) {
                watcher.on_event(self.now(), Event::Exceeded(&exceeded), self);
            }
        }
    }

    fn recording_failed(&mut self, error: &io::Error, watcher: &mut dyn Watcher) {
        let why = self.recording_error.insert(error.to_string()).clone();
        watcher.on_event(self.now(), Event::RecordingFailed(&why), self);
    }
}
