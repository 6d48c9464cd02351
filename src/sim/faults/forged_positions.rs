//! Forged positions: an instance hears positions that no instance has announced.

use std::ops::RangeInclusive;

use tokio::time::Instant;

use super::cluster::Cluster;
use super::draw::Draw;
use super::per_mille::{PerMilleFault, PerMilleKind, hit_until};
use squall_protocol::InstanceName;

/// Forged positions: one instance reads positions of known writers with tokens that were never allocated.
pub type ForgedPositions = PerMilleFault<ForgedLines>;

/// Lines of something that can write to the instances and is none of them. Neither a port of the line protocol nor a broker's
/// channel knows its senders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForgedLines {}

impl PerMilleKind for ForgedLines {
    const PER_PLAN: RangeInclusive<u32> = 1..=6;
    const PER_MILLE: &'static [u32] = &[50, 300, 1_000];
    const FOR_MS: RangeInclusive<u64> = 100..=5_000;
    const WIDE_ONLY: bool = true;
    // A writer that has heard such a token waits until it knows if the database is the right one.
    const LINGER_MS: u64 = 8_000;

    fn draw_host(draw: &mut Draw<'_>) -> String {
        draw.instance()
    }

    async fn inject(cluster: &dyn Cluster, host: &InstanceName, per_mille: u32, until: Instant) -> bool {
        hit_until(cluster.forged_positions(host).switch(), per_mille, until).await
    }

    fn describe(host: &str, per_mille: u32) -> String {
        format!(
            "forged positions: {per_mille} ‰ of the reads of {host} contain a position that no instance has announced"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::{in_world, takes_effect};

    #[test]
    fn forged_positions_move_nothing_and_harm_no_connection() {
        in_world(|world| async move {
            let before = world.engine().connections("worker1", "writer1");
            assert!(takes_effect(&world, ForgedPositions::new("worker1", 1_000, 8_000)).await, "heartbeats bring them");
            assert_eq!(world.engine().connections("worker1", "writer1"), before);
            let judge = world.recorder().judge();
            assert!(judge.exercised()["unknown_rows_isolated"] > 0);
            assert_eq!(judge.violations(), []);
        });
    }
}
