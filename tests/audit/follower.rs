//! An instance that hears what was recorded: the command handler, its feeds and all of Squall's streams, as they are.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use squall::env::network::TokioNetwork;
use squall::env::observer::Trouble;
use squall::env::{Chance, Env, Observer, Scope, clock::SystemClock};
use squall::protocol::{Command, InstanceName, StreamName, Token};
use squall::replication::{CommandHandler, Consumer, Consumers, Link};
use squall::store::{IdGenerator, IdGeneratorOptions};
use squall::streams::typing::{TypingHandler, TypingStream};
use squall::streams::{DatabaseStream, Keepers, Row, SOURCES, Stream, typing};

use crate::written::Written;

/// Who writes each of Squall's streams in the recorded deployment.
pub fn writers_of(stream: &str) -> Vec<InstanceName> {
    let writers: &[&str] = match stream {
        "events" => &["persister1", "persister2"],
        "caches" => &["master", "persister1", "persister2", "writer1", "generic1", "fedsender1"],
        _ => &["writer1"],
    };
    writers.iter().map(|writer| InstanceName::from(*writer)).collect()
}

/// One token's rows.
pub type Applied = (Token, Vec<Row>);

/// What the instance learned, and what gave it trouble.
#[derive(Default)]
pub struct Journal {
    pub applied: RefCell<BTreeMap<(StreamName, InstanceName), Vec<Applied>>>,
    pub resets: Cell<u64>,
    pub troubles: RefCell<Vec<String>>,
    /// How often it was told of a stream that it does not have.
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

impl Observer for Journal {
    fn trouble(&self, what: Trouble<'_>) {
        match what {
            Trouble::UnknownStream { stream } => {
                *self.unknown_streams.borrow_mut().entry(stream.clone()).or_default() += 1;
            }
            what => self.troubles.borrow_mut().push(format!("{what:?}")),
        }
    }
}

pub struct Follower {
    pub handler: Rc<CommandHandler>,
    pub journal: Rc<Journal>,
    pub typing: Rc<TypingHandler>,
}

impl Follower {
    /// An instance that starts when nothing is written yet, and is not connected.
    pub async fn start(written: &Written) -> Self {
        let me = InstanceName::from("squall1");
        let journal = Rc::new(Journal::default());
        let env = Env {
            network: Rc::new(TokioNetwork), // nothing here connects to anything
            clock: Rc::new(SystemClock),    // nothing that is compared holds a time
            chance: Chance::from_seed(0),
            observer: journal.clone(),
            tasks: Scope::new(journal.clone()),
        };
        let database = written.database();
        let options = SOURCES.map(|source| IdGeneratorOptions {
            stream: source.name.into(),
            instance: me.clone(),
            writers: writers_of(source.name),
            sequence: source.sequence,
            tables: source.tables,
            poke: Default::default(),
        });
        let ids = IdGenerator::load_all(database.clone(), options.into()).await.unwrap();
        let of_database = SOURCES.into_iter().zip(ids).map(|(source, ids)| -> Rc<dyn Stream> {
            Rc::new(DatabaseStream::new(source, ids, database.clone(), Keepers::default()))
        });
        let mut streams: Vec<_> = of_database.collect();
        let typing = Rc::new(TypingHandler::default());
        let [writer] = &writers_of(typing::NAME)[..] else { panic!("typing has one writer") };
        let remote = Rc::new(written.clone());
        streams.push(Rc::new(TypingStream::on_follower(writer.clone(), typing.clone(), remote)));
        let consumers = Consumers::default();
        consumers.register(journal.clone());
        let handler = CommandHandler::new(me, "peer.test".into(), streams, consumers, env);
        Follower { handler, journal, typing }
    }

    /// The one connection on which everything comes from everybody.
    pub fn connect(&self) -> Rc<Link> {
        self.handler.opened(Some(&"redis".into()))
    }

    pub fn hear(&self, link: &Rc<Link>, command: &Command) {
        self.handler.received(link, command.clone());
    }

    /// What was applied of `writer`'s rows of `stream`.
    pub fn applied(&self, stream: &str, writer: &str) -> Vec<Applied> {
        let key = (StreamName::from(stream), InstanceName::from(writer));
        self.journal.applied.borrow().get(&key).cloned().unwrap_or_default()
    }
}
