//! What is made of what is heard.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use tokio::time::Instant;

use super::{Journal, News, Watcher};
use crate::judge::audit::bounds::HEARD_LATE_MS;
use crate::judge::audit::{Audit, Away, Entry, Finding, Origin, Tally, Violation};
use crate::judge::observation::Moment;

/// How many findings of one kind are told one by one within [`SHOWN_WINDOW_MS`]; of the others, only how many.
pub const SHOWN_MAX: u64 = 20;

/// The stretch of time in which findings are counted for that, in milliseconds.
pub const SHOWN_WINDOW_MS: u64 = 10_000;

/// How many times of absence are remembered; all are counted.
pub const AWAY_KEPT_MAX: usize = 1_000;

/// Judges what it is told, and tells what comes of it.
pub struct Follower {
    audit: Audit,
    journal: Journal,
    state: State,
    /// Until when everything was heard, as the broker's last answer proves.
    proven: Moment,
    /// When something was heard last.
    heard_at: Moment,
    found: BTreeMap<String, Found>,
    found_of: BTreeMap<Origin, FoundOf>,
    away: Absences,
    recording_error: Option<String>,
}

/// Whether anything can be heard.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Not tried yet.
    New,
    Listening,
    /// No, for this reason; and for this one it was not yet possible again.
    Deaf(String, String),
    /// No, for it is over.
    Ended,
}

/// Findings of one kind.
#[derive(Debug, Clone)]
pub struct Found {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Finding,
    window: Moment,
    shown: u64,
    omitted: u64,
}

/// Findings about one writer and stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FoundOf {
    /// How many.
    pub count: u64,
    /// How many tokens it passed over that nobody sent.
    pub skipped: u64,
}

/// The times in which nothing could be heard.
#[derive(Debug, Default)]
pub struct Absences {
    /// The last ones.
    pub last: VecDeque<Away>,
    /// How many there were in all.
    pub count: u64,
    /// How long they were together, in milliseconds.
    pub ms: u64,
}

impl Follower {
    /// One that has heard nothing yet.
    pub fn new(audit: Audit, journal: Journal, watcher: &mut dyn Watcher) -> Self {
        let mut follower = Follower {
            audit,
            journal,
            state: State::New,
            proven: Moment(0),
            heard_at: Moment(0),
            found: BTreeMap::new(),
            found_of: BTreeMap::new(),
            away: Absences::default(),
            recording_error: None,
        };
        // The recording counts from its first line.
        follower.enter(Moment(0), Entry::Mark, true, watcher);
        follower
    }

    /// How long it has been since the beginning.
    pub fn now(&self) -> Moment {
        self.journal.now()
    }

    /// Seconds since the Unix epoch.
    pub fn seconds(&self, at: Moment) -> f64 {
        self.journal.seconds(at)
    }

    /// What there was, in numbers.
    pub fn tally(&self) -> &Tally {
        self.audit.tally()
    }

    /// How often each rule could have been violated, by name.
    pub fn judged(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.audit.judged()
    }

    /// What was found, by fingerprint.
    pub fn found(&self) -> &BTreeMap<String, Found> {
        &self.found
    }

    /// What was found of one writer and stream.
    pub fn found_of(&self, origin: &Origin) -> FoundOf {
        self.found_of.get(origin).copied().unwrap_or_default()
    }

    /// When nothing could be heard.
    pub fn away(&self) -> &Absences {
        &self.away
    }

    /// Why nothing is heard now, if nothing is.
    pub fn deaf(&self) -> Option<&str> {
        match &self.state {
            State::New => Some("not yet subscribed"),
            State::Listening | State::Ended => None,
            State::Deaf(_, why) => Some(why),
        }
    }

    /// Why the recording ended, if it had to.
    pub fn recording_error(&self) -> Option<&str> {
        self.recording_error.as_deref()
    }

    /// From now on everything is heard.
    pub fn listening(&mut self, watcher: &mut dyn Watcher) {
        let now = self.now();
        if let State::Deaf(why, _) = std::mem::replace(&mut self.state, State::Listening) {
            self.was_away(now, why, watcher);
        }
        (self.proven, self.heard_at) = (now, now);
        watcher.tell(now, News::Listening, self);
    }

    /// From now on nothing is heard, or still nothing is.
    pub fn is_deaf(&mut self, why: String, watcher: &mut dyn Watcher) {
        let is_news = self.deaf() != Some(&*why);
        self.state = match std::mem::replace(&mut self.state, State::New) {
            State::Deaf(first, _) => State::Deaf(first, why.clone()),
            _ => State::Deaf(why.clone(), why.clone()),
        };
        if is_news {
            watcher.tell(self.now(), News::Deaf(&why), self);
        }
    }

    /// This was published.
    pub fn heard(&mut self, channel: &str, data: &[u8], watcher: &mut dyn Watcher) {
        let now = self.now();
        self.may_be_late(now, watcher);
        self.heard_at = now;
        let entry = Entry::Payload { channel: Some(channel.to_owned()), data: data.to_owned() };
        self.enter(now, entry, true, watcher);
    }

    /// The broker has answered what it was asked at that time, so what was published before is heard.
    pub fn proven(&mut self, asked: Instant, watcher: &mut dyn Watcher) {
        let (asked, now) = (self.journal.at(asked), self.now());
        self.may_be_late(now, watcher);
        self.proven = self.proven.max(asked);
        self.enter(self.proven, Entry::Mark, false, watcher);
    }

    /// Time passes.
    pub fn tick(&mut self, watcher: &mut dyn Watcher) {
        let now = self.now();
        self.tell_omitted(watcher, |found| now.ms_since(found.window) >= SHOWN_WINDOW_MS);
        if let Err(error) = self.journal.flush() {
            self.not_recorded(&error, watcher);
        }
        watcher.tell(now, News::Tick, self);
    }

    /// Nothing more will be heard.
    pub fn end(&mut self, watcher: &mut dyn Watcher) {
        let now = self.now();
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Listening => self.enter(self.proven, Entry::Mark, true, watcher),
            State::Deaf(why, _) => self.was_away(now, why, watcher),
            State::New => self.was_away(now, "not yet subscribed".to_owned(), watcher),
            State::Ended => {}
        }
        for finding in self.audit.end() {
            self.take(now, finding, watcher);
        }
        self.tell_omitted(watcher, |_| true);
        if let Err(error) = self.journal.flush() {
            self.not_recorded(&error, watcher);
        }
    }

    /// Whether all this could be heard is not known if it comes so late: the broker or this process stood still.
    fn may_be_late(&mut self, now: Moment, watcher: &mut dyn Watcher) {
        if now.ms_since(self.proven) > HEARD_LATE_MS {
            self.was_away(now, "the broker or this process stood still".to_owned(), watcher);
            self.proven = now;
        }
    }

    fn was_away(&mut self, until: Moment, why: String, watcher: &mut dyn Watcher) {
        let away = Away { since: self.proven.max(self.heard_at).min(until), until, why };
        self.enter(until, Entry::Away(away.clone()), true, watcher);
        self.away.count += 1;
        self.away.ms += until.ms_since(away.since);
        self.away.last.push_back(away.clone());
        while self.away.last.len() > AWAY_KEPT_MAX {
            self.away.last.pop_front();
        }
        watcher.tell(until, News::Away(&away), self);
    }

    /// Takes a line into account. One that need not be kept is kept if anything is found by it.
    fn enter(&mut self, at: Moment, entry: Entry, is_kept: bool, watcher: &mut dyn Watcher) {
        let recorded = self.journal.line(at, entry);
        let findings = self.audit.take(&recorded);
        if (is_kept || !findings.is_empty())
            && let Err(error) = self.journal.keep(&recorded)
        {
            self.not_recorded(&error, watcher);
        }
        for finding in findings {
            self.take(at, finding, watcher);
        }
    }

    fn take(&mut self, at: Moment, finding: Finding, watcher: &mut dyn Watcher) {
        if let Some(origin) = finding.violation.origin() {
            let of = self.found_of.entry(origin.clone()).or_default();
            of.count += 1;
            if let Violation::Skipped { count, .. } = &finding.violation {
                of.skipped = of.skipped.saturating_add(*count);
            }
        }
        let new = || Found { count: 0, first: finding.clone(), window: at, shown: 0, omitted: 0 };
        let found = self.found.entry(finding.violation.fingerprint()).or_insert_with(new);
        found.count += 1;
        if found.omitted == 0 && at.ms_since(found.window) >= SHOWN_WINDOW_MS {
            (found.window, found.shown) = (at, 0);
        }
        if found.shown >= SHOWN_MAX {
            found.omitted += 1;
        } else {
            found.shown += 1;
            watcher.tell(at, News::Finding(&finding), self);
        }
    }

    fn tell_omitted(&mut self, watcher: &mut dyn Watcher, is_over: impl Fn(&Found) -> bool) {
        let now = self.now();
        let mut omitted = Vec::new();
        for (fingerprint, found) in self.found.iter_mut().filter(|(_, found)| found.omitted > 0 && is_over(found)) {
            omitted.push((fingerprint.clone(), std::mem::take(&mut found.omitted)));
            (found.window, found.shown) = (now, 0);
        }
        for (fingerprint, count) in omitted {
            watcher.tell(now, News::Omitted(&fingerprint, count), self);
        }
    }

    fn not_recorded(&mut self, error: &io::Error, watcher: &mut dyn Watcher) {
        let why = self.recording_error.insert(error.to_string()).clone();
        watcher.tell(self.now(), News::NotRecorded(&why), self);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::{Cursor, Write};
    use std::rc::Rc;
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;
    use crate::env::SystemClock;
    use crate::judge::audit::{Capture, Report, Transport};

    /// What was told, in words.
    #[derive(Default)]
    struct Told(Vec<String>);

    impl Watcher for Told {
        fn tell(&mut self, now: Moment, news: News<'_>, _follower: &Follower) {
            let words = match news {
                News::Finding(finding) => finding.violation.kind().to_owned(),
                News::Away(away) => format!("away since {}, {}", away.since.0, away.why),
                News::Omitted(fingerprint, count) => format!("{count} more {fingerprint}"),
                News::Deaf(why) => format!("deaf, {why}"),
                News::NotRecorded(why) => format!("not recorded, {why}"),
                News::Listening | News::NotAsked(_) | News::Tick => return,
            };
            self.0.push(format!("{} {words}", now.0));
        }
    }

    /// A file in memory, which takes so many bytes.
    #[derive(Clone)]
    struct Tape(Rc<RefCell<Vec<u8>>>, usize);

    impl Write for Tape {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.borrow().len() + bytes.len() > self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.borrow_mut().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Test {
        follower: Follower,
        told: Told,
        tape: Tape,
    }

    impl Test {
        fn new(tape_bytes: usize) -> Self {
            let (mut told, tape) = (Told::default(), Tape(Rc::default(), tape_bytes));
            let journal = Journal::new(&SystemClock, Some(Box::new(tape.clone())));
            let follower = Follower::new(Audit::new(Transport::Redis, None), journal, &mut told);
            Test { follower, told, tape }
        }

        fn listening() -> Self {
            let mut test = Test::new(usize::MAX);
            test.follower.listening(&mut test.told);
            test
        }

        fn hears(&mut self, payloads: &[&str]) {
            payloads.iter().for_each(|text| self.follower.heard("h", text.as_bytes(), &mut self.told));
        }

        /// So long nothing is said, and the broker answers once a second.
        async fn is_quiet(&mut self, seconds: u64) {
            for _ in 0..seconds {
                sleep(Duration::from_secs(1)).await;
                self.follower.proven(Instant::now(), &mut self.told);
                self.follower.tick(&mut self.told);
            }
        }

        /// Ends it: what was told; the recording shows the same.
        fn ends(mut self) -> Vec<String> {
            self.follower.end(&mut self.told);
            let report = Report::of(Capture::new(Cursor::new(self.tape.0.take())).unwrap(), None);
            let recorded: Vec<_> =
                report.groups().into_iter().map(|(kind, group)| (kind, group.count as u64)).collect();
            let found = self.follower.found().iter().map(|(kind, found)| (kind.clone(), found.count));
            assert_eq!(recorded, found.collect::<Vec<_>>());
            assert_eq!(report.away, Vec::from(self.follower.away().last.clone()));
            assert_eq!(report.checks, self.follower.judged().collect());
            self.told.0
        }
    }

    const BROKEN: [&str; 2] = ["POSITION receipts a 4 4", "POSITION receipts a 6 6"];

    #[tokio::test(start_paused = true)]
    async fn what_time_shows_is_found_while_nothing_is_said_and_in_the_recording_too() {
        let mut test = Test::listening();
        test.hears(&BROKEN);
        test.hears(&["REPLICATE", "USER_SYNC old @u:h D start 0", "USER_SYNC new @u:h D start 0"]);
        test.is_quiet(40).await;
        assert_eq!(test.ends(), ["5000 skipped", "31000 unanswered", "31000 not_cleared"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_dies_is_found_within_ten_seconds_unless_it_was_not_heard() {
        let mut test = Test::listening();
        test.hears(&["USER_SYNC squall.a @u:h D start 0"]);
        test.is_quiet(10).await;
        assert_eq!(test.ends(), ["9000 lifeless"]);

        let mut test = Test::listening();
        test.hears(&["USER_SYNC squall.a @u:h D start 0"]);
        test.is_quiet(4).await;
        // It may have said something meanwhile, or clear its id now.
        sleep(Duration::from_millis(HEARD_LATE_MS + 1)).await;
        test.is_quiet(20).await;
        assert_eq!(test.ends(), ["10001 away since 4000, the broker or this process stood still"]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_accused_of_what_was_said_while_nothing_was_heard() {
        let mut test = Test::listening();
        test.hears(&BROKEN);
        test.is_quiet(2).await;
        sleep(Duration::from_millis(500)).await;
        test.follower.is_deaf("closed".to_owned(), &mut test.told);
        sleep(Duration::from_secs(60)).await;
        test.follower.is_deaf("refused".to_owned(), &mut test.told);
        test.follower.is_deaf("refused".to_owned(), &mut test.told);
        test.follower.listening(&mut test.told);
        test.is_quiet(40).await;
        assert_eq!(test.follower.away().ms, 60_500);
        assert_eq!(test.ends(), ["2500 deaf, closed", "62500 deaf, refused", "62500 away since 2000, closed"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_late_may_be_heard_later_than_it_was_said() {
        let still = "the broker or this process stood still";
        for is_answer in [false, true] {
            let mut test = Test::listening();
            test.hears(&BROKEN);
            test.is_quiet(2).await;
            sleep(Duration::from_millis(HEARD_LATE_MS + 1)).await;
            match is_answer {
                true => test.follower.proven(Instant::now(), &mut test.told),
                false => test.hears(&["PING 1"]),
            }
            test.is_quiet(40).await;
            assert_eq!(test.ends(), [format!("7001 away since 2000, {still}")]);
        }
        let mut test = Test::listening();
        sleep(Duration::from_millis(HEARD_LATE_MS)).await;
        test.hears(&["PING 1"]);
        assert!(test.ends().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_never_let_in_was_away_all_the_time() {
        let mut test = Test::new(usize::MAX);
        test.follower.is_deaf("refused".to_owned(), &mut test.told);
        sleep(Duration::from_secs(3)).await;
        assert_eq!(test.ends(), ["0 deaf, refused", "3000 away since 0, refused"]);
    }

    #[tokio::test(start_paused = true)]
    async fn many_findings_of_a_kind_are_counted_and_not_told_one_by_one() {
        let mut test = Test::listening();
        test.hears(&["NOSUCH"; 50]);
        test.is_quiet(12).await;
        test.hears(&["NOSUCH"; 21]);
        let told = test.ends();
        assert_eq!(told.iter().filter(|words| words.ends_with("not_a_command")).count(), 42);
        let omitted: Vec<_> = told.iter().filter(|words| words.contains("more")).collect();
        assert_eq!(
            omitted,
            ["10000 30 more payloads_readable/not_a_command", "12000 1 more payloads_readable/not_a_command"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_recording_that_cannot_go_on_keeps_nothing_from_being_judged() {
        let mut test = Test::new(100);
        test.follower.listening(&mut test.told);
        test.hears(&["PING 1", "PING 2", "NOSUCH", "NOSUCH"]);
        test.follower.end(&mut test.told);
        let kinds: Vec<_> = test.told.0.iter().map(|words| words.split([' ', ',']).nth(1).unwrap()).collect();
        assert_eq!(kinds, ["not", "not_a_command", "not_a_command"]);
        assert!(test.follower.recording_error().is_some());
    }
}
