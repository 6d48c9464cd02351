//! What a command means, whatever connection it came on.
//!
//! Rows and positions go to the [`Feed`] of their (stream, writer), `REPLICATE` to the streamers, and what concerns
//! everybody is passed on by the master. The handler never waits: a connection's commands are taken as fast as they
//! come, and whatever takes time happens in the feeds and streamers.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::rc::Rc;

use super::{Consumers, Feed, Link, Side, Streamer, UserSyncing};
use crate::env::Env;
use crate::env::observer::Trouble;
use crate::protocol::{Command, InstanceName, MASTER, Position, Rdata, RdataHeader, StreamName, Token};
use crate::streams::{Row, Stream};

/// Handles the commands of all connections of one instance.
pub struct CommandHandler {
    instance: InstanceName,
    server_name: String,
    env: Env,
    consumers: Consumers,
    streams: Vec<Rc<dyn Stream>>,
    feeds: BTreeMap<FeedKey, Rc<Feed>>,
    streamers: Vec<Rc<Streamer>>,
    /// Rows that share a token with one still to come. Keyed by connection and writer too: two writers' batches
    /// arrive interleaved.
    batches: RefCell<BTreeMap<BatchKey, Batch>>,
    links: RefCell<BTreeMap<u64, Rc<Link>>>,
    /// With a broker: what we publish on and what we have subscribed on, as long as there is such a connection.
    publisher: RefCell<Option<Rc<Link>>>,
    subscription: RefCell<Option<Rc<Link>>>,
    links_made: Cell<u64>,
    user_syncing: OnceCell<Rc<dyn UserSyncing>>,
}

/// With more rows of one token than this, they are given up for one catch-up from the source: a batch that never ends must
/// not be held for ever.
pub const BATCH_ROWS_MAX: usize = 10_000;

/// How the broker is called in messages.
pub(crate) const BROKER: &str = "the broker";

type FeedKey = (StreamName, InstanceName);
type BatchKey = (u64, StreamName, InstanceName);

/// Rows that wait for their token.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    /// Whether a row of it could not be understood, or there are too many. Then all of it is fetched from the source.
    is_damaged: bool,
}

impl CommandHandler {
    /// A handler for `instance` with these streams. Spawns a streamer for each stream it writes and a feed for each
    /// other writer.
    pub fn new(
        instance: InstanceName,
        server_name: String,
        streams: Vec<Rc<dyn Stream>>,
        consumers: Consumers,
        env: Env,
    ) -> Rc<Self> {
        let mut feeds = BTreeMap::new();
        let mut streamers = Vec::new();
        for stream in &streams {
            for writer in stream.writers() {
                if *writer == instance {
                    let streamer = Rc::new(Streamer::new(Rc::clone(stream), writer.clone(), env.clone()));
                    env.tasks.spawn("streamer", Rc::clone(&streamer).run());
                    streamers.push(streamer);
                } else {
                    let feed = Rc::new(Feed::new(Rc::clone(stream), writer.clone(), consumers.clone(), env.clone()));
                    env.tasks.spawn("feed", Rc::clone(&feed).run());
                    feeds.insert((stream.name().clone(), writer.clone()), feed);
                }
            }
        }
        Rc::new(CommandHandler {
            instance,
            server_name,
            env,
            consumers,
            streams,
            feeds,
            streamers,
            batches: RefCell::default(),
            links: RefCell::default(),
            publisher: RefCell::default(),
            subscription: RefCell::default(),
            links_made: Cell::new(0),
            user_syncing: OnceCell::new(),
        })
    }

    /// Who is to be told of syncing users, and of connections on which to speak of them. Once, before any connection.
    pub fn set_user_syncing(&self, user_syncing: Rc<dyn UserSyncing>) {
        let was_set = self.user_syncing.set(user_syncing).is_err();
        debug_assert!(!was_set, "there is one part of an instance that knows who is syncing");
    }

    /// Whose handler it is.
    pub fn instance(&self) -> &InstanceName {
        &self.instance
    }

    /// The homeserver's name.
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    /// `stream`, which this instance writes, may have moved: sends what is new.
    pub fn poke(&self, stream: &str) {
        self.streamers.iter().filter(|streamer| streamer.stream().as_str() == stream).for_each(|one| one.poke());
    }

    /// A connection was made to `target`, or accepted (`None`). Greets the other end.
    pub fn opened(&self, target: Option<&InstanceName>) -> Rc<Link> {
        let link = match target {
            Some(target) => self.link(Side::Client, target.as_str(), self.streams_written_by(target)),
            None => self.link(Side::Server, "a client that has not told its name", BTreeSet::new()),
        };
        let ping = Command::Ping(self.env.clock.now_ms().to_string());
        let greet = |greeting| link.send(&greeting).expect("configured names are short and have no line breaks");
        match target {
            Some(target) => {
                greet(Command::Name(self.instance.to_string()));
                greet(ping);
                if let Some(user_syncing) = self.user_syncing.get() {
                    user_syncing.connected(target, &link);
                }
                greet(Command::Replicate);
            }
            None => {
                greet(Command::Server(self.server_name.clone()));
                greet(ping);
            }
        }
        link
    }

    /// A connection to the broker was made to publish on. Whatever was published before may be lost, whole or in part: the
    /// last ones that the broker took are not known, and nothing was published since. So everybody is told our positions
    /// before the next row, and who is syncing here.
    pub fn publishing(&self) -> Rc<Link> {
        let link = self.link(Side::Publisher, BROKER, BTreeSet::new());
        *self.publisher.borrow_mut() = Some(Rc::clone(&link));
        if let Some(user_syncing) = self.user_syncing.get() {
            user_syncing.publishing(&link);
        }
        self.streamers.iter().for_each(|streamer| streamer.announce_to(&link));
        if self.subscription.borrow().as_ref().is_some_and(|subscription| !subscription.is_working()) {
            self.say(&link, &Command::Replicate);
        }
        link
    }

    /// The broker has acknowledged our subscription, and not before that: everybody is asked for their positions, and the
    /// answers will come on it (Synapse #7427).
    pub fn subscribed(&self) -> Rc<Link> {
        let link = self.link(Side::Subscriber, BROKER, BTreeSet::new());
        *self.subscription.borrow_mut() = Some(Rc::clone(&link));
        if let Some(publisher) = &*self.publisher.borrow() {
            self.say(publisher, &Command::Replicate);
        }
        link
    }

    fn link(&self, side: Side, peer: &str, awaited: BTreeSet<StreamName>) -> Rc<Link> {
        let id = self.links_made.get();
        self.links_made.set(id + 1);
        let link = Rc::new(Link::new(id, side, peer, awaited));
        self.links.borrow_mut().insert(id, Rc::clone(&link));
        self.env.observer.opened(side);
        link
    }

    fn streams_written_by(&self, writer: &InstanceName) -> BTreeSet<StreamName> {
        self.streams.iter().filter(|stream| stream.writers().contains(writer)).map(|s| s.name().clone()).collect()
    }

    /// A connection ended. Half a batch that came on it will not be completed.
    pub fn lost(&self, link: &Link) {
        if self.links.borrow_mut().remove(&link.id()).is_some() {
            self.env.observer.closed(link.side());
        }
        for held in [&self.publisher, &self.subscription] {
            held.borrow_mut().take_if(|held| held.id() == link.id());
        }
        self.batches.borrow_mut().retain(|(id, ..), _| *id != link.id());
    }

    /// All open connections.
    pub fn links(&self) -> Vec<Rc<Link>> {
        self.links.borrow().values().cloned().collect()
    }

    /// A command came in whose direction is right for its connection.
    pub fn received(&self, link: &Rc<Link>, command: Command) {
        self.env.observer.received(command.name());
        match command {
            Command::Rdata(rdata) => self.on_rdata(link, rdata),
            Command::Position(position) => self.on_position(link, position),
            Command::Replicate => self.on_replicate(link),
            Command::Name(name) => link.rename(&name),
            Command::Server(name) if name != self.server_name => link.close_with_error("Wrong remote"),
            Command::Server(_) => {
                if link.greeted() {
                    self.env.observer.set_up(&link.peer());
                }
            }
            Command::RemoteServerUp(_) | Command::LockReleased(_) => self.on_broadcast(link, &command),
            Command::Error(text) => {
                self.env.observer.trouble(Trouble::Connection { peer: &link.peer(), error: &PeerComplains(text) });
            }
            Command::UserSync(sync) => {
                self.user_syncing.get().iter().for_each(|user_syncing| user_syncing.user_sync(&sync));
            }
            Command::ClearUserSync(instance_id) => {
                self.user_syncing.get().iter().for_each(|user_syncing| user_syncing.clear_user_sync(&instance_id));
            }
            // Pings matter to the transport alone. Acknowledgements of federation rows and addresses of users concern
            // streams and tables that this instance does not have.
            Command::Ping(_)
            | Command::FederationAck(_)
            | Command::UserIp(_)
            | Command::NewActiveTask(_)
            | Command::CancelTask(_) => {}
        }
    }

    /// Somebody wants to know our positions. With a broker everybody hears it and is told the same, and it may have been
    /// ourselves: then it shows that our subscription works.
    fn on_replicate(&self, link: &Rc<Link>) {
        if link.side() != Side::Subscriber {
            self.streamers.iter().for_each(|streamer| streamer.announce_to(link));
            return;
        }
        link.works();
        if let Some(publisher) = &*self.publisher.borrow() {
            self.streamers.iter().for_each(|streamer| streamer.announce_to(publisher));
        }
        // Whoever asks may be the presence writer, who has then missed who is syncing here.
        self.user_syncing.get().iter().for_each(|user_syncing| user_syncing.asked());
    }

    fn on_rdata(&self, link: &Rc<Link>, rdata: Rdata) {
        let Rdata { stream, writer, token, row } = rdata;
        let Some(feed) = self.feed(&stream, &writer) else { return };
        let row = Row::parse(&stream, row);
        let key = (link.id(), stream, writer);
        let mut batches = self.batches.borrow_mut();
        let mut batch = batches.remove(&key).unwrap_or_default();
        match row {
            Ok(row) => batch.rows.push(row),
            Err(error) => {
                batch.is_damaged = true;
                self.env.observer.trouble(Trouble::Row { stream: &key.1, error: &error });
            }
        }
        if batch.rows.len() > BATCH_ROWS_MAX {
            batch = Batch { rows: Vec::new(), is_damaged: true };
        }
        match token {
            None => {
                batches.insert(key, batch);
            }
            // The position must not move over a row that was not understood.
            Some(token) if batch.is_damaged => feed.position(link, token, token),
            Some(token) => feed.rows(link, token, batch.rows),
        }
    }

    /// A row came that is not even JSON. Over TCP that costs the connection, and whoever connects anew fetches what they
    /// lack; a broker's is everybody's and stays, so nothing else would tell of the row.
    pub fn unreadable(&self, link: &Rc<Link>, header: RdataHeader<'_>, error: &dyn Error) {
        let (stream, writer) = (StreamName::from(header.stream), InstanceName::from(header.writer));
        let Some(feed) = self.feed(&stream, &writer) else { return };
        self.env.observer.trouble(Trouble::Row { stream: &stream, error });
        let key = (link.id(), stream, writer);
        match header.token {
            None => {
                self.batches.borrow_mut().insert(key, Batch { rows: Vec::new(), is_damaged: true });
            }
            Some(token) => {
                self.batches.borrow_mut().remove(&key);
                feed.position(link, token, token);
            }
        }
    }

    fn on_position(&self, link: &Rc<Link>, position: Position) {
        let Position { stream, writer, prev, new } = position;
        let Some(feed) = self.feed(&stream, &writer) else { return };
        feed.position(link, prev, new);
        self.batches.borrow_mut().remove(&(link.id(), stream, writer));
    }

    /// The feed of `writer`'s rows. None for streams of a newer version and for writers that are not configured, which
    /// must harm nothing else (a `POSITION` of an unknown stream made all of Synapse reconnect), and for our own.
    fn feed(&self, stream: &StreamName, writer: &InstanceName) -> Option<&Rc<Feed>> {
        let feed = self.feeds.get(&(stream.clone(), writer.clone()));
        if feed.is_none() && self.stream(stream.as_str()).is_none() {
            self.env.observer.trouble(Trouble::UnknownStream { stream });
        }
        feed
    }

    /// A remote server that was thought to be down has been heard from: everybody is told (Synapse #6706).
    pub fn remote_server_up(&self, server: &str) {
        let command = Command::RemoteServerUp(server.to_owned());
        if let Some(publisher) = &*self.publisher.borrow() {
            self.say(publisher, &command);
            return;
        }
        if self.instance.as_str() == MASTER {
            self.pass_on(None, &command);
            return;
        }
        let links = self.links.borrow();
        let to_master = links.values().filter(|link| link.side() == Side::Client && link.peer() == MASTER);
        to_master.for_each(|link| self.say(link, &command));
    }

    /// Over TCP the master passes on what concerns everybody, to all but who said it (Synapse #7352). With a broker
    /// everybody has heard it already, whoever said it included: said again, it would never end (Synapse #7334).
    fn on_broadcast(&self, from: &Link, command: &Command) {
        self.consumers.tell(|consumer| consumer.heard(command));
        if from.side() == Side::Server || from.side() == Side::Client {
            self.relay(from, command);
        }
    }

    fn relay(&self, from: &Link, command: &Command) {
        if self.instance.as_str() == MASTER {
            self.pass_on(Some(from), command);
        }
    }

    fn pass_on(&self, from: Option<&Link>, command: &Command) {
        let links = self.links.borrow();
        let others = links.values().filter(|link| Some(link.id()) != from.map(Link::id));
        others.filter(|link| link.side() == Side::Server).for_each(|link| self.say(link, command));
    }

    fn say(&self, link: &Link, command: &Command) {
        if let Err(error) = link.send(command) {
            self.env.observer.trouble(Trouble::Connection { peer: &link.peer(), error: &error });
        }
    }

    /// The answer to a request for rows that only this instance has.
    pub fn stream(&self, name: &str) -> Option<&Rc<dyn Stream>> {
        self.streams.iter().find(|stream| stream.name().as_str() == name)
    }

    /// How far this instance knows `writer`'s rows of `stream`.
    pub fn position(&self, stream: &str, writer: &InstanceName) -> Option<Token> {
        Some(self.stream(stream)?.position(writer))
    }
}

/// The other end sent `ERROR`; it is only reported (Synapse does not close either).
#[derive(Debug, thiserror::Error)]
#[error("the other end says: {0}")]
struct PeerComplains(String);

#[cfg(test)]
mod tests;
