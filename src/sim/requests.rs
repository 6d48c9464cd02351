//! A client of one instance: it reads and writes through the instance, and reports the results to the judge.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::deployment::SERVER_NAME;
use super::witness::Witness;
use crate::caches::LoadError;
use crate::instance::{Instance, ReceiptsError, Write};
use crate::presence::SetState;
use crate::replication::WaitError;
use crate::store::account_data::Datum;
use crate::transport::http::HttpError;
use crate::transport::http::endpoints::presence::{SetBody, State};
use crate::transport::http::endpoints::send_events::SentEvent;
use squall_judge::{self as judge, Device, RequestFailure};
use squall_protocol::rows::ReceiptsRow;
use squall_protocol::rows::events::{EventRow, StateRow};
use squall_protocol::{Cached, InstanceName, Token};

/// The error of a request that was not acknowledged.
pub(super) type Failure = Box<dyn Error>;

/// A client of one boot of one instance. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    instance: Rc<Instance>,
    witness: Witness,
    /// The values that were read through the instance.
    read: Rc<RefCell<BTreeSet<Cached>>>,
}

impl Client {
    /// Creates a client of `instance`, with the witness of the same boot.
    pub(super) fn new(instance: Rc<Instance>, witness: Witness) -> Self {
        Client { instance, witness, read: Rc::default() }
    }

    /// Returns the instance.
    pub(super) fn instance(&self) -> &Rc<Instance> {
        &self.instance
    }

    /// Reports that a write was acknowledged: the instance itself changed each of `what` under `token`.
    pub(super) fn write_acked(&self, what: impl IntoIterator<Item = Cached>, token: Token) {
        for what in what {
            self.witness.write_acked(what, self.instance.name(), token);
        }
    }

    /// Writes one receipt. Returns its token if the instance writes it itself.
    pub(super) async fn send_receipt(&self, receipt: ReceiptsRow) -> Result<Option<Token>, Failure> {
        let sent = self.instance.share_out_receipts(None, SERVER_NAME, vec![receipt]).await;
        sent.map_err(|error| match error {
            ReceiptsError::Own(error) => error.into(),
            ReceiptsError::Others(_, error) => error.into(),
        })
    }

    /// Reports that a user's receipts of these rooms were acknowledged.
    pub(super) fn receipts_acked(&self, user_id: String, room_ids: Vec<String>) {
        self.witness.receipts_acked(user_id, room_ids);
    }

    /// Reports that a message to these devices was acknowledged.
    pub(super) fn messages_acked(&self, clients: Vec<judge::Client>, message_id: String) {
        self.witness.messages_acked(clients, message_id);
    }

    /// Reports a request that began at `began` and failed, and the wait for a position if it was that which timed out.
    pub(super) fn failed(&self, what: &'static str, began: Instant, failure: &Failure) {
        let http = failure.downcast_ref::<HttpError>();
        if let Some(HttpError::NotSeen(WaitError::Timeout { stream, writer, position, .. })) = http {
            self.witness.wait_timed_out(stream, writer, *position);
        }
        // Where several writers were asked, one may have failed long before the last one answered. So no wait is reported.
        let of_several = || match failure.downcast_ref()? {
            ReceiptsError::Own(_) => None,
            ReceiptsError::Others(_, error) => Some(error),
        };
        let failure = http.or_else(of_several).map_or(RequestFailure::NotWritten, failure_of);
        self.witness.request_failed(what, began.elapsed().as_millis() as u64, failure);
    }

    /// Sends a state event to a room, and reads the room's state once the event is acknowledged. `ordinal` makes the event's
    /// id unique.
    pub(super) async fn change_state(&self, ordinal: usize, room_id: &str) -> Result<(), Failure> {
        let (event_id, kind) = (format!("$topic{ordinal}"), "m.room.topic".to_owned());
        let state_key = Some(String::new());
        let event = EventRow { kind, state_key, ..EventRow::message(event_id, room_id.to_owned()) };
        let writer = self.instance.config().events_writer_of(room_id);
        let token = self.send_event(event, true).await?;
        self.read_back(Cached::State { room_id: room_id.to_owned() }, writer, token).await;
        Ok(())
    }

    /// Sends an event to the writer of its room, and returns its token once it is acknowledged. With `is_current`, it becomes
    /// the current state of its type and state key.
    pub(super) async fn send_event(&self, event: EventRow, is_current: bool) -> Result<Token, Failure> {
        let writer = self.instance.config().events_writer_of(&event.room_id);
        let EventRow { event_id, room_id, kind, state_key, outlier, .. } = event.clone();
        if writer == self.instance.name() {
            let (state_key, event_id) = (state_key.unwrap_or_default(), Some(event_id));
            let state = is_current.then_some(StateRow { room_id, kind, state_key, event_id });
            let write = Write { event: Some(event), state: state.into_iter().collect() };
            return Ok(self.instance.events()?.persist(vec![write]).await?);
        }
        let state_key = state_key.unwrap_or_default();
        let event = json!({
            "event_id": event_id, "room_id": room_id, "type": kind, "state_key": state_key, "sender": "@user:squall.test",
            "content": {},
        });
        let mut sent = SentEvent::deserialize(json!({ "room_version": "1", "event": event, "outlier": outlier }))?;
        sent.context.state_delta_due_to_event = is_current.then(|| vec![(kind, state_key, Some(event_id))]);
        Ok(self.instance.client().send_events(writer, &[sent]).await?.stream_id)
    }

    /// Writes `datum`, which is part of `what`, and reads `what` once the write is acknowledged.
    pub(super) async fn set_account_data(&self, what: Cached, datum: Datum) -> Result<(), Failure> {
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
        self.witness.write_acked(what.clone(), writer, token);
        self.read(what).await;
    }

    /// Returns the witness.
    pub(super) fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Reads `what`, and reports the result unless the read fails.
    pub(super) async fn read(&self, what: Cached) {
        self.read.borrow_mut().insert(what.clone());
        let read = self.witness.read_started(what.clone());
        if let Ok(version) = self.version(&what).await {
            self.witness.read_returned(read, version);
        }
    }

    /// Reads every value again that was ever read through the instance: its caches may hold it.
    pub(super) async fn read_all_again(&self) {
        let read = self.read.borrow().clone();
        for what in read {
            self.read(what).await;
        }
    }

    /// Makes a remote server talk to the instance.
    pub(super) fn server_up(&self, server: &str) {
        self.witness.broadcast_began("REMOTE_SERVER_UP", server);
        self.instance.handler().remote_server_up(server);
    }

    /// Makes a user type, or stop, on this instance, which is the writer.
    pub(super) fn type_here(&self, room_id: &str, user_id: &str, timeout: Option<Duration>) {
        let (typing, tasks) = (self.instance.typing(), &self.instance.env().tasks);
        self.witness.typing_set(room_id, user_id, timeout, 0);
        match timeout {
            Some(timeout) => typing.started(tasks, room_id, user_id, timeout),
            None => typing.stopped(room_id, user_id),
        };
    }

    /// Sets the presence of a user's device. `id` identifies the request in the run.
    pub(super) async fn set_presence(&self, id: usize, user_id: &str, set: SetState) -> Result<(), Failure> {
        let request = id as u64;
        let device = Device { user: user_id.to_owned(), device: set.device_id.clone() };
        self.witness.presence_asked(request, device, set.state.as_str(), set.is_sync, set.status_msg.clone());
        let writer = &self.instance.config().stream_writers.presence;
        if writer == self.instance.name() {
            self.instance.presence().set_state(user_id, set).await?;
        } else {
            let state = State { presence: set.state.as_str().to_owned(), status_msg: set.status_msg };
            let SetState { device_id, is_sync, force_notify, .. } = set;
            let body = SetBody { device_id, force_notify, is_sync, state };
            self.instance.client().set_presence(writer, user_id, body).await?;
        }
        self.witness.presence_set(request);
        Ok(())
    }

    /// Keeps a sync open for a time.
    pub(super) async fn sync(&self, device: Device, for_ms: u64) {
        let _reported = ReportedSync::begin(&self.witness, &device);
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

/// Returns a failure in the judge's terms.
fn failure_of(error: &HttpError) -> RequestFailure {
    match error {
        HttpError::Status { status, .. } if status.as_u16() < 500 => {
            RequestFailure::Refused { status: status.as_u16() }
        }
        HttpError::Status { status, .. } => RequestFailure::Unavailable { status: status.as_u16() },
        HttpError::GaveUp { last, .. } => failure_of(last),
        HttpError::Connect(..) | HttpError::Exchange(_) | HttpError::Timeout(_) => RequestFailure::Lost,
        HttpError::NotSeen(_) => RequestFailure::NotSeen,
        HttpError::Tls(_) | HttpError::TooLong(_) | HttpError::NotJson(_) | HttpError::Json(_) | HttpError::Row(_) => {
            RequestFailure::Unreadable
        }
        HttpError::UnknownInstance(_) | HttpError::Itself(_) => {
            unreachable!("a client asks the writers, which all have an address, and not its own instance")
        }
    }
}

/// A sync that is reported to the judge. Its end is reported when this is dropped, because a request may be dropped too. It
/// must be dropped after the guard that makes the instance aware of the sync.
struct ReportedSync<'a> {
    witness: &'a Witness,
    device: &'a Device,
}

impl<'a> ReportedSync<'a> {
    fn begin(witness: &'a Witness, device: &'a Device) -> Self {
        witness.sync_began(device);
        ReportedSync { witness, device }
    }
}

impl Drop for ReportedSync<'_> {
    fn drop(&mut self) {
        self.witness.sync_ended(self.device);
    }
}
