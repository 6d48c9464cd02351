//! A validator of JSON against the schemas of docs/schemas.
//!
//! It knows the keywords that they use, and panics at any other one. So no part of a schema is ignored.

use serde_json::Value;

/// Keywords that say nothing about a value.
const COMMENTS: [&str; 6] = ["$schema", "$id", "$defs", "title", "description", "examples"];

/// Returns the places in `value` that differ from the schema, with the reason.
pub(crate) fn differences(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, schema, value, "$", &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let keywords = match schema {
        Value::Bool(true) => return,
        Value::Bool(false) => return found.push(format!("{at}: not allowed")),
        Value::Object(keywords) => keywords,
        other => panic!("{at}: {other} is not a schema"),
    };
    for (keyword, expected) in keywords {
        match keyword.as_str() {
            "$ref" => check(root, referenced(root, expected), value, at, found),
            "type" => {
                let is_of_type = match expected {
                    Value::Array(types) => types.iter().any(|name| has_type(value, name)),
                    name => has_type(value, name),
                };
                if !is_of_type {
                    found.push(format!("{at}: {value} is not of type {expected}"));
                }
            }
            "const" => {
                if value != expected {
                    found.push(format!("{at}: {value} is not {expected}"));
                }
            }
            "enum" => {
                if !expected.as_array().unwrap().contains(value) {
                    found.push(format!("{at}: {value} is not one of {expected}"));
                }
            }
            "minimum" => {
                if value.as_f64().is_some_and(|number| number < expected.as_f64().unwrap()) {
                    found.push(format!("{at}: {value} is less than {expected}"));
                }
            }
            "required" => {
                for key in expected.as_array().unwrap() {
                    if value.is_object() && value.get(key.as_str().unwrap()).is_none() {
                        found.push(format!("{at}: {key} is missing"));
                    }
                }
            }
            "properties" => {
                for (key, schema) in expected.as_object().unwrap() {
                    if let Some(inner) = value.get(key) {
                        check(root, schema, inner, &format!("{at}.{key}"), found);
                    }
                }
            }
            "additionalProperties" => {
                let listed = keywords.get("properties").and_then(Value::as_object);
                for (key, inner) in value.as_object().into_iter().flatten() {
                    if listed.is_none_or(|listed| !listed.contains_key(key)) {
                        check(root, expected, inner, &format!("{at}.{key}"), found);
                    }
                }
            }
            "items" => {
                for (index, inner) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, expected, inner, &format!("{at}[{index}]"), found);
                }
            }
            "oneOf" => {
                let mut fitting = 0;
                for schema in expected.as_array().unwrap() {
                    let mut differences = Vec::new();
                    check(root, schema, value, at, &mut differences);
                    fitting += usize::from(differences.is_empty());
                }
                if fitting != 1 {
                    found.push(format!("{at}: {value} fits {fitting} alternatives, and must fit one"));
                }
            }
            comment if COMMENTS.contains(&comment) => {}
            unknown => panic!("{at}: the validator does not know the keyword {unknown}"),
        }
    }
}

/// Returns the schema that `#/$defs/NAME` refers to.
fn referenced<'a>(root: &'a Value, reference: &Value) -> &'a Value {
    let pointer = reference.as_str().unwrap().strip_prefix('#').expect("a reference stays in its file");
    root.pointer(pointer).unwrap_or_else(|| panic!("there is no {reference}"))
}

fn has_type(value: &Value, name: &Value) -> bool {
    match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is not a type"),
    }
}

#[test]
fn a_value_that_differs_from_its_schema_is_found() {
    use serde_json::json;

    let schema = json!({
        "$defs": { "count": { "type": "integer", "minimum": 0 } },
        "type": "object",
        "required": ["kind", "n"],
        "additionalProperties": false,
        "properties": {
            "kind": { "const": "a" },
            "n": { "$ref": "#/$defs/count" },
            "list": { "type": ["array", "null"], "items": { "enum": ["x", "y"] } },
            "map": { "additionalProperties": { "type": "number" } },
            "either": { "oneOf": [{ "type": "string" }, { "type": "boolean" }] },
        },
    });
    let fits = json!({ "kind": "a", "n": 1, "list": ["x"], "map": { "p": 0.5 }, "either": true });
    assert!(differences(&schema, &fits).is_empty());
    for (value, part) in [
        (json!({ "kind": "b", "n": 1 }), "$.kind: \"b\" is not \"a\""),
        (json!({ "kind": "a" }), "\"n\" is missing"),
        (json!({ "kind": "a", "n": -1 }), "$.n: -1 is less than 0"),
        (json!({ "kind": "a", "n": 1.5 }), "$.n: 1.5 is not of type"),
        (json!({ "kind": "a", "n": 1, "list": ["z"] }), "$.list[0]: \"z\" is not one of"),
        (json!({ "kind": "a", "n": 1, "map": { "p": "q" } }), "$.map.p: \"q\" is not of type"),
        (json!({ "kind": "a", "n": 1, "other": 1 }), "$.other: not allowed"),
        (json!({ "kind": "a", "n": 1, "either": 1 }), "$.either: 1 fits 0 alternatives"),
        (json!([]), "$: [] is not of type \"object\""),
    ] {
        let found = differences(&schema, &value);
        assert!(found.iter().any(|difference| difference.contains(part)), "{value}: {found:?}");
    }
}
