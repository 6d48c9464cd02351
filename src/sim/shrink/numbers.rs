//! The numbers of a plan that make less of it when they are lower.
//!
//! They are found by their names, in the plan as JSON: so a new fault's duration is shrunk like all others.

use serde_json::Value;

use crate::sim::plan::Plan;

/// The lists that have them.
const LISTS: [&str; 3] = ["faults", "operations", "clients"];

/// Their names. Others mean more when they are lower (`bytes_per_sec`, how long a flapping connection lives), or are only
/// labels (rooms, users).
const NAMES: [&str; 20] = [
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
    "move_per_mille",
    "lost_per_mille",
    "rows",
    "tokens",
    "events",
    "type_bytes",
    "of_account",
    "of_room",
    "from_ms",
];

/// Where they are, as JSON pointers.
pub(super) fn pointers(plan: &Plan) -> Vec<String> {
    let json = serde_json::to_value(plan).expect("a plan is plain data");
    let mut pointers = Vec::new();
    for list in LISTS {
        collect(&json[list], &format!("/{list}"), &mut pointers);
    }
    pointers
}

fn collect(json: &Value, at: &str, pointers: &mut Vec<String>) {
    match json {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(place, item)| collect(item, &format!("{at}/{place}"), pointers));
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let at = format!("{at}/{name}");
                match field.is_u64() && NAMES.contains(&name.as_str()) {
                    true => pointers.push(at),
                    false => collect(field, &at, pointers),
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
