//! What clients do during the storm: they send events, change state in bursts, keep account data, say up to where they
//! have read, send messages to devices, sync, type, and look at what is there.
//!
//! Clients are also witnesses: of what they read, and of being told that something they wrote is done.

use std::time::Duration;

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::client::{Client, Failure};
use super::plan::{OperationKind, Reading, Writing};
use crate::caches::Cached;
use crate::instance::{Config, Write};
use crate::judge::Device;
use crate::protocol::InstanceName;
use crate::store::account_data::Datum;
use crate::store::to_device::Message;
use crate::store::{NewEvent, StateDelta};
use crate::streams::{Json, ReceiptsRow};
use crate::transport::http::endpoints::fed_send_edu::DirectToDevice;

/// The server whose users all of them are.
const ORIGIN: &str = "squall.test";

/// How many devices of a user messages are sent to.
pub const DEVICES: u32 = 2;

/// The room that plans call number `room`.
pub fn room_id(room: u32) -> String {
    format!("!room{room}:squall.test")
}

/// The user that plans call number `user`.
pub fn user_id(user: u32) -> String {
    format!("@user{user}:squall.test")
}

/// The device of a user that plans call number `device`.
pub fn device_id(device: u32) -> String {
    format!("DEVICE{device}")
}

/// What plans call `reading`.
pub fn cached(reading: &Reading) -> Cached {
    match reading {
        Reading::State { room } => Cached::State { room_id: room_id(*room) },
        Reading::Event { event } => Cached::Event { event_id: outlier_id(*event) },
        Reading::Receipts { room } => Cached::Receipts { room_id: room_id(*room) },
        Reading::AccountData { user, room } => account_data(*user, *room),
    }
}

/// The instance that has to carry out `operation`.
pub fn target(config: &Config, operation: &OperationKind) -> InstanceName {
    let writers = &config.stream_writers;
    if let Some(host) = operation.host() {
        return host.into();
    }
    match operation {
        OperationKind::Send { room }
        | OperationKind::SendBurst { room, .. }
        | OperationKind::StateBurst { room, .. }
        | OperationKind::Outlier { room, .. }
        | OperationKind::ExOutlier { room, .. } => config.events_writer_of(&room_id(*room)).clone(),
        OperationKind::AccountData { .. } | OperationKind::AccountDataBurst { .. } => writers.account_data.clone(),
        OperationKind::Receipt { room, .. } => config.receipts_writer_of(&room_id(*room)).clone(),
        OperationKind::ToDevice { .. } => writers.to_device.clone(),
        OperationKind::Typing { .. } => writers.typing.clone(),
        OperationKind::Read { .. }
        | OperationKind::Sync { .. }
        | OperationKind::ServerUp { .. }
        | OperationKind::WriteThenRead { .. } => {
            unreachable!("they name a host")
        }
    }
}

/// Has `client` carry out an operation. `id` is the operation's own and makes its event ids unique.
///
/// An operation that fails is one that a client would have to repeat; what it did commit counts all the same.
pub async fn perform(client: Client, id: usize, operation: OperationKind) {
    if let Err(failure) = try_to_perform(&client, id, operation).await {
        client.failed(&failure);
    }
}

async fn try_to_perform(client: &Client, id: usize, operation: OperationKind) -> Result<(), Failure> {
    let instance = client.instance();
    match operation {
        OperationKind::Send { room } => send(client, vec![message(id, 0, room)]).await,
        OperationKind::SendBurst { room, events } => {
            send(client, (0..events).map(|n| message(id, n, room)).collect()).await
        }
        OperationKind::StateBurst { room, rows, tokens } => send(client, state_burst(id, room, rows, tokens)).await,
        OperationKind::ServerUp { server, .. } => {
            client.server_up(&format!("server{server}.test"));
            Ok(())
        }
        OperationKind::Outlier { room, event } => send(client, vec![outlier(event, room)]).await,
        OperationKind::ExOutlier { event, .. } => {
            let event_id = outlier_id(event);
            if let Some(token) = instance.events()?.mark_ex_outlier(event_id.clone()).await? {
                client.answered([Cached::Event { event_id }], token);
            }
            Ok(())
        }
        OperationKind::AccountData { user, room, datum, type_bytes } => {
            let kind = format!("org.squall.{datum}.{}", "x".repeat(type_bytes as usize));
            set_account_data(client, vec![datum_of(user, room, kind, id)]).await
        }
        OperationKind::AccountDataBurst { user, of_account, of_room } => {
            let data = (0..of_account).map(|n| (None, n)).chain((0..of_room).map(|n| (Some(0), n)));
            let datum = |(room, n)| datum_of(user, room, format!("org.squall.burst.{n}"), id);
            set_account_data(client, data.map(datum).collect()).await
        }
        OperationKind::Receipt { user, room, .. } => {
            let receipt = ReceiptsRow {
                room_id: room_id(room),
                kind: "m.read".into(),
                user_id: user_id(user),
                event_id: format!("$event{id}"),
                thread_id: None,
                data: Json(json!({ "ts": instance.env().clock.now_ms() })),
            };
            let writer = instance.config().receipts_writer_of(&receipt.room_id).clone();
            if writer == *instance.name() {
                let token = instance.insert_receipt(receipt).await?;
                client.answered([Cached::Receipts { room_id: room_id(room) }], token);
            } else {
                // Whoever gets no answer gives up, as with everything else here.
                instance.client().send_receipts(&writer, ORIGIN, vec![receipt]).await?;
            }
            Ok(())
        }
        OperationKind::ToDevice { users, .. } => {
            let writer = instance.config().stream_writers.to_device.clone();
            let devices = users.into_iter().flat_map(|user| (0..DEVICES).map(move |device| (user, device)));
            if writer == *instance.name() {
                let message = |(user, device)| Message {
                    user_id: user_id(user),
                    device_id: device_id(device),
                    message_id: format!("message{id}"),
                    content: json!({ "to": user }),
                };
                instance.send_to_device(devices.map(message).collect()).await?;
            } else {
                instance.client().send_to_device(&writer, ORIGIN, direct_to_device(devices, id)).await?;
            }
            Ok(())
        }
        OperationKind::Sync { user, device, for_ms, .. } => {
            client.sync(Device { user: user_id(user), device: device.map(device_id) }, for_ms).await;
            Ok(())
        }
        OperationKind::Typing { room, user, typing: true, timeout_ms } => {
            let timeout = Duration::from_millis(timeout_ms);
            instance.typing().started(&instance.env().tasks, &room_id(room), &user_id(user), timeout);
            Ok(())
        }
        OperationKind::Typing { room, user, typing: false, .. } => {
            instance.typing().stopped(&room_id(room), &user_id(user));
            Ok(())
        }
        OperationKind::Read { what, .. } => {
            client.read(cached(&what)).await;
            Ok(())
        }
        OperationKind::WriteThenRead { what: Writing::State { room }, .. } => {
            client.read(Cached::State { room_id: room_id(room) }).await;
            client.change_state(id, &room_id(room)).await
        }
        OperationKind::WriteThenRead { what: Writing::AccountData { user, room, datum }, .. } => {
            client.read(account_data(user, room)).await;
            let datum = datum_of(user, room, format!("org.squall.{datum}."), id);
            client.set_account_data(account_data(user, room), datum).await
        }
    }
}

/// A message to each of `devices`, as it is sent from one instance to another.
fn direct_to_device(devices: impl Iterator<Item = (u32, u32)>, id: usize) -> DirectToDevice {
    let mut messages: IndexMap<String, IndexMap<String, Value>> = IndexMap::new();
    for (user, device) in devices {
        messages.entry(user_id(user)).or_default().insert(device_id(device), json!({ "to": user }));
    }
    let (sender, kind, message_id) = (user_id(0), "org.squall.message".into(), format!("message{id}"));
    DirectToDevice { sender, kind, message_id, messages }
}

/// Sends `writes`, which are all of one room and all of one kind.
async fn send(client: &Client, writes: Vec<Write>) -> Result<(), Failure> {
    let state = writes.iter().flat_map(|write| &write.state).next();
    let what = match (state, writes.last().and_then(|write| write.event.as_ref())) {
        (Some(state), _) => Some(Cached::State { room_id: state.room_id.clone() }),
        (None, Some(event)) => Some(Cached::Event { event_id: event.event_id.clone() }),
        (None, None) => None,
    };
    let token = client.instance().events()?.persist(writes).await?;
    client.answered(what, token);
    Ok(())
}

async fn set_account_data(client: &Client, data: Vec<Datum>) -> Result<(), Failure> {
    // The last token is that of the last datum.
    let what = data.last().map(|Datum { user_id, room_id, .. }| match room_id.clone() {
        None => Cached::AccountData { user_id: user_id.clone() },
        Some(room_id) => Cached::RoomAccountData { user_id: user_id.clone(), room_id },
    });
    let token = client.instance().set_account_data(data).await?;
    client.answered(what, token);
    Ok(())
}

fn account_data(user: u32, room: Option<u32>) -> Cached {
    let user_id = user_id(user);
    match room {
        None => Cached::AccountData { user_id },
        Some(room) => Cached::RoomAccountData { user_id, room_id: room_id(room) },
    }
}

fn outlier_id(event: u32) -> String {
    format!("$outlier{event}")
}

fn outlier(event: u32, room: u32) -> Write {
    let event = NewEvent { outlier: true, ..NewEvent::message(outlier_id(event), room_id(room)) };
    Write { event: Some(event), state: Vec::new() }
}

fn datum_of(user: u32, room: Option<u32>, kind: String, version: usize) -> Datum {
    Datum { user_id: user_id(user), room_id: room.map(room_id), kind, content: json!({ "version": version }) }
}

fn message(id: usize, n: u32, room: u32) -> Write {
    let event = NewEvent::message(format!("$event{id}_{n}"), room_id(room));
    Write { event: Some(event), state: Vec::new() }
}

/// `rows` changes of state spread evenly over `tokens` tokens.
fn state_burst(id: usize, room: u32, rows: u32, tokens: u32) -> Vec<Write> {
    let entry = |row: u32| StateDelta {
        room_id: room_id(room),
        kind: "m.room.member".into(),
        state_key: user_id(row),
        event_id: Some(format!("$state{id}_{row}")),
    };
    let tokens = tokens.clamp(1, rows.max(1));
    let first_row = |token: u32| (u64::from(rows) * u64::from(token) / u64::from(tokens)) as u32;
    let write = |token| Write { event: None, state: (first_row(token)..first_row(token + 1)).map(entry).collect() };
    (0..tokens).map(write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_has_exactly_its_rows_on_exactly_its_tokens() {
        for (rows, tokens) in [(1, 1), (49, 1), (101, 3), (150, 150)] {
            let writes = state_burst(0, 0, rows, tokens);
            assert_eq!(writes.len(), tokens as usize);
            assert!(writes.iter().all(|write| !write.state.is_empty()));
            assert_eq!(writes.iter().map(|write| write.state.len()).sum::<usize>(), rows as usize);
        }
    }
}
