//! Shared by the tests of this module: a stream whose source the test controls, and an instance around it.
//!
//! Every call to the stream and every notification of a consumer goes into one [`Journal`], because the order across the
//! two often matters: rows are applied, then the position moves, then the consumers are notified.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Connection, Consumer, Consumers};
use crate::observer::InstanceEvent;
use crate::observer::{Env, Observer};
use crate::store::Checked;
use crate::streams::{Stream, UpdateError};
use squall_env::TaskObserver;
use squall_env::network::TokioNetwork;
use squall_env::{Clock, LocalBoxFuture, SeedTree, TaskSpawner};
use squall_protocol::rows::events::StateAllRow;
use squall_protocol::rows::{EventsRow, Row, Updates};
use squall_protocol::{Delivery, InstanceName, Role, StreamName, Token};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// Runs `test` on a runtime of its own, whose clock moves only when no task can run.
pub(super) fn on_paused_clock<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// Lets every task run until it waits.
pub(super) async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Returns a row called `name`.
pub(super) fn row(name: &str) -> Row {
    Row::Events(EventsRow::StateAll(StateAllRow { room_id: name.into() }))
}

/// Returns the name of a row made by [`row`].
pub(super) fn name_of(row: &Row) -> &str {
    match row {
        Row::Events(EventsRow::StateAll(row)) => &row.room_id,
        other => panic!("not a row of these tests: {other:?}"),
    }
}

/// Returns the names of rows, joined by spaces.
fn names_of(rows: &[Row]) -> String {
    rows.iter().map(name_of).collect::<Vec<_>>().join(" ")
}

/// Returns a connection to a writer, which is set up as soon as `events` is caught up with.
pub(super) fn connection(id: u64) -> Rc<Connection> {
    Rc::new(Connection::new(id, Role::Client, "writer", BTreeSet::from(["events".into()])))
}

/// One step on an instance.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// The rows in `(from, upto]` were fetched from the source.
    Fetched(Token, Token),
    /// The stream applied rows.
    Applied(Token, Vec<Row>),
    /// The stream's position moved.
    Advanced(Token),
    /// The stream discarded all rows.
    Reset,
    /// Consumers were notified of the follower's first position.
    NotifiedFollowing(Token),
    /// Consumers were notified of rows.
    NotifiedRows(Token, Vec<Row>),
    /// Consumers were notified of a position.
    NotifiedPosition(Token),
    /// Consumers were notified that the writer began again.
    NotifiedReset,
    /// The observer received an event of this kind.
    InstanceEvent(&'static str),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Fetched(from, upto) => write!(f, "fetch ({from}, {upto}]"),
            Step::Applied(token, rows) => write!(f, "apply {token}: {}", names_of(rows)),
            Step::Advanced(token) => write!(f, "advance {token}"),
            Step::Reset => write!(f, "reset"),
            Step::NotifiedFollowing(token) => write!(f, "notify following {token}"),
            Step::NotifiedRows(token, rows) => write!(f, "notify {token}: {}", names_of(rows)),
            Step::NotifiedPosition(token) => write!(f, "notify position {token}"),
            Step::NotifiedReset => write!(f, "notify reset"),
            Step::InstanceEvent(kind) => write!(f, "event: {kind}"),
        }
    }
}

/// Every step on one instance, in order, with its time and the writer that it concerns.
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

    /// Forgets all steps so far.
    pub(super) fn clear(&self) {
        self.entries.borrow_mut().clear();
    }

    /// Returns every step that concerns `writer`, in words.
    pub(super) fn story(&self, writer: &str) -> Vec<String> {
        self.map(writer, |_, step| Some(step.to_string()))
    }

    /// Returns every step that concerns `writer`.
    pub(super) fn steps(&self, writer: &str) -> Vec<Step> {
        self.map(writer, |_, step| Some(step.clone()))
    }

    /// Returns the rows that consumers were notified of: `11: x y` for each token.
    pub(super) fn applied(&self, writer: &str) -> Vec<String> {
        self.map(writer, |_, step| match step {
            Step::NotifiedRows(..) => Some(step.to_string().replacen("notify ", "", 1)),
            _ => None,
        })
    }

    /// Returns the ranges that were fetched from the source.
    pub(super) fn fetched(&self, writer: &str) -> Vec<(i64, i64)> {
        self.map(writer, |_, step| match step {
            Step::Fetched(from, upto) => Some((from.0, upto.0)),
            _ => None,
        })
    }

    /// Returns the time of each step whose words begin with `kind`.
    pub(super) fn times(&self, writer: &str, kind: &str) -> Vec<Instant> {
        self.map(writer, |at, step| step.to_string().starts_with(kind).then_some(at))
    }

    /// Returns consumers that write into this journal.
    pub(super) fn consumers(&self) -> Consumers {
        let consumers = Consumers::default();
        consumers.register(Rc::new(self.clone()));
        consumers
    }

    /// Returns an environment whose observer writes into this journal.
    pub(super) fn env(&self) -> Env {
        let observer = Rc::new(self.clone());
        Env {
            network: Rc::new(TokioNetwork), // nothing here connects to anything
            clock: Rc::new(Noon),
            seeds: SeedTree::from_seed(7),
            observer: observer.clone(),
            tasks: TaskSpawner::new(observer),
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
        self.add(writer, Step::NotifiedFollowing(position));
    }

    fn applied(&self, _stream: &StreamName, writer: &InstanceName, token: Token, rows: &[Row]) {
        self.add(writer, Step::NotifiedRows(token, rows.to_vec()));
    }

    fn positioned(&self, _stream: &StreamName, writer: &InstanceName, position: Token) {
        self.add(writer, Step::NotifiedPosition(position));
    }

    fn reset(&self, _stream: &StreamName, writer: &InstanceName) {
        self.add(writer, Step::NotifiedReset);
    }
}

impl TaskObserver for Journal {}

impl Observer for Journal {
    fn event(&self, event: InstanceEvent<'_>) {
        match event {
            InstanceEvent::CatchUp { writer, .. } => self.add(writer, Step::InstanceEvent("catch-up")),
            InstanceEvent::Streaming { stream, .. } => {
                self.add(&stream.as_str().into(), Step::InstanceEvent("streaming"))
            }
            InstanceEvent::Row { stream, .. } => self.add(&stream.as_str().into(), Step::InstanceEvent("row")),
            InstanceEvent::Connection { peer, .. } => self.add(&peer.into(), Step::InstanceEvent("connection")),
            InstanceEvent::ForeignDatabase { stream, .. } => {
                self.add(&stream.as_str().into(), Step::InstanceEvent("foreign database"))
            }
            InstanceEvent::NotAllocated { writer, .. } => self.add(writer, Step::InstanceEvent("not allocated")),
            InstanceEvent::UnknownStream { stream, .. } => {
                self.add(&stream.as_str().into(), Step::InstanceEvent("unknown stream"))
            }
            InstanceEvent::UnknownWriter { writer, is_first: true, .. } => {
                self.add(writer, Step::InstanceEvent("unknown writer"))
            }
            InstanceEvent::NewerCommand { peer, .. } => self.add(&peer.into(), Step::InstanceEvent("newer command")),
            InstanceEvent::AnnouncementIgnored { process } => {
                self.add(&process.into(), Step::InstanceEvent("announcement ignored"))
            }
            InstanceEvent::UnknownWriter { .. } | InstanceEvent::UnclaimedPosition { .. } => {}
        }
    }
}

/// The source's behaviour in one fetch.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// It fails.
    Failure,
    /// It answers after this time.
    Late(Duration),
    /// It returns the rows of this many tokens at most.
    Limited(usize),
    /// It returns no rows after this token, and says that there are none.
    Short(Token),
    /// It says that there are more rows, and returns none.
    Nothing,
}

/// A stream whose rows the test commits, and whose source behaves as the test says.
pub(super) struct FakeStream {
    name: StreamName,
    delivery: Delivery,
    writers: Vec<InstanceName>,
    positions: RefCell<BTreeMap<InstanceName, Token>>,
    source: Rc<RefCell<BTreeMap<InstanceName, Source>>>,
    /// The highest token of a row that the writer has dropped.
    pub(super) forgotten_upto: Cell<Token>,
    allocated_upto: Cell<Token>,
    failing_checks: Cell<u32>,
    journal: Journal,
}

/// The source of one writer's rows.
#[derive(Default)]
struct Source {
    rows: Vec<(Token, Row)>,
    /// Its behaviour in the next fetches. It answers all later ones at once and in full.
    answers: VecDeque<Answer>,
}

impl FakeStream {
    /// Returns a stream whose position is 10 for every writer.
    pub(super) fn new(name: &str, delivery: Delivery, writers: &[&str], journal: &Journal) -> Rc<Self> {
        let writers: Vec<InstanceName> = writers.iter().map(|writer| InstanceName::from(*writer)).collect();
        Rc::new(FakeStream {
            name: name.into(),
            delivery,
            positions: RefCell::new(writers.iter().map(|writer| (writer.clone(), Token(10))).collect()),
            source: Rc::new(RefCell::new(writers.iter().map(|writer| (writer.clone(), Source::default())).collect())),
            writers,
            forgotten_upto: Cell::default(),
            allocated_upto: Cell::new(Token(i64::MAX)),
            failing_checks: Cell::default(),
            journal: journal.clone(),
        })
    }

    /// Sets the last id that the database has allocated.
    pub(super) fn allocate_upto(&self, token: i64) {
        self.allocated_upto.set(Token(token));
    }

    /// Makes the next checks of tokens fail.
    pub(super) fn fail_checks(&self, count: u32) {
        self.failing_checks.set(count);
    }

    fn source<R>(&self, writer: &str, f: impl FnOnce(&mut Source) -> R) -> R {
        f(self.source.borrow_mut().get_mut(writer).expect("a writer of the stream"))
    }

    /// Commits rows of `writer`: from now on the source has them.
    pub(super) fn commit(&self, writer: &str, token: i64, names: &[&str]) {
        self.source(writer, |source| source.rows.extend(names.iter().map(|name| (Token(token), row(name)))));
    }

    /// Restarts `writer` with another process, which has no rows.
    pub(super) fn forget(&self, writer: &str) {
        self.source(writer, |source| source.rows.clear());
    }

    /// Moves the position, as it moves on the writer itself.
    pub(super) fn move_to(&self, writer: &str, token: i64) {
        self.positions.borrow_mut().insert(writer.into(), Token(token));
    }

    /// Sets the behaviour of the next fetches of `writer`'s rows.
    pub(super) fn answer(&self, writer: &str, answers: impl IntoIterator<Item = Answer>) {
        self.source(writer, |source| source.answers.extend(answers));
    }

    /// Makes every later fetch of `writer`'s rows succeed.
    pub(super) fn answer_well(&self, writer: &str) {
        self.source(writer, |source| source.answers.clear());
    }

    /// Returns the tokens of `writer`'s rows, each once.
    pub(super) fn tokens(&self, writer: &str) -> Vec<Token> {
        let mut tokens: Vec<Token> =
            self.source(writer, |source| source.rows.iter().map(|(token, _)| *token).collect());
        tokens.dedup();
        tokens
    }

    /// Returns every committed row of `writer`, in the form of [`Journal::applied`].
    pub(super) fn committed(&self, writer: &str) -> Vec<String> {
        let mut committed = Vec::new();
        for token in self.tokens(writer) {
            let names = self.source(writer, |source| {
                let of_token = source.rows.iter().filter(|(of, _)| *of == token).map(|(_, row)| name_of(row));
                of_token.collect::<Vec<_>>().join(" ")
            });
            committed.push(format!("{token}: {names}"));
        }
        committed
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

    fn delivery(&self) -> Delivery {
        self.delivery
    }

    fn writers(&self) -> &[InstanceName] {
        &self.writers
    }

    fn position(&self, writer: &InstanceName) -> Token {
        self.positions.borrow()[writer]
    }

    fn forgotten_upto(&self) -> Token {
        self.forgotten_upto.get()
    }

    fn written_upto(&self, writer: &InstanceName) -> Token {
        self.source(writer.as_str(), |source| source.rows.last().map_or(Token(0), |(token, _)| *token))
    }

    fn check(&self, token: Token) -> LocalBoxFuture<'static, Result<Checked, UpdateError>> {
        let checked = match self.failing_checks.get().checked_sub(1) {
            Some(left) => {
                self.failing_checks.set(left);
                Err("the database cannot be reached".into())
            }
            None if token <= self.allocated_upto.get() => Ok(Checked::Allocated),
            None => Ok(Checked::NotAllocated),
        };
        Box::pin(std::future::ready(checked))
    }

    fn updates(
        &self,
        writer: &InstanceName,
        from: Token,
        upto: Token,
    ) -> LocalBoxFuture<'static, Result<Updates, UpdateError>> {
        self.journal.add(writer, Step::Fetched(from, upto));
        let answer = self.source(writer.as_str(), |source| source.answers.pop_front());
        let source = Rc::clone(&self.source);
        let writer = writer.clone();
        Box::pin(async move {
            if let Some(Answer::Late(delay)) = answer {
                tokio::time::sleep(delay).await;
            }
            let sources = source.borrow();
            let source = &sources[&writer];
            match answer {
                Some(Answer::Failure) => Err("the source cannot be reached".into()),
                Some(Answer::Limited(tokens_max)) => Ok(source.updates(from, upto, tokens_max)),
                Some(Answer::Short(last)) => Ok(source.updates(from, upto.min(last), usize::MAX)),
                Some(Answer::Nothing) => Ok(Updates { rows: Vec::new(), upto: from, limited: true }),
                Some(Answer::Late(_)) | None => Ok(source.updates(from, upto, usize::MAX)),
            }
        })
    }

    fn apply(&self, writer: &InstanceName, token: Token, rows: &[Row]) {
        self.journal.add(writer, Step::Applied(token, rows.to_vec()));
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
