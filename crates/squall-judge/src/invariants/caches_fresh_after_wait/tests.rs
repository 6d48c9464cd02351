//! Each rule on made-up observations, both ways.

use serde_json::json;

use super::*;
use crate::invariant::Alone;
use crate::violation::fingerprint;
use squall_protocol::StreamName;

/// The invariant, and the number of reads so far.
#[derive(Default)]
struct Story {
    judge: Alone<CachesFreshAfterWait>,
    read: u64,
}

/// The values read in these stories: the state of a room, or the account data of a user.
fn state() -> Cached {
    Cached::State { room_id: "!room".into() }
}

fn account_data() -> Cached {
    Cached::AccountData { user_id: "@user".into() }
}

impl Story {
    fn observe(&mut self, observation: Observation) {
        assert_eq!(self.judge.observe(SimTime(0), &observation), Ok(()));
    }

    fn committed(&mut self, stream: &str, writer: &str, token: i64, row: serde_json::Value) -> &mut Self {
        let (stream, token) = (StreamName::from(stream), Token(token));
        let row = Row::parse(&stream, row).unwrap();
        self.observe(Observation::Committed { stream, writer: writer.into(), token, row });
        self
    }

    /// Changes the state of the room.
    fn state_changed(&mut self, writer: &str, token: i64) -> &mut Self {
        self.committed("events", writer, token, json!(["state", ["!room", "m.room.topic", "", null]]))
    }

    /// Changes a user's account data of this type.
    fn datum_changed(&mut self, kind: &str, token: i64) -> &mut Self {
        self.committed("account_data", "master", token, json!(["@user", null, kind]))
    }

    fn passed(&mut self, stream: &str, writer: &str, position: i64) -> &mut Self {
        let (instance, stream, writer) = ("worker".into(), stream.into(), writer.into());
        self.observe(Observation::Positioned { instance, stream, writer, position: Token(position) });
        self
    }

    fn acknowledged(&mut self, instance: &str, what: Cached, writer: &str, token: i64) -> &mut Self {
        let (instance, writer, token) = (instance.into(), writer.into(), Token(token));
        self.observe(Observation::WriteAcked { instance, what, writer, token });
        self
    }

    fn started(&mut self, instance: &str, what: Cached) -> u64 {
        self.read += 1;
        self.observe(Observation::ReadStarted { instance: instance.into(), read: self.read, what });
        self.read
    }

    /// The violation of an answer.
    fn returned(&mut self, read: u64, version: Option<i64>) -> Option<Violation> {
        let version = version.map(Token);
        self.judge.observe(SimTime(0), &Observation::ReadReturned { instance: "worker".into(), read, version }).err()
    }

    /// The lowest version that a read of `what` through `instance` may return.
    fn least(&mut self, instance: &str, what: Cached) -> Option<i64> {
        let mut versions = std::iter::once(None).chain((0..100).map(Some));
        versions.find(|version| {
            let read = self.started(instance, what.clone());
            self.returned(read, *version).is_none()
        })?
    }
}

#[test]
fn a_read_reflects_what_the_position_has_passed_and_may_reflect_more() {
    let mut story = Story::default();
    story.state_changed("writer", 5).state_changed("writer", 7);
    assert_eq!(story.least("worker", state()), None);
    story.passed("events", "writer", 4);
    assert_eq!(story.least("worker", state()), None);
    story.passed("events", "writer", 6);
    assert_eq!(story.least("worker", state()), Some(5));
    story.passed("events", "writer", 9);
    assert_eq!(story.least("worker", state()), Some(7));
    assert_eq!(story.least("other", state()), None, "who has not passed it owes nothing");
    assert_eq!(story.least("worker", account_data()), None, "nor is anything owed of what did not change");
}

#[test]
fn the_violation_tells_what_was_owed_and_why() {
    let mut story = Story::default();
    story.state_changed("writer", 5).passed("events", "writer", 6);
    let read = story.started("worker", state());
    let violation = story.returned(read, Some(4)).unwrap();
    assert_eq!(fingerprint("caches_fresh_after_wait", &violation, true), "caches_fresh_after_wait/events/stale");
    assert_eq!(
        violation.to_string(),
        "events of writer on worker: at position 6 the state of !room was read as of 4, without the change of 5"
    );
    story.acknowledged("worker", state(), "writer", 8);
    let read = story.started("worker", state());
    let violation = story.returned(read, None).unwrap();
    assert_eq!(fingerprint("caches_fresh_after_wait", &violation, true), "caches_fresh_after_wait/events/write_unseen");
    assert_eq!(
        violation.to_string(),
        "events of writer on worker: the state of !room was read empty, after worker had acknowledged the write 8"
    );
}

#[test]
fn the_position_is_that_of_the_change_s_own_writer() {
    let mut story = Story::default();
    story.state_changed("writer1", 5).passed("events", "writer2", 9);
    assert_eq!(story.least("worker", state()), None);
    story.passed("events", "writer1", 5);
    assert_eq!(story.least("worker", state()), Some(5));
}

#[test]
fn a_change_after_the_read_began_need_not_be_in_the_answer() {
    let mut story = Story::default();
    story.state_changed("writer", 5).passed("events", "writer", 5);
    let read = story.started("worker", state());
    story.state_changed("writer", 6).passed("events", "writer", 6).acknowledged("worker", state(), "writer", 6);
    assert_eq!(story.returned(read, Some(5)), None);
    assert_eq!(story.returned(read, Some(4)), None, "a read returns once");
}

#[test]
fn an_acknowledged_write_is_owed_by_its_instance_at_any_position() {
    let mut story = Story::default();
    story.state_changed("writer", 5).acknowledged("worker", state(), "writer", 5);
    assert_eq!(story.least("worker", state()), Some(5));
    assert_eq!(story.least("other", state()), None);
}

#[test]
fn an_acknowledged_write_that_was_never_committed_is_owed_too() {
    let mut story = Story::default();
    story.acknowledged("worker", account_data(), "master", 5);
    assert_eq!(story.least("worker", account_data()), Some(5));
}

#[test]
fn both_rules_outlive_the_process() {
    let mut story = Story::default();
    story.state_changed("writer", 5).passed("events", "writer", 6);
    story.datum_changed("a", 7).acknowledged("worker", account_data(), "master", 7);
    story.observe(Observation::Stopped { instance: "worker".into(), boot: 1 });
    story.observe(Observation::Started { instance: "worker".into(), boot: 2 });
    let (instance, stream, writer) = ("worker".into(), "events".into(), "writer".into());
    story.observe(Observation::Following { instance, stream, writer, position: Token(3) });
    assert_eq!((story.least("worker", state()), story.least("worker", account_data())), (Some(5), Some(7)));
}

#[test]
fn an_overwritten_row_is_owed_with_the_row_that_replaced_it() {
    for tokens in [[5, 8], [8, 5]] {
        let mut story = Story::default();
        story.datum_changed("b", 3);
        for token in tokens {
            story.datum_changed("a", token);
        }
        story.passed("account_data", "master", 6).acknowledged("worker", account_data(), "master", 5);
        assert_eq!(story.least("worker", account_data()), Some(3), "{tokens:?}");
        story.passed("account_data", "master", 8);
        assert_eq!(story.least("worker", account_data()), Some(8), "{tokens:?}");
    }
}

#[test]
fn a_writer_owes_its_own_answered_rows_even_if_they_were_overwritten_and_no_others() {
    let mut story = Story::default();
    story.datum_changed("a", 5);
    assert_eq!(story.least("master", account_data()), None, "the write is not acknowledged yet");
    story.acknowledged("master", account_data(), "master", 5).datum_changed("a", 8);
    assert_eq!(story.least("master", account_data()), Some(5));
}

#[test]
fn the_last_commit_of_an_event_is_owed_although_its_token_is_lower() {
    let event = || Cached::Event { event_id: "$event".into() };
    for (tokens, owed) in [([5, 8], 8), ([8, 5], 5)] {
        let mut story = Story::default();
        for token in tokens {
            let row = json!(["ev", ["$event", "!room", "m.room.message", null, null, null, null, false, true]]);
            story.committed("events", "writer", token, row).acknowledged("writer", event(), "writer", token);
        }
        story.passed("events", "writer", 8);
        assert_eq!(story.least("worker", event()), Some(owed), "{tokens:?}");
        assert_eq!(story.least("writer", event()), Some(owed), "{tokens:?}, on the writer itself");
    }
}

#[test]
fn only_reads_that_owe_something_count_as_checks() {
    let mut story = Story::default();
    let read = story.started("worker", state());
    assert_eq!((story.returned(read, None), story.judge.exercised()), (None, 0));
    story.state_changed("writer", 5).passed("events", "writer", 5);
    let (fails, read) = (story.started("worker", state()), story.started("worker", state()));
    assert_eq!((story.returned(read, Some(5)), story.judge.exercised()), (None, 1));
    assert_eq!(story.judge.invariant.reads.keys().copied().collect::<Vec<_>>(), [fails]);
}
