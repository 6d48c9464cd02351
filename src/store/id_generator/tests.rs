//! The generator over a database: the positions it reads at its start, and those it records.

use std::future::Future;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::store::events::persist;
use crate::store::memory::MemoryBackend;
use squall_protocol::rows::events::EventRow;

const TABLES: &[(&str, &str)] = &[("events", "stream_ordering"), ("current_state_delta_stream", "stream_id")];

/// Completes `future` at its first poll: the in-memory database never delays a transaction.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("an in-memory transaction was not done at once"),
    }
}

/// Returns a different event for each token.
pub(super) fn row_of(token: Token) -> EventRow {
    EventRow::message(format!("$event{token}"), "!room")
}

struct Deployment(Rc<MemoryBackend>);

impl Deployment {
    fn new() -> Self {
        Deployment(MemoryBackend::open())
    }

    fn try_start(&self, instance: &str, writers: &[&str]) -> Result<Rc<IdGenerator>, LoadError> {
        let options = IdGeneratorOptions {
            stream: "events".into(),
            instance: instance.into(),
            writers: writers.iter().map(|&writer| writer.into()).collect(),
            sequence: "events_stream_seq",
            tables: TABLES,
            shares_database: true,
            poke: Arc::default(),
        };
        let database = now(self.0.database().begin_session(&instance.into()))?;
        now(IdGenerator::load(database, options))
    }

    fn start(&self, instance: &str, writers: &[&str]) -> Rc<IdGenerator> {
        self.try_start(instance, writers).unwrap()
    }

    fn insert(&self, writer: &str, token: Token) {
        let writer = InstanceName::from(writer);
        let events = [(token, row_of(token))];
        now(self.0.database().transaction("insert", move |tx| persist(tx, &writer, &events, &[]))).unwrap();
    }

    /// Writes `n` rows through `generator` and records its position.
    fn write(&self, generator: &IdGenerator, n: usize) {
        let allocation = now(generator.allocate(n)).unwrap();
        for id in allocation.ids() {
            self.insert(generator.options.instance.as_str(), *id);
        }
        drop(allocation);
        now(generator.persist_position()).unwrap();
    }

    fn sql(&self, statement: &'static str) {
        now(self.0.database().transaction("sql", move |tx| tx.execute(statement, ()))).unwrap();
    }

    fn recorded(&self, writer: &'static str) -> Option<i64> {
        let query = "SELECT MAX(stream_id) FROM stream_positions WHERE instance_name = ?1";
        now(self.0.database().transaction("recorded", move |tx| tx.query_row(query, [writer], |row| row.get(0))))
            .unwrap()
    }
}

fn position(generator: &IdGenerator, writer: &str) -> i64 {
    generator.current_token_for_writer(&writer.into()).0
}

#[test]
fn the_first_id_is_two() {
    let generator = Deployment::new().start("a", &["a"]);
    assert_eq!(generator.current_token(), Token(1));
    assert_eq!(now(generator.allocate(2)).unwrap().ids(), [Token(2), Token(3)]);
}

#[test]
fn a_stream_that_has_rows_starts_at_the_last() {
    let deployment = Deployment::new();
    (2..=7).for_each(|id| deployment.insert("gone", Token(id)));
    let generator = deployment.start("a", &["a"]);
    assert_eq!((generator.current_token(), position(&generator, "a")), (Token(7), 7));
    assert_eq!(now(generator.allocate(1)).unwrap().ids(), [Token(8)]);
}

#[test]
fn each_writer_starts_at_its_recorded_position() {
    let deployment = Deployment::new();
    let (first, second) =
        (deployment.start("first", &["first", "second"]), deployment.start("second", &["first", "second"]));
    deployment.write(&first, 2);
    deployment.write(&second, 3);
    let reader = deployment.start("reader", &["first", "second"]);
    assert_eq!(reader.current_token(), Token(6), "the rows from 4 to 6 follow 3 without a gap");
    let restarted = deployment.start("first", &["first", "second"]);
    assert_eq!((position(&restarted, "first"), position(&restarted, "second")), (6, 6));
    assert_eq!(now(second.allocate(1)).unwrap().ids(), [Token(7)]);
}

#[test]
fn a_writer_starts_at_the_last_id_even_if_another_one_is_behind() {
    let deployment = Deployment::new();
    let writers = ["first", "second"];
    let (first, second) = (deployment.start("first", &writers), deployment.start("second", &writers));
    let outstanding = now(second.allocate(2)).unwrap();
    deployment.write(&first, 1);
    let restarted = deployment.start("first", &writers);
    assert_eq!((restarted.current_token(), position(&restarted, "first")), (Token(1), 4));
    drop(outstanding);
}

#[test]
fn a_writer_records_its_position_when_it_has_moved_and_not_again() {
    let deployment = Deployment::new();
    let writer = deployment.start("a", &["a"]);
    assert_eq!(deployment.recorded("a"), Some(1));
    deployment.write(&writer, 3);
    assert_eq!(deployment.recorded("a"), Some(4));
    deployment.sql("UPDATE stream_positions SET stream_id = 2");
    now(writer.persist_position()).unwrap();
    assert_eq!(deployment.recorded("a"), Some(2), "4 was recorded before");
    deployment.write(&writer, 1);
    assert_eq!(deployment.recorded("a"), Some(5));
}

#[test]
fn a_writer_that_never_wrote_is_where_the_others_are() {
    let deployment = Deployment::new();
    let writers = ["first", "second", "third"];
    let first = deployment.start("first", &writers);
    deployment.write(&first, 3);
    let second = deployment.start("second", &writers);
    assert_eq!(["first", "second", "third"].map(|writer| position(&second, writer)), [4, 4, 4]);
}

#[test]
fn a_writer_has_a_position_before_it_has_ids() {
    let deployment = Deployment::new();
    let writers = ["first", "second"];
    let first = deployment.start("first", &writers);
    let second = deployment.start("second", &writers);
    let outstanding = now(second.allocate(1)).unwrap();
    deployment.write(&first, 1);
    let reader = deployment.start("reader", &writers);
    assert_eq!((reader.current_token(), position(&reader, "second")), (Token(1), 1), "2 may still commit");
    drop(outstanding);
}

#[test]
fn a_reader_that_starts_amid_a_write_does_not_pass_it() {
    let deployment = Deployment::new();
    let writer = deployment.start("a", &["a"]);
    deployment.write(&writer, 6);
    let (eight, nine) = (now(writer.allocate(1)).unwrap(), now(writer.allocate(1)).unwrap());
    deployment.insert("a", Token(9));
    drop(nine);
    assert_eq!((writer.minimal_local_current_token(), writer.last_own_token()), (Token(7), Token(9)));
    now(writer.persist_position()).unwrap();
    let reader = deployment.start("reader", &["a"]);
    assert_eq!((reader.current_token(), position(&reader, "a")), (Token(7), 7));
    deployment.insert("a", Token(8));
    drop(eight);
    assert_eq!(position(&writer, "a"), 9);
    reader.advance(&"a".into(), Token(9));
    assert_eq!(reader.current_token(), Token(9));
}

#[test]
fn a_former_writer_does_not_hold_the_stream_back() {
    let deployment = Deployment::new();
    let both = ["first", "second"];
    let (first, second) = (deployment.start("first", &both), deployment.start("second", &both));
    deployment.write(&first, 1);
    deployment.write(&second, 3);
    let alone = deployment.start("second", &["second"]);
    assert_eq!((alone.current_token(), alone.unclaimed()), (Token(5), &["first".into()][..]));
    let reader = deployment.start("reader", &["second", "third"]);
    assert_eq!((reader.current_token(), position(&reader, "third")), (Token(5), 5));
}

#[test]
fn an_old_configuration_does_not_make_others_pass_a_new_writer() {
    let deployment = Deployment::new();
    let (old, new) = (["first", "second"], ["first", "second", "third"]);
    let first = deployment.start("first", &old);
    deployment.write(&first, 1);
    let third = deployment.start("third", &new);
    let outstanding = now(third.allocate(1)).unwrap();
    deployment.write(&first, 1);
    for (instance, is_writer) in [("reader", false), ("second", true)] {
        assert_eq!(deployment.start(instance, &old).is_writer(), is_writer);
        assert_eq!(deployment.recorded("third"), Some(2), "{instance} has not deleted what it does not own");
    }
    let reader = deployment.start("reader", &new);
    assert_eq!((reader.current_token(), position(&reader, "third")), (Token(2), 2), "3 may still commit");
    drop(outstanding);
}

#[test]
fn an_instance_that_writes_no_more_deletes_its_position() {
    let deployment = Deployment::new();
    let both = ["first", "second"];
    let (first, second) = (deployment.start("first", &both), deployment.start("second", &both));
    deployment.write(&first, 1);
    deployment.write(&second, 2);
    assert!(deployment.start("first", &["second"]).unclaimed().is_empty());
    assert_eq!((deployment.recorded("first"), deployment.recorded("second")), (None, Some(4)));
    assert_eq!(deployment.start("reader", &both).current_token(), Token(4), "it has nothing outstanding");
}

#[test]
fn a_sequence_behind_its_table_is_raised() {
    let deployment = Deployment::new();
    let writer = deployment.start("a", &["a"]);
    deployment.write(&writer, 3);
    deployment.insert("a", Token(20));
    let healed = deployment.start("a", &["a"]);
    assert_eq!(now(healed.allocate(1)).unwrap().ids(), [Token(21)]);
}

#[test]
fn a_position_past_the_sequence_is_refused() {
    let deployment = Deployment::new();
    let writer = deployment.start("a", &["a"]);
    deployment.write(&writer, 3);
    deployment.sql("UPDATE stream_positions SET stream_id = 99");
    let refused = deployment.try_start("a", &["a"]).err().expect("99 was never allocated");
    assert!(matches!(refused, LoadError::PositionPastSequence { position: Token(99), last_allocated: Token(4), .. }));
}

#[test]
fn an_instance_that_does_not_write_gets_no_ids_and_records_no_position() {
    let deployment = Deployment::new();
    let reader = deployment.start("reader", &["a"]);
    assert!(matches!(now(reader.allocate(1)), Err(AllocateError::NotAWriter { .. })));
    reader.advance(&"a".into(), Token(9));
    now(reader.persist_position()).unwrap();
    assert_eq!(deployment.recorded("reader"), None);
}

#[test]
fn a_superseded_process_gets_no_ids() {
    let deployment = Deployment::new();
    let old = deployment.start("a", &["a"]);
    let _new = deployment.start("a", &["a"]);
    let refused = now(old.allocate(1)).err();
    assert!(matches!(refused, Some(AllocateError::Database(DatabaseError::Fenced { boot: 1, .. }))), "{refused:?}");
    assert_eq!(position(&old, "a"), 1, "the failed fetch holds nothing");
}

#[test]
fn the_recorded_position_never_goes_backwards() {
    let deployment = Deployment::new();
    let writer = deployment.start("a", &["a"]);
    deployment.write(&writer, 3);
    deployment.sql("UPDATE stream_positions SET stream_id = 9");
    deployment.write(&writer, 1);
    assert_eq!(deployment.recorded("a"), Some(9));
}

#[test]
fn the_streamer_is_notified_only_when_the_own_position_moves() {
    let deployment = Deployment::new();
    let (writer, _other) = (deployment.start("a", &["a", "b"]), deployment.start("b", &["a", "b"]));
    let poked = || {
        let changed = std::pin::pin!(writer.changed());
        changed.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    };
    let outstanding = now(writer.allocate(1)).unwrap();
    assert!(!poked());
    writer.advance(&"b".into(), Token(5));
    assert!(!poked(), "2 is outstanding");
    drop(outstanding);
    assert!(poked());
    assert!(!poked());
    writer.advance(&"b".into(), Token(6));
    assert!(poked(), "an idle writer follows the others");
}
