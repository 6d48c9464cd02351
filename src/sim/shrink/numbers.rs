//! Lowers the numbers of a plan that weaken it when they are lower.
//!
//! The numbers are found by their names, in the plan's JSON, so the numbers of a new fault are shrunk without a change
//! here.

use serde_json::Value;

use crate::sim::faults::Fault;
use crate::sim::plan::Plan;

/// Names of the numbers in operations. Other numbers are only labels, such as rooms and users, or weigh more when lower.
const NAMES_OF_OPERATIONS: [&str; 7] = ["for_ms", "rows", "tokens", "events", "type_bytes", "of_account", "of_room"];

/// Names of the numbers in clients. The pause is not one of them: a client that never pauses makes a run last minutes.
const NAMES_OF_CLIENTS: [&str; 3] = ["move_per_mille", "lost_per_mille", "from_ms"];

/// Returns the JSON pointer of each such number.
pub(super) fn pointers(plan: &Plan) -> Vec<String> {
    let json = serde_json::to_value(plan).expect("a plan is plain data");
    let mut pointers = Vec::new();
    let lists: [(&str, &[&str]); 3] =
        [("faults", &Fault::shrinkable()), ("operations", &NAMES_OF_OPERATIONS), ("clients", &NAMES_OF_CLIENTS)];
    for (list, names) in lists {
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

/// Returns the number at a pointer; none if the plan has no number there.
pub(super) fn get(plan: &Plan, pointer: &str) -> Option<u64> {
    serde_json::to_value(plan).expect("a plan is plain data").pointer(pointer)?.as_u64()
}

/// Returns the plan with another number at a pointer; none if that is not a valid plan.
pub(super) fn set(plan: &Plan, pointer: &str, value: u64) -> Option<Plan> {
    let mut json = serde_json::to_value(plan).expect("a plan is plain data");
    *json.pointer_mut(pointer)? = value.into();
    Plan::load(&json.to_string()).ok()
}
