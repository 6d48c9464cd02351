//! Flap: every replication connection of one client is reset soon after it was opened.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::cluster::Cluster;
use super::draw::Draw;
use super::kind::{FaultKind, Span};
use crate::sim::deployment::replication_port;
use squall_netsim::Unsupported;

/// Interval between checks for a new connection.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// Resets of every connection from a client to a server, some time after each was opened: a broken middlebox, or a message
/// on which the client fails each time. The client's back-off has to survive it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flap {
    /// The host that connects.
    pub client: String,
    /// The host that accepts.
    pub server: String,
    /// The lifetime of each connection, in milliseconds.
    pub after_ms: u64,
    /// The fault's duration, in milliseconds.
    pub for_ms: u64,
}

impl FaultKind for Flap {
    const PER_PLAN: RangeInclusive<u32> = 3..=20;
    const HITS_BROKER: bool = true;
    // Not `after_ms`: a connection that lives for less is a worse fault.
    const SHRINKABLE: &'static [&'static str] = &["for_ms"];

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        let (client, server) = draw.client_and_server();
        // From before the first line is read until well after set-up.
        let after_ms = draw.one_of(&[1, 2, 5, 10, 20, 50, 100, 300, 1_000]);
        Some(Flap { client, server, after_ms, for_ms: draw.rng.random_range(2_000..=15_000) })
    }

    fn hosts(&self) -> Vec<&str> {
        vec![&self.client, &self.server]
    }

    fn for_ms(&self) -> u64 {
        self.for_ms
    }

    async fn inject(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported> {
        let Flap { client, server, after_ms, .. } = self;
        let engine = cluster.engine();
        let port = replication_port(&client, &server);
        let mut cuts = 0;
        while Instant::now() < span.until {
            match engine.connections_to(&client, &server, port).first() {
                Some(connection) => {
                    sleep(Duration::from_millis(after_ms)).await;
                    cuts += usize::from(engine.cut(connection));
                }
                None => sleep(CHECK_INTERVAL).await,
            }
        }
        Ok(cuts > 0)
    }

    fn describe(&self) -> String {
        let Flap { client, server, after_ms, .. } = self;
        format!("flap: connections from {client} to {server} live {after_ms} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::{in_world, takes_effect};

    #[test]
    fn a_flap_counts_in_the_direction_of_its_connections() {
        in_world(|world| async move {
            let flap = |client: &str, server: &str| {
                let (client, server) = (client.into(), server.into());
                Flap { client, server, after_ms: 50, for_ms: 2_000 }
            };
            assert!(takes_effect(&world, flap("worker1", "writer1")).await);
            assert!(!takes_effect(&world, flap("writer1", "worker1")).await);
        });
    }
}
