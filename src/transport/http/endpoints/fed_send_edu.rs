//! `POST fed_send_edu/<type>/<transaction id>`: something that is no event happened, `{"origin":..,"content":{..}}`.
//! Answers `{}`.
//!
//! | type | content | goes to |
//! |---|---|---|
//! | `m.receipt` | `{room:{type:{user:{"event_ids":[..],"data":{..}}}}}` | the writer of the room's receipts |
//! | `m.direct_to_device` | `{"sender":..,"type":..,"message_id":..,"messages":{user:{device:content}}}` | the writer of `to_device` |
//! | `m.typing` | `{"room_id":..,"user_id":..,"typing":..}` | the writer of `typing` |
//!
//! A server speaks for its own users only: what it says of others is left out, as in Synapse.

use std::rc::Rc;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{check_writer, once};
use crate::env::LocalBoxFuture;
use crate::instance::Instance;
use crate::store::to_device::Message;
use crate::streams::{Json, ReceiptsRow, receipts, to_device, typing};
use crate::transport::http::{Endpoint, EndpointRequest, Refusal, Reply};

/// The endpoint's name.
pub const NAME: &str = "fed_send_edu";
/// The type of [`Receipts`].
pub const RECEIPT: &str = "m.receipt";
/// The type of [`DirectToDevice`].
pub const DIRECT_TO_DEVICE: &str = "m.direct_to_device";
/// The type of [`Typing`].
pub const TYPING: &str = "m.typing";

/// How long a user counts as typing who does not say so again.
const TYPING_TIMEOUT: Duration = Duration::from_secs(60);

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct Body<C> {
    /// What happened.
    pub content: C,
    /// The server that says so.
    pub origin: String,
}

/// Up to where users have read: by room, type and user.
pub type Receipts = IndexMap<String, IndexMap<String, IndexMap<String, Receipt>>>;

/// Up to where a user has read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Receipt {
    /// Events that they have read. The last one counts.
    pub event_ids: Vec<String>,
    /// When, and in which thread.
    pub data: Map<String, Value>,
}

/// Messages to devices.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DirectToDevice {
    /// Who sends them.
    pub sender: String,
    /// Their type.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the sender calls them.
    pub message_id: String,
    /// What they say: by user and device.
    pub messages: IndexMap<String, IndexMap<String, Value>>,
}

/// A user begins or stops typing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Typing {
    /// Where.
    pub room_id: String,
    /// Who.
    pub user_id: String,
    /// Whether they are typing.
    pub typing: bool,
}

/// The endpoint.
pub struct SendEdu(pub Rc<Instance>);

impl Endpoint for SendEdu {
    fn name(&self) -> &'static str {
        NAME
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn has_transaction_id(&self) -> bool {
        true
    }

    fn handle(&self, request: EndpointRequest) -> LocalBoxFuture<'static, Result<Reply, Refusal>> {
        let instance = Rc::clone(&self.0);
        Box::pin(async move {
            match request.arguments[0].as_str() {
                RECEIPT => on_receipts(&instance, &request).await,
                DIRECT_TO_DEVICE => on_direct_to_device(&instance, &request).await,
                TYPING => on_typing(&instance, &request),
                kind => Err(Refusal::bad_request(format!("EDUs of type {kind} are not known here"))),
            }
        })
    }
}

async fn on_receipts(instance: &Instance, request: &EndpointRequest) -> Result<Reply, Refusal> {
    let Body { content, origin } = request.parse::<Body<Receipts>>()?;
    let mut read = Vec::new();
    for (room_id, kinds) in content {
        check_writer(instance, &format!("receipts of {room_id}"), instance.config().receipts_writer_of(&room_id))?;
        for (kind, users) in kinds {
            for (user_id, receipt) in users.into_iter().filter(|(user_id, _)| is_of(user_id, &origin)) {
                read.extend(receipt.row(room_id.clone(), kind.clone(), user_id)?);
            }
        }
    }
    if read.is_empty() {
        return Ok(Reply::read(Map::new()));
    }
    let token = instance.insert_receipts_once(once(instance, request), read).await?;
    Ok(Reply::wrote(Map::new(), receipts::NAME, token))
}

impl Receipt {
    /// The row, if anything was read.
    fn row(self, room_id: String, kind: String, user_id: String) -> Result<Option<ReceiptsRow>, Refusal> {
        let Receipt { mut event_ids, mut data } = self;
        let Some(event_id) = event_ids.pop() else { return Ok(None) };
        let thread_id = match data.shift_remove("thread_id") {
            None | Some(Value::Null) => None,
            Some(Value::String(thread_id)) => Some(thread_id),
            Some(other) => return Err(Refusal::bad_json(format!("thread_id must be a string, not {other}"))),
        };
        Ok(Some(ReceiptsRow { room_id, kind, user_id, event_id, thread_id, data: Json(data.into()) }))
    }
}

async fn on_direct_to_device(instance: &Instance, request: &EndpointRequest) -> Result<Reply, Refusal> {
    let Body { content, origin } = request.parse::<Body<DirectToDevice>>()?;
    check_writer(instance, to_device::NAME, &instance.config().stream_writers.to_device)?;
    let DirectToDevice { sender, kind, message_id, messages } = content;
    if !is_of(&sender, &origin) || messages.values().all(IndexMap::is_empty) {
        return Ok(Reply::read(Map::new()));
    }
    let message = |user_id: &String, device_id: String, content: Value| Message {
        user_id: user_id.clone(),
        device_id,
        message_id: message_id.clone(),
        content: json!({ "content": content, "type": kind, "sender": sender }),
    };
    let messages = messages.into_iter().flat_map(|(user_id, devices)| {
        devices.into_iter().map(move |(device_id, content)| (user_id.clone(), device_id, content))
    });
    let messages = messages.map(|(user_id, device_id, content)| message(&user_id, device_id, content)).collect();
    let token = instance.send_to_device_once(once(instance, request), messages).await?;
    Ok(Reply::wrote(Map::new(), to_device::NAME, token))
}

fn on_typing(instance: &Instance, request: &EndpointRequest) -> Result<Reply, Refusal> {
    let Body { content: Typing { room_id, user_id, typing }, origin } = request.parse()?;
    check_writer(instance, typing::NAME, &instance.config().stream_writers.typing)?;
    if !is_of(&user_id, &origin) {
        return Ok(Reply::read(Map::new()));
    }
    let token = if typing {
        instance.typing().started(&instance.env().tasks, &room_id, &user_id, TYPING_TIMEOUT)
    } else {
        instance.typing().stopped(&room_id, &user_id)
    };
    Ok(Reply::wrote(Map::new(), typing::NAME, token))
}

/// Whether `server` may speak for a user.
fn is_of(user_id: &str, server: &str) -> bool {
    user_id.split_once(':').is_some_and(|(_, domain)| domain == server)
}
