//! Writes that the client looks for once it has the answer: receipts, messages to devices, presence and typing, whose
//! answers have no token, and outliers that become ordinary events.
//!
//! The client looks at what its own instance shows: its caches, its handlers, its answer to a sync. The user of such a
//! write does nothing else, so that the client can tell its own write.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::contents::{device_id, direct_to_device, receipt, room_id, user_id};
use super::deployment::SERVER_NAME;
use super::requests::{Client, Failure};
use crate::presence::{PresenceState, SetState};
use crate::store::to_device::Message;
use crate::transport::http::endpoints::fed_send_edu::Typing;
use squall_judge as judge;
use squall_protocol::rows::events::{self, EventRow};
use squall_protocol::rows::{presence, receipts, to_device, typing};
use squall_protocol::{Cached, InstanceName, TypingNews};

/// The time for which a user types. On another instance the writer decides, in the same way.
const TYPING_TIMEOUT: Duration = Duration::from_secs(60);
/// The device of the users.
const DEVICE: u32 = 0;

/// A write to look for.
struct Written<'a> {
    client: &'a Client,
    began: Instant,
    stream: &'static str,
    writer: InstanceName,
    what: String,
}

impl Written<'_> {
    fn read(self, is_seen: bool) {
        let Written { client, began, stream, writer, what } = self;
        let after_ms = began.elapsed().as_millis() as u64;
        client.witness().read_back(stream, writer, what, after_ms, is_seen);
    }
}

/// Writes the receipt of operation `id` and looks for it among the room's receipts.
pub(super) async fn receipt_then_read(client: &Client, id: usize, user: u32, room: u32) -> Result<(), Failure> {
    let what = Cached::Receipts { room_id: room_id(room) };
    client.read(what.clone()).await;
    let instance = client.instance();
    let receipt = receipt(id, user, room, instance.env().clock.now_ms());
    let (user_id, event_id) = (receipt.user_id.clone(), receipt.event_id.clone());
    let writer = instance.config().receipts_writer_of(&receipt.room_id).clone();
    let written = Written { client, began: Instant::now(), stream: receipts::NAME, writer, what: user_id.clone() };
    if let Some(token) = client.send_receipt(receipt).await? {
        client.write_acked([what], token);
    }
    let Ok(shown) = instance.caches().receipts(&room_id(room)).await else { return Ok(()) };
    written.read(shown.value.iter().any(|shown| shown.user_id == user_id && shown.event_id == event_id));
    Ok(())
}

/// Sends the message of operation `id` to a device and looks for it in what the device gets by a first sync.
pub(super) async fn message_then_read(client: &Client, id: usize, user: u32) -> Result<(), Failure> {
    let instance = client.instance();
    let writer = instance.config().stream_writers.to_device.clone();
    let (user_id, device_id) = (user_id(user), device_id(DEVICE));
    let message_id = format!("message{id}");
    let what = message_id.clone();
    let written = Written { client, began: Instant::now(), stream: to_device::NAME, writer, what };
    if written.writer == *instance.name() {
        let (user_id, device_id, message_id) = (user_id.clone(), device_id.clone(), message_id.clone());
        let message = Message { user_id, device_id, message_id, content: json!({ "to": user }) };
        instance.send_to_device(SERVER_NAME, vec![message]).await?;
    } else {
        let messages = direct_to_device([(user, DEVICE)].into_iter(), id);
        instance.client().send_to_device(&written.writer, SERVER_NAME, messages).await?;
    }
    let recipient = judge::Client { user_id: user_id.clone(), device_id: device_id.clone() };
    client.messages_acked(vec![recipient], message_id.clone());
    let shown = instance.sync_handler().sync(&user_id, &device_id, None, Duration::ZERO).await;
    let Ok(shown) = shown else { return Ok(()) };
    written.read(shown.news.to_device.iter().any(|(_, message)| message.message_id == message_id));
    Ok(())
}

/// Makes a user unavailable, with the status of operation `id`, and looks at the user's presence.
pub(super) async fn presence_then_read(client: &Client, id: usize, user: u32) -> Result<(), Failure> {
    let instance = client.instance();
    let writer = instance.config().stream_writers.presence.clone();
    let user_id = user_id(user);
    let status_msg = Some(format!("status{id}"));
    let set = SetState {
        device_id: Some(device_id(DEVICE)),
        state: PresenceState::Unavailable,
        status_msg: status_msg.clone(),
        is_sync: false,
        force_notify: false,
    };
    let written = Written { client, began: Instant::now(), stream: presence::NAME, writer, what: user_id.clone() };
    client.set_presence(id, &user_id, set).await?;
    let shown = instance.presence().presence_of(&user_id);
    written.read(shown.state == PresenceState::Unavailable && shown.status_msg == status_msg);
    Ok(())
}

/// Makes a user type, and looks at the users who are typing in the room: those that the instance knows, and those in the
/// answer to a first sync.
pub(super) async fn typing_then_read(client: &Client, user: u32, room: u32) -> Result<(), Failure> {
    let instance = client.instance();
    let writer = instance.config().stream_writers.typing.clone();
    let (room_id, user_id) = (room_id(room), user_id(user));
    let written = Written { client, began: Instant::now(), stream: typing::NAME, writer, what: user_id.clone() };
    if written.writer == *instance.name() {
        client.type_here(&room_id, &user_id, Some(TYPING_TIMEOUT));
    } else {
        client.witness().typing_asked(&room_id, &user_id);
        let content = Typing { room_id: room_id.clone(), user_id: user_id.clone(), typing: true };
        instance.client().set_typing(&written.writer, SERVER_NAME, content).await?;
        let after_ms = written.began.elapsed().as_millis() as u64;
        client.witness().typing_set(&room_id, &user_id, Some(TYPING_TIMEOUT), after_ms);
    }
    let is_typing = instance.typing().typing_in(&room_id).contains(&user_id);
    let shown = instance.sync_handler().sync(&user_id, &device_id(DEVICE), None, Duration::ZERO).await;
    let is_in_sync = |typing: &TypingNews| {
        typing.rooms.iter().any(|room| room.room_id == room_id && room.user_ids.contains(&user_id))
    };
    // A sync that fails owes nothing.
    let is_shown = is_typing && shown.map_or(true, |shown| is_in_sync(&shown.news.typing));
    written.read(is_shown);
    Ok(())
}

/// Persists the event of operation `id` as an outlier, and then as an ordinary event that is the current state of its key.
/// Looks for both then.
pub(super) async fn outlier_then_read(client: &Client, id: usize, room: u32) -> Result<(), Failure> {
    let instance = client.instance();
    let (room_id, event_id) = (room_id(room), format!("$former_outlier{id}"));
    let writer = instance.config().events_writer_of(&room_id).clone();
    let key = ("org.squall.outlier".to_owned(), format!("{id}"));
    let message = EventRow::message(event_id.clone(), room_id.clone());
    let outlier = EventRow { kind: key.0.clone(), state_key: Some(key.1.clone()), outlier: true, ..message };
    client.send_event(outlier.clone(), false).await?;
    client.read(Cached::Event { event_id: event_id.clone() }).await;
    let written = Written { client, began: Instant::now(), stream: events::NAME, writer, what: event_id.clone() };
    let token = client.send_event(EventRow { outlier: false, ..outlier }, true).await?;
    let what = [Cached::Event { event_id: event_id.clone() }, Cached::State { room_id: room_id.clone() }];
    for what in what {
        client.witness().write_acked(what, &written.writer, token);
    }
    let Ok(event) = instance.caches().event(&event_id).await else { return Ok(()) };
    let Ok(state) = instance.caches().current_state(&room_id).await else { return Ok(()) };
    let is_ordinary = event.value.as_ref().is_some_and(|event| !event.outlier);
    written.read(is_ordinary && state.value.get(&key) == Some(&event_id));
    Ok(())
}
