//! The recorded traffic, given to the real command handler.
//!
//! Every row of Squall's streams must be applied, and the rest must do no harm: twelve streams that Squall does not have,
//! and commands that the handler ignores. Before a row is sent, it is written to its writer's store, so that the handler
//! can catch up at any time.

use std::collections::BTreeMap;
use std::time::Duration;

use squall::store::SOURCES;
use squall::streams;
use squall_protocol::rows::{AccountDataRow, EventsRow, Row};
use squall_protocol::{Command, Delivery, InstanceName, Position, StreamName, Token};
use tokio::time::Instant;

use crate::follower::{Applied, Follower, writers_of};
use crate::recording;
use crate::written::Written;

/// The rows and the position that one writer of one stream sent.
#[derive(Default)]
struct Sent {
    /// The rows of each token, once, even if they were sent again.
    tokens: Vec<Applied>,
    batch: Vec<Row>,
    last_token: Token,
}

/// A recorded payload with its time.
struct Step {
    at: Duration,
    line: u64,
    command: Command,
}

struct Recording {
    steps: Vec<Step>,
    /// Every row and the last token of each writer of each of Squall's streams.
    sent: BTreeMap<(StreamName, InstanceName), Sent>,
    /// Rows and positions of the other streams.
    of_others: BTreeMap<StreamName, (u64, u64)>,
}

/// Returns true if an instance of Squall has the stream.
fn is_of_squall(stream: &StreamName) -> bool {
    streams::names().any(|name| name == stream.as_str())
}

fn recording() -> Recording {
    let mut steps = Vec::new();
    let mut sent = BTreeMap::<_, Sent>::new();
    let mut of_others = BTreeMap::new();
    for recorded in recording::redis() {
        let command = Command::parse(recorded.text().unwrap()).unwrap();
        match &command {
            Command::Rdata(rdata) if is_of_squall(&rdata.stream) => {
                let sent = sent.entry((rdata.stream.clone(), rdata.writer.clone())).or_default();
                sent.batch.push(Row::parse(&rdata.stream, rdata.row.clone()).unwrap());
                if let Some(token) = rdata.token {
                    let rows = std::mem::take(&mut sent.batch);
                    if sent.tokens.is_empty() || sent.last_token < token {
                        sent.tokens.push((token, rows));
                        sent.last_token = token;
                    } else {
                        assert!(sent.tokens.contains(&(token, rows)), "line {}", recorded.line);
                    }
                }
            }
            Command::Position(position) if is_of_squall(&position.stream) => {
                sent.entry((position.stream.clone(), position.writer.clone())).or_default().last_token = position.new;
            }
            Command::Rdata(rdata) => of_others.entry(rdata.stream.clone()).or_insert((0, 0)).0 += 1,
            Command::Position(position) => of_others.entry(position.stream.clone()).or_insert((0, 0)).1 += 1,
            _ => {}
        }
        let at = Duration::from_millis(recorded.at.unwrap().0);
        steps.push(Step { at, line: recorded.line, command });
    }
    Recording { steps, sent, of_others }
}

/// Returns the positions of Squall's streams before the recording, as their writers would have answered a REPLICATE.
fn positions_before(recording: &Recording) -> Vec<Command> {
    let mut positions = Vec::new();
    for stream in streams::names() {
        let rows =
            recording.sent.iter().filter(|((of, _), _)| of.as_str() == stream).flat_map(|(_, sent)| &sent.tokens);
        let first = rows.map(|(token, _)| *token).min().expect("every stream has rows").prev();
        for writer in writers_of(stream) {
            positions.push(Command::Position(Position { stream: stream.into(), writer, prev: first, new: first }));
        }
    }
    positions
}

/// The open batches of the writers. Each row is written to its writer's store before it is sent.
#[derive(Default)]
struct Writers {
    batches: BTreeMap<(StreamName, InstanceName), Vec<Row>>,
}

impl Writers {
    fn write(&mut self, command: &Command, written: &Written) {
        match command {
            Command::Rdata(rdata) if is_of_squall(&rdata.stream) => {
                let batch = self.batches.entry((rdata.stream.clone(), rdata.writer.clone())).or_default();
                batch.push(Row::parse(&rdata.stream, rdata.row.clone()).unwrap());
                if let Some(token) = rdata.token {
                    written.write(&rdata.writer, token, &std::mem::take(batch));
                }
            }
            Command::Position(position) if position.stream.as_str() == "typing" => written.typing_is_at(position.new),
            _ => {}
        }
    }
}

/// Plays the recording to an instance that connects when the payload on `line` comes.
///
/// An instance that connects on line 1 first receives the position of every writer, because the recording has none.
fn play(line: u64) -> (Recording, Written, Follower) {
    let recording = recording();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let written = Written::empty();
    let local = tokio::task::LocalSet::new();
    let follower = local.block_on(&runtime, async {
        let follower = Follower::start(&written).await;
        let mut writers = Writers::default();
        let mut connection = None;
        let began = Instant::now();
        for step in &recording.steps {
            tokio::time::sleep_until(began + step.at).await;
            if step.line == line {
                let opened = &*connection.insert(follower.connect());
                if line == 1 {
                    for position in positions_before(&recording) {
                        follower.receive(opened, &position);
                    }
                }
            }
            writers.write(&step.command, &written);
            if let Some(connection) = &connection {
                follower.receive(connection, &step.command);
            }
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(connection.is_some_and(|connection| connection.is_open()), "no payload closes the connection");
        follower
    });
    assert_eq!(*follower.journal.events.borrow(), Vec::<String>::new());
    (recording, written, follower)
}

fn check_positions(recording: &Recording, follower: &Follower) {
    // Every configured writer of every stream sent something.
    let configured: usize = streams::names().map(|stream| writers_of(stream).len()).sum();
    assert_eq!(recording.sent.len(), configured);
    for ((stream, writer), sent) in &recording.sent {
        let position = follower.handler.position(stream.as_str(), writer);
        assert_eq!(position, Some(sent.last_token), "{stream} of {writer}");
    }
}

/// Sorts the rows of each token.
fn in_order(mut tokens: Vec<Applied>) -> Vec<Applied> {
    for (_, rows) in &mut tokens {
        let is_state = |row: &Row| !matches!(row, Row::Events(EventsRow::Event(_)));
        assert!(rows.is_sorted_by_key(is_state), "events come before the state rows that they cause");
        rows.sort();
    }
    tokens
}

/// Checks that the applied rows are the sent ones, and names the first token that differs.
fn check_rows(applied: &[Applied], sent: &[Applied], what: &str) {
    let differs = applied.iter().zip(sent).find(|(applied, sent)| applied != sent);
    if let Some((applied, sent)) = differs {
        panic!("{what}: applied {applied:?} where {sent:?} was sent");
    }
    let tokens = |rows: &[Applied]| rows.iter().map(|(token, _)| token.0).collect::<Vec<_>>();
    assert_eq!(tokens(applied), tokens(sent), "{what}");
}

fn delivery_of(stream: &str) -> Delivery {
    SOURCES.iter().find(|source| source.name == stream).map_or(Delivery::Memory, |source| source.delivery)
}

/// Returns the last row of each key, with its token.
fn newest(applied: &[Applied]) -> BTreeMap<String, (Token, &Row)> {
    let rows = applied.iter().flat_map(|(token, rows)| rows.iter().map(|row| (*token, row)));
    rows.map(|(token, row)| (key(row), (token, row))).collect()
}

/// Checks that the users who type are those of the last row of each room.
fn check_typing(follower: &Follower, sent: &Sent, what: &str) {
    let last = sent.tokens.iter().flat_map(|(_, rows)| rows).filter_map(|row| match row {
        Row::Typing(row) => Some((row.room_id.clone(), row.user_ids.clone())),
        _ => None,
    });
    for (room_id, user_ids) in last.collect::<BTreeMap<_, _>>() {
        assert_eq!(follower.typing.typing_in(&room_id), user_ids, "{what}: {room_id}");
    }
}

fn key(row: &Row) -> String {
    match row {
        Row::AccountData(AccountDataRow { user_id, room_id, kind }) => format!("{user_id} {room_id:?} {kind}"),
        Row::Presence(row) => row.user_id.clone(),
        Row::Receipts(row) => format!("{} {} {} {:?}", row.room_id, row.kind, row.user_id, row.thread_id),
        Row::ToDevice(row) => row.entity.clone(),
        Row::Typing(row) => row.room_id.clone(),
        row => panic!("{} has no keys", row.stream()),
    }
}

#[test]
fn an_instance_that_receives_everything_applies_every_row() {
    let (recording, _, follower) = play(1);
    check_positions(&recording, &follower);
    let mut rows = 0;
    for ((stream, writer), sent) in &recording.sent {
        let applied = follower.applied(stream.as_str(), writer.as_str());
        let what = format!("{stream} of {writer}");
        if delivery_of(stream.as_str()) == Delivery::Memory {
            // The writer announced position 9 and never sent its row, so everything was fetched again.
            check_typing(&follower, sent, &what);
            assert!(applied.len() > sent.tokens.len(), "{what}");
        } else {
            check_rows(&applied, &sent.tokens, &what);
        }
        rows += sent.tokens.iter().map(|(_, rows)| rows.len()).sum::<usize>();
    }
    // 3 853 rows of these streams were published, 70 of them a second time.
    assert_eq!(rows, 3_783);
    // Once on connecting, once when the writer of typing had been killed, and once for the row that it had not sent.
    assert_eq!(follower.journal.resets.get(), 3);
}

#[test]
fn an_instance_that_connects_while_processes_restart_catches_up() {
    let all = recording();
    let replicates: Vec<u64> =
        all.steps.iter().filter(|step| step.command == Command::Replicate).map(|step| step.line).collect();
    assert_eq!(replicates, [3_535, 3_927, 4_105, 4_560, 4_687, 4_878]);
    for line in replicates {
        let (recording, written, follower) = play(line);
        check_positions(&recording, &follower);
        for ((stream, writer), sent) in &recording.sent {
            let applied = follower.applied(stream.as_str(), writer.as_str());
            let what = format!("{stream} of {writer}, connected on line {line}");
            match delivery_of(stream.as_str()) {
                // The rows of one token and type may come in any order.
                Delivery::Log => check_rows(&in_order(applied), &in_order(sent.tokens.clone()), &what),
                Delivery::Keyed => assert_eq!(newest(&applied), newest(&sent.tokens), "{what}"),
                Delivery::Memory => check_typing(&follower, sent, &what),
            }
        }
        // The rows before that came from the database, for each stream.
        assert!(
            SOURCES.iter().all(|source| written.transactions().contains(source.transaction)),
            "{:?}",
            written.transactions()
        );
    }
}

/// The streams of Synapse that Squall does not have, with the rows and positions of the recording.
const NOT_OF_SQUALL: [(&str, u64, u64); 12] = [
    ("backfill", 0, 13),
    ("device_lists", 51, 8),
    ("federation", 0, 7),
    ("presence_federation", 0, 8),
    ("profile_updates", 0, 13),
    ("push_rules", 6, 8),
    ("pushers", 3, 9),
    ("quarantined_media", 3, 7),
    ("sticky_events", 2, 15),
    ("thread_subscriptions", 4, 8),
    ("un_partial_stated_event", 0, 7),
    ("un_partial_stated_room", 0, 7),
];

#[test]
fn the_handler_passes_over_twelve_streams_and_reports_each_row_and_position_of_them() {
    let (recording, _, follower) = play(1);
    let of_others = recording.of_others.iter().map(|(stream, (rows, positions))| (stream.as_str(), *rows, *positions));
    assert_eq!(of_others.collect::<Vec<_>>(), NOT_OF_SQUALL);
    let reported = follower.journal.unknown_streams.borrow();
    let reported: Vec<_> = reported.iter().map(|(stream, times)| (stream.as_str(), *times)).collect();
    assert_eq!(reported, NOT_OF_SQUALL.map(|(stream, rows, positions)| (stream, rows + positions)));
}
