//! A property test: under random failures of connections, lines and fetches, a follower ends with exactly its writers'
//! rows.
//!
//! Two model writers share one sequence of tokens. A writer's lines are in transit on its connection until they are
//! delivered, a few at a time, and are lost with the connection. So batches arrive interleaved or incomplete. The model
//! keeps one rule, that a position never hides a row. The rest is up to the handler and its followers.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use super::testing::{Answer, FakeStream, Journal, SECOND, Step, on_paused_clock, settle};
use super::{CommandHandler, Connection};
use crate::limits::Limits;
use crate::streams::Stream;
use squall_protocol::{Command, Delivery, Token};

const WRITERS: [&str; 2] = ["a", "b"];

/// One action of a model writer, its connection or its source.
#[derive(Debug, Clone)]
enum Action {
    /// Commits this many rows under one token and sends them.
    Writes(usize),
    /// The same, and the last row arrives as one that cannot be parsed.
    WritesGarbled(usize),
    /// The same, but a row is too long to be sent.
    WritesTooLong(usize),
    /// Moves the position past a token of another writer.
    MovesOn,
    /// Announces its position as it is.
    Announces,
    /// Delivers this many lines.
    Delivers(usize),
    /// Loses the connection, and every line in transit.
    Disconnects,
    /// Makes a new connection. Without an announcement rows may arrive first, as they do over a broker.
    Connects { announced: bool },
    /// Sets the behaviour of the source in the next fetch.
    Answers(Answer),
    /// Lets time pass.
    Waits(Duration),
}

fn action() -> impl Strategy<Value = Action> {
    let rows = 1_usize..4;
    let answers = [Answer::Failure, Answer::Limited(1), Answer::Limited(2), Answer::Short(Token(12)), Answer::Nothing];
    prop_oneof![
        8 => rows.clone().prop_map(Action::Writes),
        1 => rows.clone().prop_map(Action::WritesGarbled),
        1 => rows.prop_map(Action::WritesTooLong),
        2 => Just(Action::MovesOn),
        2 => Just(Action::Announces),
        8 => (1_usize..6).prop_map(Action::Delivers),
        2 => Just(Action::Disconnects),
        4 => any::<bool>().prop_map(|announced| Action::Connects { announced }),
        3 => select(answers.to_vec()).prop_map(Action::Answers),
        1 => (1_u64..400).prop_map(|ms| Action::Answers(Answer::Late(Duration::from_millis(ms)))),
        4 => (0_u64..300).prop_map(|ms| Action::Waits(Duration::from_millis(ms))),
    ]
}

/// A writer, its connection to the follower, and the lines in transit on it.
struct Writer {
    name: &'static str,
    at: i64,
    connection: Option<Rc<Connection>>,
    in_transit: VecDeque<String>,
}

/// Two writers and the follower `me`.
struct World {
    writers: [Writer; 2],
    last_token: i64,
    stream: Rc<FakeStream>,
    handler: Rc<CommandHandler>,
    journal: Journal,
}

impl Writer {
    fn send_line(&mut self, line: String) {
        if self.connection.is_some() {
            self.in_transit.push_back(line);
        }
    }

    fn announce(&mut self, prev: i64) {
        self.send_line(format!("POSITION events {} {prev} {}", self.name, self.at));
    }
}

impl World {
    fn new() -> Self {
        let journal = Journal::default();
        let stream = FakeStream::new("events", Delivery::Log, &WRITERS, &journal);
        let streams: Vec<Rc<dyn Stream>> = vec![stream.clone()];
        let server_name = "squall.test".into();
        let consumers = journal.consumers();
        let env = journal.env();
        let handler = CommandHandler::new("me".into(), server_name, streams, consumers, Limits::default(), env);
        let writers = WRITERS.map(|name| Writer { name, at: 10, connection: None, in_transit: VecDeque::new() });
        World { writers, last_token: 10, stream, handler, journal }
    }

    async fn act(&mut self, index: usize, action: Action) {
        match action {
            Action::Writes(rows) => {
                let lines = self.write(index, rows);
                for line in lines {
                    self.writers[index].send_line(line);
                }
            }
            Action::WritesGarbled(rows) => {
                let mut lines = self.write(index, rows);
                let last = lines.last_mut().expect("there is at least one row");
                *last = last.replace("state-all", "garbled");
                for line in lines {
                    self.writers[index].send_line(line);
                }
            }
            Action::WritesTooLong(rows) => {
                self.write(index, rows);
                let writer = &mut self.writers[index];
                writer.announce(writer.at);
            }
            Action::MovesOn => {
                let prev = self.writers[index].at;
                self.next_token(index);
                self.writers[index].announce(prev);
            }
            Action::Announces => {
                let writer = &mut self.writers[index];
                writer.announce(writer.at);
            }
            Action::Delivers(lines) => self.deliver(index, lines),
            Action::Disconnects => {
                let writer = &mut self.writers[index];
                writer.in_transit.clear();
                if let Some(connection) = writer.connection.take() {
                    connection.closed();
                    self.handler.lost(&connection);
                }
            }
            Action::Connects { announced } => {
                let writer = &mut self.writers[index];
                if writer.connection.is_none() {
                    writer.connection = Some(self.handler.opened(Some(&writer.name.into())));
                    if announced {
                        writer.announce(writer.at);
                    }
                }
            }
            Action::Answers(answer) => self.stream.answer(self.writers[index].name, [answer]),
            Action::Waits(time) => tokio::time::sleep(time).await,
        }
    }

    fn next_token(&mut self, index: usize) {
        self.last_token += 1;
        self.writers[index].at = self.last_token;
    }

    /// Commits rows under a new token and returns their lines.
    fn write(&mut self, index: usize, rows: usize) -> Vec<String> {
        self.next_token(index);
        let Writer { name, at, .. } = self.writers[index];
        let names: Vec<String> = (0..rows).map(|row| format!("{name}{at}.{row}")).collect();
        self.stream.commit(name, at, &names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut lines = Vec::with_capacity(rows);
        for (row, text) in names.iter().enumerate() {
            let token = if row + 1 == rows { at.to_string() } else { "batch".into() };
            lines.push(format!(r#"RDATA events {name} {token} ["state-all",["{text}"]]"#));
        }
        lines
    }

    fn deliver(&mut self, index: usize, lines: usize) {
        let Writer { connection, in_transit, .. } = &mut self.writers[index];
        let Some(connection) = connection else { return };
        for line in in_transit.drain(..lines.min(in_transit.len())) {
            self.handler.received(connection, Command::parse(&line).expect("the model speaks the protocol"));
        }
    }

    /// Ends all failures: every source answers, and every writer is connected and announces its position.
    async fn calm_down(&mut self) {
        for (index, writer) in WRITERS.into_iter().enumerate() {
            self.stream.answer_well(writer);
            self.act(index, Action::Connects { announced: true }).await;
            self.act(index, Action::Announces).await;
            self.deliver(index, usize::MAX);
        }
        tokio::time::sleep(60 * SECOND).await;
    }

    /// Checks that no position was announced to consumers past a row that had not been applied.
    fn check_positions(&self, writer: &str) -> Result<(), TestCaseError> {
        let mut to_come: VecDeque<Token> = self.stream.tokens(writer).into();
        for step in self.journal.steps(writer) {
            match step {
                Step::NotifiedRows(token, _) => prop_assert_eq!(to_come.pop_front(), Some(token)),
                Step::NotifiedPosition(position) => {
                    let hidden = to_come.front().filter(|token| **token <= position);
                    prop_assert_eq!(hidden, None, "position {} was announced past a row of {}", position, writer);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

async fn check(actions: Vec<(usize, Action)>) -> Result<(), TestCaseError> {
    let mut world = World::new();
    for (index, action) in actions {
        world.act(index, action).await;
    }
    settle().await;
    world.calm_down().await;
    for writer in &world.writers {
        prop_assert_eq!(world.journal.applied(writer.name), world.stream.committed(writer.name));
        prop_assert_eq!(world.stream.position(&writer.name.into()), Token(writer.at));
        world.check_positions(writer.name)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_follower_ends_with_exactly_its_writers_rows(
        actions in prop::collection::vec((0..WRITERS.len(), action()), 0..100)
    ) {
        on_paused_clock(check(actions))?;
    }
}
