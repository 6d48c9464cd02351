//! Writers and readers of one stream that allocate, commit, roll back, send, crash and restart, in any order.
//!
//! One property decides if a follower can lose a row: *when an id commits, no position has passed it yet*. Further
//! properties: no position goes backwards within a boot, no id is returned twice, and once every message has arrived all
//! positions are at the end.
//!
//! A property that cannot fail proves nothing. So each rule of the generator is also broken on purpose, and the same
//! property must then fail.

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

/// A rule of the generator, for a test to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Ids that the sequence may be about to return hold the position.
    FetchesAreOutstanding,
    /// Only a row proves that its id is committed.
    PositionsAreNotRows,
    /// A predecessor's transactions do not commit after a start.
    PredecessorsAreFenced,
    /// A writer records its position before it has ids.
    WritersAreRecordedFirst,
    /// Ids are finished when their transaction is settled, not when its caller stops waiting for it.
    FinishedMeansSettled,
}

/// One step of one instance. A number picks one of the objects that the step can apply to.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Request ids from the sequence.
    Request,
    /// The sequence returns them.
    Take,
    /// The ids arrive.
    Answer,
    /// Stop waiting for the ids.
    Abandon,
    /// A transaction with rows takes effect.
    Commit,
    /// The instance receives the result of a transaction; one that had not taken effect was rolled back.
    Settle,
    /// Record the own position.
    Record,
    /// Send the own rows and position to the others.
    Announce,
    /// Any message arrives, not the oldest first.
    Deliver,
    /// A transaction of a crashed process takes effect, if it still may.
    CommitOrphan,
    /// The process crashes, or restarts.
    CrashOrStart,
}

/// Steps, each with its instance and the number that picks its object.
type Steps = Vec<(Step, usize, usize)>;

fn steps() -> impl Strategy<Value = Steps> {
    let step = prop_oneof![
        6 => Just(Step::Request),
        5 => Just(Step::Take),
        5 => Just(Step::Answer),
        1 => Just(Step::Abandon),
        5 => Just(Step::Commit),
        6 => Just(Step::Settle),
        2 => Just(Step::Record),
        4 => Just(Step::Announce),
        8 => Just(Step::Deliver),
        2 => Just(Step::CommitOrphan),
        2 => Just(Step::CrashOrStart),
    ];
    prop::collection::vec((step, 0..INSTANCES.len(), 0..8usize), 0..80)
}

/// Requested ids, from the request to the end of the transaction that uses them.
#[derive(Default)]
struct Use {
    fetch: Option<FetchId>,
    /// The ids that the sequence returned.
    ids: Vec<Token>,
    answered: bool,
    committed: bool,
}

struct Process {
    name: InstanceName,
    database: Database,
    state: IdState,
    uses: Vec<Use>,
    /// The token up to which the own rows were sent.
    sent: Token,
    /// The positions of each writer, and that of all writers, after the step before.
    seen: BTreeMap<InstanceName, Token>,
    seen_of_all: Token,
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
    /// Transactions whose process has crashed, with the name they write under.
    orphans: Vec<(InstanceName, Database, Vec<Token>)>,
    returned: BTreeSet<Token>,
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
            returned: BTreeSet::new(),
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
        world.quiesce()
    }

    fn step(&mut self, step: Step, i: usize, pick: usize) -> Checked {
        match step {
            Step::CommitOrphan => return self.commit_orphan(pick),
            Step::CrashOrStart if self.processes[i].is_none() => self.start(i),
            Step::CrashOrStart => self.crash(i),
            Step::Deliver => self.deliver(i, pick),
            Step::Announce => self.announce(i),
            Step::Record => self.record(i),
            Step::Request => self.request(i),
            Step::Take => return self.take(i, pick),
            Step::Answer => self.answer(i, pick),
            Step::Abandon => self.abandon(i, pick),
            Step::Commit => return self.commit(i, pick),
            Step::Settle => self.settle(i, pick),
        }
        Ok(())
    }

    /// Returns the `pick`th use of `i` that `fits`.
    fn find(&mut self, i: usize, pick: usize, fits: fn(&Use) -> bool) -> Option<(&mut Process, usize)> {
        let process = self.processes[i].as_mut()?;
        let fitting: Vec<usize> = (0..process.uses.len()).filter(|&u| fits(&process.uses[u])).collect();
        let found = *fitting.get(pick % fitting.len().max(1))?;
        Some((process, found))
    }

    fn request(&mut self, i: usize) {
        let early = self.broken != Some(Rule::FetchesAreOutstanding);
        let Some(process) = self.processes[i].as_mut().filter(|_| i < WRITERS) else { return };
        let fetch = early.then(|| process.state.begin_fetch());
        process.uses.push(Use { fetch, ..Use::default() });
    }

    fn take(&mut self, i: usize, pick: usize) -> Checked {
        let Some((process, u)) = self.find(i, pick, |u| u.ids.is_empty()) else { return Ok(()) };
        let n = 1 + pick % 2;
        let last = now(process.database.transaction("take", move |tx| sequences::take_ids(tx, SEQUENCE, n))).unwrap();
        process.uses[u].ids = if n == 1 { vec![last] } else { vec![last.prev(), last] };
        for id in process.uses[u].ids.clone() {
            prop_assert!(self.returned.insert(id), "{id} was returned twice");
        }
        Ok(())
    }

    fn answer(&mut self, i: usize, pick: usize) {
        let Some((process, u)) = self.find(i, pick, |u| !u.ids.is_empty() && !u.answered) else { return };
        let answered = &mut process.uses[u];
        let fetch = answered.fetch.take().unwrap_or_else(|| process.state.begin_fetch());
        process.state.allocated(fetch, &answered.ids).expect("the sequence only ascends");
        answered.answered = true;
    }

    fn abandon(&mut self, i: usize, pick: usize) {
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

    /// Commits rows with `ids`, and checks that no position has passed them.
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

    fn commit_orphan(&mut self, pick: usize) -> Checked {
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
            shares_database: true,
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
        let (sent, seen_of_all) = (state.current_token_for_writer(&name), state.current_token());
        self.processes[i] =
            Some(Process { name, database, state, uses: Vec::new(), sent, seen: BTreeMap::new(), seen_of_all });
    }

    fn check_views(&mut self) -> Checked {
        for process in self.processes.iter_mut().flatten() {
            let of_all = process.state.current_token();
            prop_assert!(of_all >= process.seen_of_all, "{} fell back to {}", process.name, of_all);
            process.seen_of_all = of_all;
            for writer in INSTANCES[..WRITERS].iter().map(|&writer| InstanceName::from(writer)) {
                let position = process.state.current_token_for_writer(&writer);
                let before = process.seen.insert(writer.clone(), position).unwrap_or_default();
                prop_assert!(position >= before, "{}: {} fell back to {}", process.name, writer, position);
            }
        }
        Ok(())
    }

    /// Runs every process, ends every transaction and delivers every message. Then all positions must be at the end.
    fn quiesce(mut self) -> Checked {
        while !self.orphans.is_empty() {
            self.commit_orphan(0)?;
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
        // Once to learn of the highest id, and once more because the idle writers are then there too.
        for _ in 0..2 {
            for i in 0..WRITERS {
                self.announce(i);
            }
            for i in 0..INSTANCES.len() {
                while !self.inboxes[i].is_empty() {
                    self.deliver(i, 0);
                }
            }
        }
        let ends: Vec<_> = self.processes.iter().flatten().map(|process| process.state.current_token()).collect();
        prop_assert!(ends.iter().all(|end| *end == ends[0] && *end >= self.last_committed), "they are at {ends:?}");
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

/// Checks the properties on `cases` lists of steps, the same lists every time.
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
