//! What clients do during the storm: they send events, change state in bursts, keep account data, read, send messages to
//! devices, sync, and type.

use std::rc::Rc;
use std::time::Duration;

use serde_json::json;

use super::plan::OperationKind;
use super::recorder::Witness;
use crate::instance::{Config, Instance, PersistError, Write};
use crate::judge::Device;
use crate::protocol::InstanceName;
use crate::store::account_data::Datum;
use crate::store::to_device::Message;
use crate::store::{NewEvent, StateDelta};
use crate::streams::{Json, ReceiptsRow};

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

/// The instance that has to carry out `operation`.
pub fn target(config: &Config, operation: &OperationKind) -> InstanceName {
    let writers = &config.stream_writers;
    let target = match operation {
        OperationKind::Send { room }
        | OperationKind::SendBurst { room, .. }
        | OperationKind::StateBurst { room, .. } => config.events_writer_of(&room_id(*room)),
        OperationKind::AccountData { .. } | OperationKind::AccountDataBurst { .. } => &writers.account_data,
        OperationKind::Receipt { room, .. } => config.receipts_writer_of(&room_id(*room)),
        OperationKind::ToDevice { .. } => &writers.to_device,
        OperationKind::Sync { host, .. } => return host.as_str().into(),
        OperationKind::Typing { .. } => &writers.typing,
    };
    target.clone()
}

/// Carries out an operation on `instance`. `ordinal` is its place in the plan and makes its event ids unique.
///
/// An operation that fails is one that a client would have to repeat; what it did commit counts all the same.
pub async fn perform(instance: Rc<Instance>, witness: Witness, ordinal: usize, operation: OperationKind) {
    let _ = try_to_perform(&instance, &witness, ordinal, operation).await;
}

async fn try_to_perform(
    instance: &Instance,
    witness: &Witness,
    ordinal: usize,
    operation: OperationKind,
) -> Result<(), PersistError> {
    match operation {
        OperationKind::Send { room } => send(instance, vec![message(ordinal, 0, room)]).await,
        OperationKind::SendBurst { room, events } => {
            send(instance, (0..events).map(|n| message(ordinal, n, room)).collect()).await
        }
        OperationKind::StateBurst { room, rows, tokens } => {
            send(instance, state_burst(ordinal, room, rows, tokens)).await
        }
        OperationKind::AccountData { user, room, datum, type_bytes } => {
            let kind = format!("org.squall.{datum}.{}", "x".repeat(type_bytes as usize));
            set_account_data(instance, vec![datum_of(user, room, kind, ordinal)]).await
        }
        OperationKind::AccountDataBurst { user, of_account, of_room } => {
            let data = (0..of_account).map(|n| (None, n)).chain((0..of_room).map(|n| (Some(0), n)));
            let datum = |(room, n)| datum_of(user, room, format!("org.squall.burst.{n}"), ordinal);
            set_account_data(instance, data.map(datum).collect()).await
        }
        OperationKind::Receipt { user, room } => {
            let receipt = ReceiptsRow {
                room_id: room_id(room),
                kind: "m.read".into(),
                user_id: user_id(user),
                event_id: format!("$event{ordinal}"),
                thread_id: None,
                data: Json(json!({ "ts": instance.env().clock.now_ms() })),
            };
            instance.insert_receipt(receipt).await.map(drop)
        }
        OperationKind::ToDevice { users } => {
            let message = |(user, device)| Message {
                user_id: user_id(user),
                device_id: device_id(device),
                message_id: format!("message{ordinal}"),
                content: json!({ "to": user }),
            };
            let devices = users.into_iter().flat_map(|user| (0..DEVICES).map(move |device| (user, device)));
            instance.send_to_device(devices.map(message).collect()).await.map(drop)
        }
        OperationKind::Sync { user, device, for_ms, .. } => {
            sync(instance, witness, Device { user: user_id(user), device: device.map(device_id) }, for_ms).await;
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
    }
}

/// Keeps a sync open. A client that loses its process begins another sync somewhere else, if its plan says so.
async fn sync(instance: &Instance, witness: &Witness, device: Device, for_ms: u64) {
    witness.sync_began(&device);
    let syncing = instance.user_syncs().begin(&device.user, device.device.as_deref());
    tokio::time::sleep(Duration::from_millis(for_ms)).await;
    drop(syncing);
    witness.sync_ended(&device);
}

async fn send(instance: &Instance, writes: Vec<Write>) -> Result<(), PersistError> {
    instance.events()?.persist(writes).await.map(drop)
}

async fn set_account_data(instance: &Instance, data: Vec<Datum>) -> Result<(), PersistError> {
    instance.set_account_data(data).await.map(drop)
}

fn datum_of(user: u32, room: Option<u32>, kind: String, version: usize) -> Datum {
    Datum { user_id: user_id(user), room_id: room.map(room_id), kind, content: json!({ "version": version }) }
}

fn message(ordinal: usize, n: u32, room: u32) -> Write {
    let event = NewEvent::message(format!("$event{ordinal}_{n}"), room_id(room));
    Write { event: Some(event), state: Vec::new() }
}

/// `rows` changes of state spread evenly over `tokens` tokens.
fn state_burst(ordinal: usize, room: u32, rows: u32, tokens: u32) -> Vec<Write> {
    let entry = |row: u32| StateDelta {
        room_id: room_id(room),
        kind: "m.room.member".into(),
        state_key: user_id(row),
        event_id: Some(format!("$state{ordinal}_{row}")),
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
