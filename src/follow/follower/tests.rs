use std::cell::RefCell;
use std::io::{Cursor, Write};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;

use super::*;
use squall_env::SystemClock;
use squall_judge::audit::{Capture, Report, Transport};

/// A watcher that keeps each event as text.
#[derive(Default)]
struct EventLog(Vec<String>);

impl Watcher for EventLog {
    fn on_event(&mut self, now: SimTime, event: Event<'_>, _follower: &Follower) {
        let text = match event {
            Event::Finding(finding) => finding.violation.kind().to_owned(),
            Event::Gap(gap) => format!("gap since {}, {}", gap.since.0, gap.why),
            Event::Suppressed(finding, count) => format!("{count} more {}", finding.violation.fingerprint()),
            Event::Disconnected(why) => format!("disconnected, {why}"),
            Event::RecordingFailed(why) => format!("recording failed, {why}"),
            Event::Exceeded(exceeded) => format!("exceeded, {exceeded}"),
            Event::Unheard(unheard) => format!("unheard, {unheard:?}"),
            Event::Subscribed | Event::ReplicateFailed(_) | Event::Tick => return,
        };
        self.0.push(format!("{} {text}", now.0));
    }
}

/// A file in memory that has room for this many bytes.
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
    events: EventLog,
    tape: Tape,
}

impl Test {
    fn new(tape_bytes: usize) -> Self {
        let mut events = EventLog::default();
        let tape = Tape(Rc::default(), tape_bytes);
        let journal = Journal::new(&SystemClock, Some(Box::new(tape.clone())));
        let follower = Follower::new(Audit::new(Transport::Redis, None), journal, &mut events);
        Test { follower, events, tape }
    }

    fn subscribed() -> Self {
        let mut test = Test::new(usize::MAX);
        test.follower.subscribed(&mut test.events);
        test
    }

    fn receives(&mut self, payloads: &[&str]) {
        for text in payloads {
            self.follower.received("h", text.as_bytes(), &mut self.events);
        }
    }

    /// Waits without a payload, while the broker answers a ping once a second.
    async fn is_quiet(&mut self, seconds: u64) {
        for _ in 0..seconds {
            sleep(Duration::from_secs(1)).await;
            self.follower.ponged(Instant::now(), &mut self.events);
            self.follower.tick(&mut self.events);
        }
    }

    /// Ends it, checks that the recording shows the same, and returns the events.
    fn ends(mut self) -> Vec<String> {
        self.follower.end(&mut self.events);
        let report = Report::of(Capture::new(Cursor::new(self.tape.0.take())).unwrap(), None);
        let recorded: Vec<_> = report.groups().into_iter().map(|(kind, group)| (kind, group.count as u64)).collect();
        let found = self.follower.counts_by_kind().into_iter().map(|(kind, count)| (kind.to_owned(), count));
        assert_eq!(recorded, found.collect::<Vec<_>>());
        assert_eq!(report.gaps, *self.follower.gaps());
        assert_eq!(report.checks, self.follower.judged().collect());
        self.events.0
    }
}

/// Returns an error with these words.
fn lost(why: &str) -> BrokerError {
    io::Error::other(why).into()
}

const BROKEN: [&str; 2] = ["POSITION receipts a 4 4", "POSITION receipts a 6 6"];

#[tokio::test(start_paused = true)]
async fn findings_that_take_time_come_without_payloads_and_in_the_recording_too() {
    let mut test = Test::subscribed();
    test.receives(&BROKEN);
    test.receives(&["REPLICATE", "USER_SYNC old @u:h D start 0", "USER_SYNC new @u:h D start 0"]);
    test.is_quiet(40).await;
    assert_eq!(test.ends(), ["5000 skipped", "31000 unanswered", "31000 not_cleared"]);
}

#[tokio::test(start_paused = true)]
async fn a_bound_that_is_exceeded_is_reported_once() {
    let mut test = Test::subscribed();
    for _ in 0..2 {
        for number in 0..=1_000 {
            test.receives(&[&format!("USER_SYNC process{number} @u:h D{number} start 0")]);
        }
        test.is_quiet(1).await;
    }
    let exceeded = "syncs_cleared: more than 1000 processes with syncing users, of which 1 were not judged";
    assert_eq!(test.ends(), [format!("1000 exceeded, {exceeded}")]);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_is_found_within_ten_seconds_unless_there_was_a_gap() {
    let mut test = Test::subscribed();
    test.receives(&["USER_SYNC squall.a @u:h D start 0"]);
    test.is_quiet(10).await;
    assert_eq!(test.ends(), ["9000 lifeless"]);

    let mut test = Test::subscribed();
    test.receives(&["USER_SYNC squall.a @u:h D start 0"]);
    test.is_quiet(4).await;
    // It may have sent something meanwhile, or may clear its id now.
    sleep(Duration::from_millis(DELAY_MS_MAX + 1)).await;
    test.is_quiet(20).await;
    assert_eq!(test.ends(), ["10001 gap since 4000, the broker or this process hung"]);
}

#[tokio::test(start_paused = true)]
async fn no_violation_is_reported_that_a_gap_could_explain() {
    let mut test = Test::subscribed();
    test.receives(&BROKEN);
    test.is_quiet(2).await;
    sleep(Duration::from_millis(500)).await;
    test.follower.connection_lost(&lost("closed"), &mut test.events);
    sleep(Duration::from_secs(60)).await;
    test.follower.connection_lost(&lost("refused"), &mut test.events);
    test.follower.connection_lost(&lost("refused"), &mut test.events);
    test.follower.subscribed(&mut test.events);
    test.is_quiet(40).await;
    assert_eq!(test.follower.gaps().ms, 60_500);
    assert_eq!(
        test.ends(),
        ["2500 disconnected, closed", "62500 disconnected, refused", "62500 gap since 2000, closed"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_late_payload_or_answer_is_a_gap() {
    let hung = "the broker or this process hung";
    for is_pong in [false, true] {
        let mut test = Test::subscribed();
        test.receives(&BROKEN);
        test.is_quiet(2).await;
        sleep(Duration::from_millis(DELAY_MS_MAX + 1)).await;
        match is_pong {
            true => test.follower.ponged(Instant::now(), &mut test.events),
            false => test.receives(&["PING 1"]),
        }
        test.is_quiet(40).await;
        assert_eq!(test.ends(), [format!("7001 gap since 2000, {hung}")]);
    }
    let mut test = Test::subscribed();
    sleep(Duration::from_millis(DELAY_MS_MAX)).await;
    test.receives(&["PING 1"]);
    assert!(test.ends().is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_a_subscription_everything_is_a_gap() {
    let mut test = Test::new(usize::MAX);
    test.follower.connection_lost(&lost("refused"), &mut test.events);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(test.ends(), ["0 disconnected, refused", "3000 gap since 0, refused"]);
}

#[tokio::test(start_paused = true)]
async fn many_findings_of_a_kind_are_counted_and_not_reported_one_by_one() {
    let mut test = Test::subscribed();
    test.receives(&["NOSUCH"; 50]);
    test.is_quiet(12).await;
    test.receives(&["NOSUCH"; 21]);
    let events = test.ends();
    assert_eq!(events.iter().filter(|words| words.ends_with("not_a_command")).count(), 42);
    let suppressed: Vec<_> = events.iter().filter(|words| words.contains("more")).collect();
    assert_eq!(
        suppressed,
        ["10000 30 more payloads_readable/not_a_command", "12000 1 more payloads_readable/not_a_command"]
    );
}

#[tokio::test(start_paused = true)]
async fn the_audit_goes_on_when_the_recording_fails() {
    let mut test = Test::new(100);
    test.follower.subscribed(&mut test.events);
    test.receives(&["PING 1", "PING 2", "NOSUCH", "NOSUCH"]);
    test.follower.end(&mut test.events);
    let kinds: Vec<_> = test.events.0.iter().map(|words| words.split([' ', ',']).nth(1).unwrap()).collect();
    assert_eq!(kinds, ["recording", "not_a_command", "not_a_command"]);
    assert!(test.follower.recording_error().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_silence_after_the_subscription_is_reported_once() {
    let mut test = Test::subscribed();
    test.is_quiet(9).await;
    assert!(test.events.0.is_empty(), "{:?}", test.events.0);
    test.is_quiet(90).await;
    assert_eq!(test.events.0, ["10000 unheard, Nothing"]);
    assert!(!test.follower.has_heard());
    test.receives(&["POSITION typing a 1 1"]);
    assert!(test.follower.has_heard());
}

#[tokio::test(start_paused = true)]
async fn a_replicate_that_no_instance_answers_is_reported_once() {
    let mut test = Test::subscribed();
    test.follower.replicate_sent();
    test.receives(&["REPLICATE"]);
    test.is_quiet(60).await;
    assert_eq!(test.events.0, ["10000 unheard, NoAnswer"]);
    assert!(!test.follower.has_heard(), "it was its own");

    let mut test = Test::subscribed();
    test.follower.replicate_sent();
    test.receives(&["REPLICATE", "FEDERATION_ACK a 1"]);
    test.is_quiet(60).await;
    assert_eq!(test.events.0, ["10000 unheard, NoAnswer"], "that is no answer");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_may_have_been_missed_is_not_missed() {
    let mut test = Test::subscribed();
    test.receives(&["POSITION typing a 1 1"]);
    test.follower.replicate_sent();
    test.follower.connection_lost(&lost("closed"), &mut test.events);
    test.follower.subscribed(&mut test.events);
    test.events.0.clear();
    test.is_quiet(60).await;
    assert!(test.events.0.is_empty(), "{:?}", test.events.0);
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_was_heard_may_be_silent() {
    let mut test = Test::subscribed();
    test.follower.replicate_sent();
    test.is_quiet(9).await;
    test.receives(&["REPLICATE", "POSITION typing a 1 1"]);
    test.is_quiet(60).await;
    assert!(test.events.0.is_empty(), "{:?}", test.events.0);

    let mut test = Test::new(usize::MAX);
    test.follower.connection_lost(&lost("refused"), &mut test.events);
    test.is_quiet(60).await;
    assert_eq!(test.events.0, ["0 disconnected, refused"], "the reason is known");
}
