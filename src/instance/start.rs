//! The steps of an instance's start, in the order in which they must happen.

use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use super::config::{self, Config};
use super::network::Ports;
use super::presence::Presence;
use super::{EventsWriter, Instance, StartError, StreamWriter};
use crate::caches::Caches;
use crate::observer::{Env, InstanceEvent};
use crate::replication::{CommandHandler, Consumers, Waiters};
use crate::store::SOURCES;
use crate::store::{self, Database, IdGenerator, IdGeneratorOptions, LoadError};
use crate::streams::typing::{TypingHandler, TypingStream};
use crate::streams::{CacheViews, DatabaseStream, Stream};
use crate::sync::{Notifier, SyncHandler};
use crate::tasks;
use crate::transport::http::{HttpClient, StreamPositions};
use squall_protocol::rows::{self, PresenceRow};
use squall_protocol::{InstanceMap, InstanceName, Token};

/// The writers of the streams that an instance writes, by the stream's name.
type Writers = BTreeMap<&'static str, Rc<StreamWriter>>;

impl Instance {
    /// Starts the instance called `name`, and registers its own consumers after those in `consumers`.
    ///
    /// Must be called on the instance's own `LocalSet`, because every task that it spawns runs there.
    pub async fn start(
        name: InstanceName,
        config: Rc<Config>,
        env: Env,
        database: Database,
        consumers: Consumers,
    ) -> Result<Rc<Instance>, StartError> {
        config.validate()?;
        config::check_name("instance", name.as_str())?;
        let database = database.begin_session(&name).await?;
        let ids = load_ids(&name, &config, &database).await?;
        // Read after the positions: the presence of users may be newer than the stream's position, but not older.
        let states = store::presence::load(&database).await.map_err(StartError::Presence)?;
        let instances = store::instance_map::load(&database, config.listeners().into_iter().collect()).await?;
        // The last step that can fail: a failed start has spawned no task and called no consumer.
        let ports = Ports::open(&name, &config, &env).await?;
        let assembly = Assembly { name, config, env, database, ids, consumers, cache_views: CacheViews::default() };
        assembly.report_unclaimed_positions();
        let instance = assembly.build(states, instances);
        if let Some(ports) = ports {
            instance.serve(ports);
        }
        instance.connect();
        Ok(instance)
    }
}

/// Loads the generators of this instance's tokens, one for each of [`SOURCES`], in their order.
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
        shares_database: config.shares_database,
        poke: Default::default(),
    });
    IdGenerator::load_all(database.clone(), options.collect()).await
}

/// The material from which the parts of an instance are made.
struct Assembly {
    name: InstanceName,
    config: Rc<Config>,
    env: Env,
    /// The database, in this instance's session.
    database: Database,
    /// The token generators of [`SOURCES`], in their order.
    ids: Vec<Rc<IdGenerator>>,
    consumers: Consumers,
    cache_views: CacheViews,
}

/// The streams of an instance.
struct Streams {
    /// The streams of [`SOURCES`], in their order.
    stored: Vec<Rc<dyn Stream>>,
    typing: Rc<dyn Stream>,
}

impl Streams {
    /// Returns all streams, those in the database first.
    fn all(&self) -> Vec<Rc<dyn Stream>> {
        self.stored.iter().chain([&self.typing]).cloned().collect()
    }
}

impl Assembly {
    /// Reports the positions of writers that the configuration does not name. One may be a new writer that runs already.
    fn report_unclaimed_positions(&self) {
        for ids in &self.ids {
            let stream = ids.stream();
            for writer in ids.unclaimed() {
                self.env.observer.event(InstanceEvent::UnclaimedPosition { stream, writer });
            }
        }
    }

    /// Makes every part of the instance and spawns its tasks, except those of the network.
    fn build(self, states: Vec<(Token, PresenceRow)>, instances: InstanceMap) -> Rc<Instance> {
        let caches = self.caches();
        let writers = self.writers();
        let events = self.events_writer(&writers);
        let presence = self.presence(states, &writers);
        let notifier = Rc::new(Notifier::default());
        self.consumers.register(notifier.clone());
        let typing = Rc::new(self.typing_handler());
        let sync = self.sync_handler(instances, &typing, &notifier);
        let client = self.http_client();
        let streams = self.streams(&typing, &client);
        let waiters = Waiters::new(self.name.clone(), streams.all());
        self.consumers.register(waiters.clone());
        let positions = StreamPositions::new(self.name.clone(), &streams.all(), Rc::clone(&waiters));
        let handler = self.command_handler(&streams, &presence);
        self.wake_on_stored_rows(&streams, &handler, &notifier);
        wake_on_typing(&typing, &streams, &handler, &notifier);

        Rc::new(Instance {
            name: self.name,
            config: self.config,
            env: self.env,
            handler,
            writers,
            events,
            caches,
            typing,
            presence,
            sync,
            notifier,
            waiters,
            client: client.with_positions(Rc::clone(&positions)),
            positions,
        })
    }

    /// Makes the caches. This comes after the positions were read, so that no cached value is older than they are, and before
    /// any position moves.
    fn caches(&self) -> Rc<Caches> {
        let caches = Caches::new(self.database.clone(), self.config.limits.cached_max, Rc::clone(&self.env.observer));
        self.cache_views.register(&caches);
        caches
    }

    /// Makes the writers of the streams that this instance writes, and spawns the tasks that store their positions.
    fn writers(&self) -> Writers {
        let mut writers = Writers::new();
        for (source, ids) in SOURCES.iter().zip(&self.ids).filter(|(_, ids)| ids.is_writer()) {
            let cache_views = self.cache_views.clone();
            let writer = StreamWriter::new(ids.clone(), self.database.clone(), cache_views, self.env.clone());
            self.env.tasks.spawn(tasks::KEEP_POSITION, Rc::clone(&writer).keep_position());
            writers.insert(source.name, writer);
        }
        writers
    }

    /// Makes the writer of events, if this instance writes them.
    fn events_writer(&self, writers: &Writers) -> Option<Rc<EventsWriter>> {
        let events = writers.get(rows::events::NAME)?;
        let caches = writers.get(rows::caches::NAME)?;
        Some(EventsWriter::new(events.clone(), caches.clone(), self.env.clone()))
    }

    /// Makes the presence of all users from the states that the database held.
    fn presence(&self, states: Vec<(Token, PresenceRow)>, writers: &Writers) -> Presence {
        let ids = self.ids.iter().find(|ids| ids.stream().as_str() == rows::presence::NAME);
        let ids = ids.expect("presence is among the sources");
        let writer = writers.get(rows::presence::NAME).cloned();
        let presence = Presence::start(states, writer, ids, &self.config, &self.env);
        self.cache_views.register(&presence.handler);
        presence
    }

    /// Makes the record of typing users.
    fn typing_handler(&self) -> TypingHandler {
        let handler = if self.name == self.config.stream_writers.typing {
            TypingHandler::on_writer(self.database.session().expect("it was begun").boot)
        } else {
            TypingHandler::default()
        };
        handler.with_typing_kept_ms(self.config.limits.typing_kept_ms, Rc::clone(&self.env.observer))
    }

    /// Makes the handler of clients' `/sync` requests.
    fn sync_handler(&self, instances: InstanceMap, typing: &Rc<TypingHandler>, notifier: &Rc<Notifier>) -> SyncHandler {
        let typing = Rc::clone(typing);
        let notifier = Rc::clone(notifier);
        SyncHandler::new(self.database.clone(), instances, &self.ids, typing, notifier, self.env.clone())
    }

    /// Makes the client of other instances' HTTP endpoints.
    fn http_client(&self) -> HttpClient {
        let addresses = self.config.http_addresses();
        HttpClient::new(self.env.clone(), self.name.clone(), addresses, self.config.secret.clone())
    }

    /// Makes the streams that this instance writes or follows.
    fn streams(&self, typing: &Rc<TypingHandler>, client: &HttpClient) -> Streams {
        let mut stored: Vec<Rc<dyn Stream>> = Vec::with_capacity(SOURCES.len());
        for (source, ids) in SOURCES.into_iter().zip(&self.ids) {
            let database = self.database.clone();
            let cache_views = self.cache_views.clone();
            let stream = DatabaseStream::new(source, ids.clone(), database, cache_views);
            stored.push(Rc::new(stream.with_rows_per_query(self.config.limits.rows_per_query)));
        }
        Streams { stored, typing: Rc::new(self.typing_stream(typing, client)) }
    }

    fn typing_stream(&self, handler: &Rc<TypingHandler>, client: &HttpClient) -> TypingStream {
        let writer = self.config.stream_writers.typing.clone();
        if self.name == writer {
            let stream = TypingStream::on_writer(writer, Rc::clone(handler));
            return stream.with_rows_per_query(self.config.limits.rows_per_query);
        }
        TypingStream::on_follower(writer, Rc::clone(handler), Rc::new(client.clone()))
    }

    /// Makes the command handler, which spawns a streamer or a follower for each writer of each stream.
    fn command_handler(&self, streams: &Streams, presence: &Presence) -> Rc<CommandHandler> {
        let name = self.name.clone();
        let server_name = self.config.server_name.clone();
        let (consumers, limits, env) = (self.consumers.clone(), self.config.limits, self.env.clone());
        let handler = CommandHandler::new(name, server_name, streams.all(), consumers, limits, env);
        handler.set_user_syncing(presence.connections(self.config.stream_writers.presence.clone()));
        handler
    }

    /// Spawns a task for each stream in the database that this instance writes. The task wakes the stream's streamer
    /// and the waiting syncs when rows were written.
    fn wake_on_stored_rows(&self, streams: &Streams, handler: &CommandHandler, notifier: &Rc<Notifier>) {
        for (ids, stream) in self.ids.iter().zip(&streams.stored) {
            let Some(streamer) = handler.streamer_of(stream) else { continue };
            let ids = Rc::clone(ids);
            let notifier = Rc::clone(notifier);
            self.env.tasks.spawn(tasks::POKE, async move {
                loop {
                    ids.changed().await;
                    streamer.poke();
                    notifier.notify();
                }
            });
        }
    }
}

/// Wakes the streamer of the typing stream, if this instance writes it, and the waiting syncs on every change.
fn wake_on_typing(typing: &TypingHandler, streams: &Streams, handler: &CommandHandler, notifier: &Rc<Notifier>) {
    let notifier = Rc::clone(notifier);
    // Weak, because the streamer holds its stream, and that holds the typing handler.
    let streamer = handler.streamer_of(&streams.typing).map(|streamer| Rc::downgrade(&streamer));
    typing.on_change(Box::new(move |_, _| {
        if let Some(streamer) = streamer.as_ref().and_then(Weak::upgrade) {
            streamer.poke();
        }
        notifier.notify();
    }));
}
