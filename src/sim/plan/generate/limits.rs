//! The draw of small limits.

use rand::RngExt;

use crate::sim::plan::{LimitsPlan, NetworkPlan, Plan};
use squall_env::SeedTree;

/// The least number of payloads that an instance must be able to publish, in payloads a second. The storm writes some thirty.
const PAYLOADS_A_SECOND: u64 = 200;

/// Draws limits so small that a run of a minute reaches them: in one plan of two, and there about half of them.
///
/// The amounts are one to ten times as much as an instance has at a quiet moment, so that a burst, a slow reader or a
/// disconnect exceeds them.
pub(super) fn draw(seeds: &SeedTree, plan: &Plan) -> LimitsPlan {
    if !seeds.rng().random_ratio(1, 2) {
        return LimitsPlan::default();
    }
    let (has_broker, peers) = (plan.topology.broker.is_some(), plan.topology.hosts().count() - 1);
    let one_of = |key: &str, amounts: &[usize]| {
        let mut rng = seeds.child(key).rng();
        rng.random_ratio(1, 2).then(|| amounts[rng.random_range(0..amounts.len())])
    };
    let ms = |key: &str, amounts: &[usize]| one_of(key, amounts).map(|amount| amount as u64);
    LimitsPlan {
        // More than the greeting of a connection, less than a large burst.
        commands_queued_max: one_of("commands_queued_max", &[60, 100, 150, 300]),
        items_queued_max: one_of("items_queued_max", &[1, 3, 10, 30]),
        batch_rows_max: one_of("batch_rows_max", &[1, 20, 50, 100, 150]),
        rows_per_query: one_of("rows_per_query", &[2, 3, 5, 10, 30]),
        unanswered_max: one_of("unanswered_max", &[1, 3, 10, 30])
            .filter(|max| has_broker && keeps_up(*max, &plan.network)),
        // Enough for all peers, but not for one that comes back while its old connection is half open.
        tcp_connections_max: one_of("tcp_connections_max", &[0, 1, 2]).filter(|_| !has_broker).map(|more| peers + more),
        http_connections_max: one_of("http_connections_max", &[3, 5, 10]),
        answers_kept_max: one_of("answers_kept_max", &[1, 3, 10]),
        // One reply has a few hundred.
        answers_kept_bytes_max: one_of("answers_kept_bytes_max", &[1_000, 5_000]),
        answers_kept_ms: ms("answers_kept_ms", &[1, 500, 3_000, 10_000]),
        cached_max: one_of("cached_max", &[1, 2, 5]),
        typing_kept_ms: ms("typing_kept_ms", &[3_000, 10_000, 20_000]),
    }
}

/// Returns true if an instance publishes fast enough although it waits for the broker after every `unanswered_max` payloads.
fn keeps_up(unanswered_max: usize, network: &NetworkPlan) -> bool {
    let round_trip_us = 2 * network.latency_us_max;
    unanswered_max as u64 * 1_000_000 >= PAYLOADS_A_SECOND * round_trip_us
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_keeps_up_over_a_long_way_only_with_many_payloads_under_way() {
        let network = |latency_us_max| NetworkPlan { latency_us_min: 1, latency_us_max };
        assert!(keeps_up(1, &network(1_000)));
        assert!(!keeps_up(1, &network(40_000)));
        assert!(keeps_up(30, &network(40_000)));
        assert!(!keeps_up(30, &network(120_000)));
    }
}
