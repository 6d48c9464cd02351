//! Whatever becomes of connections, lines and fetches: a follower ends with exactly its writers' rows.
//!
//! Two model writers share one sequence of tokens. What each says is under way on its connection until it is
//! delivered, a few lines at a time, and lost with the connection; so batches arrive interleaved or by half. The model
//! keeps the one rule that a position never hides a row, and everything else is up to the handler and its feeds.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use super::testing::{Answer, FakeStream, Journal, SECOND, Step, on_paused_clock, settle};
use super::{CommandHandler, Link};
use crate::protocol::{Command, Token};
use crate::streams::{Promise, Stream};

const WRITERS: [&str; 2] = ["a", "b"];

/// What happens next, to the writer of this number.
#[derive(Debug, Clone)]
enum Happening {
    /// Commits this many rows under one token and sends them.
    Writes(usize),
    /// The same, and the last row arrives as one that is not understood.
    WritesGarbled(usize),
    /// The same, but a row is too long to be sent.
    WritesTooLong(usize),
    /// Somebody else took a token.
    MovesOn,
    /// Announces its position as it is.
    Announces,
    /// This many lines arrive.
    Delivers(usize),
    /// Its connection is lost, and everything on its way.
    Disconnects,
    /// A new connection is made. Without an announcement rows may come first, as they do over a broker.
    Connects { announced: bool },
    /// Its source will answer this, the next time it is asked.
    Answers(Answer),
    /// Time goes by.
    Waits(Duration),
}

fn happening() -> impl Strategy<Value = Happening> {
    let rows = 1_usize..4;
    let answers = [Answer::Failure, Answer::Limited(1), Answer::Limited(2), Answer::Short(Token(12)), Answer::Nothing];
    prop_oneof![
        8 => rows.clone().prop_map(Happening::Writes),
        1 => rows.clone().prop_map(Happening::WritesGarbled),
        1 => rows.prop_map(Happening::WritesTooLong),
        2 => Just(Happening::MovesOn),
        2 => Just(Happening::Announces),
        8 => (1_usize..6).prop_map(Happening::Delivers),
        2 => Just(Happening::Disconnects),
        4 => any::<bool>().prop_map(|announced| Happening::Connects { announced }),
        3 => select(answers.to_vec()).prop_map(Happening::Answers),
        1 => (1_u64..400).prop_map(|ms| Happening::Answers(Answer::Late(Duration::from_millis(ms)))),
        4 => (0_u64..300).prop_map(|ms| Happening::Waits(Duration::from_millis(ms))),
    ]
}

/// A writer, its connection to the follower, and what is on its way there.
struct Writer {
    name: &'static str,
    at: i64,
    link: Option<Rc<Link>>,
    under_way: VecDeque<String>,
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
    fn say(&mut self, line: String) {
        if self.link.is_some() {
            self.under_way.push_back(line);
        }
    }

    fn announce(&mut self, prev: i64) {
        self.say(format!("POSITION events {} {prev} {}", self.name, self.at));
    }
}

impl World {
    fn new() -> Self {
        let journal = Journal::default();
        let stream = FakeStream::new("events", Promise::Log, &WRITERS, &journal);
        let streams: Vec<Rc<dyn Stream>> = vec![stream.clone()];
        let (server_name, consumers, env) = ("squall.test".into(), journal.consumers(), journal.env());
        let handler = CommandHandler::new("me".into(), server_name, streams, consumers, env);
        let writers = WRITERS.map(|name| Writer { name, at: 10, link: None, under_way: VecDeque::new() });
        World { writers, last_token: 10, stream, handler, journal }
    }

    async fn happens(&mut self, index: usize, what: Happening) {
        match what {
            Happening::Writes(rows) => {
                let lines = self.write(index, rows);
                lines.into_iter().for_each(|line| self.writers[index].say(line));
            }
            Happening::WritesGarbled(rows) => {
                let mut lines = self.write(index, rows);
                let last = lines.last_mut().expect("there is at least one row");
                *last = last.replace("state-all", "garbled");
                lines.into_iter().for_each(|line| self.writers[index].say(line));
            }
            Happening::WritesTooLong(rows) => {
                self.write(index, rows);
                let writer = &mut self.writers[index];
                writer.announce(writer.at);
            }
            Happening::MovesOn => {
                let prev = self.writers[index].at;
                self.next_token(index);
                self.writers[index].announce(prev);
            }
            Happening::Announces => {
                let writer = &mut self.writers[index];
                writer.announce(writer.at);
            }
            Happening::Delivers(lines) => self.deliver(index, lines),
            Happening::Disconnects => {
                let writer = &mut self.writers[index];
                writer.under_way.clear();
                if let Some(link) = writer.link.take() {
                    link.closed();
                    self.handler.lost(&link);
                }
            }
            Happening::Connects { announced } => {
                let writer = &mut self.writers[index];
                if writer.link.is_none() {
                    writer.link = Some(self.handler.opened(Some(&writer.name.into())));
                    if announced {
                        writer.announce(writer.at);
                    }
                }
            }
            Happening::Answers(answer) => self.stream.answer(self.writers[index].name, [answer]),
            Happening::Waits(time) => tokio::time::sleep(time).await,
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
        let token = |row| if row + 1 == rows { at.to_string() } else { "batch".into() };
        let line = |(row, text)| format!(r#"RDATA events {name} {} ["state-all",["{text}"]]"#, token(row));
        names.iter().enumerate().map(line).collect()
    }

    fn deliver(&mut self, index: usize, lines: usize) {
        let Writer { link, under_way, .. } = &mut self.writers[index];
        let Some(link) = link else { return };
        for line in under_way.drain(..lines.min(under_way.len())) {
            self.handler.received(link, Command::parse(&line).expect("the model speaks the protocol"));
        }
    }

    /// The weather is fine again: every source answers, every writer is connected and announces its position.
    async fn calm_down(&mut self) {
        for (index, writer) in WRITERS.into_iter().enumerate() {
            self.stream.answer_well(writer);
            self.happens(index, Happening::Connects { announced: true }).await;
            self.happens(index, Happening::Announces).await;
            self.deliver(index, usize::MAX);
        }
        tokio::time::sleep(60 * SECOND).await;
    }

    /// Nowhere was a position told over a row that had not been applied.
    fn check_positions(&self, writer: &str) -> Result<(), TestCaseError> {
        let mut to_come: VecDeque<Token> = self.stream.tokens(writer).into();
        for step in self.journal.steps(writer) {
            match step {
                Step::ToldRows(token, _) => prop_assert_eq!(to_come.pop_front(), Some(token)),
                Step::ToldPosition(position) => {
                    let hidden = to_come.front().filter(|token| **token <= position);
                    prop_assert_eq!(hidden, None, "{} was told over a row of {}", position, writer);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

async fn check(happenings: Vec<(usize, Happening)>) -> Result<(), TestCaseError> {
    let mut world = World::new();
    for (index, what) in happenings {
        world.happens(index, what).await;
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
        happenings in prop::collection::vec((0..WRITERS.len(), happening()), 0..100)
    ) {
        on_paused_clock(check(happenings))?;
    }
}
