//! What a broker knows: who has subscribed to what, what waits for whom, and a few values that expire.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Options;
use super::resp::Reply;

/// How much may wait for a client that has subscribed, before it is dropped: `client-output-buffer-limit pubsub`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// With more than this it is dropped at once.
    pub hard_bytes: usize,
    /// With more than this ...
    pub soft_bytes: usize,
    /// ... for this long it is dropped.
    pub soft_for: Duration,
}

impl Default for Limits {
    /// Those of Redis.
    fn default() -> Self {
        Limits { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_for: Duration::from_secs(60) }
    }
}

/// A connection.
pub struct Client {
    id: u64,
    channels: RefCell<BTreeSet<Bytes>>,
    outbox: RefCell<BytesMut>,
    /// Since when more waits than the soft limit.
    over_since: Cell<Option<Instant>>,
    /// Nothing more is put into the outbox.
    is_done: Cell<bool>,
    changed: Notify,
    /// Whatever is in the outbox, the connection is to be closed.
    dropped: Notify,
}

impl Client {
    /// Puts a reply into the outbox.
    pub fn send(&self, reply: &Reply) {
        reply.encode(&mut self.outbox.borrow_mut());
        self.changed.notify_one();
    }

    /// Hangs up when all that was said is written.
    pub fn hang_up(&self) {
        self.is_done.set(true);
        self.changed.notify_one();
    }

    /// Waits until the broker drops the client, whatever still waits for it.
    pub async fn dropped(&self) {
        self.dropped.notified().await;
    }

    /// Waits for something to write. `None` once all is written and it is time to hang up.
    pub async fn outgoing(&self) -> Option<BytesMut> {
        loop {
            let bytes = std::mem::take(&mut *self.outbox.borrow_mut());
            if !bytes.is_empty() {
                return Some(bytes);
            }
            if self.is_done.get() {
                return None;
            }
            self.changed.notified().await;
        }
    }

    /// Whether it may do nothing but listen.
    pub fn is_subscribed(&self) -> bool {
        !self.channels.borrow().is_empty()
    }

    /// Drops it if too much waits for it.
    fn judge(&self, Options { limits, dropped, .. }: &Options) {
        let waiting = self.outbox.borrow().len();
        let now = Instant::now();
        if waiting <= limits.soft_bytes {
            self.over_since.set(None);
        } else if self.over_since.get().is_none() {
            self.over_since.set(Some(now));
        }
        let is_over_for_long = self.over_since.get().is_some_and(|since| now.duration_since(since) >= limits.soft_for);
        if waiting > limits.hard_bytes || is_over_for_long {
            dropped.set(dropped.get() + u64::from(!self.is_done.replace(true)));
            self.dropped.notify_one();
        }
    }
}

/// A value, and when it is gone.
struct Value {
    bytes: Bytes,
    until: Option<Instant>,
}

/// What one process of a broker knows.
pub struct State {
    options: Options,
    clients: RefCell<BTreeMap<u64, Rc<Client>>>,
    ids: Cell<u64>,
    values: RefCell<BTreeMap<Bytes, Value>>,
}

impl State {
    /// Nobody is connected.
    pub fn new(options: Options) -> Self {
        State { options, clients: RefCell::default(), ids: Cell::new(1), values: RefCell::default() }
    }

    /// Whether that is what clients have to say first. None has to if there is no password.
    pub fn lets_in(&self, password: Option<&[u8]>) -> bool {
        self.options.password.as_ref().is_none_or(|expected| password == Some(expected.as_bytes()))
    }

    /// A client connects.
    pub fn connected(&self) -> Rc<Client> {
        let id = self.ids.replace(self.ids.get() + 1);
        let client = Rc::new(Client {
            id,
            channels: RefCell::default(),
            outbox: RefCell::default(),
            over_since: Cell::new(None),
            is_done: Cell::new(false),
            changed: Notify::new(),
            dropped: Notify::new(),
        });
        self.clients.borrow_mut().insert(id, Rc::clone(&client));
        client
    }

    /// A client is gone.
    pub fn disconnected(&self, client: &Client) {
        self.clients.borrow_mut().remove(&client.id);
    }

    /// Subscribes a client; each channel is acknowledged by itself.
    pub fn subscribe(&self, client: &Client, channels: &[Bytes]) {
        for channel in channels {
            client.channels.borrow_mut().insert(channel.clone());
            client.send(&change("subscribe", Some(channel), client));
        }
    }

    /// Ends a client's subscriptions; all of them if none is named.
    pub fn unsubscribe(&self, client: &Client, channels: &[Bytes]) {
        let all: Vec<Bytes>;
        let channels = if channels.is_empty() {
            all = client.channels.borrow().iter().cloned().collect();
            &all
        } else {
            channels
        };
        if channels.is_empty() {
            client.send(&change("unsubscribe", None, client));
        }
        for channel in channels {
            client.channels.borrow_mut().remove(channel);
            client.send(&change("unsubscribe", Some(channel), client));
        }
    }

    /// Tells whoever has subscribed, and how many those are.
    pub fn publish(&self, channel: &Bytes, payload: &Bytes) -> i64 {
        let message = Reply::Array(vec![
            Reply::bulk("message"),
            Reply::Bulk(Some(channel.clone())),
            Reply::Bulk(Some(payload.clone())),
        ]);
        let clients = self.clients.borrow();
        let subscribed = clients.values().filter(|client| client.channels.borrow().contains(channel));
        let tell = |client: &Rc<Client>| {
            client.send(&message);
            client.judge(&self.options);
        };
        subscribed.inspect(|client| tell(client)).count() as i64
    }

    /// A value, if it is there and has not expired.
    pub fn get(&self, key: &Bytes) -> Option<Bytes> {
        let values = self.values.borrow();
        let value = values.get(key)?;
        value.until.is_none_or(|until| Instant::now() < until).then(|| value.bytes.clone())
    }

    /// Sets a value, for ever or for a while.
    pub fn set(&self, key: Bytes, bytes: Bytes, for_ms: Option<u64>) {
        let until = for_ms.map(|for_ms| Instant::now() + Duration::from_millis(for_ms));
        self.values.borrow_mut().insert(key, Value { bytes, until });
    }
}

fn change(kind: &'static str, channel: Option<&Bytes>, client: &Client) -> Reply {
    let count = client.channels.borrow().len() as i64;
    Reply::Array(vec![Reply::bulk(kind), Reply::Bulk(channel.cloned()), Reply::Integer(count)])
}
