//! Rolling restart: every instance is restarted, one after the other.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use super::cluster::Cluster;
use super::draw::Draw;
use super::kind::{FaultKind, Outage, Span};
use super::outage::keep_down;
use super::restart::GracefulStop;
use crate::sim::invalid::InvalidValue;
use squall_netsim::Unsupported;

/// Graceful restarts of several instances, one after the other: the upgrade of a whole deployment. The next restart begins
/// when the last instance is up again and the pause is over. An instance that is down already is passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollingRestart {
    /// The hosts, in the order of their restarts.
    pub hosts: Vec<String>,
    /// The time for which each host stays down, in milliseconds from the request to stop; longer if it takes longer to
    /// stop.
    pub down_ms: u64,
    /// The pause between one restart and the next, in milliseconds.
    pub pause_ms: u64,
}

impl FaultKind for RollingRestart {
    // Each takes down every instance; most do not fit.
    const PER_PLAN: RangeInclusive<u32> = 2..=6;
    const SHRINKABLE: &'static [&'static str] = &["down_ms", "pause_ms"];

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        let hosts: Vec<String> = draw.deployment.hosts().map(str::to_owned).collect();
        let down_ms = draw.rng.random_range(50..=2_500);
        let pause_ms = draw.rng.random_range(0..=3_000);
        let fault = RollingRestart { hosts, down_ms, pause_ms };
        let fits = draw.at_ms + fault.for_ms() <= draw.storm_ms;
        fits.then_some(fault)
    }

    fn check(&self) -> Result<(), InvalidValue> {
        if self.hosts.is_empty() { Err(InvalidValue::NoHost) } else { Ok(()) }
    }

    fn hosts(&self) -> Vec<&str> {
        self.hosts.iter().map(String::as_str).collect()
    }

    fn for_ms(&self) -> u64 {
        self.outages().last().map_or(0, |outage| outage.until_ms)
    }

    fn outages(&self) -> Vec<Outage<'_>> {
        let period_ms = self.down_ms.saturating_add(self.pause_ms);
        let outage = |(place, host)| {
            let from_ms = period_ms.saturating_mul(place);
            Outage { host, from_ms, until_ms: from_ms.saturating_add(self.down_ms) }
        };
        (0..).zip(self.hosts()).map(outage).collect()
    }

    async fn inject(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported> {
        let down = Duration::from_millis(self.down_ms);
        let pause = Duration::from_millis(self.pause_ms);
        let mut restarted = 0;
        for host in self.hosts {
            let now = Instant::now();
            if now >= span.storm_end {
                break;
            }
            let until = (now + down).min(span.storm_end);
            restarted += usize::from(keep_down::<GracefulStop>(cluster, &host.into(), until).await);
            sleep_until((Instant::now() + pause).min(span.storm_end)).await;
        }
        Ok(restarted > 0)
    }

    fn describe(&self) -> String {
        let RollingRestart { hosts, down_ms, pause_ms } = self;
        format!("rolling restart of {}, each down {down_ms} ms, {pause_ms} ms apart", hosts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::power_cut::PowerCut;
    use super::*;
    use crate::sim::testing::{SECOND, in_world, inject, takes_effect};

    fn rolling_restart(hosts: &[&str], down_ms: u64, pause_ms: u64) -> RollingRestart {
        RollingRestart { hosts: hosts.iter().map(|host| (*host).into()).collect(), down_ms, pause_ms }
    }

    #[test]
    fn a_rolling_restart_takes_down_one_host_after_the_other() {
        in_world(|world| async move {
            let hosts = ["master", "writer1", "worker1", "worker2"];
            let boots = || hosts.map(|host| world.engine().boot(host));
            assert_eq!(boots(), [1; 4]);
            let fault = rolling_restart(&hosts, 1_000, 1_000);
            let injected = inject(&world, fault, 10 * SECOND);
            tokio::time::sleep(SECOND / 2).await;
            for n in 0..4 {
                let down = hosts.map(|host| !world.engine().is_up(host));
                assert_eq!(down, [0, 1, 2, 3].map(|other| other == n), "after {n}");
                tokio::time::sleep(2 * SECOND).await;
            }
            assert!(injected.await.unwrap().unwrap());
            assert_eq!(boots(), [2; 4]);
        });
    }

    #[test]
    fn a_rolling_restart_passes_over_a_host_that_is_down_and_ends_with_the_storm() {
        in_world(|world| async move {
            let down = inject(&world, PowerCut::new("worker1", 6_000), 10 * SECOND);
            tokio::time::sleep(SECOND).await;
            let began = Instant::now();
            assert!(!takes_effect(&world, rolling_restart(&["worker1"], 5_000, 0)).await);
            assert_eq!(began.elapsed(), Duration::ZERO);
            assert!(takes_effect(&world, rolling_restart(&["worker1", "worker2", "master"], 8_000, 7_000)).await);
            assert_eq!(began.elapsed(), 10 * SECOND, "the storm is over before the master's turn");
            assert_eq!(["worker1", "worker2", "master"].map(|host| world.engine().boot(host)), [2, 2, 1]);
            assert!(world.engine().is_up("worker2"));
            assert!(down.await.unwrap().unwrap());
        });
    }
}
