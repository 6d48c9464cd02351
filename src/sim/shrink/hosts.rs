//! Fewer hosts.

use serde_json::Value;

use crate::sim::plan::Plan;

/// The plan in which `other` does what `host` did too. None if that makes no plan, as when a fault between the two would
/// be between a host and itself.
pub(super) fn merged(plan: &Plan, host: &str, other: &str) -> Option<Plan> {
    let mut plan = plan.clone();
    plan.topology.workers.retain(|worker| worker != host);
    let mut json = serde_json::to_value(&plan).expect("a plan is plain data");
    rename(&mut json, host, other);
    Plan::load(&json.to_string()).ok()
}

/// Names are all that a plan has text for, besides its scenario. A list of hosts names each once.
fn rename(json: &mut Value, host: &str, other: &str) {
    match json {
        Value::String(name) if name == host => other.clone_into(name),
        Value::Array(items) => {
            items.iter_mut().for_each(|item| rename(item, host, other));
            let mut named = Vec::new();
            items.retain(|item| {
                let is_again = item.is_string() && named.contains(item);
                named.push(item.clone());
                !is_again
            });
        }
        Value::Object(fields) => fields.values_mut().for_each(|field| rename(field, host, other)),
        _ => {}
    }
}
