//! What the tests of this module share: a stream whose source is in the test's hands, and an instance around it.
//!
//! Everything that the stream is asked for and everybody is told goes into one [`Journal`], because what matters is
//! often the order across the two: rows are taken in, then the position moves, then somebody is told.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Consumer, Consumers, Link, Side};
use crate::env::network::TokioNetwork;
use crate::env::observer::Trouble;
use crate::env::{Chance, Clock, Env, LocalBoxFuture, Observer, Scope};
use crate::protocol::{InstanceName, StreamName, Token};
use crate::streams::events::StateAllRow;
use crate::streams::{EventsRow, Promise, Row, Stream, UpdateError, Updates};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// Runs `test` in a world of its own, whose clock moves only when there is nothing else to do.
pub(super) fn on_paused_clock<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// Lets every task do what it can do now.
pub(super) async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// The row that is called `name`.
pub(super) fn row(name: &str) -> Row {
    Row::Events(EventsRow::StateAll(StateAllRow { room_id: name.into() }))
}

/// What `row` is called.
pub(super) fn name_of(row: &Row) -> &str {
    match row {
        Row::Events(EventsRow::StateAll(row)) => &row.room_id,
        other => panic!("not a row of these tests: {other:?}"),
    }
}

/// A connection to a writer, which is set up as soon as `events` is caught up with.
pub(super) fn link(id: u64) -> Rc<Link> {
    Rc::new(Link::new(id, Side::Client, "writer", BTreeSet::from(["events".into()])))
}

/// One thing that happened on an instance.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// The source was asked for the rows in `(from, upto]`.
    Asked(Token, Token),
    /// The stream took rows in.
    Took(Token, Vec<Row>),
    /// The stream's position moved.
    Advanced(Token),
    /// The stream forgot everything.
    Reset,
    /// Consumers were told where the feed begins.
    ToldBeginning(Token),
    /// Consumers were told of rows.
    ToldRows(Token, Vec<Row>),
    /// Consumers were told a position.
    ToldPosition(Token),
    /// Consumers were told that the writer started over.
    ToldReset,
    /// The observer was told of trouble of this kind.
    Trouble(&'static str),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |rows: &[Row]| rows.iter().map(name_of).collect::<Vec<_>>().join(" ");
        match self {
            Step::Asked(from, upto) => write!(f, "ask ({from}, {upto}]"),
            Step::Took(token, rows) => write!(f, "take {token}: {}", names(rows)),
            Step::Advanced(token) => write!(f, "advance {token}"),
            Step::Reset => write!(f, "reset"),
            Step::ToldBeginning(token) => write!(f, "tell beginning {token}"),
            Step::ToldRows(token, rows) => write!(f, "tell {token}: {}", names(rows)),
            Step::ToldPosition(token) => write!(f, "tell position {token}"),
            Step::ToldReset => write!(f, "tell reset"),
            Step::Trouble(kind) => write!(f, "trouble: {kind}"),
        }
    }
}

/// Everything that happened on one instance, in order: when, about whose rows, what.
#[derive(Clone, Default)]
pub(super) struct Journal {
    entries: Rc<RefCell<Vec<(Instant, InstanceName, Step)>>>,
}

impl Journal {
    fn add(&self, writer: &InstanceName, step: Step) {
        self.entries.borrow_mut().push((Instant::now(), writer.clone(), step));
    }

    fn map<T>(&self, writer: &str, entry: impl Fn(Instant, &Step) -> Option<T>) -> Vec<T> {
        let entries = self.entries.borrow();
        let of_writer = entries.iter().filter(|(_, of, _)| of.as_str() == writer);
        of_writer.filter_map(|(at, _, step)| entry(*at, step)).collect()
    }

    /// Forgets what happened so far.
    pub(super) fn clear(&self) {
        self.entries.borrow_mut().clear();
    }

    /// Every step about `writer`'s rows, in words.
    pub(super) fn story(&self, writer: &str) -> Vec<String> {
        self.map(writer, |_, step| Some(step.to_string()))
    }

    /// Every step about `writer`'s rows.
    pub(super) fn steps(&self, writer: &str) -> Vec<Step> {
        self.map(writer, |_, step| Some(step.clone()))
    }

    /// The rows that consumers were told of: `11: x y` for each token.
    pub(super) fn applied(&self, writer: &str) -> Vec<String> {
        self.map(writer, |_, step| match step {
            Step::ToldRows(..) => Some(step.to_string().replacen("tell ", "", 1)),
            _ => None,
        })
    }

    /// The ranges that the source was asked for.
    pub(super) fn asked(&self, writer: &str) -> Vec<(i64, i64)> {
        self.map(writer, |_, step| match step {
            Step::Asked(from, upto) => Some((from.0, upto.0)),
            _ => None,
        })
    }

    /// When each step happened whose words begin with `kind`.
    pub(super) fn times(&self, writer: &str, kind: &str) -> Vec<Instant> {
        self.map(writer, |at, step| step.to_string().starts_with(kind).then_some(at))
    }

    /// Consumers that write into this journal.
    pub(super) fn consumers(&self) -> Consumers {
        let consumers = Consumers::default();
        consumers.register(Rc::new(self.clone()));
        consumers
    }

    /// An instance's surroundings, whose observer writes into this journal.
    pub(super) fn env(&self) -> Env {
        let observer = Rc::new(self.clone());
        Env {
            network: Rc::new(TokioNetwork), // nothing here connects to anything
            clock: Rc::new(Noon),
            chance: Chance::from_seed(7),
            observer: observer.clone(),
            tasks: Scope::new(observer),
        }
    }
}

/// A clock that stands still.
struct Noon;

impl Clock for Noon {
    fn now_ms(&self) -> u64 {
        1_200
    }
}

impl Consumer for Journal {
    fn following(&self, _stream: &StreamName, writer: &InstanceName, position: Token) {
        self.add(writer, Step::ToldBeginning(position));
    }

    fn applied(&self, _stream: &StreamName, writer: &InstanceName, token: Token, rows: &[Row]) {
        self.add(writer, Step::ToldRows(token, rows.to_vec()));
    }

    fn positioned(&self, _stream: &StreamName, writer: &InstanceName, position: Token) {
        self.add(writer, Step::ToldPosition(position));
    }

    fn reset(&self, _stream: &StreamName, writer: &InstanceName) {
        self.add(writer, Step::ToldReset);
    }
}

impl Observer for Journal {
    fn trouble(&self, what: Trouble<'_>) {
        match what {
            Trouble::CatchUp { writer, .. } => self.add(writer, Step::Trouble("catch-up")),
            Trouble::Streaming { stream, .. } => self.add(&stream.as_str().into(), Step::Trouble("streaming")),
            Trouble::Row { stream, .. } => self.add(&stream.as_str().into(), Step::Trouble("row")),
            Trouble::Connection { peer, .. } => self.add(&peer.into(), Step::Trouble("connection")),
            Trouble::UnknownStream { stream, .. } => self.add(&stream.as_str().into(), Step::Trouble("unknown stream")),
        }
    }
}

/// What the source does when it is asked.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// It fails.
    Failure,
    /// It takes this long.
    Late(Duration),
    /// It returns the rows of this many tokens at most.
    Limited(usize),
    /// It knows nothing after this token, and says that this is all.
    Short(Token),
    /// It says that there is more, and returns nothing.
    Nothing,
}

/// A stream of which the test writes the rows and decides how the source answers.
pub(super) struct FakeStream {
    name: StreamName,
    promise: Promise,
    writers: Vec<InstanceName>,
    positions: RefCell<BTreeMap<InstanceName, Token>>,
    source: Rc<RefCell<BTreeMap<InstanceName, Source>>>,
    journal: Journal,
}

/// One writer's rows, wherever they are kept.
#[derive(Default)]
struct Source {
    rows: Vec<(Token, Row)>,
    /// How it answers the next questions. All others it answers at once and in full.
    answers: VecDeque<Answer>,
}

impl FakeStream {
    /// A stream that this instance has taken in up to 10.
    pub(super) fn new(name: &str, promise: Promise, writers: &[&str], journal: &Journal) -> Rc<Self> {
        let writers: Vec<InstanceName> = writers.iter().map(|writer| InstanceName::from(*writer)).collect();
        Rc::new(FakeStream {
            name: name.into(),
            promise,
            positions: RefCell::new(writers.iter().map(|writer| (writer.clone(), Token(10))).collect()),
            source: Rc::new(RefCell::new(writers.iter().map(|writer| (writer.clone(), Source::default())).collect())),
            writers,
            journal: journal.clone(),
        })
    }

    fn source<R>(&self, writer: &str, f: impl FnOnce(&mut Source) -> R) -> R {
        f(self.source.borrow_mut().get_mut(writer).expect("a writer of the stream"))
    }

    /// `writer` commits rows: from now on they can be had from the source.
    pub(super) fn commit(&self, writer: &str, token: i64, names: &[&str]) {
        self.source(writer, |source| source.rows.extend(names.iter().map(|name| (Token(token), row(name)))));
    }

    /// Another process of `writer` takes over, which has no rows.
    pub(super) fn forget(&self, writer: &str) {
        self.source(writer, |source| source.rows.clear());
    }

    /// The position moves on, as it does on the writer itself.
    pub(super) fn move_to(&self, writer: &str, token: i64) {
        self.positions.borrow_mut().insert(writer.into(), Token(token));
    }

    /// How the next questions for `writer`'s rows are answered.
    pub(super) fn answer(&self, writer: &str, answers: impl IntoIterator<Item = Answer>) {
        self.source(writer, |source| source.answers.extend(answers));
    }

    /// Forgets how questions were to be answered.
    pub(super) fn answer_well(&self, writer: &str) {
        self.source(writer, |source| source.answers.clear());
    }

    /// The tokens of `writer`'s rows, each once.
    pub(super) fn tokens(&self, writer: &str) -> Vec<Token> {
        let mut tokens: Vec<Token> =
            self.source(writer, |source| source.rows.iter().map(|(token, _)| *token).collect());
        tokens.dedup();
        tokens
    }

    /// Every row there is of `writer`, in the form of [`Journal::applied`].
    pub(super) fn committed(&self, writer: &str) -> Vec<String> {
        let rows = |source: &mut Source, token: Token| {
            let of_token = source.rows.iter().filter(|(of, _)| *of == token).map(|(_, row)| name_of(row));
            format!("{token}: {}", of_token.collect::<Vec<_>>().join(" "))
        };
        let tokens = self.tokens(writer);
        tokens.into_iter().map(|token| self.source(writer, |source| rows(source, token))).collect()
    }
}

impl Source {
    fn updates(&self, from: Token, upto: Token, tokens_max: usize) -> Updates {
        let in_range = |(token, _): &&(Token, Row)| from < *token && *token <= upto;
        let mut rows: Vec<_> = self.rows.iter().filter(in_range).cloned().collect();
        let tokens: BTreeSet<Token> = rows.iter().map(|(token, _)| *token).collect();
        match tokens.iter().nth(tokens_max.max(1) - 1) {
            Some(last) if tokens.len() > tokens_max => {
                rows.retain(|(token, _)| token <= last);
                Updates { rows, upto: *last, limited: true }
            }
            _ => Updates { rows, upto, limited: false },
        }
    }
}

impl Stream for FakeStream {
    fn name(&self) -> &StreamName {
        &self.name
    }

    fn promise(&self) -> Promise {
        self.promise
    }

    fn writers(&self) -> &[InstanceName] {
        &self.writers
    }

    fn position(&self, writer: &InstanceName) -> Token {
        self.positions.borrow()[writer]
    }

    fn written_upto(&self, writer: &InstanceName) -> Token {
        self.source(writer.as_str(), |source| source.rows.last().map_or(Token(0), |(token, _)| *token))
    }

    fn updates(
        &self,
        writer: &InstanceName,
        from: Token,
        upto: Token,
    ) -> LocalBoxFuture<'static, Result<Updates, UpdateError>> {
        self.journal.add(writer, Step::Asked(from, upto));
        let answer = self.source(writer.as_str(), |source| source.answers.pop_front());
        let (source, writer) = (Rc::clone(&self.source), writer.clone());
        Box::pin(async move {
            if let Some(Answer::Late(delay)) = answer {
                tokio::time::sleep(delay).await;
            }
            let sources = source.borrow();
            let source = &sources[&writer];
            match answer {
                Some(Answer::Failure) => Err("the source is out of reach".into()),
                Some(Answer::Limited(tokens_max)) => Ok(source.updates(from, upto, tokens_max)),
                Some(Answer::Short(last)) => Ok(source.updates(from, upto.min(last), usize::MAX)),
                Some(Answer::Nothing) => Ok(Updates { rows: Vec::new(), upto: from, limited: true }),
                Some(Answer::Late(_)) | None => Ok(source.updates(from, upto, usize::MAX)),
            }
        })
    }

    fn take(&self, writer: &InstanceName, token: Token, rows: &[Row]) {
        self.journal.add(writer, Step::Took(token, rows.to_vec()));
    }

    fn advance(&self, writer: &InstanceName, token: Token) {
        self.journal.add(writer, Step::Advanced(token));
        let mut positions = self.positions.borrow_mut();
        let position = positions.get_mut(writer).expect("a writer of the stream");
        *position = token.max(*position);
    }

    fn reset(&self, writer: &InstanceName) {
        self.journal.add(writer, Step::Reset);
        self.positions.borrow_mut().insert(writer.clone(), Token(0));
    }
}
