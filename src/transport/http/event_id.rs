//! The id of an event: since room version 3, a hash of the redacted event.
//!
//! From the Matrix specification: the *reference hash* is the SHA-256 of the canonical JSON of the redacted event without
//! its signatures. The keys that redaction keeps depend on the room version.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// An event whose id cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EventIdError {
    /// The room version is unknown.
    #[error("unknown room version {0:?}")]
    UnknownRoomVersion(String),
    /// A key is missing or is not a string.
    #[error("the event has no {0}")]
    Missing(&'static str),
    /// The event holds a number that is not an integer between -2^53 and 2^53, which canonical JSON does not allow.
    #[error("the event holds {0}; only integers between -2^53 and 2^53 are allowed")]
    Number(serde_json::Number),
}

/// A room version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoomVersion(u8);

impl RoomVersion {
    /// Parses `"1"` to `"12"`.
    pub fn parse(version: &str) -> Result<Self, EventIdError> {
        let known = (1..=12).find(|number: &u8| number.to_string() == version);
        known.map(RoomVersion).ok_or_else(|| EventIdError::UnknownRoomVersion(version.to_owned()))
    }

    /// Returns the event that `event` redacts. Since version 11 the content names it.
    pub fn redacts(self, event: &Map<String, Value>) -> Option<&str> {
        let holder = if self.0 >= 11 { event.get("content")?.as_object()? } else { event };
        holder.get("redacts")?.as_str()
    }

    /// Computes the id of `event`.
    pub fn event_id(self, event: &Map<String, Value>) -> Result<String, EventIdError> {
        if self.0 <= 2 {
            return text(event, "event_id").map(str::to_owned);
        }
        Ok(format!("${}", self.reference_hash(event)?))
    }

    /// Returns the room of `event`. Since version 12 the id of a room is the hash of its create event, which therefore
    /// cannot hold it.
    pub fn room_id(self, event: &Map<String, Value>) -> Result<String, EventIdError> {
        if self.0 >= 12 && text(event, "type")? == "m.room.create" {
            return Ok(format!("!{}", self.reference_hash(event)?));
        }
        text(event, "room_id").map(str::to_owned)
    }

    /// Computes the reference hash in unpadded base64: the standard alphabet in version 3, the URL-safe one since version 4.
    fn reference_hash(self, event: &Map<String, Value>) -> Result<String, EventIdError> {
        let mut json = String::new();
        write_canonical(&Value::Object(self.redacted(event)?), &mut json)?;
        let alphabet = if self.0 == 3 { STANDARD_NO_PAD } else { URL_SAFE_NO_PAD };
        Ok(alphabet.encode(Sha256::digest(json)))
    }

    /// Returns the redacted event, without its signatures.
    fn redacted(self, event: &Map<String, Value>) -> Result<Map<String, Value>, EventIdError> {
        let kind = text(event, "type")?;
        let mut redacted = event.clone();
        redacted.retain(|key, _| match key.as_str() {
            "event_id" | "type" | "room_id" | "sender" | "state_key" | "content" | "hashes" | "depth"
            | "prev_events" | "auth_events" | "origin_server_ts" => true,
            "prev_state" | "origin" | "membership" => self.0 <= 10,
            _ => false,
        });
        if let Some(Value::Object(content)) = redacted.get_mut("content") {
            self.redact_content(kind, content);
        }
        Ok(redacted)
    }

    fn redact_content(self, kind: &str, content: &mut Map<String, Value>) {
        let version = self.0;
        if kind == "m.room.create" && version >= 11 {
            return;
        }
        content.retain(|key, _| match (kind, key.as_str()) {
            ("m.room.member", "membership") => true,
            ("m.room.member", "join_authorised_via_users_server") => version >= 9,
            ("m.room.member", "third_party_invite") => version >= 11,
            ("m.room.create", "creator") => true,
            ("m.room.join_rules", "join_rule") => true,
            ("m.room.join_rules", "allow") => version >= 8,
            ("m.room.power_levels", "invite") => version >= 11,
            ("m.room.power_levels", key) => {
                matches!(
                    key,
                    "ban"
                        | "events"
                        | "events_default"
                        | "kick"
                        | "redact"
                        | "state_default"
                        | "users"
                        | "users_default"
                )
            }
            ("m.room.aliases", "aliases") => version <= 5,
            ("m.room.history_visibility", "history_visibility") => true,
            ("m.room.redaction", "redacts") => version >= 11,
            _ => false,
        });
        match content.get_mut("third_party_invite") {
            Some(Value::Object(invite)) => invite.retain(|key, _| key == "signed"),
            Some(_) => drop(content.remove("third_party_invite")),
            None => {}
        }
    }
}

fn text<'a>(event: &'a Map<String, Value>, key: &'static str) -> Result<&'a str, EventIdError> {
    event.get(key).and_then(Value::as_str).ok_or(EventIdError::Missing(key))
}

/// Appends canonical JSON: no spaces, keys ordered by code points, and only the required escapes.
fn write_canonical(value: &Value, json: &mut String) -> Result<(), EventIdError> {
    match value {
        Value::Array(items) => {
            json.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                write_canonical(item, json)?;
            }
            json.push(']');
        }
        Value::Object(entries) => {
            let mut entries: Vec<(&String, &Value)> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            json.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                json.push_str(&Value::from(key.as_str()).to_string());
                json.push(':');
                write_canonical(value, json)?;
            }
            json.push('}');
        }
        Value::Number(number) if number.as_i64().is_none_or(|integer| integer.unsigned_abs() > 1 << 53) => {
            return Err(EventIdError::Number(number.clone()));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => json.push_str(&value.to_string()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(json: Value) -> Map<String, Value> {
        match json {
            Value::Object(event) => event,
            other => panic!("not an event: {other}"),
        }
    }

    fn version(number: u8) -> RoomVersion {
        RoomVersion::parse(&number.to_string()).unwrap()
    }

    #[test]
    fn the_hash_is_unpadded_base64_that_urls_can_carry_since_version_4() {
        let message = event(json!({"type": "m.room.message", "content": {}, "depth": 15}));
        let ids = [3, 4].map(|number| version(number).event_id(&message).unwrap());
        assert!(ids[0].len() == 44 && ids[0].contains(['+', '/']) && !ids[0].contains(['-', '_', '=']), "{ids:?}");
        assert_eq!(ids[1], ids[0].replace('+', "-").replace('/', "_"));
    }

    #[test]
    fn canonical_json_has_sorted_keys_and_only_the_required_escapes() {
        let mut json = String::new();
        let value =
            json!({"b": [1, {"z": null, "a": true}], "a": "\u{fc}\u{1f980} \" \\ \n \u{1} \u{7f} /", "\u{e9}": -1});
        write_canonical(&value, &mut json).unwrap();
        let expected = "{\"a\":\"\u{fc}\u{1f980} \\\" \\\\ \\n \\u0001 \u{7f} /\",\"b\":[1,{\"a\":true,\"z\":null}],\"\u{e9}\":-1}";
        assert_eq!(json, expected);
        for largest in [json!(9007199254740992i64), json!(-9007199254740992i64)] {
            assert_eq!(write_canonical(&largest, &mut String::new()), Ok(()), "{largest}");
        }
        for wrong in [json!(1.5), json!(9007199254740993i64), json!(u64::MAX)] {
            assert!(matches!(write_canonical(&wrong, &mut String::new()), Err(EventIdError::Number(_))), "{wrong}");
        }
    }

    #[test]
    fn the_keys_that_redaction_keeps_depend_on_the_room_version() {
        let kept = |number: u8, kind: &str, content: Value| {
            let redacted = version(number).redacted(&event(json!({"type": kind, "content": content}))).unwrap();
            redacted["content"].as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
        };
        let create = json!({"creator": "@a", "room_version": "x", "m.federate": true});
        assert_eq!(kept(10, "m.room.create", create.clone()), "creator");
        assert_eq!(kept(11, "m.room.create", create), "creator room_version m.federate");
        let rules = json!({"join_rule": "restricted", "allow": [], "x": 1});
        assert_eq!(kept(7, "m.room.join_rules", rules.clone()), "join_rule");
        assert_eq!(kept(8, "m.room.join_rules", rules), "join_rule allow");
        let member = json!({"membership": "join", "join_authorised_via_users_server": "@a", "displayname": "A",
            "third_party_invite": {"signed": {}, "display_name": "B"}});
        assert_eq!(kept(8, "m.room.member", member.clone()), "membership");
        assert_eq!(kept(9, "m.room.member", member.clone()), "membership join_authorised_via_users_server");
        let redacted = version(11).redacted(&event(json!({"type": "m.room.member", "content": member}))).unwrap();
        assert_eq!(redacted["content"]["third_party_invite"], json!({"signed": {}}));
        let levels = json!({"invite": 1, "ban": 2, "notifications": {}});
        assert_eq!(kept(10, "m.room.power_levels", levels.clone()), "ban");
        assert_eq!(kept(11, "m.room.power_levels", levels), "invite ban");
        assert_eq!(kept(5, "m.room.aliases", json!({"aliases": []})), "aliases");
        assert_eq!(kept(6, "m.room.aliases", json!({"aliases": []})), "");
        let visibility = json!({"history_visibility": "shared", "x": 1});
        assert_eq!(kept(6, "m.room.history_visibility", visibility), "history_visibility");
        assert_eq!(kept(11, "m.room.redaction", json!({"redacts": "$e", "reason": "r"})), "redacts");
        assert_eq!(kept(10, "m.room.message", json!({"body": "hi"})), "");
        let top = event(json!({"type": "x", "origin": "a", "membership": "b", "prev_state": [], "redacts": "c",
            "unsigned": {}, "signatures": {}, "hashes": {}}));
        let keys = |number| version(number).redacted(&top).unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!((keys(10), keys(11)), ("type origin membership prev_state hashes".into(), "type hashes".into()));
    }

    #[test]
    fn the_events_of_the_oldest_versions_carry_their_id() {
        let old = event(json!({"type": "m.room.message", "event_id": "$1:a", "room_id": "!r:a", "redacts": "$0:a"}));
        assert_eq!(version(2).event_id(&old).unwrap(), "$1:a");
        assert_eq!(version(2).redacts(&old), Some("$0:a"));
        assert_eq!(version(11).redacts(&old), None);
        assert_eq!(RoomVersion::parse("13"), Err(EventIdError::UnknownRoomVersion("13".into())));
        assert_eq!(version(12).event_id(&Map::new()), Err(EventIdError::Missing("type")));
    }
}
