//! Late bytes: what a host sent on a connection that it has lost arrives after what it sends on the next one.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use super::cluster::Cluster;
use super::draw::Draw;
use super::kind::{FaultKind, Span};
use crate::sim::deployment::replication_port;
use squall_judge::Observation;
use squall_netsim::Unsupported;

/// A replication connection whose bytes from one host wait on the way. The host loses the connection and opens another
/// one, which is not affected. Then the bytes arrive. A proxy or a busy receiver does this: it has accepted the bytes, and
/// reads the newer connection first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LateBytes {
    /// The host whose bytes are late.
    pub sender: String,
    /// The host that reads them.
    pub receiver: String,
    /// The time between the first byte that waits and the loss of the connection, in milliseconds.
    pub lost_after_ms: u64,
    /// The time until the bytes arrive, in milliseconds.
    pub for_ms: u64,
}

impl FaultKind for LateBytes {
    const PER_PLAN: RangeInclusive<u32> = 3..=15;
    const HITS_BROKER: bool = true;
    const SHRINKABLE: &'static [&'static str] = &["lost_after_ms", "for_ms"];

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        let (sender, receiver) = draw.connected_hosts();
        let lost_after_ms = draw.rng.random_range(1..=2_000);
        // The next connection is usually open within two seconds.
        let for_ms = lost_after_ms + draw.rng.random_range(100..=6_000);
        Some(LateBytes { sender, receiver, lost_after_ms, for_ms })
    }

    fn hosts(&self) -> Vec<&str> {
        vec![&self.sender, &self.receiver]
    }

    fn for_ms(&self) -> u64 {
        self.for_ms
    }

    async fn inject(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported> {
        let LateBytes { sender, receiver, .. } = self;
        let engine = cluster.engine();
        let port = replication_port(&sender, &receiver);
        let Some(connection) = engine.stall(&sender, &receiver, port)? else { return Ok(false) };
        let lost_at = Instant::now() + Duration::from_millis(self.lost_after_ms);
        sleep_until(lost_at.min(span.until)).await;
        let oldest = engine.connections(&sender, &receiver).into_iter().find(|open| open.port == port);
        let is_open = oldest.is_some_and(|oldest| oldest.id == connection.id);
        if is_open && engine.half_open(&sender, &receiver, port)?.is_some() {
            cluster.observe(&Observation::HalfOpened { survivor: receiver.as_str().into(), attempt: connection.id });
        }
        sleep_until(span.until).await;
        let are_late = engine.release(&connection)? > 0;
        engine.answer(&connection)?;
        Ok(is_open && are_late)
    }

    fn describe(&self) -> String {
        let LateBytes { sender, receiver, lost_after_ms, .. } = self;
        let lost_after = Duration::from_millis(*lost_after_ms).as_secs_f64();
        format!("late bytes: {sender} loses a connection after {lost_after:.1} s, and {receiver} reads it later")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::{in_world, takes_effect};

    #[test]
    fn it_counts_where_bytes_were_late() {
        let late = |sender: &str, receiver: &str, lost_after_ms| {
            let (sender, receiver) = (sender.into(), receiver.into());
            LateBytes { sender, receiver, lost_after_ms, for_ms: 9_000 }
        };
        in_world(move |world| async move {
            // A heartbeat of five seconds is due in that time.
            assert!(takes_effect(&world, late("writer1", "worker1", 6_000)).await);
            assert!(!takes_effect(&world, late("worker1", "worker2", 6_000)).await, "they have no connection");
        });
    }
}
