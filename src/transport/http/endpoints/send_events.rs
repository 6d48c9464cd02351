//! `POST send_events/<transaction id>`: persists events, `{"events":[..]}`, all of rooms that the instance writes.
//! Returns `{"stream_id":..,"event_id":..}`: the last token, and the id of the last event.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::transport::http::HttpRefusal;
use crate::transport::http::event_id::{EventIdError, RoomVersion};
use squall_protocol::Token;

/// The body of a request.
#[derive(Debug, Deserialize)]
pub struct Body {
    /// The events, in the order in which they are to be persisted.
    pub events: Vec<SentEvent>,
}

/// The body of a response.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Response {
    /// The last token.
    pub stream_id: Token,
    /// The id of the last event.
    pub event_id: String,
}

/// An event and its metadata, on the way to the instance that persists it. Other fields that Synapse sends are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SentEvent {
    /// The result of the event's state resolution.
    #[serde(default)]
    pub context: Context,
    /// The event itself.
    pub event: Map<String, Value>,
    /// True if the state of the room at the event is not known.
    #[serde(default)]
    pub outlier: bool,
    /// The reason why the event failed authorisation, if it did.
    #[serde(default)]
    pub rejected_reason: Option<String>,
    /// The version of the room.
    pub room_version: String,
}

/// The result of an event's state resolution.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// The changes to the room's state: type, state key, and the id of the event that is now current.
    #[serde(default)]
    pub state_delta_due_to_event: Option<Vec<(String, String, Option<String>)>>,
}

impl SentEvent {
    /// Creates an event that changes no state.
    pub fn new(room_version: impl Into<String>, event: Map<String, Value>) -> Self {
        SentEvent {
            context: Context::default(),
            event,
            outlier: false,
            rejected_reason: None,
            room_version: room_version.into(),
        }
    }

    /// Computes the event's id.
    pub fn event_id(&self) -> Result<String, EventIdError> {
        RoomVersion::parse(&self.room_version)?.event_id(&self.event)
    }

    /// Returns the event as a request carries it, with every field that Synapse requires.
    pub(in crate::transport::http) fn to_request(&self) -> Value {
        let sender = self.event.get("sender").cloned().unwrap_or_default();
        let format = match self.room_version.as_str() {
            "1" | "2" => 1,
            "3" => 2,
            "12" => 4,
            _ => 3,
        };
        json!({
            "context": {
                "app_service_id": null,
                "partial_state": false,
                "rejected": self.rejected_reason,
                "state_delta_due_to_event": self.context.state_delta_due_to_event,
                "state_group": null,
                "state_group_before_event": null,
                "state_group_deltas": [],
            },
            "event": self.event,
            "event_format_version": format,
            "extra_users": [],
            "internal_metadata": {},
            "outlier": self.outlier,
            "ratelimit": false,
            "rejected_reason": self.rejected_reason,
            "requester": {
                "access_token_id": null,
                "app_server_id": null,
                "authenticated_entity": sender,
                "device_id": null,
                "is_guest": false,
                "scope": [],
                "shadow_banned": false,
                "user_id": sender,
            },
            "room_version": self.room_version,
        })
    }
}

impl From<EventIdError> for HttpRefusal {
    fn from(error: EventIdError) -> Self {
        match error {
            EventIdError::UnknownRoomVersion(_) => {
                HttpRefusal::new(StatusCode::BAD_REQUEST, "M_UNSUPPORTED_ROOM_VERSION", error)
            }
            EventIdError::Missing(_) | EventIdError::Number(_) => HttpRefusal::bad_json(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_received_as_it_was_sent() {
        let mut event = SentEvent::new("10", json!({"type": "m.x", "sender": "@a:b"}).as_object().unwrap().clone());
        event.context.state_delta_due_to_event = Some(vec![("m.x".into(), "".into(), Some("$e".into()))]);
        event.rejected_reason = Some("not allowed".into());
        assert_eq!(SentEvent::deserialize(event.to_request()).unwrap(), event);
    }

    #[test]
    fn the_format_of_an_event_is_that_of_its_room_version() {
        for (version, format) in [("1", 1), ("2", 1), ("3", 2), ("4", 3), ("11", 3), ("12", 4)] {
            let request = SentEvent::new(version, Map::new()).to_request();
            assert_eq!(request["event_format_version"], format, "version {version}");
        }
    }
}
