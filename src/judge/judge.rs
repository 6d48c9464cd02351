//! The judge itself: every observation to every invariant, and into the trace hash.

use std::collections::{BTreeMap, BTreeSet};

use super::invariants::{self, Invariant};
use super::marks::Marks;
use super::observation::{Moment, Observation};
use super::pending::Pending;
use super::topology::Topology;
use super::trace::Trace;
use super::violation::Violation;

/// How many violations are kept. The first of each fingerprint is kept in any case.
pub const VIOLATIONS_MAX: usize = 100;

/// Judges one run.
pub struct Judge {
    invariants: Vec<Box<dyn Invariant>>,
    marks: Marks,
    trace: Trace,
    violations: Vec<(Moment, Violation)>,
    fingerprints: BTreeSet<String>,
}

impl Judge {
    /// Judges a deployment by every invariant there is.
    pub fn new(topology: Topology) -> Self {
        Judge {
            invariants: invariants::all(&topology),
            marks: Marks::new(&topology),
            trace: Trace::default(),
            violations: Vec::new(),
            fingerprints: BTreeSet::new(),
        }
    }

    /// Takes one observation into account. Observations come in the order in which they were made.
    pub fn observe(&mut self, at: Moment, observation: &Observation) {
        self.trace.add(at, observation);
        self.marks.observe(at, observation);
        for invariant in &mut self.invariants {
            let Err(violation) = invariant.observe(at, observation) else { continue };
            let is_new = self.fingerprints.insert(violation.fingerprint());
            if is_new || self.violations.len() < VIOLATIONS_MAX {
                self.violations.push((at, violation));
            }
        }
    }

    /// What was violated, in order.
    pub fn violations(&self) -> &[(Moment, Violation)] {
        &self.violations
    }

    /// Whether something was violated in the way that `fingerprint` says.
    pub fn has_seen(&self, fingerprint: &str) -> bool {
        self.fingerprints.contains(fingerprint)
    }

    /// What has to happen yet; nothing may be left of it at the end of the calm.
    pub fn pending(&self) -> Vec<Pending> {
        self.invariants.iter().flat_map(|invariant| invariant.pending()).collect()
    }

    /// How often each invariant could have been violated.
    pub fn exercised(&self) -> BTreeMap<&'static str, u64> {
        self.invariants.iter().map(|invariant| (invariant.name(), invariant.exercised())).collect()
    }

    /// How often the run came to each situation that matters.
    pub fn marks(&self) -> &BTreeMap<&'static str, u64> {
        self.marks.counts()
    }

    /// The hash of every observation so far, with its time: 16 hexadecimal digits.
    pub fn trace_hash(&self) -> String {
        self.trace.hex()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caches::Cached;
    use crate::protocol::{InstanceName, StreamName, Token};
    use crate::streams::{Promise, Row, TypingRow};

    fn judge() -> Judge {
        let topology = Topology::new(["worker".into()])
            .with_stream("events", Promise::Log, ["master".into()])
            .with_stream("typing", Promise::Memory, ["master".into()]);
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
        observations.iter().zip(0..).for_each(|(observation, at)| judge.observe(Moment(at), observation));
        judge
    }

    #[test]
    fn a_follower_is_pending_until_it_follows_and_has_what_the_writer_has() {
        let (_, stream, writer) = follower("typing");
        let changed = Observation::Changed { stream, writer, boot: 1, token: Token(1), row: typing(&["x"]) };
        let mut judge = run(&[Observation::Started { instance: "master".into(), boot: 1 }, changed]);
        assert_eq!(judge.pending().len(), 2);

        judge.observe(Moment(5), &following("events", 3));
        judge.observe(Moment(5), &following("typing", 0));
        let pending: Vec<String> = judge.pending().iter().map(Pending::to_string).collect();
        assert_eq!(pending, ["worker is out of date on typing of master: room (position 0)"]);

        let (instance, stream, writer) = follower("typing");
        let rows = vec![typing(&["x"])];
        judge.observe(Moment(6), &Observation::Applied { instance, stream, writer, token: Token(1), rows });
        assert_eq!(judge.pending(), []);
        assert_eq!(judge.violations(), []);
        assert_eq!(judge.exercised()["no_missed_rows"], 1);
    }

    #[test]
    fn of_a_broken_stream_nothing_is_pending_and_of_the_others_all_is() {
        let mut judge = run(&[Observation::Started { instance: "master".into(), boot: 1 }]);
        let streams = |judge: &Judge| -> Vec<String> {
            judge.pending().iter().map(|pending| pending.feed.stream.to_string()).collect()
        };
        assert_eq!(streams(&judge), ["events", "typing"]);
        judge.observe(Moment(1), &Observation::StreamBroken { stream: "events".into() });
        assert_eq!(streams(&judge), ["typing"]);
    }

    #[test]
    fn rows_too_long_for_a_line_and_catch_ups_in_pieces_leave_marks() {
        let (instance, stream, writer) = follower("account_data");
        let row = |kind: &str| {
            let (user_id, kind) = ("@user".to_owned(), kind.to_owned());
            Row::AccountData(crate::streams::AccountDataRow { user_id, room_id: None, kind })
        };
        let committed = |token, kind: &str| {
            let (stream, writer) = (stream.clone(), writer.clone());
            Observation::Committed { stream, writer, token: Token(token), row: row(kind) }
        };
        let applied = |token, kind: &str| {
            let (instance, stream, writer) = (instance.clone(), stream.clone(), writer.clone());
            Observation::Applied { instance, stream, writer, token: Token(token), rows: vec![row(kind)] }
        };
        let long = "x".repeat(crate::protocol::LINE_BYTES_MAX + 1);
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
            // Those that come afterwards are not caught up with.
            story.extend((1..=200).map(|more| applied(rows + more, "short")));
            story.push(positioned("account_data", rows + 200));
            run(&story).marks()["catch_up_limited"]
        };
        assert_eq!((caught_up(100), caught_up(101)), (0, 1));
    }

    #[test]
    fn the_first_violation_of_each_fingerprint_is_kept_whatever_came_before() {
        let mut judge = run(&[following("events", 0), following("typing", 0)]);
        for position in (0..150).rev() {
            judge.observe(Moment(9), &positioned("events", 1_000 + 150 - position));
            judge.observe(Moment(9), &positioned("events", 0));
        }
        assert_eq!(judge.violations().len(), VIOLATIONS_MAX);
        judge.observe(Moment(10), &positioned("typing", 5));
        judge.observe(Moment(11), &positioned("typing", 4));
        let (at, last) = judge.violations().last().unwrap();
        assert_eq!((*at, last.fingerprint().as_str()), (Moment(11), "positions_never_go_back/typing/went_back"));
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
        assert_eq!(judge.marks()["state_all_applied"], 0, "what was not reached is there to be seen");
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
        let asked = |read, room: &str| {
            let what = Cached::State { room_id: room.to_owned() };
            Observation::Asked { instance: "worker".into(), read, what }
        };
        let applied = |token| {
            let (instance, stream, writer) = follower("events");
            let rows = vec![Row::parse(&stream, serde_json::json!(["state-all", ["room"]])).unwrap()];
            Observation::Applied { instance, stream, writer, token: Token(token), rows }
        };
        let told = Observation::Told { instance: "worker".into(), read: 2, version: None };
        let run = run(&[asked(0, "room"), asked(1, "other"), applied(5), asked(2, "room"), told, applied(6)]);
        assert_eq!(run.marks()["cache_fill_raced"], 1);
    }

    #[test]
    fn an_answer_in_the_moment_in_which_the_position_passes_it_leaves_a_mark() {
        let answered = |token| {
            let (instance, _, writer) = follower("events");
            let what = Cached::State { room_id: "room".to_owned() };
            Observation::Answered { instance, what, writer, token: Token(token) }
        };
        let waited = |story: &[(u64, Observation)]| {
            let mut judge = judge();
            judge.observe(Moment(0), &following("events", 3));
            story.iter().for_each(|(at, observation)| judge.observe(Moment(*at), observation));
            judge.marks()["wait_that_waited"]
        };
        assert_eq!(waited(&[(5, positioned("events", 4)), (5, positioned("events", 7)), (5, answered(7))]), 1);
        assert_eq!(waited(&[(5, positioned("events", 7)), (6, answered(7))]), 0, "it was passed before");
        assert_eq!(waited(&[(5, positioned("events", 7)), (6, positioned("events", 8)), (6, answered(7))]), 0);
    }
}
