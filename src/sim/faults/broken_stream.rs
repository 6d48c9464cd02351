//! Broken stream: the rows of one stream cannot be read any more on one host.

use std::ops::RangeInclusive;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::time::sleep_until;

use super::cluster::Cluster;
use super::draw::{Draw, OUTAGE_STRETCH_MS};
use super::kind::{FaultKind, Span};
use crate::sim::invalid::InvalidValue;
use crate::store::SOURCES;
use squall_netsim::Unsupported;

/// A stream whose rows one host cannot read any more, neither to send them nor to catch up: one of them is damaged. The
/// calm does not heal it. The judge excuses the stream from then on, and no other one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokenStream {
    /// The host.
    pub host: String,
    /// The stream, one of those in the database.
    pub stream: String,
}

impl FaultKind for BrokenStream {
    const PER_PLAN: RangeInclusive<u32> = 0..=1;
    const SHRINKABLE: &'static [&'static str] = &[];

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        // It takes a stream out of the rest of the run: it is in few plans, and comes late in most of them.
        if !(draw.rng.random_ratio(1, 2) && draw.at_ms > OUTAGE_STRETCH_MS) {
            return None;
        }
        let deployment = draw.deployment;
        let (stream, host) = draw.one_of(&[
            ("account_data", &deployment.account_data_writer),
            ("to_device", &deployment.to_device_writer),
            ("receipts", &deployment.receipts_writers[0]),
        ]);
        Some(BrokenStream { host: host.clone(), stream: stream.to_owned() })
    }

    fn check(&self) -> Result<(), InvalidValue> {
        if SOURCES.iter().any(|source| source.name == self.stream) {
            return Ok(());
        }
        let known = SOURCES.iter().map(|source| source.name).collect();
        Err(InvalidValue::UnknownStream { stream: self.stream.clone(), known })
    }

    fn hosts(&self) -> Vec<&str> {
        vec![&self.host]
    }

    fn for_ms(&self) -> u64 {
        0
    }

    async fn inject(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported> {
        let source = SOURCES.iter().find(|source| source.name == self.stream).expect("the plan was checked");
        let guard = cluster.break_stream(&self.host.into(), source);
        sleep_until(span.storm_end).await;
        Ok(guard.hits() > 0)
    }

    fn describe(&self) -> String {
        format!("broken stream: {} cannot read {} any more", self.host, self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::{SECOND, in_world, send_in_a_second, takes_effect};

    #[test]
    fn a_broken_stream_counts_where_it_is_read_and_stays_broken_when_the_storm_is_over() {
        in_world(|world| async move {
            let broken = |stream: &str| BrokenStream { host: "writer1".into(), stream: stream.into() };
            assert!(!takes_effect(&world, broken("receipts")).await, "no client writes any");
            send_in_a_second(&world, 0);
            assert!(takes_effect(&world, broken("events")).await);
            let again = world.break_stream(&"writer1".into(), &crate::store::events::SOURCE);
            tokio::time::sleep(30 * SECOND).await;
            assert!(again.hits() > 0, "it is tried again and again");
        });
    }
}
