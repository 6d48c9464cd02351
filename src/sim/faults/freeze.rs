//! Freeze: a process stands still, with all its timers overdue when it continues.

use std::ops::RangeInclusive;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::time::sleep_until;

use super::cluster::Cluster;
use super::draw::Draw;
use super::kind::{FaultKind, Span};
use crate::sim::deployment::BROKER;
use squall_judge::Observation;
use squall_netsim::Unsupported;

/// A process that stands still and continues later: SIGSTOP, a paused virtual machine, a host that swaps. Its kernel still
/// accepts and acknowledges, so that its peers notice only its silence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// The host of the process.
    pub host: String,
    /// The fault's duration, in milliseconds.
    pub for_ms: u64,
}

impl FaultKind for Freeze {
    const PER_PLAN: RangeInclusive<u32> = 3..=20;
    const HITS_BROKER: bool = true;
    const SHRINKABLE: &'static [&'static str] = &["for_ms"];

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        let host = draw.instance_or_broker();
        // Long ones outlast the ping time-out, then the time-outs of requests and of stops.
        let for_ms = match draw.rng.random_range(0..10) {
            0..5 => draw.rng.random_range(50..=2_000),
            5..8 => draw.rng.random_range(2_000..=12_000),
            _ => draw.rng.random_range(20_000..=35_000),
        };
        Some(Freeze { host, for_ms: for_ms.min(draw.storm_ms - draw.at_ms) })
    }

    fn hosts(&self) -> Vec<&str> {
        vec![&self.host]
    }

    fn for_ms(&self) -> u64 {
        self.for_ms
    }

    async fn inject(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported> {
        let host = self.host;
        let engine = cluster.engine();
        let boot = engine.boot(&host);
        if !engine.freeze(&host)? {
            return Ok(false);
        }
        if host != BROKER {
            cluster.observe(&Observation::Frozen { instance: host.as_str().into() });
        }
        sleep_until(span.until).await;
        // Another fault may have ended this process, and a third one may have frozen the next process.
        if engine.boot(&host) == boot {
            if host != BROKER {
                cluster.observe(&Observation::Thawed { instance: host.as_str().into() });
            }
            engine.thaw(&host)?;
        }
        Ok(true)
    }

    fn describe(&self) -> String {
        format!("freeze of {}", self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    use super::super::power_cut::PowerCut;
    use crate::sim::testing::{SECOND, in_world, inject, takes_effect};

    fn freeze(host: &str, for_ms: u64) -> Freeze {
        Freeze { host: host.into(), for_ms }
    }

    #[test]
    fn a_freeze_counts_where_a_process_runs_freely_and_is_over_with_the_storm() {
        in_world(|world| async move {
            let began = Instant::now();
            let injected = inject(&world, freeze("worker1", 60_000), 10 * SECOND);
            tokio::time::sleep(SECOND).await;
            assert!(world.engine().is_frozen("worker1"));
            assert!(!takes_effect(&world, freeze("worker1", 1_000)).await, "it is frozen already");
            assert!(injected.await.unwrap().unwrap());
            assert_eq!(began.elapsed(), 10 * SECOND);
            assert!(!world.engine().is_frozen("worker1") && world.engine().boot("worker1") == 1);
            assert!(world.claim_down(&"worker1".into()));
            world.power_cut(&"worker1".into());
            assert!(!takes_effect(&world, freeze("worker1", 1_000)).await, "there is nothing to freeze");
        });
    }

    #[test]
    fn a_freeze_thaws_only_the_process_that_it_froze() {
        in_world(|world| async move {
            let first = inject(&world, freeze("worker1", 5_000), 30 * SECOND);
            tokio::time::sleep(SECOND).await;
            assert!(inject(&world, PowerCut::new("worker1", 1_000), 28 * SECOND).await.unwrap().unwrap());
            let second = inject(&world, freeze("worker1", 10_000), 30 * SECOND);
            assert!(first.await.unwrap().unwrap());
            assert!(world.engine().is_frozen("worker1"));
            assert!(second.await.unwrap().unwrap());
            assert!(!world.engine().is_frozen("worker1"));
        });
    }
}
