//! The state of a broker: its clients, their subscriptions and unsent replies, and values that expire.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Options;
use crate::transport::redis::resp::Reply;

/// The limits on unsent replies to a subscriber, beyond which it is disconnected: `client-output-buffer-limit pubsub`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Number of unsent bytes at which the client is disconnected at once.
    pub hard_bytes: usize,
    /// Number of unsent bytes at which the client is disconnected after `soft_for`.
    pub soft_bytes: usize,
    /// Time for which a client may exceed `soft_bytes`.
    pub soft_for: Duration,
}

impl Default for Limits {
    /// Returns the defaults of Redis.
    fn default() -> Self {
        Limits { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_for: Duration::from_secs(60) }
    }
}

/// One connection.
pub(super) struct Client {
    id: u64,
    address: String,
    channels: RefCell<BTreeSet<Bytes>>,
    outbox: RefCell<BytesMut>,
    /// The time since which more than `soft_bytes` are unsent.
    over_since: Cell<Option<Instant>>,
    /// True once the connection is to be closed when the outbox is empty.
    is_closing: Cell<bool>,
    changed: Notify,
    /// Notified when the connection is to be closed at once, without sending the outbox.
    dropped: Notify,
}

impl Client {
    /// Puts a reply into the outbox.
    pub(super) fn send(&self, reply: &Reply) {
        reply.encode(&mut self.outbox.borrow_mut());
        self.changed.notify_one();
    }

    /// Puts a reply into the outbox that is encoded already.
    fn send_encoded(&self, reply: &[u8]) {
        self.outbox.borrow_mut().extend_from_slice(reply);
        self.changed.notify_one();
    }

    /// Closes the connection once the outbox is sent.
    pub(super) fn close(&self) {
        self.is_closing.set(true);
        self.changed.notify_one();
    }

    /// Waits until the client is disconnected for exceeding its limits.
    pub(super) async fn dropped(&self) {
        self.dropped.notified().await;
    }

    /// Waits for bytes to send. Returns `None` once everything is sent and the connection is to be closed.
    pub(super) async fn outgoing(&self) -> Option<BytesMut> {
        loop {
            let bytes = std::mem::take(&mut *self.outbox.borrow_mut());
            if !bytes.is_empty() {
                return Some(bytes);
            }
            if self.is_closing.get() {
                return None;
            }
            self.changed.notified().await;
        }
    }

    /// Returns the number and the made-up address of the client, as `CLIENT INFO` does.
    pub(super) fn info(&self) -> String {
        format!("id={} addr={}\n", self.id, self.address)
    }

    /// Returns true if the client has subscribed to a channel.
    pub(super) fn is_subscribed(&self) -> bool {
        !self.channels.borrow().is_empty()
    }

    /// Disconnects the client if its unsent replies exceed the limits.
    fn enforce_limits(&self, Options { limits, dropped, .. }: &Options) {
        let waiting = self.outbox.borrow().len();
        let now = Instant::now();
        if waiting <= limits.soft_bytes {
            self.over_since.set(None);
        } else if self.over_since.get().is_none() {
            self.over_since.set(Some(now));
        }
        let is_over_for_long = self.over_since.get().is_some_and(|since| now.duration_since(since) >= limits.soft_for);
        if waiting > limits.hard_bytes || is_over_for_long {
            dropped.set(dropped.get() + u64::from(!self.is_closing.replace(true)));
            self.dropped.notify_one();
        }
    }
}

/// A value and the time at which it expires.
struct Value {
    bytes: Bytes,
    expires_at: Option<Instant>,
}

/// The state of one process of a broker.
pub(super) struct State {
    options: Options,
    clients: RefCell<BTreeMap<u64, Rc<Client>>>,
    ids: Cell<u64>,
    values: RefCell<BTreeMap<Bytes, Value>>,
}

impl State {
    /// Creates a state without clients.
    pub(super) fn new(options: Options) -> Self {
        State { options, clients: RefCell::default(), ids: Cell::new(1), values: RefCell::default() }
    }

    /// Returns the configuration.
    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// Disconnects the clients that match at once. Returns their number.
    pub(super) fn drop_clients(&self, matches: impl Fn(&Client) -> bool) -> usize {
        let clients = self.clients.borrow();
        let matching = clients.values().filter(|client| matches(client));
        matching.map(|client| client.dropped.notify_one()).count()
    }

    /// Disconnects the client of this number and address at once. Returns the number of clients: one or none.
    pub(super) fn kill(&self, id: u64, address: &str) -> i64 {
        let killed = self.drop_clients(|client| client.id == id && client.address == address);
        self.clients.borrow_mut().retain(|other, _| killed == 0 || *other != id);
        killed as i64
    }

    /// Returns true if a client with this password is authenticated. Every client is if no password is configured.
    pub(super) fn is_authenticated(&self, password: Option<&[u8]>) -> bool {
        self.options.password.as_ref().is_none_or(|expected| password == Some(expected.as_bytes()))
    }

    /// Adds a client.
    pub(super) fn connect(&self) -> Rc<Client> {
        let id = self.ids.replace(self.ids.get() + 1);
        let accepted = &self.options.accepted;
        accepted.set(accepted.get() + 1);
        let client = Rc::new(Client {
            id,
            address: format!("client:{}", accepted.get()),
            channels: RefCell::default(),
            outbox: RefCell::default(),
            over_since: Cell::new(None),
            is_closing: Cell::new(false),
            changed: Notify::new(),
            dropped: Notify::new(),
        });
        self.clients.borrow_mut().insert(id, Rc::clone(&client));
        client
    }

    /// Removes a client.
    pub(super) fn disconnect(&self, client: &Client) {
        self.clients.borrow_mut().remove(&client.id);
    }

    /// Subscribes a client. Each channel is acknowledged by a reply of its own.
    pub(super) fn subscribe(&self, client: &Client, channels: &[Bytes]) {
        for channel in channels {
            client.channels.borrow_mut().insert(channel.clone());
            client.send(&change("subscribe", Some(channel), client));
        }
    }

    /// Ends a client's subscriptions to `channels`, or all of them if `channels` is empty.
    pub(super) fn unsubscribe(&self, client: &Client, channels: &[Bytes]) {
        let channels: Vec<Bytes> = match channels {
            [] => client.channels.borrow().iter().cloned().collect(),
            channels => channels.to_vec(),
        };
        if channels.is_empty() {
            client.send(&change("unsubscribe", None, client));
        }
        for channel in &channels {
            client.channels.borrow_mut().remove(channel);
            client.send(&change("unsubscribe", Some(channel), client));
        }
    }

    /// Sends a message to every subscriber of `channel`. Returns their number.
    pub(super) fn publish(&self, channel: &Bytes, payload: &Bytes) -> i64 {
        let message = Reply::message(channel.clone(), payload.clone()).to_bytes();
        let clients = self.clients.borrow();
        let mut subscribers = 0;
        for client in clients.values().filter(|client| client.channels.borrow().contains(channel)) {
            client.send_encoded(&message);
            client.enforce_limits(&self.options);
            subscribers += 1;
        }
        subscribers
    }

    /// Returns a value unless it has expired.
    pub(super) fn get(&self, key: &Bytes) -> Option<Bytes> {
        let values = self.values.borrow();
        let value = values.get(key)?;
        value.expires_at.is_none_or(|at| Instant::now() < at).then(|| value.bytes.clone())
    }

    /// Sets a value, which expires after `expiry_ms` if that is given.
    pub(super) fn set(&self, key: Bytes, bytes: Bytes, expiry_ms: Option<u64>) {
        let expires_at = expiry_ms.map(|expiry_ms| Instant::now() + Duration::from_millis(expiry_ms));
        self.values.borrow_mut().insert(key, Value { bytes, expires_at });
    }
}

/// Creates the reply to a change of a client's subscriptions.
fn change(kind: &'static str, channel: Option<&Bytes>, client: &Client) -> Reply {
    let count = client.channels.borrow().len() as i64;
    Reply::Array(vec![Reply::bulk(kind), Reply::Bulk(channel.cloned()), Reply::Integer(count)])
}
