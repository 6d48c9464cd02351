//! The draw of small limits.

use rand::RngExt;

use crate::sim::plan::LimitsPlan;
use squall_env::SeedTree;

/// Draws limits so small that a run of a minute reaches them: in one plan of two, and there about half of them.
///
/// The amounts are one to ten times as much as an instance has at a quiet moment, so that a burst, a slow reader or a
/// disconnect exceeds them.
pub(super) fn draw(seeds: &SeedTree, has_broker: bool) -> LimitsPlan {
    if !seeds.rng().random_ratio(1, 2) {
        return LimitsPlan::default();
    }
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
        unanswered_max: one_of("unanswered_max", &[1, 3, 10, 30]).filter(|_| has_broker),
        tcp_connections_max: None,
        http_connections_max: one_of("http_connections_max", &[3, 5, 10]),
        answers_kept_max: one_of("answers_kept_max", &[1, 3, 10]),
        answers_kept_ms: ms("answers_kept_ms", &[1, 500, 3_000, 10_000]),
        cached_max: one_of("cached_max", &[1, 2, 5]),
        typing_kept_ms: ms("typing_kept_ms", &[3_000, 10_000, 20_000]),
    }
}
