//! `POST send_events/<transaction id>`: persist events, `{"events":[..]}`, all of rooms that fall to this instance.
//! Answers `{"stream_id":..,"event_id":..}`: the last token, and the id of the last event.
//!
//! An event that is there already keeps the token it has, and that is answered (Synapse #8476).

use std::rc::Rc;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{check_writer, object, once};
use crate::env::LocalBoxFuture;
use crate::instance::{Instance, Write};
use crate::store::{NewEvent, StateDelta};
use crate::streams::events;
use crate::transport::http::event_id::{EventIdError, RoomVersion};
use crate::transport::http::{Endpoint, EndpointRequest, Refusal, Reply};

/// The endpoint's name.
pub const NAME: &str = "send_events";

/// What is asked.
#[derive(Debug, Deserialize)]
struct Body {
    events: Vec<SentEvent>,
}

/// An event on its way to whoever persists it, with what is known of it. What else Synapse sends with it is ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SentEvent {
    /// What came out of checking it.
    #[serde(default)]
    pub context: Context,
    /// The event itself.
    pub event: Map<String, Value>,
    /// Whether the state of its room is not known at it.
    #[serde(default)]
    pub outlier: bool,
    /// Why it failed authorisation, if it did.
    #[serde(default)]
    pub rejected_reason: Option<String>,
    /// The version of the rules of its room.
    pub room_version: String,
}

/// What came out of checking an event.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// The entries of the room's state that it changes: type, state key, and the event that is the entry now.
    #[serde(default)]
    pub state_delta_due_to_event: Option<Vec<(String, String, Option<String>)>>,
}

impl SentEvent {
    /// An event that changes no state.
    pub fn new(room_version: impl Into<String>, event: Map<String, Value>) -> Self {
        SentEvent {
            context: Context::default(),
            event,
            outlier: false,
            rejected_reason: None,
            room_version: room_version.into(),
        }
    }

    /// Its id.
    pub fn event_id(&self) -> Result<String, EventIdError> {
        RoomVersion::parse(&self.room_version)?.event_id(&self.event)
    }

    /// What there is to persist of it.
    fn write(&self) -> Result<Write, EventIdError> {
        let version = RoomVersion::parse(&self.room_version)?;
        let text = |key: &'static str| self.event.get(key).and_then(Value::as_str);
        let content = self.event.get("content").and_then(Value::as_object);
        let in_content = |key: &str| content.and_then(|content| content.get(key));
        let kind = text("type").ok_or(EventIdError::Missing("type"))?.to_owned();
        let room_id = version.room_id(&self.event)?;
        let membership = in_content("membership").and_then(Value::as_str).filter(|_| kind == "m.room.member");
        let deltas = self.context.state_delta_due_to_event.iter().flatten();
        let state = deltas.map(|(kind, state_key, event_id)| StateDelta {
            room_id: room_id.clone(),
            kind: kind.clone(),
            state_key: state_key.clone(),
            event_id: event_id.clone(),
        });
        let event = NewEvent {
            event_id: version.event_id(&self.event)?,
            room_id: room_id.clone(),
            state_key: text("state_key").map(str::to_owned),
            redacts: version.redacts(&self.event).filter(|_| kind == "m.room.redaction").map(str::to_owned),
            relates_to: in_content("m.relates_to").and_then(related_event).map(str::to_owned),
            membership: membership.map(str::to_owned),
            rejected: self.rejected_reason.is_some(),
            outlier: self.outlier,
            kind,
        };
        Ok(Write { event: Some(event), state: state.collect() })
    }

    /// As it stands in a request, with everything that Synapse expects there.
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

/// The event that a relation leads to. A mere reply is none.
fn related_event(relation: &Value) -> Option<&str> {
    relation.get("rel_type")?.as_str()?;
    relation.get("event_id")?.as_str()
}

/// The endpoint.
pub struct SendEvents(pub Rc<Instance>);

impl Endpoint for SendEvents {
    fn name(&self) -> &'static str {
        NAME
    }

    fn arguments(&self) -> &'static [&'static str] {
        &[]
    }

    fn has_transaction_id(&self) -> bool {
        true
    }

    fn handle(&self, request: EndpointRequest) -> LocalBoxFuture<'static, Result<Reply, Refusal>> {
        let instance = Rc::clone(&self.0);
        Box::pin(async move { send(&instance, &request).await })
    }
}

async fn send(instance: &Instance, request: &EndpointRequest) -> Result<Reply, Refusal> {
    let Body { events } = request.parse()?;
    let writes: Vec<Write> = events.iter().map(SentEvent::write).collect::<Result<_, _>>()?;
    let sent: Vec<&NewEvent> = writes.iter().filter_map(|write| write.event.as_ref()).collect();
    for event in &sent {
        let writer = instance.config().events_writer_of(&event.room_id);
        check_writer(instance, &format!("the room {}", event.room_id), writer)?;
    }
    let last = sent.last().ok_or_else(|| Refusal::bad_json("there are no events to persist"))?;
    let event_id = last.event_id.clone();
    let token = instance.events()?.persist_once(once(instance, request), writes).await?;
    let body = object([("stream_id", token.0.into()), ("event_id", event_id.into())]);
    Ok(Reply::wrote(body, events::NAME, token))
}

impl From<EventIdError> for Refusal {
    fn from(error: EventIdError) -> Self {
        match error {
            EventIdError::UnknownRoomVersion(_) => {
                Refusal::new(StatusCode::BAD_REQUEST, "M_UNSUPPORTED_ROOM_VERSION", error)
            }
            EventIdError::Missing(_) | EventIdError::Number(_) => Refusal::bad_json(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(room_version: &str, event: Value) -> SentEvent {
        SentEvent::deserialize(json!({ "room_version": room_version, "event": event })).unwrap()
    }

    #[test]
    fn what_a_row_says_of_an_event_stands_where_its_room_version_has_it() {
        let redaction = |version: &str| {
            let content = json!({"redacts": "$new", "m.relates_to": {"event_id": "$t", "rel_type": "m.thread"}});
            let event = json!({"type": "m.room.redaction", "room_id": "!r", "event_id": "$e", "redacts": "$old",
                               "content": content});
            let event = sent(version, event).write().unwrap().event.unwrap();
            (event.redacts.unwrap(), event.relates_to.unwrap())
        };
        assert_eq!(redaction("10"), ("$old".into(), "$t".into()));
        assert_eq!(redaction("11"), ("$new".into(), "$t".into()));
        let reply = json!({"m.relates_to": {"m.in_reply_to": {"event_id": "$t"}}, "membership": "join"});
        let event = sent("1", json!({"type": "m.room.message", "room_id": "!r", "event_id": "$e", "content": reply}));
        let event = event.write().unwrap().event.unwrap();
        assert_eq!((event.relates_to, event.membership, event.event_id.as_str()), (None, None, "$e"));
    }

    #[test]
    fn an_event_arrives_as_it_was_sent() {
        let mut event = SentEvent::new("10", json!({"type": "m.x", "sender": "@a:b"}).as_object().unwrap().clone());
        event.context.state_delta_due_to_event = Some(vec![("m.x".into(), "".into(), Some("$e".into()))]);
        event.rejected_reason = Some("not allowed".into());
        assert_eq!(SentEvent::deserialize(event.to_request()).unwrap(), event);
    }
}
