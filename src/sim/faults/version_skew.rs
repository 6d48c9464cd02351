//! Version skew: the peers of an instance are of a newer version.

use std::ops::RangeInclusive;

use tokio::time::Instant;

use super::cluster::Cluster;
use super::draw::Draw;
use super::per_mille::{PerMilleFault, PerMilleKind, hit_until};
use squall_protocol::InstanceName;

/// Version skew: one instance reads lines of a newer version.
pub type VersionSkew = PerMilleFault<NewerLines>;

/// Lines of peers of a newer version: now and then they send a line of a stream that the instance does not have, or a row in
/// a shape that it does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewerLines {}

impl PerMilleKind for NewerLines {
    const PER_PLAN: RangeInclusive<u32> = 2..=10;
    const PER_MILLE: &'static [u32] = &[100, 300, 1_000];
    const FOR_MS: RangeInclusive<u64> = 1_000..=10_000;

    fn draw_host(draw: &mut Draw<'_>) -> String {
        draw.instance()
    }

    async fn inject(cluster: &dyn Cluster, host: &InstanceName, per_mille: u32, until: Instant) -> bool {
        hit_until(cluster.version_skew(host).switch(), per_mille, until).await
    }

    fn describe(host: &str, per_mille: u32) -> String {
        format!("version skew: {per_mille} ‰ of the reads of {host} contain a line of a newer version")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::{in_world, takes_effect};

    #[test]
    fn version_skew_counts_where_its_lines_are_read_and_harms_no_connection() {
        in_world(|world| async move {
            let before = world.engine().connections("worker1", "writer1");
            assert!(takes_effect(&world, VersionSkew::new("worker1", 1_000, 8_000)).await, "heartbeats bring them");
            assert_eq!(world.engine().connections("worker1", "writer1"), before);
            let judge = world.recorder().judge();
            assert!(judge.exercised()["unknown_rows_isolated"] > 0);
            assert_eq!(judge.violations(), []);
        });
    }
}
