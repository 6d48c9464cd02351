//! The judge itself: passes every observation to every invariant, to the marks, and to the trace hash.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use strum::VariantArray;

use super::invariants::{self, Check, Violation};
use super::marks::Marks;
use super::observation::{Kind, Observation, SimTime};
use super::pending::Pending;
use super::scene::Scene;
use super::topology::Topology;
use super::trace::Trace;

/// The most violations that are kept. The first of each fingerprint is always kept.
pub const VIOLATIONS_MAX: usize = 100;

/// Judges one run.
pub struct Judge {
    invariants: Vec<Box<dyn Check>>,
    /// The places of the invariants that are given each kind of observation, in order.
    given: Vec<Vec<usize>>,
    scene: Scene,
    marks: Marks,
    trace: Trace,
    violations: Vec<(SimTime, Violation)>,
    fingerprints: BTreeSet<String>,
    /// The place of the invariant that was the first to have something pending, the last time.
    pending_last: Cell<usize>,
}

impl Judge {
    /// Returns a judge of a deployment, with every invariant.
    pub fn new(topology: Topology) -> Self {
        let invariants = invariants::all(&topology);
        let places =
            |kind| (0..invariants.len()).filter(|place| invariants[*place].observes().contains(kind)).collect();
        Judge {
            given: Kind::VARIANTS.iter().map(places).collect(),
            invariants,
            scene: Scene::new(&topology),
            marks: Marks::new(&topology),
            trace: Trace::default(),
            violations: Vec::new(),
            fingerprints: BTreeSet::new(),
            pending_last: Cell::default(),
        }
    }

    /// Takes one observation into account. Observations come in order.
    #[inline(never)] // benches/cost.rs counts here
    pub fn observe(&mut self, at: SimTime, observation: &Observation) {
        self.trace.add(at, observation);
        self.scene.begin(at, observation);
        self.marks.observe(at, observation, &self.scene);
        for place in &self.given[Kind::from(observation) as usize] {
            let Err(violation) = self.invariants[*place].observe(at, observation, &self.scene) else { continue };
            let is_new = self.fingerprints.insert(violation.fingerprint());
            if is_new || self.violations.len() < VIOLATIONS_MAX {
                self.violations.push((at, violation));
            }
        }
        self.scene.end(at, observation);
    }

    /// Returns the violations, in order, with their times.
    pub fn violations(&self) -> &[(SimTime, Violation)] {
        &self.violations
    }

    /// Returns true if there was a violation with this fingerprint.
    pub fn has_seen(&self, fingerprint: &str) -> bool {
        self.fingerprints.contains(fingerprint)
    }

    /// Returns what has yet to happen. Nothing may be pending at the end of the calm.
    pub fn pending(&self) -> Vec<Pending> {
        self.invariants.iter().flat_map(|invariant| invariant.pending(&self.scene)).collect()
    }

    /// Returns true if nothing is pending. Asks the invariant first that was pending the last time.
    #[inline(never)] // benches/cost.rs counts here
    pub fn is_settled(&self) -> bool {
        let is_pending = |at: &usize| self.invariants[*at].is_pending(&self.scene);
        if is_pending(&self.pending_last.get()) {
            return false;
        }
        let pending = (0..self.invariants.len()).find(is_pending);
        self.pending_last.set(pending.unwrap_or_default());
        pending.is_none()
    }

    /// Returns the number of times that each invariant could have been violated.
    pub fn exercised(&self) -> BTreeMap<&'static str, u64> {
        self.invariants.iter().map(|invariant| (invariant.name(), invariant.exercised())).collect()
    }

    /// Returns the number of times that the run reached each situation that matters.
    pub fn marks(&self) -> &BTreeMap<&'static str, u64> {
        self.marks.counts()
    }

    /// Returns the hash of every observation so far, with its time: 16 hexadecimal digits.
    pub fn trace_hash(&self) -> String {
        self.trace.hex()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::Device;
    use squall_protocol::rows::{Row, TypingRow};
    use squall_protocol::{Cached, Delivery, InstanceName, StreamName, Token};

    fn judge() -> Judge {
        let topology = Topology::new(["worker".into()])
            .with_stream("events", Delivery::Log, ["master".into()])
            .with_stream("typing", Delivery::Memory, ["master".into()]);
        Judge::new(topology)
    }

    fn follower(stream: &str) -> (InstanceName, StreamName, InstanceName) {
        ("worker".into(), stream.into(), "master".into())
    }

    fn following(stream: &str, position: i64) -> Observation {
        let (instance, stream, writer) = follower(stream);
        Observation::Following { instance, stream, writer, position: Token(position) }
    }

    fn positioned(stream: &str, position: i64) -> Observation {
        let (instance, stream, writer) = follower(stream);
        Observation::Positioned { instance, stream, writer, position: Token(position) }
    }

    fn typing(users: &[&str]) -> Row {
        let user_ids = users.iter().map(|user| user.to_string()).collect();
        Row::Typing(TypingRow { room_id: "room".to_owned(), user_ids })
    }

    fn run(observations: &[Observation]) -> Judge {
        let mut judge = judge();
        for (observation, at) in observations.iter().zip(0..) {
            judge.observe(SimTime(at), observation);
        }
        judge
    }

    #[test]
    fn an_invariant_that_becomes_pending_later_is_asked_too() {
        let mut judge = run(&[following("events", 0), following("typing", 0)]);
        assert!(judge.is_settled());
        let device = Device { user: "@user".into(), device: None };
        judge.observe(SimTime(1), &Observation::SyncBegan { instance: "worker".into(), boot: 1, device });
        let (_, stream, writer) = follower("typing");
        judge.observe(
            SimTime(2),
            &Observation::Changed { stream, writer, boot: 1, token: Token(1), row: typing(&["x"]) },
        );
        assert!(!judge.pending().is_empty() && !judge.is_settled());
        assert!(!judge.is_settled(), "the same one");
    }

    #[test]
    fn a_follower_is_pending_until_it_follows_and_has_what_the_writer_has() {
        let (_, stream, writer) = follower("typing");
        let changed = Observation::Changed { stream, writer, boot: 1, token: Token(1), row: typing(&["x"]) };
        let mut judge = run(&[Observation::Started { instance: "master".into(), boot: 1 }, changed]);
        assert_eq!(judge.pending().len(), 2);
        assert!(!judge.is_settled());

        judge.observe(SimTime(5), &following("events", 3));
        judge.observe(SimTime(5), &following("typing", 0));
        let pending: Vec<String> = judge.pending().iter().map(Pending::to_string).collect();
        assert_eq!(pending, ["worker is out of date on typing of master: room (position 0)"]);
        assert!(!judge.is_settled());

        let (instance, stream, writer) = follower("typing");
        let rows = vec![typing(&["x"])];
        judge.observe(SimTime(6), &Observation::Applied { instance, stream, writer, token: Token(1), rows });
        assert_eq!(judge.pending(), []);
        assert!(judge.is_settled());
        assert_eq!(judge.violations(), []);
        assert_eq!(judge.exercised()["no_missed_rows"], 1);
    }

    #[test]
    fn only_the_streams_that_are_not_broken_are_pending() {
        let mut judge = run(&[Observation::Started { instance: "master".into(), boot: 1 }]);
        let streams = |judge: &Judge| -> Vec<String> {
            judge.pending().iter().map(|pending| pending.follower.stream.to_string()).collect()
        };
        assert_eq!(streams(&judge), ["events", "typing"]);
        judge.observe(SimTime(1), &Observation::StreamBroken { stream: "events".into() });
        assert_eq!(streams(&judge), ["typing"]);
    }

    #[test]
    fn rows_too_long_for_a_line_and_catch_ups_in_pieces_leave_marks() {
        let (instance, stream, writer) = follower("account_data");
        let row = |kind: &str| {
            let (user_id, kind) = ("@user".to_owned(), kind.to_owned());
            Row::AccountData(squall_protocol::rows::AccountDataRow { user_id, room_id: None, kind })
        };
        let committed = |token, kind: &str| {
            let (stream, writer) = (stream.clone(), writer.clone());
            Observation::Committed { stream, writer, token: Token(token), row: row(kind) }
        };
        let applied = |token, kind: &str| {
            let (instance, stream, writer) = (instance.clone(), stream.clone(), writer.clone());
            Observation::Applied { instance, stream, writer, token: Token(token), rows: vec![row(kind)] }
        };
        let long = "x".repeat(squall_protocol::LINE_BYTES_MAX + 1);
        let judge = run(&[committed(2, &long), committed(3, "short"), applied(2, &long), applied(3, "short")]);
        assert_eq!(judge.marks()["oversized_row"], 1);

        let caught_up = |rows: i64| {
            let announced = Observation::Announced {
                instance: instance.clone(),
                attempt: 1,
                stream: stream.clone(),
                writer: writer.clone(),
                prev: Token(rows),
                position: Token(rows),
            };
            let mut story = vec![following("account_data", 0), announced];
            story.extend((1..=rows).map(|token| applied(token, "short")));
            story.push(positioned("account_data", rows));
            // The rows that come afterwards are no catch-up.
            story.extend((1..=200).map(|more| applied(rows + more, "short")));
            story.push(positioned("account_data", rows + 200));
            run(&story).marks()["catch_up_limited"]
        };
        assert_eq!((caught_up(100), caught_up(101)), (0, 1));
    }

    #[test]
    fn the_first_violation_of_each_fingerprint_is_always_kept() {
        let mut judge = run(&[following("events", 0), following("typing", 0)]);
        for position in (0..150).rev() {
            judge.observe(SimTime(9), &positioned("events", 1_000 + 150 - position));
            judge.observe(SimTime(9), &positioned("events", 0));
        }
        assert_eq!(judge.violations().len(), VIOLATIONS_MAX);
        judge.observe(SimTime(10), &positioned("typing", 5));
        judge.observe(SimTime(11), &positioned("typing", 4));
        let (at, last) = judge.violations().last().unwrap();
        assert_eq!((*at, last.fingerprint().as_str()), (SimTime(11), "positions_never_go_back/typing/went_back"));
    }

    #[test]
    fn rare_situations_leave_marks() {
        let (instance, stream, writer) = follower("events");
        let connecting = Observation::Connecting { instance: instance.clone(), target: writer.clone(), attempt: 1 };
        let connected = Observation::Connected { instance: instance.clone(), attempt: 1 };
        let announced = |stream: &str, position| {
            let (instance, stream, writer) = follower(stream);
            let position = Token(position);
            Observation::Announced { instance, attempt: 1, stream, writer, prev: position, position }
        };
        let (_, typing, _) = follower("typing");
        let reset = Observation::Reset { instance, stream: typing, writer, position: Token(0) };
        let judge = run(&[
            following("events", 3),
            connecting,
            connected,
            announced("events", 7),
            announced("typing", 0),
            reset,
            positioned("events", 7),
            Observation::LateCommit { instance: "master".into() },
            Observation::Fenced { instance: "master".into() },
            Observation::AcknowledgementLost { instance: "master".into() },
        ]);
        assert_eq!(stream.as_str(), "events");
        let marks =
            ["announced_ahead", "fenced_commit", "late_commit", "lost_acknowledgement", "memory_reset", "set_up"];
        let reached: BTreeMap<_, _> =
            judge.marks().iter().filter(|(_, count)| **count > 0).map(|(mark, count)| (*mark, *count)).collect();
        assert_eq!(reached, marks.map(|mark| (mark, 1)).into());
        assert_eq!(judge.marks()["state_all_applied"], 0, "a mark that was not reached is listed");
        assert_eq!(judge.violations(), []);
    }

    #[test]
    fn a_row_that_commits_after_a_higher_one_of_its_writer_is_out_of_order() {
        let committed = |writer: &str, token| {
            let row = Row::Typing(TypingRow { room_id: "room".to_owned(), user_ids: Vec::new() });
            Observation::Committed { stream: "events".into(), writer: writer.into(), token: Token(token), row }
        };
        let rows = [("master", 5), ("master", 5), ("other", 4), ("master", 3), ("master", 4), ("master", 6)];
        let judge = run(&rows.map(|(writer, token)| committed(writer, token)));
        assert_eq!(judge.marks()["out_of_order_commit"], 2);
    }

    #[test]
    fn a_read_that_a_row_overtakes_leaves_a_mark() {
        let read_started = |read, room: &str| {
            let what = Cached::State { room_id: room.to_owned() };
            Observation::ReadStarted { instance: "worker".into(), read, what }
        };
        let applied = |token| {
            let (instance, stream, writer) = follower("events");
            let rows = vec![Row::parse(&stream, serde_json::json!(["state-all", ["room"]])).unwrap()];
            Observation::Applied { instance, stream, writer, token: Token(token), rows }
        };
        let read_returned = Observation::ReadReturned { instance: "worker".into(), read: 2, version: None };
        let run = run(&[
            read_started(0, "room"),
            read_started(1, "other"),
            applied(5),
            read_started(2, "room"),
            read_returned,
            applied(6),
        ]);
        assert_eq!(run.marks()["cache_fill_raced"], 1);
    }

    #[test]
    fn an_acknowledgement_in_the_millisecond_in_which_the_position_passes_it_leaves_a_mark() {
        let acknowledged = |token| {
            let (instance, _, writer) = follower("events");
            let what = Cached::State { room_id: "room".to_owned() };
            Observation::WriteAcked { instance, what, writer, token: Token(token) }
        };
        let waited = |story: &[(u64, Observation)]| {
            let mut judge = judge();
            judge.observe(SimTime(0), &following("events", 3));
            for (at, observation) in story {
                judge.observe(SimTime(*at), observation);
            }
            judge.marks()["wait_that_waited"]
        };
        assert_eq!(waited(&[(5, positioned("events", 4)), (5, positioned("events", 7)), (5, acknowledged(7))]), 1);
        assert_eq!(waited(&[(5, positioned("events", 7)), (6, acknowledged(7))]), 0, "the position passed it earlier");
        assert_eq!(waited(&[(5, positioned("events", 7)), (6, positioned("events", 8)), (6, acknowledged(7))]), 0);
    }
}
