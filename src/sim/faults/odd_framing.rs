//! Odd framing: an instance reads its lines in small pieces, with odd lines between them.

use std::ops::RangeInclusive;

use tokio::time::Instant;

use super::cluster::Cluster;
use super::draw::Draw;
use super::per_mille::{PerMilleFault, PerMilleKind, hit_until};
use squall_protocol::InstanceName;

/// Odd framing: one instance reads a few bytes at a time, and odd lines.
pub type OddFraming = PerMilleFault<OddLines>;

/// Lines that Squall's own peers do not send: blank ones (Synapse #14449), pings with any text, lines of the greatest length
/// and one byte more, unknown commands, and commands with one argument more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OddLines {}

impl PerMilleKind for OddLines {
    const PER_PLAN: RangeInclusive<u32> = 2..=8;
    const PER_MILLE: &'static [u32] = &[0, 50, 300];
    const FOR_MS: RangeInclusive<u64> = 1_000..=10_000;

    fn draw_host(draw: &mut Draw<'_>) -> String {
        draw.instance()
    }

    async fn inject(cluster: &dyn Cluster, host: &InstanceName, per_mille: u32, until: Instant) -> bool {
        hit_until(cluster.odd_framing(host).switch(), per_mille, until).await
    }

    fn describe(host: &str, per_mille: u32) -> String {
        format!("odd framing: {host} reads a few bytes at a time, and an odd line after {per_mille} ‰ of the lines")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::{in_world, takes_effect};

    #[test]
    fn short_reads_harm_no_connection() {
        in_world(|world| async move {
            let before = world.engine().connections("worker1", "writer1");
            assert!(takes_effect(&world, OddFraming::new("worker1", 0, 8_000)).await, "heartbeats are read");
            assert_eq!(world.engine().connections("worker1", "writer1"), before);
        });
    }

    #[test]
    fn odd_lines_are_judged() {
        in_world(|world| async move {
            assert!(takes_effect(&world, OddFraming::new("worker1", 1_000, 8_000)).await);
            let judge = world.recorder().judge();
            assert!(judge.exercised()["unknown_rows_isolated"] > 0);
            assert_eq!(judge.violations(), []);
        });
    }
}
