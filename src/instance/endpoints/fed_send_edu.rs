//! Applies an EDU: receipts, messages to devices, or typing.
//!
//! A server speaks for its own users only. Content about users of other servers is ignored, as in Synapse.

use std::time::Duration;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::{check_writer, check_writers, idempotency_key};
use crate::instance::Instance;
use crate::store::to_device::Message;
use crate::transport::http::endpoints::fed_send_edu::{
    Body, DIRECT_TO_DEVICE, DirectToDevice, RECEIPT, Receipt, Receipts, TYPING, Typing,
};
use crate::transport::http::{EndpointRequest, HttpRefusal, Reply};
use squall_protocol::rows::{Json, ReceiptsRow, receipts, to_device, typing};

/// The time after which a user stops counting as typing unless the request is repeated.
const TYPING_TIMEOUT: Duration = Duration::from_secs(60);

/// Applies an EDU.
pub(super) async fn handle(instance: &Instance, request: &EndpointRequest) -> Result<Reply, HttpRefusal> {
    match request.arguments[0].as_str() {
        RECEIPT => on_receipts(instance, request).await,
        DIRECT_TO_DEVICE => on_direct_to_device(instance, request).await,
        TYPING => on_typing(instance, request),
        kind => Err(HttpRefusal::bad_request(format!("EDUs of type {kind} are not known here"))),
    }
}

async fn on_receipts(instance: &Instance, request: &EndpointRequest) -> Result<Reply, HttpRefusal> {
    let Body { content, origin, is_shared_out } = request.parse::<Body<Receipts>>()?;
    let mut rows = Vec::new();
    for (room_id, kinds) in content {
        if is_shared_out {
            check_writers(instance, receipts::NAME, &room_id, &instance.config().stream_writers.receipts)?;
        }
        for (kind, users) in kinds {
            for (user_id, receipt) in users.into_iter().filter(|(user_id, _)| is_user_of(user_id, &origin)) {
                rows.extend(receipt_row(receipt, room_id.clone(), kind.clone(), user_id)?);
            }
        }
    }
    if rows.is_empty() {
        return Ok(Reply::read(Map::new()));
    }
    let key = idempotency_key(instance, request);
    let token = if is_shared_out {
        Some(instance.insert_receipts_once(key, rows).await?)
    } else {
        instance.share_out_receipts(key, &origin, rows).await?
    };
    Ok(token.map_or(Reply::read(Map::new()), |token| Reply::wrote(Map::new(), receipts::NAME, token)))
}

/// Returns the row of a receipt; `None` if it names no event.
fn receipt_row(
    receipt: Receipt,
    room_id: String,
    kind: String,
    user_id: String,
) -> Result<Option<ReceiptsRow>, HttpRefusal> {
    let Receipt { mut event_ids, mut data } = receipt;
    let Some(event_id) = event_ids.pop() else { return Ok(None) };
    let thread_id = match data.shift_remove("thread_id") {
        None | Some(Value::Null) => None,
        Some(Value::String(thread_id)) => Some(thread_id),
        Some(other) => return Err(HttpRefusal::bad_json(format!("thread_id must be a string, not {other}"))),
    };
    Ok(Some(ReceiptsRow { room_id, kind, user_id, event_id, thread_id, data: Json(data.into()) }))
}

async fn on_direct_to_device(instance: &Instance, request: &EndpointRequest) -> Result<Reply, HttpRefusal> {
    let Body { content, origin, .. } = request.parse::<Body<DirectToDevice>>()?;
    check_writer(instance, to_device::NAME, &instance.config().stream_writers.to_device)?;
    let DirectToDevice { sender, kind, message_id, messages } = content;
    if !is_user_of(&sender, &origin) || messages.values().all(IndexMap::is_empty) {
        return Ok(Reply::read(Map::new()));
    }
    let mut sent = Vec::new();
    for (user_id, devices) in messages {
        for (device_id, content) in devices {
            sent.push(Message {
                user_id: user_id.clone(),
                device_id,
                message_id: message_id.clone(),
                content: json!({ "content": content, "type": kind, "sender": sender }),
            });
        }
    }
    let token = instance.send_to_device_once(idempotency_key(instance, request), &origin, sent).await?;
    Ok(Reply::wrote(Map::new(), to_device::NAME, token))
}

fn on_typing(instance: &Instance, request: &EndpointRequest) -> Result<Reply, HttpRefusal> {
    let Body { content: Typing { room_id, user_id, typing }, origin, .. } = request.parse()?;
    check_writer(instance, typing::NAME, &instance.config().stream_writers.typing)?;
    if !is_user_of(&user_id, &origin) {
        return Ok(Reply::read(Map::new()));
    }
    let token = if typing {
        instance.typing().started(&instance.env().tasks, &room_id, &user_id, TYPING_TIMEOUT)
    } else {
        instance.typing().stopped(&room_id, &user_id)
    };
    Ok(Reply::wrote(Map::new(), typing::NAME, token))
}

/// Returns true if a user belongs to `server`.
fn is_user_of(user_id: &str, server: &str) -> bool {
    user_id.split_once(':').is_some_and(|(_, domain)| domain == server)
}
