//! The calm bound: the time after which pending work counts as stuck.

use std::time::Duration;

use super::faults::Fault;
use super::plan::{CLIENT_PAUSE_MS_MAX, CLIENT_TIMEOUT_MS_MAX, DEFERRAL_MS_MAX, Operation, OperationKind, Plan};
use super::sync_clients::RESPONSE_GRACE;
use super::world::RESTART_DELAY;
use crate::presence::handler::EXPIRY_CHECK_INTERVAL;
use crate::presence::timers::SYNC_ONLINE_TIMEOUT_MS;
use crate::presence::{PresenceState, STOP_DELAY, SWEEP_INTERVAL};

use crate::replication::backoff::{DELAY_MAX, JITTER};
use crate::replication::streamer::{HEARTBEAT_INTERVAL, IDLE_ANNOUNCEMENT_INTERVAL};
use crate::sync::SINCE_WAIT_MAX;
use crate::transport::http::RESPONSE_TIMEOUT;
use crate::transport::tcp::{CLOSE_GRACE, PING_INTERVAL, PING_TIMEOUT};
use squall_env::network::CONNECT_TIMEOUT;
use squall_netsim::event_driven::RETRY_MAX;
use squall_protocol::rows::ROWS_TARGET;

/// The largest number of polls that follow from each other, through all tasks, from the first step to the last: about ten for
/// each of the steps below, and a catch-up takes several queries.
const POLLS_IN_A_ROW: u32 = 100;

/// Returns the time that the queries of one catch-up take, beyond the first ones, where the plan's limits make each of them
/// return few rows: a query for each token at worst, or for a quarter of the rows that it aims to return.
fn small_queries(plan: &Plan) -> Duration {
    let rows_per_query = plan.limits.limits().rows_per_query;
    if rows_per_query >= ROWS_TARGET {
        return Duration::ZERO;
    }
    let rows = plan.operations.iter().map(|operation| operation.kind.rows_of_a_stream() + 1).sum::<u64>();
    let queries = rows.div_ceil((rows_per_query as u64 / 4).max(1));
    let transaction_us = plan.database.before_us.1 + plan.database.after_us.1;
    let query_us = transaction_us + 1_000 * plan.scheduling.deferral_ms_max + 2 * plan.network.latency_us_max;
    Duration::from_micros(queries * query_us)
}

/// Returns the longest time that a healthy network needs to bring every instance up to date, from the numbers of the
/// protocol:
///
/// 0. The network sends again the packets that a partition held back.
/// 1. A connection without its other end is noticed by the ping time-out, which is checked once every ping interval. It is
///    dropped when its close grace is over, which is checked as often.
/// 2. A connection attempt that was under way fails by its time-out. The next one comes after the longest back-off and
///    connects.
/// 3. A catch-up that was waiting fails in the same way: the connect time-out, the response time-out, the longest back-off.
///    The next one works. It takes a query for each part of the rows, which counts where the plan makes the parts small.
/// 4. A position that only a heartbeat announces comes with the next one. A position that moved only because of other
///    writers' rows comes one announcement later.
/// 5. A transaction that began while the database was slow stays slow: its rows take effect late, and a catch-up or a start
///    that waited for it goes on late. A start that fails then is tried again.
/// 6. Where polls are delayed, each of those that follow from each other may be.
/// 7. A client whose request waits for news that does not come gives up, pauses and asks once more.
/// 8. Then every user who syncs is announced, and every other one goes offline. A sync may outlast the storm. A crashed
///    process expires, at the next check; or the end of a last sync is announced by the next sweep after its delay. Then the
///    user has the time to come back, which is longer where clients set themselves busy.
///
/// The other faults leave nothing slower behind. Packets that dripped arrive at the usual speed once the limit is lifted. A
/// connection that stays half open is covered by the first step. A process that was frozen finds the bytes it missed in its
/// kernel, and reads them before it checks its overdue timers.
///
/// Each step happens once at most, because no fault is left.
pub(super) fn calm_bound(plan: &Plan) -> Duration {
    let presence = &plan.presence;
    let delay_max = DELAY_MAX.mul_f64(1.0 + JITTER);
    let notice = PING_TIMEOUT + PING_INTERVAL + CLOSE_GRACE + PING_INTERVAL;
    let reconnect = CONNECT_TIMEOUT + delay_max + CONNECT_TIMEOUT;
    let catch_up = CONNECT_TIMEOUT + RESPONSE_TIMEOUT + delay_max + CONNECT_TIMEOUT + RESPONSE_TIMEOUT;
    let announce = HEARTBEAT_INTERVAL + IDLE_ANNOUNCEMENT_INTERVAL;
    let poll_delay = POLLS_IN_A_ROW * Duration::from_millis(DEFERRAL_MS_MAX);
    let announced = (presence.process_expiry() + EXPIRY_CHECK_INTERVAL).max(STOP_DELAY + SWEEP_INTERVAL);
    let is_busy =
        |operation: &Operation| matches!(operation.kind, OperationKind::SetPresence { state: PresenceState::Busy, .. });
    let busy_ms = if plan.operations.iter().any(is_busy) { presence.busy_ms } else { 0 };
    let syncs_ms = plan.operations.iter().map(|operation| match operation.kind {
        OperationKind::Sync { for_ms, .. } => operation.at_ms.saturating_add(for_ms).saturating_sub(plan.storm_ms),
        _ => 0,
    });
    let last_sync = Duration::from_millis(syncs_ms.max().unwrap_or(0));
    let offline = last_sync + announced + Duration::from_millis(SYNC_ONLINE_TIMEOUT_MS.unsigned_abs().max(busy_ms));
    let start = Fault::linger_max() + RESTART_DELAY;
    let client = Duration::from_millis(CLIENT_TIMEOUT_MS_MAX + CLIENT_PAUSE_MS_MAX) + SINCE_WAIT_MAX + RESPONSE_GRACE;
    let catch_up = catch_up + small_queries(plan);
    RETRY_MAX + notice + reconnect + catch_up + announce + start + poll_delay + client + offline
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::testing::small_plan;

    #[test]
    fn small_answers_delay_the_end_of_the_calm_by_the_queries_that_they_cost() {
        let bound = |rows_per_query| {
            let mut plan = small_plan();
            plan.operations = vec![Operation::new(1_000, OperationKind::SendBurst { room: 1, events: 99 })];
            plan.limits.rows_per_query = rows_per_query;
            calm_bound(&plan)
        };
        assert_eq!(bound(Some(ROWS_TARGET)), bound(None));
        assert_eq!(bound(Some(40)), bound(None) + 10 * Duration::from_millis(14), "a hundred rows, ten at a time");
        assert_eq!(bound(Some(2)), bound(None) + 100 * Duration::from_millis(14), "a hundred rows, one at a time");
    }

    #[test]
    fn a_sync_that_outlasts_the_storm_delays_the_end_of_the_calm_by_the_rest_of_it() {
        let bound = |for_ms| {
            let mut plan = small_plan();
            plan.storm_ms = 60_000;
            let kind = OperationKind::Sync { user: 1, device: None, host: "master".into(), for_ms };
            plan.operations = vec![Operation::new(20_000, kind)];
            calm_bound(&plan)
        };
        assert_eq!(bound(40_000), bound(0), "it ends with the storm");
        assert_eq!(bound(540_000), bound(0) + Duration::from_secs(500));
    }
}
