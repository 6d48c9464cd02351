//! The recorded traffic, heard by the real command handler.
//!
//! Whatever of it concerns Squall's streams must arrive, and all the rest must harm nothing: twelve streams that Squall
//! does not have, and commands that are nobody's business here. Before a row is told of, it is written to where its writer
//! would have it, so that the handler may catch up whenever it thinks it has to.

use std::collections::BTreeMap;
use std::time::Duration;

use squall::protocol::{Command, InstanceName, Position, StreamName, Token};
use squall::streams::{EventsRow, NAMES, Promise, Row, SOURCES};
use tokio::time::Instant;

use crate::follower::{Applied, Follower, writers_of};
use crate::recording;
use crate::written::Written;

/// What the recording says of one writer's part of one stream.
#[derive(Default)]
struct Told {
    /// The rows of each token, once: what was told again is not told twice.
    tokens: Vec<Applied>,
    batch: Vec<Row>,
    last_token: Token,
}

/// A recorded payload, when it came, and what had been written before.
struct Step {
    at: Duration,
    line: u64,
    command: Command,
}

struct Recording {
    steps: Vec<Step>,
    /// Every row and the last token of each writer of each of Squall's streams.
    told: BTreeMap<(StreamName, InstanceName), Told>,
    /// Rows and positions of the other streams.
    of_others: BTreeMap<StreamName, (u64, u64)>,
}

fn recording() -> Recording {
    let (mut steps, mut told, mut of_others) = (Vec::new(), BTreeMap::<_, Told>::new(), BTreeMap::new());
    for recorded in recording::redis() {
        let command = Command::parse(recorded.text().unwrap()).unwrap();
        match &command {
            Command::Rdata(rdata) if NAMES.contains(&rdata.stream.as_str()) => {
                let told = told.entry((rdata.stream.clone(), rdata.writer.clone())).or_default();
                told.batch.push(Row::parse(&rdata.stream, rdata.row.clone()).unwrap());
                if let Some(token) = rdata.token {
                    let rows = std::mem::take(&mut told.batch);
                    if told.tokens.is_empty() || told.last_token < token {
                        told.tokens.push((token, rows));
                        told.last_token = token;
                    } else {
                        assert!(told.tokens.contains(&(token, rows)), "line {}", recorded.line);
                    }
                }
            }
            Command::Position(position) if NAMES.contains(&position.stream.as_str()) => {
                told.entry((position.stream.clone(), position.writer.clone())).or_default().last_token = position.new;
            }
            Command::Rdata(rdata) => of_others.entry(rdata.stream.clone()).or_insert((0, 0)).0 += 1,
            Command::Position(position) => of_others.entry(position.stream.clone()).or_insert((0, 0)).1 += 1,
            _ => {}
        }
        let at = Duration::from_millis(recorded.at.unwrap().0);
        steps.push(Step { at, line: recorded.line, command });
    }
    Recording { steps, told, of_others }
}

/// What the writers of Squall's streams stood at before the recording began, as they would have told whoever asked.
fn positions_before(recording: &Recording) -> Vec<Command> {
    let mut positions = Vec::new();
    for stream in NAMES {
        let rows =
            recording.told.iter().filter(|((of, _), _)| of.as_str() == stream).flat_map(|(_, told)| &told.tokens);
        let first = rows.map(|(token, _)| *token).min().expect("every stream has rows").prev();
        for writer in writers_of(stream) {
            positions.push(Command::Position(Position { stream: stream.into(), writer, prev: first, new: first }));
        }
    }
    positions
}

/// Keeps what the writers have up to date with what they are about to tell.
#[derive(Default)]
struct Writers {
    batches: BTreeMap<(StreamName, InstanceName), Vec<Row>>,
}

impl Writers {
    fn write(&mut self, command: &Command, written: &Written) {
        match command {
            Command::Rdata(rdata) if NAMES.contains(&rdata.stream.as_str()) => {
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

/// Plays the recording to an instance that connects when the payload on `line` comes, and to nobody before. Whoever
/// connects at the very beginning is told where everybody stands, because the recording does not say.
fn play(line: u64) -> (Recording, Written, Follower) {
    let recording = recording();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let written = Written::nothing();
    let local = tokio::task::LocalSet::new();
    let follower = local.block_on(&runtime, async {
        let follower = Follower::start(&written).await;
        let mut writers = Writers::default();
        let mut link = None;
        let began = Instant::now();
        for step in &recording.steps {
            tokio::time::sleep_until(began + step.at).await;
            if step.line == line {
                let opened = &*link.insert(follower.connect());
                if line == 1 {
                    positions_before(&recording).iter().for_each(|position| follower.hear(opened, position));
                }
            }
            writers.write(&step.command, &written);
            if let Some(link) = &link {
                follower.hear(link, &step.command);
            }
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(link.is_some_and(|link| link.is_open()), "nothing of it is a reason to hang up");
        follower
    });
    assert_eq!(*follower.journal.troubles.borrow(), Vec::<String>::new());
    (recording, written, follower)
}

fn check_positions(recording: &Recording, follower: &Follower) {
    // Every configured writer of every stream was heard of.
    let configured: usize = NAMES.iter().map(|stream| writers_of(stream).len()).sum();
    assert_eq!(recording.told.len(), configured);
    for ((stream, writer), told) in &recording.told {
        let position = follower.handler.position(stream.as_str(), writer);
        assert_eq!(position, Some(told.last_token), "{stream} of {writer}");
    }
}

/// The same with the rows of each token in an order of their own.
fn in_order(mut tokens: Vec<Applied>) -> Vec<Applied> {
    for (_, rows) in &mut tokens {
        let is_state = |row: &Row| !matches!(row, Row::Events(EventsRow::Event(_)));
        assert!(rows.is_sorted_by_key(is_state), "events come before what they make of the state");
        rows.sort();
    }
    tokens
}

/// Checks that the same was applied as was told; names the first token that differs.
fn check_rows(applied: &[Applied], told: &[Applied], what: &str) {
    let differs = applied.iter().zip(told).find(|(applied, told)| applied != told);
    if let Some((applied, told)) = differs {
        panic!("{what}: applied {applied:?} where {told:?} was told");
    }
    let tokens = |rows: &[Applied]| rows.iter().map(|(token, _)| token.0).collect::<Vec<_>>();
    assert_eq!(tokens(applied), tokens(told), "{what}");
}

fn promise_of(stream: &str) -> Promise {
    SOURCES.iter().find(|source| source.name == stream).map_or(Promise::Memory, |source| source.promise)
}

/// The last row of each key, with its token.
fn newest(applied: &[Applied]) -> BTreeMap<String, (Token, &Row)> {
    let rows = applied.iter().flat_map(|(token, rows)| rows.iter().map(|row| (*token, row)));
    rows.map(|(token, row)| (row.key().expect("the stream has keys"), (token, row))).collect()
}

#[test]
fn whoever_hears_all_of_it_applies_every_row_once_and_ends_where_it_ends() {
    let (recording, _, follower) = play(1);
    check_positions(&recording, &follower);
    let mut rows = 0;
    for ((stream, writer), told) in &recording.told {
        let applied = follower.applied(stream.as_str(), writer.as_str());
        check_rows(&applied, &told.tokens, &format!("{stream} of {writer}"));
        rows += applied.iter().map(|(_, rows)| rows.len()).sum::<usize>();
    }
    // 3 853 rows of these streams were published, 70 of them a second time.
    assert_eq!(rows, 3_783);
    // Once on connecting, and once when the writer of typing had been killed.
    assert_eq!(follower.journal.resets.get(), 2);
}

#[test]
fn whoever_connects_while_processes_restart_catches_up_and_ends_where_it_ends() {
    let all = recording();
    let replicates: Vec<u64> =
        all.steps.iter().filter(|step| step.command == Command::Replicate).map(|step| step.line).collect();
    assert_eq!(replicates, [3_535, 3_927, 4_105, 4_560, 4_687, 4_878]);
    for line in replicates {
        let (recording, written, follower) = play(line);
        check_positions(&recording, &follower);
        for ((stream, writer), told) in &recording.told {
            let applied = follower.applied(stream.as_str(), writer.as_str());
            let what = format!("{stream} of {writer}, connected on line {line}");
            match promise_of(stream.as_str()) {
                // Of the rows of one token and type, no order is promised.
                Promise::Log => check_rows(&in_order(applied), &in_order(told.tokens.clone()), &what),
                Promise::Keyed => assert_eq!(newest(&applied), newest(&told.tokens), "{what}"),
                Promise::Memory => {
                    let last = told.tokens.iter().flat_map(|(_, rows)| rows).filter_map(|row| match row {
                        Row::Typing(row) => Some((row.room_id.clone(), row.user_ids.clone())),
                        _ => None,
                    });
                    for (room_id, user_ids) in last.collect::<BTreeMap<_, _>>() {
                        assert_eq!(follower.typing.typing_in(&room_id), user_ids, "{what}: {room_id}");
                    }
                }
            }
        }
        // Everything before came from the database, of each stream.
        assert!(SOURCES.iter().all(|source| written.asked().contains(source.transaction)), "{:?}", written.asked());
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
