//! The injection that faults of the database share.

use tokio::time::{Instant, sleep_until};

use super::cluster::Cluster;
use crate::sim::database::faults::DatabaseFault;
use squall_protocol::InstanceName;

/// Begins a fault of the database on `host`, or on every host, and ends it at `until`. Returns true if a transaction met it.
pub(super) async fn disturb_database(
    cluster: &dyn Cluster,
    host: Option<&str>,
    fault: DatabaseFault,
    until: Instant,
) -> bool {
    let is_hit = |name: &&InstanceName| host.is_none_or(|host| name.as_str() == host);
    let hosts = cluster.instances().iter().filter(is_hit);
    let guards: Vec<_> = hosts.map(|name| cluster.database_faults(name).begin(fault.clone())).collect();
    sleep_until(until).await;
    guards.iter().any(|guard| guard.hits() > 0)
}

/// Names the hosts in a description.
pub(super) fn host_or_all(host: &Option<String>) -> &str {
    host.as_deref().unwrap_or("all hosts")
}
