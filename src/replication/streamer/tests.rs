//! The rows and positions that a streamer sends, and their order.

use std::collections::BTreeSet;

use super::*;
use crate::replication::testing::{Answer, FakeStream, Journal, SECOND, name_of, on_paused_clock, settle};
use crate::tasks;
use squall_env::Noop;
use squall_protocol::{Delivery, LINE_BYTES_MAX, Rdata, Role};

/// The instance `me`, which writes a stream and has sent everything up to 10.
struct Writer {
    stream: Rc<FakeStream>,
    streamer: Rc<Streamer>,
    journal: Journal,
}

fn writer_of(stream: &str) -> Writer {
    writer_with(stream, Delivery::Log)
}

fn writer_with(stream: &str, delivery: Delivery) -> Writer {
    let journal = Journal::default();
    let env = journal.env();
    let stream = FakeStream::new(stream, delivery, &["me"], &journal);
    let streamer = Rc::new(Streamer::new(stream.clone(), "me".into(), env.clone()));
    env.tasks.spawn(tasks::STREAMER, Rc::clone(&streamer).run());
    Writer { stream, streamer, journal }
}

impl Writer {
    /// Commits rows of one token.
    fn write(&self, token: i64, names: &[&str]) {
        self.stream.commit("me", token, names);
        self.move_to(token);
    }

    /// Moves the position to `token`, as other writers' rows do.
    fn move_to(&self, token: i64) {
        self.stream.move_to("me", token);
        self.streamer.poke();
    }

    /// Returns a connection that sent `REPLICATE` and received position 10.
    async fn follower(&self) -> Rc<Connection> {
        let connection = connection(1);
        self.streamer.announce_to(&connection);
        assert_eq!(sent(&connection).await, ["POSITION 10 10"]);
        connection
    }
}

fn connection(id: u64) -> Rc<Connection> {
    Rc::new(Connection::new(id, Role::Server, "follower", BTreeSet::new()))
}

/// Returns the lines sent since the last call, in words.
async fn sent(connection: &Connection) -> Vec<String> {
    settle().await;
    let lines = tokio::time::timeout(Duration::ZERO, connection.outgoing()).await.ok().flatten().unwrap_or_default();
    lines.iter().map(|line| in_words(line)).collect()
}

/// Returns a line as `11 x`, `batch x` or `POSITION 10 11`.
fn in_words(line: &[u8]) -> String {
    let line = std::str::from_utf8(line).unwrap().trim_end();
    match Command::parse(line).unwrap() {
        Command::Rdata(Rdata { stream, token, row, .. }) => {
            let token = token.map_or("batch".to_owned(), |token| token.to_string());
            format!("{token} {}", name_of(&Row::parse(&stream, row).unwrap()))
        }
        Command::Position(Position { prev, new, .. }) => format!("POSITION {prev} {new}"),
        other => panic!("a streamer does not send {other:?}"),
    }
}

#[test]
fn rows_that_share_a_token_are_sent_as_one_batch() {
    on_paused_clock(async {
        let me = writer_of("events");
        let connection = me.follower().await;
        me.write(11, &["p", "q", "r"]);
        me.write(12, &["s"]);
        assert_eq!(sent(&connection).await, ["batch p", "batch q", "11 r", "12 s"]);
    });
}

#[test]
fn a_row_that_was_dropped_before_it_was_sent_is_covered_by_a_position() {
    on_paused_clock(async {
        let me = writer_with("events", Delivery::Memory);
        let connection = me.follower().await;
        me.stream.forgotten_upto.set(Token(11));
        me.write(12, &["x"]);
        assert_eq!(sent(&connection).await, ["POSITION 12 12"], "each follower is behind, and fetches everything");
        me.stream.forgotten_upto.set(Token(12));
        me.write(13, &["y"]);
        assert_eq!(sent(&connection).await, ["13 y"], "they have reached 12");
    });
}

#[test]
fn replicate_is_answered_with_the_position_before_any_later_row() {
    on_paused_clock(async {
        let me = writer_of("events");
        let connection = connection(1);
        me.streamer.announce_to(&connection);
        me.write(11, &["x"]);
        assert_eq!(sent(&connection).await, ["POSITION 10 10", "11 x"]);
    });
}

#[test]
fn replicate_during_a_read_is_answered_so_that_the_position_or_a_row_covers_each_row() {
    on_paused_clock(async {
        let me = writer_of("events");
        let early = me.follower().await;
        me.stream.answer("me", [Answer::Late(SECOND)]);
        me.write(11, &["x"]);
        settle().await;
        let late = connection(2);
        me.streamer.announce_to(&late);
        tokio::time::sleep(2 * SECOND).await;
        me.write(12, &["y"]);
        assert_eq!(sent(&early).await, ["11 x", "12 y"]);
        assert_eq!(sent(&late).await, ["POSITION 11 11", "12 y"]);
    });
}

#[test]
fn a_position_spans_only_what_has_no_row() {
    on_paused_clock(async {
        let me = writer_of("events");
        let connection = me.follower().await;
        me.write(11, &["x"]);
        me.write(13, &["y"]);
        me.move_to(16);
        assert_eq!(sent(&connection).await, ["11 x", "13 y", "POSITION 13 16"]);
    });
}

#[test]
fn a_read_that_finds_no_rows_is_announced_as_a_position() {
    on_paused_clock(async {
        let me = writer_of("events");
        let connection = me.follower().await;
        me.stream.commit("me", 14, &["not settled yet"]);
        me.move_to(12);
        assert_eq!(sent(&connection).await, ["POSITION 10 12"]);
        assert_eq!(me.journal.fetched("me"), [(10, 12)]);
    });
}

#[test]
fn a_limited_answer_is_followed_by_the_rest() {
    on_paused_clock(async {
        let me = writer_of("events");
        let connection = me.follower().await;
        me.stream.answer("me", [Answer::Limited(1), Answer::Limited(1)]);
        for token in [11, 13, 14] {
            me.write(token, &["x", "y"]);
        }
        me.move_to(20);
        let rows = ["batch x", "11 y", "batch x", "13 y", "batch x", "14 y", "POSITION 14 20"];
        assert_eq!(sent(&connection).await, rows);
        assert_eq!(me.journal.fetched("me"), [(10, 20), (11, 20), (13, 20)]);
    });
}

/// Writes 200 rows, which are read one by one, and returns them as `connection` is sent them. It reads every millisecond.
async fn burst(me: &Writer, connection: &Connection) -> Vec<String> {
    me.stream.answer("me", std::iter::repeat_n(Answer::Limited(1), 199));
    for token in 11..=210 {
        me.stream.commit("me", token, &["x"]);
    }
    me.move_to(210);
    let mut rows = Vec::new();
    while rows.len() < 200 && connection.is_open() {
        rows.extend(sent(connection).await);
    }
    rows
}

/// Returns a follower for which at most 40 commands may wait.
async fn follower_of_40(me: &Writer, id: u64) -> Rc<Connection> {
    let connection = Connection::new(id, Role::Server, "follower", BTreeSet::new());
    let connection = Rc::new(connection.with_outbox(40, Rc::new(Noop)));
    me.streamer.announce_to(&connection);
    assert_eq!(sent(&connection).await, ["POSITION 10 10"]);
    connection
}

#[test]
fn a_burst_waits_for_a_follower_that_reads() {
    on_paused_clock(async {
        let me = writer_of("events");
        let connection = follower_of_40(&me, 1).await;
        let rows: Vec<_> = (11..=210).map(|token| format!("{token} x")).collect();
        assert_eq!(burst(&me, &connection).await, rows);
    });
}

#[test]
fn a_follower_that_does_not_read_holds_up_the_others_once_and_is_dropped() {
    on_paused_clock(async {
        let me = writer_of("events");
        let stuck = follower_of_40(&me, 2).await;
        let connection = me.follower().await;
        let began = Instant::now();
        assert_eq!(burst(&me, &connection).await.len(), 200);
        let took = began.elapsed();
        assert!(took >= ROOM_TIMEOUT && took < 2 * ROOM_TIMEOUT, "{took:?}");
        assert_eq!(stuck.outgoing().await.unwrap(), ["ERROR Failed to keep up\n"]);
    });
}

#[test]
fn a_failing_stream_is_read_again_and_delays_no_other() {
    on_paused_clock(async {
        let failing = writer_of("events");
        let other = writer_of("events");
        let failing_connection = failing.follower().await;
        let other_connection = other.follower().await;
        failing.stream.answer("me", std::iter::repeat_n(Answer::Failure, 3));
        failing.write(11, &["x"]);
        other.write(11, &["y"]);
        assert_eq!(sent(&other_connection).await, ["11 y"]);
        assert!(sent(&failing_connection).await.is_empty());
        tokio::time::sleep(SECOND).await;
        assert_eq!(sent(&failing_connection).await, ["11 x"]);
        assert_eq!(failing.journal.times("events", "event: streaming").len(), 3);
    });
}

#[test]
fn a_stream_that_keeps_failing_is_read_less_and_less_often_and_its_position_does_not_move() {
    on_paused_clock(async {
        let me = writer_of("events");
        let connection = me.follower().await;
        me.stream.answer("me", std::iter::repeat_n(Answer::Failure, 1000));
        me.write(11, &["x"]);
        tokio::time::sleep(60 * SECOND).await;
        let reads = me.journal.fetched("me").len();
        assert!((12..=24).contains(&reads), "read {reads} times in a minute");
        assert!(sent(&connection).await.iter().all(|line| line == "POSITION 10 10"), "heartbeats alone");
    });
}

#[test]
fn a_token_with_a_row_too_long_for_a_line_is_not_sent_and_every_follower_is_made_to_fetch_it() {
    on_paused_clock(async {
        let me = writer_of("events");
        let connection = me.follower().await;
        let too_long = "x".repeat(LINE_BYTES_MAX);
        me.write(11, &["fits"]);
        me.write(12, &["fits", &too_long, "fits too"]);
        me.write(13, &["fits"]);
        assert_eq!(sent(&connection).await, ["11 fits", "POSITION 13 13"]);
        me.write(14, &["later"]);
        assert_eq!(sent(&connection).await, ["14 later"]);
    });
}

#[test]
fn without_a_follower_the_position_moves_on_and_nothing_is_read() {
    on_paused_clock(async {
        let me = writer_of("events");
        me.write(11, &["x"]);
        settle().await;
        let connection = connection(1);
        me.streamer.announce_to(&connection);
        me.write(12, &["y"]);
        assert_eq!(sent(&connection).await, ["POSITION 11 11", "12 y"]);
        connection.closed();
        me.write(13, &["z"]);
        settle().await;
        assert_eq!(me.journal.fetched("me"), [(11, 12)]);
    });
}

#[test]
fn the_position_is_announced_every_five_seconds_even_if_nothing_happens() {
    on_paused_clock(async {
        let me = writer_of("events");
        let connection = me.follower().await;
        let mut announced = Vec::new();
        for second in 0..16 {
            announced.extend(sent(&connection).await.into_iter().map(|line| (second, line)));
            tokio::time::sleep(SECOND).await;
        }
        let position = "POSITION 10 10".to_owned();
        assert_eq!(announced, [(5, position.clone()), (10, position.clone()), (15, position)]);
    });
}

#[test]
fn pokes_do_not_put_off_the_heartbeat() {
    on_paused_clock(async {
        let me = writer_of("events");
        let connection = me.follower().await;
        for _ in 0..60 {
            tokio::time::sleep(SECOND / 10).await;
            me.streamer.poke();
        }
        assert_eq!(sent(&connection).await, ["POSITION 10 10"]);
    });
}

#[test]
fn a_position_moved_by_others_alone_is_announced_once_a_second_at_most_and_without_gaps() {
    on_paused_clock(async {
        let me = writer_of("events");
        let connection = me.follower().await;
        for step in 1..=40 {
            me.move_to(10 + step);
            tokio::time::sleep(SECOND / 10).await;
        }
        tokio::time::sleep(SECOND).await;
        let announced = sent(&connection).await;
        let mut last = "10".to_owned();
        let mut moves = 0;
        for line in &announced {
            let (prev, new) = line.strip_prefix("POSITION ").and_then(|range| range.split_once(' ')).unwrap();
            assert_eq!(prev, last, "{announced:?}");
            moves += usize::from(prev != new);
            last = new.to_owned();
        }
        assert_eq!(last, "50", "{announced:?}");
        assert!((4..=5).contains(&moves), "in five seconds: {announced:?}");
        assert!(me.journal.fetched("me").is_empty(), "there was nothing to read");
    });
}

#[test]
fn an_own_row_does_not_wait_for_the_announcement_of_others() {
    on_paused_clock(async {
        let me = writer_of("events");
        let connection = me.follower().await;
        me.move_to(12);
        me.write(13, &["x"]);
        assert_eq!(sent(&connection).await, ["13 x"]);
    });
}

#[test]
fn nothing_is_sent_twice() {
    on_paused_clock(async {
        let me = writer_of("events");
        let connection = me.follower().await;
        me.write(11, &["x"]);
        assert_eq!(sent(&connection).await, ["11 x"]);
        me.streamer.poke();
        me.streamer.announce_to(&connection);
        me.streamer.announce_to(&connection);
        me.write(12, &["y"]);
        assert_eq!(sent(&connection).await, ["POSITION 11 11", "POSITION 11 11", "12 y"]);
        tokio::time::sleep(6 * SECOND).await;
        assert_eq!(sent(&connection).await, ["POSITION 12 12"], "the heartbeat");
    });
}

#[test]
fn a_connection_that_closed_before_it_was_answered_is_sent_nothing() {
    on_paused_clock(async {
        let me = writer_of("events");
        let connection = connection(1);
        me.streamer.announce_to(&connection);
        connection.closed();
        me.write(11, &["x"]);
        settle().await;
        assert!(me.journal.fetched("me").is_empty() && me.streamer.following.borrow().is_empty());
    });
}

/// Returns a connection to publish on.
fn publisher(id: u64) -> Rc<Connection> {
    Rc::new(Connection::new(id, Role::Publisher, "the broker", BTreeSet::new()))
}

#[test]
fn all_requests_over_a_broker_share_one_answer() {
    on_paused_clock(async {
        let me = writer_of("events");
        let connection = publisher(1);
        for _ in 0..3 {
            me.streamer.announce_to(&connection);
        }
        assert_eq!(sent(&connection).await, ["POSITION 10 10"]);
        me.streamer.announce_to(&connection);
        me.write(11, &["x"]);
        assert_eq!(sent(&connection).await, ["POSITION 10 10", "11 x"], "a later request is answered too");
    });
}

#[test]
fn a_row_of_any_length_is_published() {
    on_paused_clock(async {
        let me = writer_of("events");
        let connection = publisher(1);
        me.streamer.announce_to(&connection);
        assert_eq!(sent(&connection).await, ["POSITION 10 10"]);
        let long = "x".repeat(LINE_BYTES_MAX);
        me.write(11, &[&long]);
        assert_eq!(sent(&connection).await, [format!("11 {long}")]);
    });
}
