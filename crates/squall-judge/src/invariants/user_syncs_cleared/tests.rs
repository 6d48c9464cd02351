use super::*;
use crate::invariant::Alone;
use crate::violation::kind;
use squall_protocol::Delivery;
use squall_protocol::rows::PresenceRow;

const EXPIRY_MS: u64 = 20_000;

/// A worker with one connection to the master, which writes presence.
struct Story {
    judge: Alone<UserSyncsCleared>,
    at_ms: u64,
    attempt: u64,
    token: i64,
    violations: Vec<String>,
}

fn device(user: &str) -> Device {
    Device { user: user.to_owned(), device: Some("phone".into()) }
}

impl Story {
    fn new() -> Self {
        let topology = Topology::new(["worker".into()])
            .with_stream("presence", Delivery::Keyed, ["master".into()])
            .with_process_expiry_ms(EXPIRY_MS);
        let judge = Alone::<UserSyncsCleared>::new(&topology);
        let mut story = Story { judge, at_ms: 0, attempt: 0, token: 0, violations: Vec::new() };
        story.connect();
        story
    }

    fn see(&mut self, observation: Observation) {
        let verdict = self.judge.observe(SimTime(self.at_ms), &observation);
        if verdict.is_err() {
            self.violations.push(kind(&verdict));
        }
    }

    fn connect(&mut self) {
        self.attempt += 1;
        let (instance, attempt): (InstanceName, u64) = ("worker".into(), self.attempt);
        self.see(Observation::Connecting { instance: instance.clone(), target: "master".into(), attempt });
        self.see(Observation::Connected { instance, attempt });
        self.position();
    }

    fn position(&mut self) {
        let (stream, writer, position) = (STREAM.into(), "master".into(), Token(1));
        self.see(Observation::Announced {
            instance: "worker".into(),
            attempt: self.attempt,
            stream,
            writer,
            prev: position,
            position,
        });
    }

    /// Time passes on a steady connection.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.at_ms += 1_000;
            self.position();
        }
    }

    fn begin(&mut self, user: &str) {
        self.see(Observation::SyncBegan { instance: "worker".into(), boot: 1, device: device(user) });
        self.say(user, true);
    }

    fn end(&mut self, user: &str) {
        self.see(Observation::SyncEnded { instance: "worker".into(), boot: 1, device: device(user) });
    }

    fn say(&mut self, user: &str, is_syncing: bool) {
        let (instance, attempt, instance_id) = ("worker".into(), self.attempt, "abcde".into());
        self.see(Observation::SyncSaid { instance, attempt, instance_id, device: device(user), is_syncing });
    }

    fn clear(&mut self, instance_id: &str) {
        let (instance, attempt, instance_id) = ("worker".into(), self.attempt, instance_id.into());
        self.see(Observation::SyncsCleared { instance, attempt, instance_id });
    }

    fn ask_to_stop(&mut self) {
        self.see(Observation::AskedToStop { instance: "worker".into(), boot: 1 });
    }

    fn stopped(&mut self, instance: &str) {
        self.see(Observation::Stopped { instance: instance.into(), boot: 1 });
    }

    fn given_up(&mut self) {
        self.see(Observation::GivenUp { instance: "worker".into(), attempt: self.attempt });
    }

    fn closed(&mut self) {
        self.see(Observation::Closed { instance: "worker".into(), attempt: self.attempt });
    }

    fn committed(&mut self, user: &str, state: &str) {
        self.token += 1;
        self.committed_under(self.token, user, state);
    }

    fn committed_under(&mut self, token: i64, user: &str, state: &str) {
        let row = Row::Presence(PresenceRow {
            user_id: user.into(),
            state: state.into(),
            last_active_ms: 0,
            last_federation_update_ms: 0,
            last_user_sync_ms: 0,
            status_msg: None,
            currently_active: false,
        });
        let (stream, writer) = (STREAM.into(), "master".into());
        self.see(Observation::Committed { stream, writer, token: Token(token), row });
    }

    fn pending(&self) -> Vec<String> {
        self.judge.pending().iter().map(Pending::to_string).collect()
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_stop_may_end_after_clearing_what_was_announced() {
    let mut story = Story::new();
    story.begin("@a");
    story.ask_to_stop();
    story.clear("abcde");
    story.closed();
    story.stopped("worker");
    assert_eq!(story.violations, NOTHING);
    assert_eq!(story.judge.exercised(), 2);
}

#[test]
fn a_stop_that_clears_nothing_or_something_else_or_too_late_is_found() {
    for clear in [None, Some("vwxyz")] {
        let mut story = Story::new();
        story.begin("@a");
        story.ask_to_stop();
        if let Some(id) = clear {
            story.clear(id);
        }
        story.closed();
        story.clear("abcde");
        story.stopped("worker");
        assert_eq!(story.violations, ["not_cleared"]);
    }
    // Its sockets may also go with the process.
    let mut story = Story::new();
    story.begin("@a");
    story.ask_to_stop();
    story.stopped("worker");
    assert_eq!(story.violations, ["not_cleared"]);
}

#[test]
fn a_connection_to_a_silent_broker_may_end_without_a_line() {
    for (silent_ms, violations) in [(24_000, vec!["not_cleared"]), (25_000, vec![])] {
        let mut story = Story::new();
        story.begin("@a");
        story.see(Observation::Greeted { instance: "worker".into(), attempt: story.attempt });
        story.at_ms += silent_ms - 100;
        story.ask_to_stop();
        story.at_ms += 100;
        story.closed();
        assert_eq!(story.violations, violations, "{silent_ms}");
    }
}

#[test]
fn a_stop_owes_nothing_if_no_user_was_announced_or_the_connection_was_over() {
    let stories: [fn(&mut Story); 7] = [
        |story| story.ask_to_stop(),
        |story| {
            story.begin("@a");
            story.say("@a", false);
            story.ask_to_stop();
        },
        |story| {
            story.begin("@a");
            story.given_up();
            story.ask_to_stop();
        },
        |story| {
            story.begin("@a");
            story.ask_to_stop();
            story.given_up();
        },
        // The presence writer itself had gone.
        |story| {
            story.begin("@a");
            story.stopped("master");
            story.ask_to_stop();
        },
        // The last lines were not written in time.
        |story| {
            story.begin("@a");
            story.ask_to_stop();
            story.at_ms += STOPPED_LATE_MS;
        },
        // No graceful stop was requested.
        |story| story.begin("@a"),
    ];
    for happens in stories {
        let mut story = Story::new();
        happens(&mut story);
        story.closed();
        story.stopped("worker");
        assert_eq!(story.violations, NOTHING);
    }
}

const STOPPED_LATE_MS: u64 = 5_000;

#[test]
fn a_steady_user_who_is_not_refreshed_and_goes_offline_is_found() {
    let mut story = Story::new();
    story.begin("@a");
    story.committed("@a", "online");
    story.pass(19);
    story.committed("@a", "offline");
    assert_eq!(story.violations, NOTHING, "the expiry is not over");
    story.committed("@a", "online");
    story.pass(1);
    story.committed("@b", "offline");
    assert_eq!(story.violations, NOTHING, "another user");
    story.committed("@a", "offline");
    assert_eq!(story.violations, ["offline_while_syncing"]);
}

#[test]
fn a_refreshed_user_may_go_offline_in_the_storm_because_lines_may_not_arrive() {
    let mut story = Story::new();
    story.begin("@a");
    for _ in 0..10 {
        story.pass(4);
        story.say("@a", true);
    }
    story.committed("@a", "offline");
    assert_eq!(story.violations, NOTHING);
}

#[test]
fn no_instance_is_at_fault_for_lines_that_it_could_not_write() {
    let stories: [fn(&mut Story); 5] = [
        // Frozen, or cut off in both directions.
        |story| story.at_ms += 15_000,
        |story| story.given_up(),
        |story| story.stopped("master"),
        |story| {
            story.closed();
            story.connect();
        },
        // The client stopped, and its user rightly goes offline.
        |story| story.end("@a"),
    ];
    for happens in stories {
        let mut story = Story::new();
        story.begin("@a");
        story.pass(15);
        happens(&mut story);
        story.pass(15);
        story.committed("@a", "offline");
        assert_eq!(story.violations, NOTHING);
    }
}

#[test]
fn in_the_calm_a_user_who_is_known_to_sync_does_not_go_offline_at_all() {
    let mut story = Story::new();
    story.begin("@a");
    let refresh = |story: &mut Story, times| {
        for _ in 0..times {
            story.pass(4);
            story.say("@a", true);
        }
    };
    refresh(&mut story, 10);
    story.see(Observation::Calm);
    refresh(&mut story, 7);
    story.committed("@a", "offline");
    assert_eq!(story.violations, NOTHING, "it may have been decided in the storm");
    refresh(&mut story, 1);
    story.committed("@a", "offline");
    assert_eq!(story.violations, ["offline_while_syncing"]);
}

#[test]
fn in_the_calm_every_user_is_pending_until_their_presence_is_right() {
    let mut story = Story::new();
    story.begin("@a");
    story.begin("@b");
    story.committed("@b", "online");
    story.committed("@gone", "unavailable");
    assert_eq!(story.pending(), NOTHING, "in the storm that is nothing unusual");
    story.see(Observation::Calm);
    assert_eq!(story.pending(), ["syncing and offline: @a; neither syncing nor offline: @gone"]);
    story.end("@b");
    story.committed("@a", "unavailable");
    story.committed("@gone", "offline");
    assert_eq!(story.pending(), ["neither syncing nor offline: @b"]);
    story.committed("@b", "offline");
    assert_eq!(story.pending(), NOTHING);
    story.see(Observation::CalmOver);
    assert_eq!(story.violations, NOTHING);
}

#[test]
fn the_end_of_the_process_is_the_end_of_its_syncs() {
    let mut story = Story::new();
    story.begin("@a");
    story.begin("@a");
    story.end("@a");
    story.committed("@a", "online");
    story.see(Observation::Calm);
    assert_eq!(story.pending(), NOTHING, "one of two syncs continues");
    story.stopped("worker");
    assert_eq!(story.pending(), ["neither syncing nor offline: @a"]);
    story.see(Observation::CalmOver);
    assert_eq!(story.violations, ["still_online"]);
}

#[test]
fn a_user_who_syncs_and_stays_offline_through_the_calm_is_found() {
    let mut story = Story::new();
    story.begin("@a");
    story.see(Observation::Calm);
    story.see(Observation::CalmOver);
    assert_eq!(story.violations, ["still_offline"]);
}

#[test]
fn the_newest_state_is_the_one_with_the_highest_token() {
    let mut story = Story::new();
    story.committed_under(7, "@a", "offline");
    story.committed_under(6, "@a", "online");
    story.see(Observation::Calm);
    assert_eq!(story.pending(), NOTHING);
}

#[test]
fn a_device_that_was_asked_to_be_offline_may_be_offline_or_not() {
    for state in ["offline", "online"] {
        let mut story = Story::new();
        story.begin("@a");
        let (instance, device) = ("worker".into(), device("@a"));
        let (state_asked, is_sync, status) = ("offline".to_owned(), false, None);
        story.see(Observation::PresenceAsked { instance, request: 1, device, state: state_asked, is_sync, status });
        story.committed("@a", state);
        story.see(Observation::Calm);
        assert_eq!(story.pending(), NOTHING);
        story.end("@a");
        assert_eq!(story.pending().len(), usize::from(state == "online"));
    }
}
