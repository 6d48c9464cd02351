//! Writers and readers of one stream that allocate, commit, roll back, talk, crash and start again, in any order.
//!
//! One rule decides whether a follower can lose a row: *when an id commits, nobody's position has passed it yet*. The
//! rest is that no position goes backwards within a boot, that no id is given twice, and that once everything has come
//! to rest everybody stands at the end.
//!
//! A property that cannot fail proves nothing, so each rule the generator lives by is also broken on purpose, and the
//! same property must then find it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use super::tests::{now, row_of};
use super::*;
use crate::store::events::persist;
use crate::store::memory::MemoryBackend;

const STREAM: &str = "events";
const SEQUENCE: &str = "events_stream_seq";
/// Three writers and a reader.
const INSTANCES: [&str; 4] = ["a", "b", "c", "reader"];
const WRITERS: usize = 3;

/// A rule to be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// What the sequence may be about to give holds the position.
    FetchesAreOutstanding,
    /// Only a row proves that its id is committed.
    PositionsAreNotRows,
    /// A predecessor's transactions do not commit after a start.
    PredecessorsAreFenced,
    /// A writer records its position before it has ids.
    WritersAreRecordedFirst,
    /// Ids are finished when their transaction is settled, not when its caller stops waiting.
    FinishedMeansSettled,
}

/// One step of one instance. What it applies to is picked from whatever there is to choose from.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Ask the sequence for ids.
    Ask,
    /// The sequence gives them.
    Take,
    /// They arrive.
    Answer,
    /// Stop waiting for them.
    GiveUp,
    /// A transaction with rows takes effect.
    Commit,
    /// The instance learns what became of it; one that had not taken effect was rolled back.
    Settle,
    /// Record the own position.
    Record,
    /// Send the own rows and position to the others.
    Announce,
    /// Some message arrives, not the oldest first.
    Deliver,
    /// A transaction of a dead process takes effect, if it still may.
    Haunt,
    /// The process dies, or starts again.
    CrashOrStart,
}

/// What is done, by whom, and to which of the things it can be done to.
type Steps = Vec<(Step, usize, usize)>;

fn steps() -> impl Strategy<Value = Steps> {
    let step = prop_oneof![
        6 => Just(Step::Ask),
        5 => Just(Step::Take),
        5 => Just(Step::Answer),
        1 => Just(Step::GiveUp),
        5 => Just(Step::Commit),
        6 => Just(Step::Settle),
        2 => Just(Step::Record),
        4 => Just(Step::Announce),
        8 => Just(Step::Deliver),
        2 => Just(Step::Haunt),
        2 => Just(Step::CrashOrStart),
    ];
    prop::collection::vec((step, 0..INSTANCES.len(), 0..8usize), 0..80)
}

/// Ids asked for, from the question to the end of the transaction that uses them.
#[derive(Default)]
struct Use {
    fetch: Option<FetchId>,
    /// What the sequence gave.
    ids: Vec<Token>,
    answered: bool,
    committed: bool,
}

struct Process {
    name: InstanceName,
    database: Database,
    state: IdState,
    uses: Vec<Use>,
    /// Up to where the own rows were sent.
    sent: Token,
    /// What it said of each writer, and of all, after the step before.
    said: BTreeMap<InstanceName, Token>,
    said_of_all: Token,
}

enum Message {
    Row(InstanceName, Token),
    Position(InstanceName, Token),
}

struct World {
    broken: Option<Rule>,
    backend: Rc<MemoryBackend>,
    processes: [Option<Process>; 4],
    inboxes: [Vec<Message>; 4],
    /// Transactions whose process is gone, with the name they write under.
    orphans: Vec<(InstanceName, Database, Vec<Token>)>,
    given: BTreeSet<Token>,
    last_committed: Token,
}

type Checked = Result<(), TestCaseError>;

impl World {
    fn new(broken: Option<Rule>) -> Self {
        World {
            broken,
            backend: MemoryBackend::open(),
            processes: Default::default(),
            inboxes: Default::default(),
            orphans: Vec::new(),
            given: BTreeSet::new(),
            last_committed: Token(1),
        }
    }

    fn run(broken: Option<Rule>, steps: &Steps) -> Checked {
        let mut world = World::new(broken);
        (0..INSTANCES.len()).for_each(|i| world.start(i));
        for &(step, i, pick) in steps {
            world.step(step, i, pick)?;
            world.check_views()?;
        }
        world.come_to_rest()
    }

    fn step(&mut self, step: Step, i: usize, pick: usize) -> Checked {
        match step {
            Step::Haunt => return self.haunt(pick),
            Step::CrashOrStart if self.processes[i].is_none() => self.start(i),
            Step::CrashOrStart => self.crash(i),
            Step::Deliver => self.deliver(i, pick),
            Step::Announce => self.announce(i),
            Step::Record => self.record(i),
            Step::Ask => self.ask(i),
            Step::Take => return self.take(i, pick),
            Step::Answer => self.answer(i, pick),
            Step::GiveUp => self.give_up(i, pick),
            Step::Commit => return self.commit(i, pick),
            Step::Settle => self.settle(i, pick),
        }
        Ok(())
    }

    /// The `pick`th use of `i` that `fits`.
    fn find(&mut self, i: usize, pick: usize, fits: fn(&Use) -> bool) -> Option<(&mut Process, usize)> {
        let process = self.processes[i].as_mut()?;
        let fitting: Vec<usize> = (0..process.uses.len()).filter(|&u| fits(&process.uses[u])).collect();
        let found = *fitting.get(pick % fitting.len().max(1))?;
        Some((process, found))
    }

    fn ask(&mut self, i: usize) {
        let early = self.broken != Some(Rule::FetchesAreOutstanding);
        let Some(process) = self.processes[i].as_mut().filter(|_| i < WRITERS) else { return };
        let fetch = early.then(|| process.state.begin_fetch());
        process.uses.push(Use { fetch, ..Use::default() });
    }

    fn take(&mut self, i: usize, pick: usize) -> Checked {
        let Some((process, u)) = self.find(i, pick, |u| u.ids.is_empty()) else { return Ok(()) };
        let n = 1 + pick % 2;
        let last = now(process.database.transaction("take", move |tx| id_load::take_ids(tx, SEQUENCE, n))).unwrap();
        process.uses[u].ids = if n == 1 { vec![last] } else { vec![last.prev(), last] };
        for id in process.uses[u].ids.clone() {
            prop_assert!(self.given.insert(id), "{id} was given twice");
        }
        Ok(())
    }

    fn answer(&mut self, i: usize, pick: usize) {
        let Some((process, u)) = self.find(i, pick, |u| !u.ids.is_empty() && !u.answered) else { return };
        let answered = &mut process.uses[u];
        let fetch = answered.fetch.take().unwrap_or_else(|| process.state.begin_fetch());
        process.state.allocated(fetch, &answered.ids);
        answered.answered = true;
    }

    fn give_up(&mut self, i: usize, pick: usize) {
        let Some((process, u)) = self.find(i, pick, |u| !u.answered && u.fetch.is_some()) else { return };
        if let Some(fetch) = process.uses.remove(u).fetch {
            process.state.abandon_fetch(fetch);
        }
    }

    fn commit(&mut self, i: usize, pick: usize) -> Checked {
        let Some((process, u)) = self.find(i, pick, |u| u.answered && !u.committed) else { return Ok(()) };
        process.uses[u].committed = true;
        let (name, database, ids) = (process.name.clone(), process.database.clone(), process.uses[u].ids.clone());
        self.insert(&name, &database, ids)
    }

    fn settle(&mut self, i: usize, pick: usize) {
        let early = self.broken == Some(Rule::FinishedMeansSettled);
        let Some((process, u)) = self.find(i, pick, |u| u.answered) else { return };
        let settled = process.uses.remove(u);
        process.state.finish(&settled.ids);
        if early && !settled.committed {
            let orphan = (process.name.clone(), process.database.clone(), settled.ids);
            self.orphans.push(orphan);
        }
    }

    /// Commits rows with `ids`. This is where the rule is checked.
    fn insert(&mut self, writer: &InstanceName, database: &Database, ids: Vec<Token>) -> Checked {
        let rows: Vec<_> = ids.iter().map(|&id| (id, row_of(id))).collect();
        let name = writer.clone();
        match now(database.transaction("insert", move |tx| persist(tx, &name, &rows, &[]))) {
            Err(DatabaseError::Fenced { .. }) => return Ok(()),
            result => result.unwrap(),
        }
        for id in ids {
            self.last_committed = self.last_committed.max(id);
            for process in self.processes.iter().flatten() {
                let passed = process.state.current_token_for_writer(writer).max(process.state.current_token());
                prop_assert!(passed < id, "{} of {} commits, and {} is at {}", id, writer, process.name, passed);
            }
        }
        Ok(())
    }

    fn record(&mut self, i: usize) {
        let Some(process) = self.processes[i].as_ref().filter(|_| i < WRITERS) else { return };
        let (name, position) = (process.name.clone(), process.state.current_token_for_writer(&process.name));
        let record =
            move |tx: &rusqlite::Transaction<'_>| id_load::record_position(tx, &STREAM.into(), &name, position);
        now(process.database.transaction("record", record)).unwrap();
    }

    fn announce(&mut self, i: usize) {
        let Some(process) = self.processes[i].as_mut().filter(|_| i < WRITERS) else { return };
        let (name, position) = (process.name.clone(), process.state.current_token_for_writer(&process.name));
        let rows = rows_of(&process.database, &name, process.sent, position);
        process.sent = position;
        for (_, inbox) in self.inboxes.iter_mut().enumerate().filter(|(to, _)| *to != i) {
            inbox.extend(rows.iter().map(|&row| Message::Row(name.clone(), row)));
            inbox.push(Message::Position(name.clone(), position));
        }
    }

    fn deliver(&mut self, i: usize, pick: usize) {
        let Some(process) = self.processes[i].as_mut().filter(|_| !self.inboxes[i].is_empty()) else { return };
        let pick = pick % self.inboxes[i].len();
        match self.inboxes[i].remove(pick) {
            Message::Position(writer, token) if self.broken != Some(Rule::PositionsAreNotRows) => {
                process.state.advance(&writer, token);
            }
            Message::Row(writer, token) | Message::Position(writer, token) => {
                process.state.advance_by_row(&writer, token);
            }
        }
    }

    fn haunt(&mut self, pick: usize) -> Checked {
        if self.orphans.is_empty() {
            return Ok(());
        }
        let (writer, database, ids) = self.orphans.remove(pick % self.orphans.len());
        self.insert(&writer, &database, ids)
    }

    fn crash(&mut self, i: usize) {
        let Some(process) = self.processes[i].take() else { return };
        self.inboxes[i].clear();
        let database = match self.broken {
            Some(Rule::PredecessorsAreFenced) => self.backend.database(),
            _ => process.database,
        };
        for left in process.uses.into_iter().filter(|u| u.answered && !u.committed) {
            self.orphans.push((process.name.clone(), database.clone(), left.ids));
        }
    }

    fn start(&mut self, i: usize) {
        let name = InstanceName::from(INSTANCES[i]);
        let options = IdGeneratorOptions {
            stream: STREAM.into(),
            instance: name.clone(),
            writers: INSTANCES[..WRITERS].iter().map(|&writer| writer.into()).collect(),
            sequence: SEQUENCE,
            tables: &[("events", "stream_ordering")],
            poke: Arc::default(),
        };
        let database = now(self.backend.database().begin_session(&name)).unwrap();
        let unrecorded = self.broken == Some(Rule::WritersAreRecordedFirst);
        let load = move |tx: &rusqlite::Transaction<'_>| {
            let start = id_load::starting_point(tx, &options)?;
            if unrecorded {
                tx.execute("DELETE FROM stream_positions WHERE instance_name = ?1", [options.instance.as_str()])?;
            }
            Ok(start)
        };
        let start = now(database.transaction("load", load)).unwrap().unwrap();
        let state = IdState::new(name.clone(), start);
        let (sent, said_of_all) = (state.current_token_for_writer(&name), state.current_token());
        self.processes[i] =
            Some(Process { name, database, state, uses: Vec::new(), sent, said: BTreeMap::new(), said_of_all });
    }

    fn check_views(&mut self) -> Checked {
        for process in self.processes.iter_mut().flatten() {
            let of_all = process.state.current_token();
            prop_assert!(of_all >= process.said_of_all, "{} fell back to {}", process.name, of_all);
            process.said_of_all = of_all;
            for writer in INSTANCES[..WRITERS].iter().map(|&writer| InstanceName::from(writer)) {
                let position = process.state.current_token_for_writer(&writer);
                let before = process.said.insert(writer.clone(), position).unwrap_or_default();
                prop_assert!(position >= before, "{}: {} fell back to {}", process.name, writer, position);
            }
        }
        Ok(())
    }

    /// Every process runs, every transaction ends, every message arrives: now all must stand at the end.
    fn come_to_rest(mut self) -> Checked {
        while !self.orphans.is_empty() {
            self.haunt(0)?;
        }
        for i in 0..INSTANCES.len() {
            if self.processes[i].is_none() {
                self.start(i);
            }
            while self.processes[i].as_ref().is_some_and(|process| !process.uses.is_empty()) {
                self.take(i, 0)?;
                self.answer(i, 0);
                self.commit(i, 0)?;
                self.settle(i, 0);
            }
        }
        // Once to hear of the highest id, and once more because the idle writers then stand there too.
        for _ in 0..2 {
            (0..WRITERS).for_each(|i| self.announce(i));
            for i in 0..INSTANCES.len() {
                while !self.inboxes[i].is_empty() {
                    self.deliver(i, 0);
                }
            }
        }
        let ends: Vec<_> = self.processes.iter().flatten().map(|process| process.state.current_token()).collect();
        prop_assert!(ends.iter().all(|end| *end == ends[0] && *end >= self.last_committed), "they stand at {ends:?}");
        Ok(())
    }
}

fn rows_of(database: &Database, writer: &InstanceName, from: Token, upto: Token) -> Vec<Token> {
    let writer = writer.clone();
    let query = "SELECT stream_ordering FROM events
                 WHERE instance_name = ?1 AND stream_ordering > ?2 AND stream_ordering <= ?3 ORDER BY stream_ordering";
    let read = move |tx: &rusqlite::Transaction<'_>| {
        let mut rows = tx.prepare_cached(query)?;
        rows.query_map((writer.as_str(), from.0, upto.0), |row| row.get(0).map(Token))?.collect()
    };
    now(database.transaction("rows", read)).unwrap()
}

/// Tries the property on `cases` lists of steps, the same ones every time.
fn check(broken: Option<Rule>, cases: u32) -> Result<(), TestError<Steps>> {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner.run(&steps(), |steps| World::run(broken, &steps))
}

#[test]
fn no_position_passes_an_id_that_commits_later() {
    check(None, 1_000).unwrap();
}

#[test]
fn the_property_fails_when_a_rule_is_broken() {
    for rule in [
        Rule::FetchesAreOutstanding,
        Rule::PositionsAreNotRows,
        Rule::PredecessorsAreFenced,
        Rule::WritersAreRecordedFirst,
        Rule::FinishedMeansSettled,
    ] {
        let found = check(Some(rule), 20_000);
        let Err(TestError::Fail(reason, steps)) = found else { panic!("{rule:?} was broken: {found:?}") };
        println!("{rule:?}: {reason} after {steps:?}");
    }
}
