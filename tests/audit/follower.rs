//! An instance that receives a recording: the real command handler, with its stream followers and all of Squall's streams.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use squall::limits::Limits;
use squall::observer::{Env, InstanceEvent, Observer};
use squall::replication::{CommandHandler, Connection, Consumer, Consumers};
use squall::store::SOURCES;
use squall::store::{IdGenerator, IdGeneratorOptions};
use squall::streams::typing::{TypingHandler, TypingStream};
use squall::streams::{CacheViews, DatabaseStream, Stream};
use squall_env::clock::SystemClock;
use squall_env::network::TokioNetwork;
use squall_env::{SeedTree, TaskObserver, TaskSpawner};
use squall_protocol::rows::{Row, typing};
use squall_protocol::{Command, InstanceName, StreamName, Token};

use crate::written::Written;

/// Returns the writers of a stream of Squall in the recorded deployment.
pub(crate) fn writers_of(stream: &str) -> Vec<InstanceName> {
    let writers: &[&str] = match stream {
        "events" => &["persister1", "persister2"],
        "caches" => &["master", "persister1", "persister2", "writer1", "generic1", "fedsender1"],
        _ => &["writer1"],
    };
    writers.iter().map(|writer| InstanceName::from(*writer)).collect()
}

/// The rows of one token.
pub(crate) type Applied = (Token, Vec<Row>);

/// The rows that the instance applied, and its events.
#[derive(Default)]
pub(crate) struct Journal {
    pub applied: RefCell<BTreeMap<(StreamName, InstanceName), Vec<Applied>>>,
    pub resets: Cell<u64>,
    /// Other events of the instance, as text.
    pub events: RefCell<Vec<String>>,
    /// Number of rows and positions of each stream that it does not have.
    pub unknown_streams: RefCell<BTreeMap<StreamName, u64>>,
}

impl Consumer for Journal {
    fn applied(&self, stream: &StreamName, writer: &InstanceName, token: Token, rows: &[Row]) {
        let mut applied = self.applied.borrow_mut();
        applied.entry((stream.clone(), writer.clone())).or_default().push((token, rows.to_vec()));
    }

    fn reset(&self, _stream: &StreamName, _writer: &InstanceName) {
        self.resets.set(self.resets.get() + 1);
    }
}

impl TaskObserver for Journal {}

impl Observer for Journal {
    fn event(&self, event: InstanceEvent<'_>) {
        match event {
            InstanceEvent::UnknownStream { stream } => {
                *self.unknown_streams.borrow_mut().entry(stream.clone()).or_default() += 1;
            }
            other => self.events.borrow_mut().push(format!("{other:?}")),
        }
    }
}

pub(crate) struct Follower {
    pub handler: Rc<CommandHandler>,
    pub journal: Rc<Journal>,
    pub typing: Rc<TypingHandler>,
}

impl Follower {
    /// Starts an instance without a connection, when nothing is written yet.
    pub(crate) async fn start(written: &Written) -> Self {
        let me = InstanceName::from("squall1");
        let journal = Rc::new(Journal::default());
        let env = Env {
            network: Rc::new(TokioNetwork), // no connection is made
            clock: Rc::new(SystemClock),    // no compared row has a time
            seeds: SeedTree::from_seed(0),
            observer: journal.clone(),
            tasks: TaskSpawner::new(journal.clone()),
        };
        let database = written.database();
        let options = SOURCES.map(|source| IdGeneratorOptions {
            stream: source.name.into(),
            instance: me.clone(),
            writers: writers_of(source.name),
            sequence: source.sequence,
            tables: source.tables,
            shares_database: false,
            poke: Default::default(),
        });
        let ids = IdGenerator::load_all(database.clone(), options.into()).await.unwrap();
        let of_database = SOURCES.into_iter().zip(ids).map(|(source, ids)| -> Rc<dyn Stream> {
            Rc::new(DatabaseStream::new(source, ids, database.clone(), CacheViews::default()))
        });
        let mut streams: Vec<_> = of_database.collect();
        let typing = Rc::new(TypingHandler::default());
        let [writer] = &writers_of(typing::NAME)[..] else { panic!("typing has one writer") };
        let remote = Rc::new(written.clone());
        streams.push(Rc::new(TypingStream::on_follower(writer.clone(), typing.clone(), remote)));
        let consumers = Consumers::default();
        consumers.register(journal.clone());
        let handler = CommandHandler::new(me, "peer.test".into(), streams, consumers, Limits::default(), env);
        Follower { handler, journal, typing }
    }

    /// Opens the one connection, on which every payload comes.
    pub(crate) fn connect(&self) -> Rc<Connection> {
        self.handler.opened(Some(&"redis".into()))
    }

    pub(crate) fn receive(&self, connection: &Rc<Connection>, command: &Command) {
        self.handler.received(connection, command.clone());
    }

    /// Returns the applied rows of `writer` and `stream`.
    pub(crate) fn applied(&self, stream: &str, writer: &str) -> Vec<Applied> {
        let key = (StreamName::from(stream), InstanceName::from(writer));
        self.journal.applied.borrow().get(&key).cloned().unwrap_or_default()
    }
}
