use super::*;
use crate::invariant::Alone;
use crate::observation::Device as DeviceOf;
use crate::violation::kind;
use squall_protocol::Delivery;

const IDLE_MS: u64 = 10_000;
const BUSY_MS: u64 = 40_000;
const USER: &str = "@a";

/// A user whose devices sync with a worker or with the master, which writes presence.
struct Story {
    judge: Alone<PresenceAsSet>,
    at_ms: u64,
    token: i64,
    requests: u64,
    violations: Vec<String>,
}

impl Story {
    fn new() -> Self {
        let topology = Topology::new(["worker".into()])
            .with_stream("presence", Delivery::Keyed, ["master".into()])
            .with_process_expiry_ms(20_000)
            .with_presence_times_ms(IDLE_MS, BUSY_MS);
        let judge = Alone::<PresenceAsSet>::new(&topology);
        let mut story = Story { judge, at_ms: 0, token: 0, requests: 0, violations: Vec::new() };
        story.see(Observation::Started { instance: "master".into(), boot: 1 });
        story
    }

    fn see(&mut self, observation: Observation) {
        let verdict = self.judge.observe(SimTime(self.at_ms), &observation);
        if verdict.is_err() {
            self.violations.push(kind(&verdict));
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 500 {
            self.at_ms += 500;
            self.see(Observation::FaultBegan { hosts: Vec::new() });
        }
    }

    fn ask(&mut self, device: &str, state: &str, is_sync: bool, status: Option<&str>) -> u64 {
        self.requests += 1;
        self.see(Observation::PresenceAsked {
            instance: "worker".into(),
            request: self.requests,
            device: device_of(device),
            state: state.into(),
            is_sync,
            status: status.map(str::to_owned),
        });
        self.requests
    }

    fn answered(&mut self, request: u64) {
        self.see(Observation::PresenceSet { instance: "worker".into(), request });
    }

    /// A request that takes effect: `row` is the user's state then.
    fn set(&mut self, device: &str, state: &str, row: &str) {
        let request = self.ask(device, state, false, None);
        self.row(row);
        self.answered(request);
    }

    fn begin(&mut self, instance: &str, device: &str) {
        self.see(Observation::SyncBegan { instance: instance.into(), boot: 1, device: device_of(device) });
    }

    fn end(&mut self, instance: &str, device: &str) {
        self.see(Observation::SyncEnded { instance: instance.into(), boot: 1, device: device_of(device) });
    }

    fn row(&mut self, state: &str) {
        self.row_with(state, None);
    }

    fn row_with(&mut self, state: &str, status: Option<&str>) {
        self.token += 1;
        let row = Row::Presence(PresenceRow {
            user_id: USER.into(),
            state: state.into(),
            last_active_ms: 0,
            last_federation_update_ms: 0,
            last_user_sync_ms: 0,
            status_msg: status.map(str::to_owned),
            currently_active: false,
        });
        let (stream, writer) = ("presence".into(), "master".into());
        self.see(Observation::Committed { stream, writer, token: Token(self.token), row });
    }

    fn restart_writer(&mut self) {
        self.see(Observation::Stopped { instance: "master".into(), boot: 1 });
        self.see(Observation::Started { instance: "master".into(), boot: 2 });
    }

    fn pending(&self) -> Vec<String> {
        self.judge.pending().iter().map(Pending::to_string).collect()
    }
}

fn device_of(device: &str) -> DeviceOf {
    DeviceOf { user: USER.to_owned(), device: Some(device.to_owned()) }
}

const NOTHING: [&str; 0] = [];

#[test]
fn the_greatest_state_of_two_devices_is_right_and_the_last_one_is_found() {
    let mut story = Story::new();
    story.set("phone", "busy", "busy");
    story.set("laptop", "unavailable", "busy");
    story.row("busy");
    assert_eq!(story.violations, NOTHING);
    story.row("unavailable");
    assert_eq!(story.violations, ["wrong_state"]);
    assert_eq!(story.judge.exercised(), 5);
}

#[test]
fn a_sync_leaves_a_busy_device_busy() {
    let mut story = Story::new();
    story.set("phone", "busy", "busy");
    story.begin("worker", "phone");
    let request = story.ask("phone", "online", true, None);
    story.answered(request);
    story.row("busy");
    assert_eq!(story.violations, NOTHING);
    story.row("online");
    assert_eq!(story.violations, ["wrong_state"]);
}

#[test]
fn a_state_that_nobody_has_set_is_found() {
    for (state, is_found) in [("online", false), ("unavailable", true), ("busy", true)] {
        let mut story = Story::new();
        story.begin("worker", "phone");
        story.row(state);
        assert_eq!(!story.violations.is_empty(), is_found, "{state}");
        // Later the device is idle.
        story.pass(IDLE_MS);
        story.violations.clear();
        story.row("unavailable");
        assert_eq!(story.violations, NOTHING);
    }
}

#[test]
fn no_device_goes_offline_before_its_time() {
    for (state, time_out) in [("unavailable", 30_000), ("busy", BUSY_MS)] {
        for (ms, violations) in [(time_out - 500, vec!["wrong_state"]), (time_out, vec![])] {
            let mut story = Story::new();
            story.set("phone", state, state);
            story.pass(ms);
            story.row("offline");
            assert_eq!(story.violations, violations, "{state} {ms}");
        }
    }
}

#[test]
fn a_device_that_syncs_with_the_writer_itself_keeps_its_state() {
    let tell = |instance: &str, happens: fn(&mut Story)| {
        let mut story = Story::new();
        story.begin(instance, "phone");
        story.set("phone", "unavailable", "unavailable");
        story.pass(50_000);
        happens(&mut story);
        story.row("online");
        story.violations
    };
    assert_eq!(tell("master", |_| {}), ["wrong_state"]);
    assert_eq!(tell("worker", |_| {}), NOTHING, "its announcements may have been lost");
    assert_eq!(tell("master", |story| story.see(Observation::Frozen { instance: "master".into() })), NOTHING);
    assert_eq!(tell("master", |story| story.set("phone", "online", "online")), NOTHING);
}

#[test]
fn a_request_that_was_not_acknowledged_may_take_effect_or_not() {
    let mut story = Story::new();
    story.set("phone", "online", "online");
    story.ask("phone", "busy", false, None);
    story.row("online");
    story.row("busy");
    story.set("phone", "unavailable", "unavailable");
    story.row("busy");
    assert_eq!(story.violations, NOTHING);
}

#[test]
fn requests_that_overlap_take_effect_in_any_order() {
    let mut story = Story::new();
    let first = story.ask("phone", "busy", false, None);
    let second = story.ask("phone", "unavailable", false, None);
    story.row("busy");
    story.answered(first);
    story.answered(second);
    story.row("unavailable");
    story.row("busy");
    assert_eq!(story.violations, NOTHING);
    story.row("online");
    assert_eq!(story.violations, ["wrong_state"]);
}

#[test]
fn an_older_row_is_not_judged_by_a_later_request() {
    let mut story = Story::new();
    story.set("phone", "busy", "busy");
    story.token += 1;
    let late = story.token;
    story.set("phone", "online", "online");
    story.token = late - 1;
    story.row("unavailable");
    assert_eq!(story.violations, NOTHING);
}

#[test]
fn an_acknowledged_request_is_in_the_database() {
    let mut story = Story::new();
    let request = story.ask("phone", "unavailable", false, None);
    story.answered(request);
    assert_eq!(story.violations, ["not_kept"]);
}

#[test]
fn the_status_that_was_set_last_is_kept() {
    let mut story = Story::new();
    let request = story.ask("phone", "online", false, Some("here"));
    story.row_with("online", Some("here"));
    story.answered(request);
    story.row_with("online", Some("here"));
    assert_eq!(story.violations, NOTHING);
    story.row("online");
    assert_eq!(story.violations, ["wrong_status"]);
    // Unknown while another request is under way.
    story.ask("laptop", "online", false, Some("there"));
    story.row("online");
    assert_eq!(story.violations.len(), 1);
}

#[test]
fn after_a_restart_of_the_writer_a_device_has_the_stored_state_or_is_online() {
    let mut story = Story::new();
    story.begin("worker", "phone");
    story.set("phone", "unavailable", "unavailable");
    story.restart_writer();
    for state in ["unavailable", "online", "offline"] {
        story.row(state);
    }
    assert_eq!(story.violations, NOTHING);
    story.row("busy");
    assert_eq!(story.violations, ["wrong_state"]);
}

#[test]
fn a_device_that_is_new_after_a_restart_of_the_writer_may_have_the_stored_state_too() {
    let mut story = Story::new();
    story.set("phone", "busy", "busy");
    story.restart_writer();
    story.begin("worker", "laptop");
    story.see(Observation::Calm);
    story.pass(400_000);
    story.row("busy");
    story.pass(10_000);
    assert_eq!(story.violations, NOTHING);
}

#[test]
fn a_row_that_is_committed_after_the_writer_has_begun_anew_may_be_what_it_finds() {
    let judge = |is_late: bool| {
        let mut story = Story::new();
        story.begin("worker", "laptop");
        let request = story.ask("phone", "busy", false, None);
        story.restart_writer();
        story.pass(2_000);
        if is_late {
            story.see(Observation::LateCommit { instance: "master".into() });
        }
        story.row("busy");
        story.answered(request);
        story.see(Observation::Calm);
        story.pass(400_000);
        story.pass(10_000);
        story.violations
    };
    assert_eq!(judge(true), NOTHING, "the laptop takes it over");
    assert_eq!(judge(false), ["late"]);
}

#[test]
fn in_the_calm_a_change_that_is_late_is_found() {
    let tell = |late_ms: u64| {
        let mut story = Story::new();
        story.see(Observation::Calm);
        story.pass(1_000);
        story.set("phone", "busy", "busy");
        story.pass(BUSY_MS + late_ms);
        story.row("offline");
        story.pass(10_000);
        story.violations
    };
    assert_eq!(tell(2_500), NOTHING);
    assert_eq!(tell(4_500), ["late"]);
}

#[test]
fn in_the_calm_a_device_whose_request_overlapped_a_restart_has_its_time_too() {
    let mut story = Story::new();
    story.see(Observation::Calm);
    story.pass(25_000);
    let request = story.ask("phone", "unavailable", false, None);
    story.restart_writer();
    story.pass(3_000);
    story.row("unavailable");
    story.answered(request);
    story.pass(30_000);
    assert_eq!(story.violations, NOTHING);
    story.pass(100_000);
    assert_eq!(story.violations, ["late"]);
}

#[test]
fn in_the_calm_an_idle_device_that_is_still_online_is_found() {
    let mut story = Story::new();
    story.begin("worker", "phone");
    story.row("online");
    story.see(Observation::Calm);
    story.pass(120_000 + IDLE_MS);
    assert_eq!(story.violations, NOTHING);
    story.pass(4_000);
    assert_eq!(story.violations, ["late"]);
    assert_eq!(story.pending().len(), 1);
}

#[test]
fn in_the_calm_each_user_is_pending_until_their_state_is_that_of_their_syncing_devices() {
    let mut story = Story::new();
    story.begin("worker", "phone");
    story.set("phone", "unavailable", "unavailable");
    story.set("laptop", "busy", "busy");
    assert_eq!(story.pending(), NOTHING, "in the storm that is nothing unusual");
    story.see(Observation::Calm);
    assert_eq!(story.pending(), ["@a is busy, not unavailable"]);
    story.pass(BUSY_MS);
    story.row("unavailable");
    assert_eq!(story.pending(), NOTHING);
    story.end("worker", "phone");
    assert_eq!(story.pending(), ["@a is unavailable, not offline"]);
    story.see(Observation::CalmOver);
    assert_eq!(story.violations, ["wrong_at_end"]);
}

#[test]
fn a_device_that_is_offline_by_its_client_may_sync() {
    let mut story = Story::new();
    story.begin("worker", "phone");
    story.row("online");
    story.set("phone", "offline", "offline");
    story.see(Observation::Calm);
    assert_eq!(story.pending(), NOTHING);
    assert_eq!(story.violations, NOTHING);
}
