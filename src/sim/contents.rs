//! The rooms, users and devices of plans by their names, and the content of their receipts and messages.

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::deployment::SERVER_NAME;
use crate::transport::http::endpoints::fed_send_edu::DirectToDevice;
use squall_protocol::rows::{Json, ReceiptsRow};

/// Returns the id of the room that plans call number `room`.
pub(super) fn room_id(room: u32) -> String {
    format!("!room{room}:{SERVER_NAME}")
}

/// Returns the id of the user that plans call number `user`.
pub(super) fn user_id(user: u32) -> String {
    format!("@user{user}:{SERVER_NAME}")
}

/// Returns the id of the device that plans call number `device`.
pub(super) fn device_id(device: u32) -> String {
    format!("DEVICE{device}")
}

/// Returns the receipt of a user for the event of operation `id`.
pub(super) fn receipt(id: usize, user: u32, room: u32, now_ms: u64) -> ReceiptsRow {
    ReceiptsRow {
        room_id: room_id(room),
        kind: "m.read".into(),
        user_id: user_id(user),
        event_id: format!("$event{id}"),
        thread_id: None,
        data: Json(json!({ "ts": now_ms })),
    }
}

/// Returns a message to each of `devices`, in the form in which one instance sends it to another.
pub(super) fn direct_to_device(devices: impl Iterator<Item = (u32, u32)>, id: usize) -> DirectToDevice {
    let mut messages: IndexMap<String, IndexMap<String, Value>> = IndexMap::new();
    for (user, device) in devices {
        messages.entry(user_id(user)).or_default().insert(device_id(device), json!({ "to": user }));
    }
    let (sender, kind, message_id) = (user_id(0), "org.squall.message".into(), format!("message{id}"));
    DirectToDevice { sender, kind, message_id, messages }
}
