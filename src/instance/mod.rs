//! A running process. Master, writer and worker are the same program with different configuration.

pub mod config;
pub mod events_writer;
mod presence;
pub mod stream_writer;
mod user_data;

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;

pub use config::{Config, ConfigError};
pub use events_writer::{EventsWriter, Write};
use presence::Presence;
pub use stream_writer::{Once, PersistError, StreamWriter, Written};

use crate::caches::Caches;
use crate::env::{Env, Listener};
use crate::presence::{PresenceHandler, UserSyncs};
use crate::protocol::{InstanceName, MASTER};
use crate::replication::{CommandHandler, Consumers, Waiters};
use crate::store::{self, Database, DatabaseError, IdGenerator, IdGeneratorOptions, InstanceMap, LoadError};
use crate::streams::typing::{TypingHandler, TypingStream};
use crate::streams::{self, DatabaseStream, Keepers, SOURCES, Stream};
use crate::sync::{Notifier, SyncError, SyncHandler, SyncResponse};
use crate::transport::http::{self, HttpClient, Router, StreamPositions};
#[cfg(feature = "redis")]
use crate::transport::redis;
use crate::transport::tcp;

/// How long a stopping instance waits for its writes to end and its connections to be told goodbye.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

/// Why an instance did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration cannot work.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The database refused.
    #[error("cannot begin a session in the database: {0}")]
    Database(#[from] DatabaseError),
    /// The positions in the database cannot be used.
    #[error("cannot load the positions of a stream: {0}")]
    Load(#[from] LoadError),
    /// The states of users in the database cannot be read.
    #[error("cannot load the presence of users: {0}")]
    Presence(#[source] DatabaseError),
    /// A port cannot be opened.
    #[error("cannot listen on port {port}: {error}")]
    Listen {
        /// The port.
        port: u16,
        /// Why not.
        error: io::Error,
    },
}

/// One running instance.
pub struct Instance {
    name: InstanceName,
    config: Rc<Config>,
    env: Env,
    handler: Rc<CommandHandler>,
    writers: BTreeMap<&'static str, Rc<StreamWriter>>,
    events: Option<Rc<EventsWriter>>,
    caches: Rc<Caches>,
    typing: Rc<TypingHandler>,
    presence: Presence,
    sync: SyncHandler,
    notifier: Rc<Notifier>,
    waiters: Rc<Waiters>,
    positions: Rc<StreamPositions>,
    client: HttpClient,
}

impl Instance {
    /// Starts the instance called `name`. Must be called on the instance's own `LocalSet`; everything it spawns runs
    /// there. `consumers` are told of everything from the beginning.
    pub async fn start(
        name: InstanceName,
        config: Rc<Config>,
        env: Env,
        database: Database,
        consumers: Consumers,
    ) -> Result<Rc<Instance>, StartError> {
        config.validate()?;
        config::check_name("instance", name.as_str())?;
        let database = database.begin_session_at(&name, env.clock.now_ms() as i64).await?;
        let ids = load_ids(&name, &config, &database).await?;
        // After the positions: what is known of users may be newer than they are, but not older.
        let states = store::presence::load(&database).await.map_err(StartError::Presence)?;
        let instances = InstanceMap::load(&database, config.listeners().into_iter().collect()).await?;
        // The last thing that can fail: a start that failed has spawned nothing and told nobody.
        let ports = Ports::open(&name, &config, &env).await?;
        let keepers = Keepers::default();
        // After the positions were read, so that nothing in them is older, and before any of them moves.
        let caches = Caches::new(database.clone(), Rc::clone(&env.observer));
        keepers.register(caches.clone());
        let writers = writers(&ids, &database, &keepers, &env);
        let events = writers.get(streams::events::NAME).zip(writers.get(streams::caches::NAME));
        let events = events.map(|(events, caches)| EventsWriter::new(events.clone(), caches.clone(), env.clone()));

        let presence_ids = ids.iter().find(|ids| ids.stream().as_str() == streams::presence::NAME);
        let presence_ids = presence_ids.expect("presence is among the sources");
        let writer = writers.get(streams::presence::NAME).cloned();
        let presence = Presence::start(states, writer, presence_ids, &config, &env);
        keepers.register(presence.handler.clone());

        let notifier = Rc::new(Notifier::default());
        consumers.register(notifier.clone());
        let typing = Rc::new(typing_handler(&name, &config, &database));
        let (syncing, notifying) = (Rc::clone(&typing), Rc::clone(&notifier));
        let sync = SyncHandler::new(database.clone(), instances, &ids, syncing, notifying, env.clone());
        let stream = |(source, ids): (_, &Rc<IdGenerator>)| -> Rc<dyn Stream> {
            Rc::new(DatabaseStream::new(source, ids.clone(), database.clone(), keepers.clone()))
        };
        let mut streams: Vec<Rc<dyn Stream>> = SOURCES.into_iter().zip(&ids).map(stream).collect();
        let client = HttpClient::new(env.clone(), name.clone(), config.http_addresses(), config.secret.clone());
        streams.push(Rc::new(typing_stream(&name, &config, &client, &typing)));
        let waiters = Waiters::new(name.clone(), streams.clone());
        consumers.register(waiters.clone());
        let positions = StreamPositions::new(name.clone(), &streams, Rc::clone(&waiters));
        let client = client.with_positions(Rc::clone(&positions));
        let handler = CommandHandler::new(name.clone(), config.server_name.clone(), streams, consumers, env.clone());
        handler.set_user_syncing(presence.connections(config.stream_writers.presence.clone()));
        for ids in ids.into_iter().filter(|ids| ids.is_writer()) {
            let (poked, notified) = (Rc::clone(&handler), Rc::clone(&notifier));
            env.tasks.spawn("poke", async move {
                loop {
                    ids.changed().await;
                    poked.poke(ids.stream().as_str());
                    notified.notify();
                }
            });
        }
        let poked = Rc::downgrade(&handler); // the handler's own streams hold the typing handler
        let notified = Rc::clone(&notifier);
        typing.on_change(Box::new(move |_, _| {
            if let Some(handler) = poked.upgrade() {
                handler.poke(streams::typing::NAME);
            }
            notified.notify();
        }));

        let instance = Rc::new(Instance {
            name,
            config,
            env,
            handler,
            writers,
            events,
            caches,
            typing,
            presence,
            sync,
            notifier,
            waiters,
            positions,
            client,
        });
        if let Some(ports) = ports {
            instance.listen(ports);
        }
        instance.connect();
        Ok(instance)
    }

    /// Serves whoever connects.
    fn listen(self: &Rc<Self>, ports: Ports) {
        if let Some(replication) = ports.replication {
            let (handler, env) = (Rc::clone(&self.handler), self.env.clone());
            self.env.tasks.spawn("accept_connections", tcp::accept_connections(replication, handler, env));
        }
        let (endpoints, secret) = (http::endpoints::all(self), self.config.secret.clone());
        let router = Router::new(endpoints, secret, Rc::clone(&self.positions), self.env.clone());
        self.env.tasks.spawn("serve_requests", http::serve_requests(ports.requests, router, self.env.clone()));
    }

    /// Connects to the broker or, without one, to the master and to every other instance that writes a stream.
    fn connect(&self) {
        #[cfg(feature = "redis")]
        if let Some(broker) = &self.config.redis {
            let (handler, env) = (&self.handler, &self.env);
            let publishing = redis::keep_publishing(broker.clone(), Rc::clone(handler), env.clone());
            env.tasks.spawn("keep_publishing", publishing);
            let subscribing = redis::stay_subscribed(broker.clone(), Rc::clone(handler), env.clone());
            env.tasks.spawn("stay_subscribed", subscribing);
            return;
        }
        for (target, address) in self.config.replication_addresses() {
            if target != self.name {
                let (handler, env) = (Rc::clone(&self.handler), self.env.clone());
                self.env.tasks.spawn("stay_connected", tcp::stay_connected(target, address, handler, env));
            }
        }
    }

    /// Its name.
    pub fn name(&self) -> &InstanceName {
        &self.name
    }

    /// Whether it is the master.
    pub fn is_master(&self) -> bool {
        self.name.as_str() == MASTER
    }

    /// Persists events, for rooms that fall to this instance.
    ///
    /// # Errors
    /// This instance does not write events.
    pub fn events(&self) -> Result<&Rc<EventsWriter>, PersistError> {
        self.writer(streams::events::NAME)?;
        Ok(self.events.as_ref().expect("whoever writes events writes caches too"))
    }

    /// What it keeps of the database in its memory.
    pub fn caches(&self) -> &Rc<Caches> {
        &self.caches
    }

    /// Who is typing.
    pub fn typing(&self) -> &Rc<TypingHandler> {
        &self.typing
    }

    /// Everybody's presence.
    pub fn presence(&self) -> &Rc<PresenceHandler> {
        &self.presence.handler
    }

    /// Who is syncing here.
    pub fn user_syncs(&self) -> &Rc<UserSyncs> {
        &self.presence.syncs
    }

    /// What is new for a device of a user since the token of its last answer; see [`SyncHandler::sync`]. Until there is an
    /// answer, the user counts as syncing.
    ///
    /// # Errors
    /// The token cannot be understood, or the database failed.
    pub async fn sync(
        &self,
        user_id: &str,
        device_id: &str,
        since: Option<&str>,
        timeout: Duration,
    ) -> Result<SyncResponse, SyncError> {
        let _syncing = self.presence.syncs.begin(user_id, Some(device_id));
        self.sync.sync(user_id, device_id, since, timeout).await
    }

    /// The deployment's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Asks other instances to write what this one does not. What they have written is seen by whoever reads here after
    /// the call.
    pub fn client(&self) -> &HttpClient {
        &self.client
    }

    /// Whoever cannot go on before this instance has seen what another one wrote.
    pub fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    /// The commands of its connections.
    pub fn handler(&self) -> &Rc<CommandHandler> {
        &self.handler
    }

    /// What the instance was given by its surroundings.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Ends what is under way, sends what is waiting to be sent and closes all connections, within [`STOP_GRACE`].
    /// Afterwards the process may end.
    pub async fn stop(&self) {
        self.env.tasks.stop();
        // First of all, so that it is on its way whatever else takes too long: in Synapse it never is, for the sockets
        // close while it is still waiting to be sent.
        self.presence.syncs.stop();
        // Whoever waits for news is told now that there is nothing, and goes elsewhere.
        self.notifier.notify();
        let goodbye = async {
            self.presence.handler.idle().await;
            for writer in self.writers.values() {
                writer.idle().await;
            }
            for link in self.handler.links() {
                link.close();
            }
            while !self.handler.links().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // Whoever does not take our goodbye in time finds the connection closed.
        let _ = tokio::time::timeout(STOP_GRACE, goodbye).await;
    }
}

/// The open ports of an instance that others connect to.
struct Ports {
    /// None where instances meet at a broker: whoever came here would be a follower of another kind.
    replication: Option<Box<dyn Listener>>,
    requests: Box<dyn Listener>,
}

impl Ports {
    /// None if nobody connects to this instance.
    async fn open(name: &InstanceName, config: &Config, env: &Env) -> Result<Option<Ports>, StartError> {
        if !config.listeners().contains(name) {
            return Ok(None);
        }
        let endpoint = &config.instance_map[name];
        let open = async |port| env.network.listen(port).await.map_err(|error| StartError::Listen { port, error });
        let replication = match config.redis {
            Some(_) => None,
            None => Some(open(endpoint.replication_port).await?),
        };
        let requests = open(endpoint.http_port).await?;
        Ok(Some(Ports { replication, requests }))
    }
}

/// The generators of this instance's tokens, one for each of [`SOURCES`], in their order.
async fn load_ids(
    name: &InstanceName,
    config: &Config,
    database: &Database,
) -> Result<Vec<Rc<IdGenerator>>, LoadError> {
    let options = SOURCES.iter().map(|source| IdGeneratorOptions {
        stream: source.name.into(),
        instance: name.clone(),
        writers: config.writers_of(source.name),
        sequence: source.sequence,
        tables: source.tables,
        poke: Default::default(),
    });
    IdGenerator::load_all(database.clone(), options.collect()).await
}

/// The writers of the streams that this instance writes, by name. Spawns what keeps their positions.
fn writers(
    ids: &[Rc<IdGenerator>],
    database: &Database,
    keepers: &Keepers,
    env: &Env,
) -> BTreeMap<&'static str, Rc<StreamWriter>> {
    let written = SOURCES.iter().zip(ids).filter(|(_, ids)| ids.is_writer());
    let writer = |(source, ids): (&streams::Source, &Rc<IdGenerator>)| {
        let writer = StreamWriter::new(ids.clone(), database.clone(), keepers.clone(), env.clone());
        env.tasks.spawn("keep_position", Rc::clone(&writer).keep_position());
        (source.name, writer)
    };
    written.map(writer).collect()
}

fn typing_handler(name: &InstanceName, config: &Config, database: &Database) -> TypingHandler {
    if *name != config.stream_writers.typing {
        return TypingHandler::default();
    }
    TypingHandler::on_writer(database.session().expect("it was begun").boot)
}

fn typing_stream(
    name: &InstanceName,
    config: &Config,
    client: &HttpClient,
    handler: &Rc<TypingHandler>,
) -> TypingStream {
    let writer = config.stream_writers.typing.clone();
    if *name == writer {
        return TypingStream::on_writer(writer, Rc::clone(handler));
    }
    TypingStream::on_follower(writer, Rc::clone(handler), Rc::new(client.clone()))
}
