//! Persists events of rooms that this instance writes.
//!
//! An event that is already persisted keeps its token, and the reply has that token (Synapse #8476).

use serde_json::Value;

use super::{check_writers, idempotency_key, object};
use crate::instance::{Instance, Write};
use crate::transport::http::endpoints::send_events::{Body, SentEvent};
use crate::transport::http::event_id::{EventIdError, RoomVersion};
use crate::transport::http::{EndpointRequest, HttpRefusal, Reply};
use squall_protocol::rows::events;
use squall_protocol::rows::events::{EventRow, StateRow};

/// Persists events.
pub(super) async fn handle(instance: &Instance, request: &EndpointRequest) -> Result<Reply, HttpRefusal> {
    let Body { events } = request.parse()?;
    let writes: Vec<Write> = events.iter().map(to_write).collect::<Result<_, _>>()?;
    let sent: Vec<&EventRow> = writes.iter().filter_map(|write| write.event.as_ref()).collect();
    for event in &sent {
        check_writers(instance, events::NAME, &event.room_id, &instance.config().stream_writers.events)?;
    }
    let last = sent.last().ok_or_else(|| HttpRefusal::bad_json("there are no events to persist"))?;
    let event_id = last.event_id.clone();
    let token = instance.events()?.persist_once(idempotency_key(instance, request), writes).await?;
    let body = object([("stream_id", token.0.into()), ("event_id", event_id.into())]);
    Ok(Reply::wrote(body, events::NAME, token))
}

/// Returns the rows to persist for an event.
fn to_write(sent: &SentEvent) -> Result<Write, EventIdError> {
    let version = RoomVersion::parse(&sent.room_version)?;
    let text = |key: &'static str| sent.event.get(key).and_then(Value::as_str);
    let content = sent.event.get("content").and_then(Value::as_object);
    let in_content = |key: &str| content.and_then(|content| content.get(key));
    let kind = text("type").ok_or(EventIdError::Missing("type"))?.to_owned();
    let room_id = version.room_id(&sent.event)?;
    let membership = in_content("membership").and_then(Value::as_str).filter(|_| kind == "m.room.member");
    let deltas = sent.context.state_delta_due_to_event.iter().flatten();
    let state = deltas.map(|(kind, state_key, event_id)| StateRow {
        room_id: room_id.clone(),
        kind: kind.clone(),
        state_key: state_key.clone(),
        event_id: event_id.clone(),
    });
    let event = EventRow {
        event_id: version.event_id(&sent.event)?,
        room_id: room_id.clone(),
        state_key: text("state_key").map(str::to_owned),
        redacts: version.redacts(&sent.event).filter(|_| kind == "m.room.redaction").map(str::to_owned),
        relates_to: in_content("m.relates_to").and_then(related_event).map(str::to_owned),
        membership: membership.map(str::to_owned),
        rejected: sent.rejected_reason.is_some(),
        outlier: sent.outlier,
        kind,
    };
    Ok(Write { event: Some(event), state: state.collect() })
}

/// Returns the event that a relation points to. A plain reply is not a relation.
fn related_event(relation: &Value) -> Option<&str> {
    relation.get("rel_type")?.as_str()?;
    relation.get("event_id")?.as_str()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    fn persisted(room_version: &str, event: Value) -> EventRow {
        let sent = SentEvent::deserialize(json!({ "room_version": room_version, "event": event })).unwrap();
        to_write(&sent).unwrap().event.unwrap()
    }

    #[test]
    fn a_redaction_is_read_as_its_room_version_has_it() {
        let redaction = |version: &str| {
            let content = json!({"redacts": "$new", "m.relates_to": {"event_id": "$t", "rel_type": "m.thread"}});
            let event = json!({"type": "m.room.redaction", "room_id": "!r", "event_id": "$e", "redacts": "$old",
                               "content": content});
            let event = persisted(version, event);
            (event.redacts.unwrap(), event.relates_to.unwrap())
        };
        assert_eq!(redaction("10"), ("$old".into(), "$t".into()));
        assert_eq!(redaction("11"), ("$new".into(), "$t".into()));
    }

    #[test]
    fn a_reply_is_no_relation_and_a_message_has_no_membership() {
        let reply = json!({"m.relates_to": {"m.in_reply_to": {"event_id": "$t"}}, "membership": "join"});
        let message = json!({"type": "m.room.message", "room_id": "!r", "event_id": "$e", "content": reply});
        let event = persisted("1", message);
        assert_eq!((event.relates_to, event.membership, event.event_id.as_str()), (None, None, "$e"));
    }
}
