//! `POST fed_send_edu/<type>/<transaction id>`: applies an EDU, `{"origin":..,"content":{..}}`. Returns `{}`.
//!
//! | type | content | target |
//! |---|---|---|
//! | `m.receipt` | `{room:{type:{user:{"event_ids":[..],"data":{..}}}}}` | any instance; best the writer of the rooms' receipts |
//! | `m.direct_to_device` | `{"sender":..,"type":..,"message_id":..,"messages":{user:{device:content}}}` | the writer of `to_device` |
//! | `m.typing` | `{"room_id":..,"user_id":..,"typing":..}` | the writer of `typing` |

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The EDU type of [`Receipts`].
pub const RECEIPT: &str = "m.receipt";
/// The EDU type of [`DirectToDevice`].
pub const DIRECT_TO_DEVICE: &str = "m.direct_to_device";
/// The EDU type of [`Typing`].
pub const TYPING: &str = "m.typing";

/// The body of a request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Body<C> {
    /// The content of the EDU.
    pub content: C,
    /// The server that sent the EDU.
    pub origin: String,
    /// True if an instance has already shared out the EDU among the writers of its rooms. It is not shared out again, so that
    /// instances whose configurations differ do not pass it back and forth. Synapse sends no such field and ignores it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_shared_out: bool,
}

impl<C> Body<C> {
    /// Returns the body of an EDU that has not been shared out.
    pub fn new(origin: impl Into<String>, content: C) -> Self {
        Body { content, origin: origin.into(), is_shared_out: false }
    }
}

/// Read receipts by room, type and user.
pub type Receipts = IndexMap<String, IndexMap<String, IndexMap<String, Receipt>>>;

/// A read receipt of one user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Receipt {
    /// The events that the user read. The last one counts.
    pub event_ids: Vec<String>,
    /// The time and the thread.
    pub data: Map<String, Value>,
}

/// Messages to devices.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DirectToDevice {
    /// The user who sent them.
    pub sender: String,
    /// Their type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The id that the sender gave them. It is unique among the messages of their server: a second message with it is taken
    /// for the first one.
    pub message_id: String,
    /// Their contents by user and device.
    pub messages: IndexMap<String, IndexMap<String, Value>>,
}

/// A user who starts or stops typing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Typing {
    /// The room.
    pub room_id: String,
    /// The user.
    pub user_id: String,
    /// True if the user is typing.
    pub typing: bool,
}
