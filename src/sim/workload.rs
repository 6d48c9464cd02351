//! The work of clients during the storm: they send events, change state in bursts, write account data and receipts, send
//! messages to devices, sync, type, and read.
//!
//! Clients are also witnesses: they report the values they read and the writes that were acknowledged.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::contents::{device_id, direct_to_device, receipt, room_id, user_id};
use super::deployment::SERVER_NAME;
use super::plan::{DEVICES, OperationKind, Reading, Writing};
use super::read_backs;
use super::requests::{Client, Failure};
use crate::instance::{Config, Write};
use crate::presence::SetState;
use crate::store::account_data::Datum;
use crate::store::to_device::Message;
use squall_judge::{self as judge, Device};
use squall_protocol::rows::events::{EventRow, StateRow};
use squall_protocol::{Cached, InstanceName};

/// Returns the cached value that plans call `reading`.
pub(super) fn cached(reading: &Reading) -> Cached {
    match reading {
        Reading::State { room } => Cached::State { room_id: room_id(*room) },
        Reading::Event { event } => Cached::Event { event_id: outlier_id(*event) },
        Reading::Receipts { room } => Cached::Receipts { room_id: room_id(*room) },
        Reading::AccountData { user, room } => account_data(*user, *room),
    }
}

/// Returns the instance that carries out `operation`.
pub(super) fn target(config: &Config, operation: &OperationKind) -> InstanceName {
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
        OperationKind::SetPresence { .. } => writers.presence.clone(),
        OperationKind::Typing { .. } => writers.typing.clone(),
        OperationKind::Read { .. }
        | OperationKind::Receipts { .. }
        | OperationKind::Sync { .. }
        | OperationKind::ServerUp { .. }
        | OperationKind::WriteThenRead { .. } => {
            unreachable!("they name a host")
        }
    }
}

/// Carries out an operation for `client`. The operation's `id` makes its event ids unique.
///
/// An operation that fails is not repeated. Its rows that were committed count. Returns true if it succeeded.
pub(super) async fn perform(client: Client, id: usize, operation: OperationKind) -> bool {
    let (what, began) = (operation.name(), Instant::now());
    let failed = try_to_perform(&client, id, operation).await;
    if let Err(failure) = &failed {
        client.failed(what, began, failure);
    }
    failed.is_ok()
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
                client.write_acked([Cached::Event { event_id }], token);
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
            let receipt = receipt(id, user, room, instance.env().clock.now_ms());
            // A client that gets an error gives up, as with every other operation.
            if let Some(token) = client.send_receipt(receipt).await? {
                client.write_acked([Cached::Receipts { room_id: room_id(room) }], token);
            }
            Ok(())
        }
        OperationKind::Receipts { user, rooms, .. } => {
            let now_ms = instance.env().clock.now_ms();
            let receipts: Vec<_> = rooms.into_iter().map(|room| receipt(id, user, room, now_ms)).collect();
            let room_ids = receipts.iter().map(|receipt| receipt.room_id.clone()).collect();
            instance.share_out_receipts(None, SERVER_NAME, receipts).await?;
            client.receipts_acked(user_id(user), room_ids);
            Ok(())
        }
        OperationKind::ToDevice { users, .. } => {
            let writer = instance.config().stream_writers.to_device.clone();
            let devices = users.into_iter().flat_map(|user| (0..DEVICES).map(move |device| (user, device)));
            let client_of = |(user, device)| judge::Client { user_id: user_id(user), device_id: device_id(device) };
            let clients: Vec<_> = devices.clone().map(client_of).collect();
            if writer == *instance.name() {
                let message = |(user, device)| Message {
                    user_id: user_id(user),
                    device_id: device_id(device),
                    message_id: format!("message{id}"),
                    content: json!({ "to": user }),
                };
                instance.send_to_device(SERVER_NAME, devices.map(message).collect()).await?;
            } else {
                instance.client().send_to_device(&writer, SERVER_NAME, direct_to_device(devices, id)).await?;
            }
            client.messages_acked(clients, format!("message{id}"));
            Ok(())
        }
        OperationKind::Sync { user, device, for_ms, .. } => {
            client.sync(Device { user: user_id(user), device: device.map(device_id) }, for_ms).await;
            Ok(())
        }
        OperationKind::SetPresence { user, device, state, status, is_sync, .. } => {
            let set = SetState {
                device_id: device.map(device_id),
                state,
                status_msg: status.map(|status| format!("status{status}")),
                is_sync,
                force_notify: false,
            };
            client.set_presence(id, &user_id(user), set).await
        }
        OperationKind::Typing { room, user, typing, timeout_ms } => {
            let timeout = typing.then(|| Duration::from_millis(timeout_ms));
            client.type_here(&room_id(room), &user_id(user), timeout);
            Ok(())
        }
        OperationKind::Read { what, .. } => {
            client.read(cached(&what)).await;
            Ok(())
        }
        OperationKind::WriteThenRead { what, twice, .. } => {
            let request = || Box::pin(write_then_read(client, id, what.clone()));
            if twice { tokio::try_join!(request(), request()).map(drop) } else { request().await }
        }
    }
}

async fn write_then_read(client: &Client, id: usize, what: Writing) -> Result<(), Failure> {
    match what {
        Writing::State { room } => {
            client.read(Cached::State { room_id: room_id(room) }).await;
            client.change_state(id, &room_id(room)).await
        }
        Writing::AccountData { user, room, datum } => {
            client.read(account_data(user, room)).await;
            let datum = datum_of(user, room, format!("org.squall.{datum}."), id);
            client.set_account_data(account_data(user, room), datum).await
        }
        Writing::Receipt { user, room } => read_backs::receipt_then_read(client, id, user, room).await,
        Writing::ToDevice { user } => read_backs::message_then_read(client, id, user).await,
        Writing::Presence { user } => read_backs::presence_then_read(client, id, user).await,
        Writing::Typing { user, room } => read_backs::typing_then_read(client, user, room).await,
        Writing::FormerOutlier { room } => read_backs::outlier_then_read(client, id, room).await,
    }
}

/// Persists `writes`, which are all of one room and all of one kind.
async fn send(client: &Client, writes: Vec<Write>) -> Result<(), Failure> {
    let state = writes.iter().flat_map(|write| &write.state).next();
    let what = match (state, writes.last().and_then(|write| write.event.as_ref())) {
        (Some(state), _) => Some(Cached::State { room_id: state.room_id.clone() }),
        (None, Some(event)) => Some(Cached::Event { event_id: event.event_id.clone() }),
        (None, None) => None,
    };
    let token = client.instance().events()?.persist(writes).await?;
    client.write_acked(what, token);
    Ok(())
}

async fn set_account_data(client: &Client, data: Vec<Datum>) -> Result<(), Failure> {
    // The token is that of the last datum.
    let what = data.last().map(|Datum { user_id, room_id, .. }| match room_id.clone() {
        None => Cached::AccountData { user_id: user_id.clone() },
        Some(room_id) => Cached::RoomAccountData { user_id: user_id.clone(), room_id },
    });
    let token = client.instance().set_account_data(data).await?;
    client.write_acked(what, token);
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
    let event = EventRow { outlier: true, ..EventRow::message(outlier_id(event), room_id(room)) };
    Write { event: Some(event), state: Vec::new() }
}

fn datum_of(user: u32, room: Option<u32>, kind: String, version: usize) -> Datum {
    Datum { user_id: user_id(user), room_id: room.map(room_id), kind, content: json!({ "version": version }) }
}

fn message(id: usize, n: u32, room: u32) -> Write {
    let event = EventRow::message(format!("$event{id}_{n}"), room_id(room));
    Write { event: Some(event), state: Vec::new() }
}

/// Returns `rows` changes of state, spread evenly over `tokens` tokens.
fn state_burst(id: usize, room: u32, rows: u32, tokens: u32) -> Vec<Write> {
    let entry = |row: u32| StateRow {
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
