//! Each rule on made-up observations, both ways.

use serde_json::json;

use super::*;
use crate::protocol::StreamName;

/// The judge, and what has come of the reads.
#[derive(Default)]
struct Story {
    judge: CachesFreshAfterWait,
    read: u64,
}

/// What is read in these stories: the state of a room, or the account data of a user.
fn state() -> Cached {
    Cached::State { room_id: "!room".into() }
}

fn account_data() -> Cached {
    Cached::AccountData { user_id: "@user".into() }
}

impl Story {
    fn observe(&mut self, observation: Observation) {
        assert_eq!(self.judge.observe(Moment(0), &observation), Ok(()));
    }

    fn committed(&mut self, stream: &str, writer: &str, token: i64, row: serde_json::Value) -> &mut Self {
        let (stream, token) = (StreamName::from(stream), Token(token));
        let row = Row::parse(&stream, row).unwrap();
        self.observe(Observation::Committed { stream, writer: writer.into(), token, row });
        self
    }

    /// The state of the room is changed.
    fn state_changed(&mut self, writer: &str, token: i64) -> &mut Self {
        self.committed("events", writer, token, json!(["state", ["!room", "m.room.topic", "", null]]))
    }

    /// A user's datum of this type is changed.
    fn datum_changed(&mut self, kind: &str, token: i64) -> &mut Self {
        self.committed("account_data", "master", token, json!(["@user", null, kind]))
    }

    fn passed(&mut self, stream: &str, writer: &str, position: i64) -> &mut Self {
        let (instance, stream, writer) = ("worker".into(), stream.into(), writer.into());
        self.observe(Observation::Positioned { instance, stream, writer, position: Token(position) });
        self
    }

    fn answered(&mut self, instance: &str, what: Cached, writer: &str, token: i64) -> &mut Self {
        let (instance, writer, token) = (instance.into(), writer.into(), Token(token));
        self.observe(Observation::Answered { instance, what, writer, token });
        self
    }

    fn asked(&mut self, instance: &str, what: Cached) -> u64 {
        self.read += 1;
        self.observe(Observation::Asked { instance: instance.into(), read: self.read, what });
        self.read
    }

    /// What is wrong with the answer.
    fn told(&mut self, read: u64, version: Option<i64>) -> Option<Violation> {
        let version = version.map(Token);
        self.judge.observe(Moment(0), &Observation::Told { instance: "worker".into(), read, version }).err()
    }

    /// The least version that a read of `what` through `instance` can be told without a violation.
    fn least(&mut self, instance: &str, what: Cached) -> Option<i64> {
        let mut versions = std::iter::once(None).chain((0..100).map(Some));
        versions.find(|version| {
            let read = self.asked(instance, what.clone());
            self.told(read, *version).is_none()
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
    let read = story.asked("worker", state());
    let violation = story.told(read, Some(4)).unwrap();
    assert_eq!(violation.fingerprint(), "caches_fresh_after_wait/events/stale");
    assert_eq!(
        violation.to_string(),
        "events of writer on worker: at position 6 the state of !room was read as of 4, without the change of 5"
    );
    story.answered("worker", state(), "writer", 8);
    let read = story.asked("worker", state());
    let violation = story.told(read, None).unwrap();
    assert_eq!(violation.fingerprint(), "caches_fresh_after_wait/events/write_unseen");
    assert_eq!(
        violation.to_string(),
        "events of writer on worker: the state of !room was read empty, after worker had told that the write 8 is done"
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
fn what_comes_after_the_question_need_not_be_in_the_answer() {
    let mut story = Story::default();
    story.state_changed("writer", 5).passed("events", "writer", 5);
    let read = story.asked("worker", state());
    story.state_changed("writer", 6).passed("events", "writer", 6).answered("worker", state(), "writer", 6);
    assert_eq!(story.told(read, Some(5)), None);
    assert_eq!(story.told(read, Some(4)), None, "a question is answered once");
}

#[test]
fn a_write_told_to_be_done_is_owed_by_who_told_it_wherever_the_position_is() {
    let mut story = Story::default();
    story.state_changed("writer", 5).answered("worker", state(), "writer", 5);
    assert_eq!(story.least("worker", state()), Some(5));
    assert_eq!(story.least("other", state()), None);
}

#[test]
fn a_write_told_to_be_done_that_never_was_committed_is_owed_all_the_same() {
    let mut story = Story::default();
    story.answered("worker", account_data(), "master", 5);
    assert_eq!(story.least("worker", account_data()), Some(5));
}

#[test]
fn both_promises_outlive_the_process() {
    let mut story = Story::default();
    story.state_changed("writer", 5).passed("events", "writer", 6);
    story.datum_changed("a", 7).answered("worker", account_data(), "master", 7);
    story.observe(Observation::Stopped { instance: "worker".into(), boot: 1 });
    story.observe(Observation::Started { instance: "worker".into(), boot: 2 });
    let (instance, stream, writer) = ("worker".into(), "events".into(), "writer".into());
    story.observe(Observation::Following { instance, stream, writer, position: Token(3) });
    assert_eq!((story.least("worker", state()), story.least("worker", account_data())), (Some(5), Some(7)));
}

#[test]
fn an_overwritten_row_is_owed_with_the_one_that_took_its_place() {
    for tokens in [[5, 8], [8, 5]] {
        let mut story = Story::default();
        story.datum_changed("b", 3);
        for token in tokens {
            story.datum_changed("a", token);
        }
        story.passed("account_data", "master", 6).answered("worker", account_data(), "master", 5);
        assert_eq!(story.least("worker", account_data()), Some(3), "{tokens:?}");
        story.passed("account_data", "master", 8);
        assert_eq!(story.least("worker", account_data()), Some(8), "{tokens:?}");
    }
}

#[test]
fn a_writer_owes_its_own_answered_rows_even_if_they_were_overwritten_and_no_others() {
    let mut story = Story::default();
    story.datum_changed("a", 5);
    assert_eq!(story.least("master", account_data()), None, "its caller has not been told yet");
    story.answered("master", account_data(), "master", 5).datum_changed("a", 8);
    assert_eq!(story.least("master", account_data()), Some(5));
}

#[test]
fn of_an_event_the_last_commit_is_owed_whichever_token_it_has() {
    let event = || Cached::Event { event_id: "$event".into() };
    for (tokens, owed) in [([5, 8], 8), ([8, 5], 5)] {
        let mut story = Story::default();
        for token in tokens {
            let row = json!(["ev", ["$event", "!room", "m.room.message", null, null, null, null, false, true]]);
            story.committed("events", "writer", token, row).answered("writer", event(), "writer", token);
        }
        story.passed("events", "writer", 8);
        assert_eq!(story.least("worker", event()), Some(owed), "{tokens:?}");
        assert_eq!(story.least("writer", event()), Some(owed), "{tokens:?}, on the writer itself");
    }
}

#[test]
fn only_reads_that_owe_something_count_as_checks() {
    let mut story = Story::default();
    let read = story.asked("worker", state());
    assert_eq!((story.told(read, None), story.judge.exercised()), (None, 0));
    story.state_changed("writer", 5).passed("events", "writer", 5);
    let (fails, read) = (story.asked("worker", state()), story.asked("worker", state()));
    assert_eq!((story.told(read, Some(5)), story.judge.exercised()), (None, 1));
    assert_eq!(story.judge.reads.keys().copied().collect::<Vec<_>>(), [fails]);
}
