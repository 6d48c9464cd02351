//! Handles the commands of all connections of one instance.
//!
//! Rows and positions go to the `StreamFollower` of their (stream, writer), and `REPLICATE` goes to the streamers. Over
//! TCP the master relays the commands that concern every instance. The handler never waits: it accepts a connection's
//! commands as fast as they arrive, and work that takes time is done by the followers and streamers.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::rc::Rc;

use super::batches::{Batch, Batches};
use super::followers::{FollowerKey, Followers};
use super::{Connection, Consumers, StreamFollower, Streamer, UnknownWriters, UserSyncing};
use crate::limits::{LimitHit, Limits, ROWS_BYTES_MAX};
use crate::observer::Env;
use crate::observer::InstanceEvent;
use crate::store::Checked;
use crate::streams::Stream;
use crate::tasks;
use squall_protocol::rows::Row;
use squall_protocol::{
    Command, InstanceName, MASTER, Newer, ParseError, Position, Rdata, RdataHeader, Role, StreamName, Token, json,
};

/// Handles the commands of all connections of one instance.
pub struct CommandHandler {
    instance: InstanceName,
    server_name: String,
    limits: Limits,
    env: Env,
    consumers: Consumers,
    streams: Vec<Rc<dyn Stream>>,
    followers: Followers,
    streamers: Vec<Rc<Streamer>>,
    batches: Batches,
    unknown_writers: UnknownWriters,
    /// True while a position under the own name is checked.
    checks_own_position: Rc<Cell<bool>>,
    connections: RefCell<BTreeMap<u64, Rc<Connection>>>,
    /// The connection to the broker on which this instance publishes, while there is one.
    publisher: RefCell<Option<Rc<Connection>>>,
    /// The connection to the broker on which this instance has subscribed, while there is one.
    subscription: RefCell<Option<Rc<Connection>>>,
    connections_made: Cell<u64>,
    user_syncing: OnceCell<Rc<dyn UserSyncing>>,
}

/// The broker's name in messages.
pub(crate) const BROKER: &str = "the broker";

impl CommandHandler {
    /// Returns a handler for `instance` with these streams. Spawns a streamer for each stream that the instance writes,
    /// and a follower for each other writer of each stream.
    pub fn new(
        instance: InstanceName,
        server_name: String,
        streams: Vec<Rc<dyn Stream>>,
        consumers: Consumers,
        limits: Limits,
        env: Env,
    ) -> Rc<Self> {
        let mut followers = Vec::new();
        let mut streamers = Vec::new();
        for stream in &streams {
            for writer in stream.writers() {
                if *writer == instance {
                    let streamer = Rc::new(Streamer::new(Rc::clone(stream), writer.clone(), env.clone()));
                    env.tasks.spawn(tasks::STREAMER, Rc::clone(&streamer).run());
                    streamers.push(streamer);
                } else {
                    let follower =
                        StreamFollower::new(Rc::clone(stream), writer.clone(), consumers.clone(), env.clone());
                    let follower = Rc::new(follower.with_queue(limits.items_queued_max));
                    env.tasks.spawn(tasks::STREAM_FOLLOWER, Rc::clone(&follower).run());
                    followers.push(((stream.name().clone(), writer.clone()), follower));
                }
            }
        }
        Rc::new(CommandHandler {
            instance,
            server_name,
            limits,
            env,
            consumers,
            streams,
            followers: followers.into_iter().collect(),
            streamers,
            batches: Batches::default(),
            connections: RefCell::default(),
            publisher: RefCell::default(),
            subscription: RefCell::default(),
            connections_made: Cell::new(0),
            unknown_writers: UnknownWriters::default(),
            checks_own_position: Rc::default(),
            user_syncing: OnceCell::new(),
        })
    }

    /// Sets the receiver of commands about syncing users and of new connections. Called once, before any connection.
    pub fn set_user_syncing(&self, user_syncing: Rc<dyn UserSyncing>) {
        let was_set = self.user_syncing.set(user_syncing).is_err();
        debug_assert!(!was_set, "an instance has one record of syncing users");
    }

    /// Returns the name of the instance whose commands it handles.
    pub fn instance(&self) -> &InstanceName {
        &self.instance
    }

    /// Returns the homeserver's name.
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    /// Returns the limits of the instance.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the streamer of `stream`, if this instance writes it.
    pub fn streamer_of(&self, stream: &Rc<dyn Stream>) -> Option<Rc<Streamer>> {
        self.streamers.iter().find(|streamer| streamer.sends(stream)).cloned()
    }

    /// Registers a new connection, made to `target` or accepted from a peer (`None`), and greets the peer.
    pub fn opened(&self, target: Option<&InstanceName>) -> Rc<Connection> {
        let connection = match target {
            Some(target) => self.connection(Role::Client, target.as_str(), self.streams_written_by(target)),
            None => self.connection(Role::Server, "a client that has not sent its name", BTreeSet::new()),
        };
        let ping = Command::Ping(self.env.clock.now_ms().to_string());
        match target {
            Some(target) => {
                greet(&connection, &Command::Name(self.instance.to_string()));
                greet(&connection, &ping);
                if let Some(user_syncing) = self.user_syncing.get() {
                    user_syncing.connected(target, &connection);
                }
                greet(&connection, &Command::Replicate);
            }
            None => {
                greet(&connection, &Command::Server(self.server_name.clone()));
                greet(&connection, &ping);
            }
        }
        connection
    }

    /// Registers a new connection to the broker to publish on, and announces this instance's positions and syncing users.
    ///
    /// Messages of the connection before it may be lost: the last one that the broker accepted is not known, and nothing
    /// was published since. So every follower receives the positions before the next row.
    pub fn publishing(&self) -> Rc<Connection> {
        let connection = self.connection(Role::Publisher, BROKER, BTreeSet::new());
        *self.publisher.borrow_mut() = Some(Rc::clone(&connection));
        if let Some(user_syncing) = self.user_syncing.get() {
            user_syncing.publishing(&connection);
        }
        for streamer in &self.streamers {
            streamer.announce_to(&connection);
        }
        if self.subscription.borrow().as_ref().is_some_and(|subscription| !subscription.is_working()) {
            self.send(&connection, &Command::Replicate);
        }
        connection
    }

    /// Registers a new connection on which the broker has acknowledged the subscription, and asks every instance for its
    /// positions. A `REPLICATE` sent before the acknowledgement could be answered before this instance receives anything
    /// (Synapse #7427).
    pub fn subscribed(&self) -> Rc<Connection> {
        let connection = self.connection(Role::Subscriber, BROKER, BTreeSet::new());
        *self.subscription.borrow_mut() = Some(Rc::clone(&connection));
        if let Some(publisher) = &*self.publisher.borrow() {
            self.send(publisher, &Command::Replicate);
        }
        connection
    }

    /// Closes the connection to the broker on which this instance publishes. The transport makes another one.
    pub fn close_publisher(&self) {
        if let Some(publisher) = &*self.publisher.borrow() {
            publisher.close();
        }
    }

    /// Waits until all rows that this instance has written so far are in the outboxes of its connections.
    pub async fn written_is_sent(&self) {
        for streamer in &self.streamers {
            streamer.written_is_sent().await;
        }
    }

    fn connection(&self, role: Role, peer: &str, awaited: BTreeSet<StreamName>) -> Rc<Connection> {
        let id = self.connections_made.get();
        self.connections_made.set(id + 1);
        let Limits { commands_queued_max, .. } = self.limits;
        let connection = Connection::new(id, role, peer, awaited);
        let connection = Rc::new(connection.with_outbox(commands_queued_max, Rc::clone(&self.env.observer)));
        self.connections.borrow_mut().insert(id, Rc::clone(&connection));
        self.env.observer.opened(role);
        connection
    }

    fn streams_written_by(&self, writer: &InstanceName) -> BTreeSet<StreamName> {
        self.streams.iter().filter(|stream| stream.writers().contains(writer)).map(|s| s.name().clone()).collect()
    }

    /// Removes a connection that ended, with the incomplete batches that arrived on it.
    pub fn lost(&self, connection: &Connection) {
        if self.connections.borrow_mut().remove(&connection.id()).is_some() {
            self.env.observer.closed(connection.role());
        }
        for held in [&self.publisher, &self.subscription] {
            held.borrow_mut().take_if(|held| held.id() == connection.id());
        }
        self.batches.drop_all_of(connection.id());
    }

    /// Returns all connections that have not ended.
    pub fn connections(&self) -> Vec<Rc<Connection>> {
        self.connections.borrow().values().cloned().collect()
    }

    /// Handles a command. The caller has checked that it may travel in this direction.
    pub fn received(&self, connection: &Rc<Connection>, command: Command) {
        self.env.observer.received(command.name());
        if let Command::Position(position) = &command {
            self.check_own_position(position);
        }
        match command {
            Command::Rdata(rdata) => self.on_rdata(connection, rdata),
            Command::Position(position) => self.on_position(connection, position),
            Command::Replicate => self.on_replicate(connection),
            Command::Name(name) => connection.rename(&name),
            Command::Server(name) if name != self.server_name => connection.close_with_error("Wrong remote"),
            Command::Server(_) => {
                if connection.greeted() {
                    self.env.observer.set_up(&connection.peer());
                }
            }
            Command::RemoteServerUp(_) | Command::LockReleased(_) => self.on_broadcast(connection, &command),
            Command::Error(text) => {
                self.env
                    .observer
                    .event(InstanceEvent::Connection { peer: &connection.peer(), error: &PeerError(text) });
            }
            Command::UserSync(sync) => {
                if let Some(user_syncing) = self.user_syncing.get() {
                    user_syncing.user_sync(&sync);
                }
            }
            Command::ClearUserSync(instance_id) => {
                if let Some(user_syncing) = self.user_syncing.get() {
                    user_syncing.clear_user_sync(&instance_id);
                }
            }
            // PING concerns only the transport. The other commands concern streams and tables that no instance of Squall
            // has.
            Command::Ping(_)
            | Command::FederationAck(_)
            | Command::UserIp(_)
            | Command::NewActiveTask(_)
            | Command::CancelTask(_) => {}
        }
    }

    /// Checks a position under the name of this instance. Normally it is an echo. Otherwise another process has the name, and
    /// the stream refuses to write if that one has another database. Rows under the own name are ignored.
    fn check_own_position(&self, Position { stream, writer, new: token, .. }: &Position) {
        let own = self.stream(stream.as_str()).filter(|_| *writer == self.instance);
        let Some(stream) = own.filter(|stream| stream.position(writer) < *token).cloned() else { return };
        if self.checks_own_position.replace(true) {
            return; // one check at a time: another process announces its positions again
        }
        let (writer, token, observer) = (writer.clone(), *token, Rc::clone(&self.env.observer));
        let is_checking = Rc::clone(&self.checks_own_position);
        self.env.tasks.spawn(tasks::CHECK_OWN_POSITION, async move {
            let checked = stream.check(token).await;
            is_checking.set(false);
            if let Ok(Checked::NotAllocated) = checked {
                observer.event(InstanceEvent::NotAllocated { stream: stream.name(), writer: &writer, token });
            }
        });
    }

    /// Handles a line that is not a command of this version, because of `error`. One of a newer version is reported once for
    /// each kind and connection, and passed over.
    ///
    /// # Errors
    /// The line is not a command of a newer version either.
    pub fn newer(&self, connection: &Connection, line: &str, error: ParseError) -> Result<(), ParseError> {
        let Some(newer) = Newer::of(line, &error) else { return Err(error) };
        if connection.is_new(&newer) {
            self.env.observer.event(InstanceEvent::NewerCommand { peer: &connection.peer(), newer: &newer });
        }
        Ok(())
    }

    /// Answers a `REPLICATE` with this instance's positions.
    ///
    /// Over a broker every instance receives it, its sender included, and every instance receives the answers. Any
    /// `REPLICATE` that arrives, this instance's own included, shows that its subscription works.
    fn on_replicate(&self, connection: &Rc<Connection>) {
        if connection.role() != Role::Subscriber {
            for streamer in &self.streamers {
                streamer.announce_to(connection);
            }
            return;
        }
        connection.mark_working();
        if let Some(publisher) = &*self.publisher.borrow() {
            for streamer in &self.streamers {
                streamer.announce_to(publisher);
            }
        }
        // The sender may be the presence writer, which has then missed the announcements of users syncing here.
        if let Some(user_syncing) = self.user_syncing.get() {
            user_syncing.replicate_received();
        }
    }

    /// Handles an `RDATA` of a followed writer, if its row has the shape of the stream's rows. Otherwise this does nothing and
    /// returns false: then the line must be parsed by [`Command::parse`], which finds out why.
    pub fn received_row(&self, connection: &Rc<Connection>, header: &RdataHeader<'_>) -> bool {
        let Some(followed) = self.followers.get(header.stream, header.writer) else { return false };
        let Some(row) = Row::read(header.stream, header.row) else { return false };
        self.env.observer.received(RdataHeader::NAME);
        self.on_row(connection, followed, header.token, Some(row));
        true
    }

    fn on_rdata(&self, connection: &Rc<Connection>, rdata: Rdata) {
        let Rdata { stream, writer, token, row } = rdata;
        let Some(followed) = self.followed(&stream, &writer) else { return };
        let bytes = json::held_bytes(&row);
        let row = Row::parse(&stream, row).inspect_err(|error| {
            self.env.observer.event(InstanceEvent::Row { stream: &stream, error });
        });
        self.on_row(connection, followed, token, row.ok().map(|row| (row, bytes)));
    }

    /// Handles a row and the memory that it takes, in bytes; `None` is one that could not be parsed.
    fn on_row(
        &self,
        connection: &Rc<Connection>,
        (key, follower): &(FollowerKey, Rc<StreamFollower>),
        token: Option<Token>,
        row: Option<(Row, usize)>,
    ) {
        let mut batch = self.batches.take(connection.id(), key);
        match row {
            Some((row, bytes)) => {
                batch.rows.push(row);
                batch.bytes += bytes;
            }
            None => batch.is_damaged = true,
        }
        if batch.rows.len() > self.limits.batch_rows_max || batch.bytes > ROWS_BYTES_MAX {
            self.env.observer.limit_hit(LimitHit::BatchOverflowed);
            batch = Batch::damaged();
        }
        match token {
            None => self.batches.hold(connection.id(), key, batch),
            // The position must not move past a row that was not parsed.
            Some(token) if batch.is_damaged => follower.position(connection, token, token),
            Some(token) => follower.rows(connection, token, batch.rows, batch.bytes),
        }
    }

    /// Handles an `RDATA` whose row is not JSON, by making its follower fetch the row from the source.
    ///
    /// Over TCP such a row closes the connection, and the follower catches up on the next one. The connection to a broker
    /// carries every instance's rows and stays open, so nothing else would fetch the row.
    pub fn unreadable(&self, connection: &Rc<Connection>, header: RdataHeader<'_>, error: &dyn Error) {
        let stream = StreamName::from(header.stream);
        let writer = InstanceName::from(header.writer);
        let Some(followed) = self.followed(&stream, &writer) else { return };
        self.env.observer.event(InstanceEvent::Row { stream: &stream, error });
        self.batches.hold(connection.id(), &followed.0, Batch::damaged());
        self.on_row(connection, followed, header.token, None);
    }

    fn on_position(&self, connection: &Rc<Connection>, position: Position) {
        let Position { stream, writer, prev, new } = position;
        let Some((key, follower)) = self.followed(&stream, &writer) else { return };
        follower.position(connection, prev, new);
        // Mostly the rows so far are those of an ended process. If a stranger sent the position, rows of the batch follow, and
        // without the first ones they would be applied as if they were all.
        self.batches.damage(connection.id(), key);
    }

    /// Returns the follower of `writer`'s rows of `stream`, and its key. There is none for this instance's own rows, for unknown streams
    /// and for writers that are not configured. The latter two are reported and ignored: in Synapse a `POSITION` of an
    /// unknown stream made every instance reconnect.
    fn followed(&self, stream: &StreamName, writer: &InstanceName) -> Option<&(FollowerKey, Rc<StreamFollower>)> {
        let follower = self.followers.get(stream.as_str(), writer.as_str());
        if follower.is_none() && self.stream(stream.as_str()).is_none() {
            self.env.observer.event(InstanceEvent::UnknownStream { stream });
        } else if follower.is_none() && *writer != self.instance {
            let is_first = self.unknown_writers.is_new(stream, writer);
            self.env.observer.event(InstanceEvent::UnknownWriter { stream, writer, is_first });
        }
        follower
    }

    /// Returns the writers that the configuration does not name, of whose rows or positions this instance has heard.
    pub fn unknown_writers(&self) -> &UnknownWriters {
        &self.unknown_writers
    }

    /// Announces to every instance that a remote server that was thought to be down is up again (Synapse #6706).
    pub fn remote_server_up(&self, server: &str) {
        let command = Command::RemoteServerUp(server.to_owned());
        if let Some(publisher) = &*self.publisher.borrow() {
            self.send(publisher, &command);
            return;
        }
        if self.instance.as_str() == MASTER {
            self.broadcast(None, &command);
            return;
        }
        for connection in self.connections.borrow().values() {
            if connection.role() == Role::Client && connection.peer() == MASTER {
                self.send(connection, &command);
            }
        }
    }

    /// Handles a command that concerns every instance.
    ///
    /// Over TCP the master relays it to all connections but the sender's (Synapse #7352). Over a broker every instance has
    /// received it already, its sender included, and a relayed command would be relayed for ever (Synapse #7334).
    fn on_broadcast(&self, from: &Connection, command: &Command) {
        self.consumers.notify(|consumer| consumer.command_received(command));
        if from.role() == Role::Server || from.role() == Role::Client {
            self.relay(from, command);
        }
    }

    fn relay(&self, from: &Connection, command: &Command) {
        if self.instance.as_str() == MASTER {
            self.broadcast(Some(from), command);
        }
    }

    /// Sends `command` on every accepted connection but `from`.
    fn broadcast(&self, from: Option<&Connection>, command: &Command) {
        let sender = from.map(Connection::id);
        for connection in self.connections.borrow().values() {
            if connection.role() == Role::Server && Some(connection.id()) != sender {
                self.send(connection, command);
            }
        }
    }

    fn send(&self, connection: &Connection, command: &Command) {
        if let Err(error) = connection.send(command) {
            self.env.observer.event(InstanceEvent::Connection { peer: &connection.peer(), error: &error });
        }
    }

    /// Returns the stream called `name`, if this instance has it.
    pub fn stream(&self, name: &str) -> Option<&Rc<dyn Stream>> {
        self.streams.iter().find(|stream| stream.name().as_str() == name)
    }

    /// Returns the position up to which this instance has applied `writer`'s rows of `stream`.
    pub fn position(&self, stream: &str, writer: &InstanceName) -> Option<Token> {
        Some(self.stream(stream)?.position(writer))
    }
}

fn greet(connection: &Connection, greeting: &Command) {
    connection.send(greeting).expect("configured names are short and have no line breaks");
}

/// An `ERROR` that the peer sent. It is reported and does not close the connection, as in Synapse.
#[derive(Debug, thiserror::Error)]
#[error("the peer sent ERROR: {0}")]
struct PeerError(String);

#[cfg(test)]
mod tests;
