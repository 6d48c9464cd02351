//! The lines that Synapse 1.19.1's own classes read (`tests/data/vectors_1.19.1.json.gz`), by the older dialect.

use serde::Deserialize;
use serde_json::Value;
use squall_protocol::Dialect;

use crate::vectors::{Parsed, Refused, expected, fields_of, text_1_19};

#[derive(Deserialize)]
struct Vectors {
    parse: Vec<Parsed>,
    parse_errors: Vec<Refused>,
}

fn vectors() -> Vectors {
    serde_json::from_str(&text_1_19()).expect("the vectors are JSON")
}

/// Returns the fields under the names of 1.19.1.
fn older(mut fields: Value) -> Value {
    let entries = fields.as_object_mut().expect("fields have names");
    if let Some(token) = entries.shift_remove("new_token") {
        assert_eq!(entries.shift_remove("prev_token").as_ref(), Some(&token));
        entries.insert("token".into(), token);
    }
    if entries.contains_key("is_syncing") {
        assert_eq!(entries.shift_remove("device_id"), Some(Value::Null));
    }
    fields
}

/// The lines that Squall refuses in any dialect, for the reasons in docs/deviations.md. One of them holds a byte order mark,
/// which JSON of 1.163 may not have either.
const REFUSED: [(&str, &str); 7] = [
    ("RDATA events master 1_0 []", "underscore between digits"),
    ("RDATA events master ٣ []", "digit outside ASCII"),
    ("RDATA events master 5 [\"\\ud83e\"]", "lone surrogate"),
    ("RDATA events master 5 \u{feff}[]", "byte order mark before JSON"),
    ("RDATA events master 123456789012345678901234567890 [123456789012345678901234567890]", "token outside 64 bits"),
    ("REMOVE_PUSHER a b c", "a command that is gone"),
    ("REMOVE_PUSHER a b c d", "a command that is gone"),
];

#[test]
fn every_line_is_read_as_the_older_synapse_does() {
    let (mut read, mut refused) = (0, 0);
    for Parsed { line, command: name, fields, .. } in &vectors().parse {
        if REFUSED.iter().any(|(refused, _)| refused == line) {
            assert!(Dialect::V1_19.parse(line).is_err(), "{line}");
            refused += 1;
            continue;
        }
        let command = Dialect::V1_19.parse(line).expect(line);
        assert_eq!(command.name(), name);
        assert_eq!(older(fields_of(&command)), expected(fields), "{line}");
        read += 1;
    }
    assert_eq!((read, refused), (47, 7));
}

#[test]
fn every_line_the_older_synapse_refuses_is_refused() {
    let refused = vectors().parse_errors;
    for Refused { line } in &refused {
        assert!(Dialect::V1_19.parse(line).is_err(), "{line}");
    }
    assert_eq!(refused.len(), 91);
}
