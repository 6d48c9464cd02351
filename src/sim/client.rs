//! A client of one instance: it reads and writes through it, and bears witness of what it was told.

use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::recorder::Witness;
use crate::caches::{Cached, LoadError};
use crate::instance::{Instance, Write};
use crate::judge::Device;
use crate::protocol::{InstanceName, Token};
use crate::replication::WaitError;
use crate::store::account_data::Datum;
use crate::store::{NewEvent, StateDelta};
use crate::transport::http::HttpError;
use crate::transport::http::endpoints::send_events::SentEvent;

/// Why a client was not told that something is done.
pub type Failure = Box<dyn Error>;

/// A client of one boot of one instance.
pub struct Client {
    instance: Rc<Instance>,
    witness: Witness,
}

impl Client {
    /// A client of `instance`, of whose boot `witness` speaks.
    pub fn new(instance: Rc<Instance>, witness: Witness) -> Self {
        Client { instance, witness }
    }

    /// The instance it talks to.
    pub fn instance(&self) -> &Rc<Instance> {
        &self.instance
    }

    /// It was told that what it wrote is done: each of `what` was changed under `token`, by the instance itself.
    pub fn answered(&self, what: impl IntoIterator<Item = Cached>, token: Token) {
        what.into_iter().for_each(|what| self.witness.answered(what, self.instance.name(), token));
    }

    /// It was told why something is not done, or not seen to be done.
    pub fn failed(&self, failure: &Failure) {
        let failure = failure.downcast_ref::<HttpError>();
        if let Some(HttpError::NotSeen(WaitError::Timeout { stream, writer, position, .. })) = failure {
            self.witness.wait_timed_out(stream, writer, *position);
        }
    }

    /// Sends an event to a room that becomes an entry of its state, and reads the state as soon as that is told to be
    /// done. `ordinal` makes the event's id unique.
    pub async fn change_state(&self, ordinal: usize, room_id: &str) -> Result<(), Failure> {
        let writer = self.instance.config().events_writer_of(room_id);
        let (event_id, kind) = (format!("$topic{ordinal}"), "m.room.topic");
        let token = if writer == self.instance.name() {
            let event = NewEvent {
                kind: kind.to_owned(),
                state_key: Some(String::new()),
                ..NewEvent::message(event_id.clone(), room_id)
            };
            let (kind, state_key) = (kind.to_owned(), String::new());
            let delta = StateDelta { room_id: room_id.to_owned(), kind, state_key, event_id: Some(event_id) };
            self.instance.events()?.persist(vec![Write { event: Some(event), state: vec![delta] }]).await?
        } else {
            let event = json!({
                "event_id": event_id, "room_id": room_id, "type": kind, "state_key": "", "sender": "@user:squall.test",
                "content": { "topic": ordinal },
            });
            let mut sent = SentEvent::deserialize(json!({ "room_version": "1", "event": event }))?;
            sent.context.state_delta_due_to_event = Some(vec![(kind.to_owned(), String::new(), Some(event_id))]);
            self.instance.client().send_events(writer, &[sent]).await?.stream_id
        };
        self.read_back(Cached::State { room_id: room_id.to_owned() }, writer, token).await;
        Ok(())
    }

    /// Keeps `datum`, which is among `what`, and reads that as soon as it is told to be done.
    pub async fn set_account_data(&self, what: Cached, datum: Datum) -> Result<(), Failure> {
        let writer = &self.instance.config().stream_writers.account_data;
        let token = if writer == self.instance.name() {
            self.instance.set_account_data(vec![datum]).await?
        } else {
            self.instance.client().set_account_data(writer, &datum).await?
        };
        self.read_back(what, writer, token).await;
        Ok(())
    }

    async fn read_back(&self, what: Cached, writer: &InstanceName, token: Token) {
        self.witness.answered(what.clone(), writer, token);
        self.read(what).await;
    }

    /// Reads `what`, unless that fails.
    pub async fn read(&self, what: Cached) {
        let read = self.witness.asked(what.clone());
        if let Ok(version) = self.version(&what).await {
            self.witness.told(read, version);
        }
    }

    /// A remote server talks to the instance.
    pub fn server_up(&self, server: &str) {
        self.witness.began("REMOTE_SERVER_UP");
        self.instance.handler().remote_server_up(server);
    }

    /// Keeps a sync open. A client that loses its process begins another sync somewhere else, if its plan says so.
    pub async fn sync(&self, device: Device, for_ms: u64) {
        let _told = ToldSync::begin(&self.witness, &device);
        let _syncing = self.instance.user_syncs().begin(&device.user, device.device.as_deref());
        tokio::time::sleep(Duration::from_millis(for_ms)).await;
    }

    async fn version(&self, what: &Cached) -> Result<Option<Token>, LoadError> {
        let caches = self.instance.caches();
        Ok(match what {
            Cached::State { room_id } => caches.current_state(room_id).await?.version,
            Cached::Event { event_id } => caches.event(event_id).await?.version,
            Cached::Receipts { room_id } => caches.receipts(room_id).await?.version,
            Cached::AccountData { user_id } => caches.account_data(user_id).await?.version,
            Cached::RoomAccountData { user_id, room_id } => caches.room_account_data(user_id, room_id).await?.version,
        })
    }
}

/// Tells of a sync's end however it ends: a request may be dropped. Must be dropped after what makes the instance know of
/// the sync.
struct ToldSync<'a> {
    witness: &'a Witness,
    device: &'a Device,
}

impl<'a> ToldSync<'a> {
    fn begin(witness: &'a Witness, device: &'a Device) -> Self {
        witness.sync_began(device);
        ToldSync { witness, device }
    }
}

impl Drop for ToldSync<'_> {
    fn drop(&mut self) {
        self.witness.sync_ended(self.device);
    }
}
