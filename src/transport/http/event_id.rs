//! The id of an event: for all but the oldest room versions a hash of what is left of it after redaction.
//!
//! From the Matrix specification: the *reference hash* is the SHA-256 of the canonical JSON of the redacted event without
//! its signatures. Which keys survive redaction differs from room version to room version.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Why an event has no id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EventIdError {
    /// The rules of this room version are not known.
    #[error("unknown room version {0:?}")]
    UnknownRoomVersion(String),
    /// A key is missing, or is no string.
    #[error("the event has no {0}")]
    Missing(&'static str),
    /// Canonical JSON has integers up to 2^53 only.
    #[error("{0} cannot stand in an event: only integers between -2^53 and 2^53 can")]
    Number(serde_json::Number),
}

/// A version of the rules of rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoomVersion(u8);

impl RoomVersion {
    /// Understands `"1"` to `"12"`.
    pub fn parse(version: &str) -> Result<Self, EventIdError> {
        let known = (1..=12).find(|number: &u8| number.to_string() == version);
        known.map(RoomVersion).ok_or_else(|| EventIdError::UnknownRoomVersion(version.to_owned()))
    }

    /// The event that `event` redacts. Since version 11 it stands in the content.
    pub fn redacts(self, event: &Map<String, Value>) -> Option<&str> {
        let holder = if self.0 >= 11 { event.get("content")?.as_object()? } else { event };
        holder.get("redacts")?.as_str()
    }

    /// The id of `event`.
    pub fn event_id(self, event: &Map<String, Value>) -> Result<String, EventIdError> {
        if self.0 <= 2 {
            return text(event, "event_id").map(str::to_owned);
        }
        Ok(format!("${}", self.reference_hash(event)?))
    }

    /// The room of `event`. Since version 12 a room is named after the event that created it, which cannot name it.
    pub fn room_id(self, event: &Map<String, Value>) -> Result<String, EventIdError> {
        if self.0 >= 12 && text(event, "type")? == "m.room.create" {
            return Ok(format!("!{}", self.reference_hash(event)?));
        }
        text(event, "room_id").map(str::to_owned)
    }

    /// In unpadded base64: of the ordinary kind in version 3, later of the kind that can stand in URLs.
    fn reference_hash(self, event: &Map<String, Value>) -> Result<String, EventIdError> {
        let mut json = String::new();
        write_canonical(&Value::Object(self.redacted(event)?), &mut json)?;
        let ends = if self.0 == 3 { b"+/" } else { b"-_" };
        Ok(base64(&Sha256::digest(json), ends))
    }

    /// What is left of `event` after redaction, without its signatures.
    fn redacted(self, event: &Map<String, Value>) -> Result<Map<String, Value>, EventIdError> {
        let kind = text(event, "type")?;
        let mut left = event.clone();
        left.retain(|key, _| match key.as_str() {
            "event_id" | "type" | "room_id" | "sender" | "state_key" | "content" | "hashes" | "depth"
            | "prev_events" | "auth_events" | "origin_server_ts" => true,
            "prev_state" | "origin" | "membership" => self.0 <= 10,
            _ => false,
        });
        if let Some(Value::Object(content)) = left.get_mut("content") {
            self.redact_content(kind, content);
        }
        Ok(left)
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

/// JSON without spaces, keys in the order of their code points, and nothing escaped that need not be.
fn write_canonical(value: &Value, json: &mut String) -> Result<(), EventIdError> {
    let comma = |json: &mut String, index: usize| {
        if index > 0 {
            json.push(',');
        }
    };
    match value {
        Value::Array(items) => {
            json.push('[');
            for (index, item) in items.iter().enumerate() {
                comma(json, index);
                write_canonical(item, json)?;
            }
            json.push(']');
        }
        Value::Object(entries) => {
            let mut entries: Vec<(&String, &Value)> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            json.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                comma(json, index);
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

/// Base64 without padding, whose last two digits are `ends`.
fn base64(bytes: &[u8], ends: &[u8; 2]) -> String {
    let digit = |value: u32| match value {
        0..26 => b'A' + value as u8,
        26..52 => b'a' + (value - 26) as u8,
        52..62 => b'0' + (value - 52) as u8,
        _ => ends[value as usize - 62],
    };
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        text.extend((0..=three.len()).map(|index| char::from(digit(bits >> (18 - 6 * index) & 63))));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(json: Value) -> Map<String, Value> {
        match json {
            Value::Object(event) => event,
            other => panic!("no event: {other}"),
        }
    }

    fn version(number: u8) -> RoomVersion {
        RoomVersion::parse(&number.to_string()).unwrap()
    }

    #[test]
    fn base64_is_unpadded_and_has_the_digits_asked_for() {
        for (bytes, text) in [(&b""[..], ""), (b"f", "Zg"), (b"fo", "Zm8"), (b"foo", "Zm9v"), (b"\xfb\xff", "-_8")] {
            assert_eq!(base64(bytes, b"-_"), text);
        }
        assert_eq!(base64(b"\xfb\xff", b"+/"), "+/8");
    }

    #[test]
    fn canonical_json_sorts_and_escapes_only_what_it_must() {
        let mut json = String::new();
        let value =
            json!({"b": [1, {"z": null, "a": true}], "a": "\u{fc}\u{1f980} \" \\ \n \u{1} \u{7f} /", "\u{e9}": -1});
        write_canonical(&value, &mut json).unwrap();
        let expected = "{\"a\":\"\u{fc}\u{1f980} \\\" \\\\ \\n \\u0001 \u{7f} /\",\"b\":[1,{\"a\":true,\"z\":null}],\"\u{e9}\":-1}";
        assert_eq!(json, expected);
        for wrong in [json!(1.5), json!(9007199254740993i64), json!(u64::MAX)] {
            assert!(matches!(write_canonical(&wrong, &mut String::new()), Err(EventIdError::Number(_))), "{wrong}");
        }
    }

    #[test]
    fn what_redaction_leaves_depends_on_the_room_version() {
        let content_left = |number: u8, kind: &str, content: Value| {
            let left = version(number).redacted(&event(json!({"type": kind, "content": content}))).unwrap();
            left["content"].as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
        };
        let create = json!({"creator": "@a", "room_version": "x", "m.federate": true});
        assert_eq!(content_left(10, "m.room.create", create.clone()), "creator");
        assert_eq!(content_left(11, "m.room.create", create), "creator room_version m.federate");
        let rules = json!({"join_rule": "restricted", "allow": [], "x": 1});
        assert_eq!(content_left(7, "m.room.join_rules", rules.clone()), "join_rule");
        assert_eq!(content_left(8, "m.room.join_rules", rules), "join_rule allow");
        let member = json!({"membership": "join", "join_authorised_via_users_server": "@a", "displayname": "A",
            "third_party_invite": {"signed": {}, "display_name": "B"}});
        assert_eq!(content_left(8, "m.room.member", member.clone()), "membership");
        assert_eq!(content_left(9, "m.room.member", member.clone()), "membership join_authorised_via_users_server");
        let left = version(11).redacted(&event(json!({"type": "m.room.member", "content": member}))).unwrap();
        assert_eq!(left["content"]["third_party_invite"], json!({"signed": {}}));
        let levels = json!({"invite": 1, "ban": 2, "notifications": {}});
        assert_eq!(content_left(10, "m.room.power_levels", levels.clone()), "ban");
        assert_eq!(content_left(11, "m.room.power_levels", levels), "invite ban");
        assert_eq!(content_left(5, "m.room.aliases", json!({"aliases": []})), "aliases");
        assert_eq!(content_left(6, "m.room.aliases", json!({"aliases": []})), "");
        assert_eq!(content_left(11, "m.room.redaction", json!({"redacts": "$e", "reason": "r"})), "redacts");
        assert_eq!(content_left(10, "m.room.message", json!({"body": "hi"})), "");
        let top = event(json!({"type": "x", "origin": "a", "membership": "b", "prev_state": [], "redacts": "c",
            "unsigned": {}, "signatures": {}, "hashes": {}}));
        let keys = |number| version(number).redacted(&top).unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!((keys(10), keys(11)), ("type origin membership prev_state hashes".into(), "type hashes".into()));
    }

    #[test]
    fn the_oldest_versions_carry_their_id() {
        let old = event(json!({"type": "m.room.message", "event_id": "$1:a", "room_id": "!r:a", "redacts": "$0:a"}));
        assert_eq!(version(2).event_id(&old).unwrap(), "$1:a");
        assert_eq!(version(2).redacts(&old), Some("$0:a"));
        assert_eq!(version(11).redacts(&old), None);
        assert_eq!(RoomVersion::parse("13"), Err(EventIdError::UnknownRoomVersion("13".into())));
        assert_eq!(version(12).event_id(&Map::new()), Err(EventIdError::Missing("type")));
    }
}
