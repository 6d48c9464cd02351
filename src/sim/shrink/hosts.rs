//! Shrinks the number of hosts of a plan.

use serde_json::Value;

use crate::sim::plan::Plan;

/// Returns the plan in which `other` also does the work of `host`. Returns none if that is not a valid plan, as when a
/// fault between the two hosts would be between a host and itself.
pub(super) fn merged(plan: &Plan, host: &str, other: &str) -> Option<Plan> {
    let mut plan = plan.clone();
    plan.topology.workers.retain(|worker| worker != host);
    let mut json = serde_json::to_value(&plan).expect("a plan is plain data");
    rename(&mut json, host, other);
    Plan::load(&json.to_string()).ok()
}

/// Replaces the name `host` by `other` everywhere. A plan has no other text but names and its scenario. A list of hosts
/// keeps each name once.
fn rename(json: &mut Value, host: &str, other: &str) {
    match json {
        Value::String(name) if name == host => other.clone_into(name),
        Value::Array(items) => {
            for item in items.iter_mut() {
                rename(item, host, other);
            }
            let mut named = Vec::new();
            items.retain(|item| {
                let is_again = item.is_string() && named.contains(item);
                named.push(item.clone());
                !is_again
            });
        }
        Value::Object(fields) => {
            for field in fields.values_mut() {
                rename(field, host, other);
            }
        }
        _ => {}
    }
}
