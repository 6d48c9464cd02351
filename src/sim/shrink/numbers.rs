//! The numbers of a plan that make less of it when they are lower.
//!
//! They are found by their names, in the plan as JSON: so a new fault's duration is shrunk like all others.

use serde_json::Value;

use crate::sim::plan::Plan;

/// Their names, in faults and operations. Others mean more when they are lower (`bytes_per_sec`, how long a flapping
/// connection lives), or are only labels (rooms, users).
const NAMES: [&str; 17] = [
    "for_ms",
    "delay_ms_min",
    "delay_ms_max",
    "extra_ms_min",
    "extra_ms_max",
    "down_ms",
    "pause_ms",
    "min_us",
    "max_us",
    "per_mille",
    "rollback_per_mille",
    "rows",
    "tokens",
    "events",
    "type_bytes",
    "of_account",
    "of_room",
];

/// Their names in clients. A client that pauses for less asks for more: one that never pauses makes each run last minutes.
const NAMES_OF_CLIENTS: [&str; 3] = ["move_per_mille", "lost_per_mille", "from_ms"];

/// The lists that have them, with their names.
const LISTS: [(&str, &[&str]); 3] = [("faults", &NAMES), ("operations", &NAMES), ("clients", &NAMES_OF_CLIENTS)];

/// Where they are, as JSON pointers.
pub(super) fn pointers(plan: &Plan) -> Vec<String> {
    let json = serde_json::to_value(plan).expect("a plan is plain data");
    let mut pointers = Vec::new();
    for (list, names) in LISTS {
        collect(&json[list], names, &format!("/{list}"), &mut pointers);
    }
    pointers
}

fn collect(json: &Value, names: &[&str], at: &str, pointers: &mut Vec<String>) {
    match json {
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                collect(item, names, &format!("{at}/{place}"), pointers);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let at = format!("{at}/{name}");
                match field.is_u64() && names.contains(&name.as_str()) {
                    true => pointers.push(at),
                    false => collect(field, names, &at, pointers),
                }
            }
        }
        _ => {}
    }
}

/// The number at a pointer; none if there is none any more.
pub(super) fn get(plan: &Plan, pointer: &str) -> Option<u64> {
    serde_json::to_value(plan).expect("a plan is plain data").pointer(pointer)?.as_u64()
}

/// The plan with another number there; none if that makes no plan.
pub(super) fn set(plan: &Plan, pointer: &str, value: u64) -> Option<Plan> {
    let mut json = serde_json::to_value(plan).expect("a plan is plain data");
    *json.pointer_mut(pointer)? = value.into();
    Plan::load(&json.to_string()).ok()
}
