//! The judge's view of a plan's deployment.

use super::plan::{BrokerPlan, Operation, Plan};
use crate::store::SOURCES;
use squall_judge::Topology;
use squall_protocol::rows::{ROWS_TARGET, typing};
use squall_protocol::{Delivery, InstanceName};

/// Returns the facts that the judge needs about the deployment of `plan`: its instances, streams and writers.
pub(super) fn topology(plan: &Plan) -> Topology {
    let config = plan.topology.config(&plan.presence, plan.limits.limits());
    let mut topology = Topology::new(plan.topology.hosts().map(InstanceName::from))
        .with_process_expiry_ms(plan.presence.process_expiry_ms)
        .with_in_time_ms(in_time_ms(plan))
        .with_rows_per_query(plan.limits.limits().rows_per_query)
        .with_presence_times_ms(plan.presence.idle_ms, plan.presence.busy_ms);
    if plan.limits.items_queued_max.or(plan.limits.batch_rows_max).is_some() {
        topology = topology.with_discarded_rows();
    }
    if plan.limits.http_connections_max.or(plan.limits.tcp_connections_max).is_some() {
        topology = topology.with_few_connections();
    }
    if plan.limits.commands_queued_max.is_some() {
        topology = topology.with_short_outboxes();
    }
    if plan.topology.broker.as_ref().is_some_and(|broker| broker.hard_bytes < BrokerPlan::default().hard_bytes) {
        topology = topology.with_low_output_limit();
    }
    let in_memory = (typing::NAME, Delivery::Memory);
    for (stream, delivery) in SOURCES.iter().map(|source| (source.name, source.delivery)).chain([in_memory]) {
        topology = topology.with_stream(stream, delivery, config.writers_of(stream));
    }
    topology
}

/// Returns the time within which a row arrives, and a client is answered, where nothing is disturbed: a second, and the
/// time that the plan's database, network and scheduling take at most. A row may wait for ids that were allocated before
/// its own, it is read after the rows before it, and a transaction may be rolled back and run again. Where the plan makes
/// answers small, the rows of operations that come together take many queries (seed 335 of `swarm`: three bursts at once),
/// of every stream, and not of events alone (seed 1003000 of `swarm`: 46 account data). Where it lets few payloads be under
/// way to the broker, a row waits for those of two operations, and each round trip carries as many as that.
fn in_time_ms(plan: &Plan) -> u64 {
    const TRANSACTIONS_IN_A_ROW: u64 = 8;
    const PACKETS_IN_A_ROW: u64 = 10;
    const POLLS_IN_A_ROW: u64 = 40;
    let rows_per_query = plan.limits.limits().rows_per_query;
    let queries =
        if rows_per_query < ROWS_TARGET { rows_together(plan) / (rows_per_query as u64 / 4).max(1) } else { 0 };
    let transaction_us = plan.database.before_us.1 + plan.database.after_us.1;
    let payloads_max = plan.operations.iter().map(|operation| operation.kind.payloads()).max().unwrap_or(0);
    let round_trips = plan.limits.unanswered_max.map_or(0, |unanswered| 2 * payloads_max / unanswered as u64);
    let us = (TRANSACTIONS_IN_A_ROW + queries) * transaction_us
        + (PACKETS_IN_A_ROW + 2 * round_trips) * plan.network.latency_us_max;
    1_000 + us / 1_000 + POLLS_IN_A_ROW * plan.scheduling.deferral_ms_max
}

/// Returns the largest number of rows that operations write which come within a second.
fn rows_together(plan: &Plan) -> u64 {
    const TOGETHER_MS: u64 = 1_000;
    let rows_from = |first: &Operation| {
        let together = first.at_ms..=first.at_ms + TOGETHER_MS;
        let operations = plan.operations.iter().filter(|operation| together.contains(&operation.at_ms));
        operations.map(|operation| operation.kind.rows_of_a_stream()).sum()
    };
    plan.operations.iter().map(rows_from).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::{DatabasePlan, OperationKind};
    use crate::sim::testing::small_plan;

    #[test]
    fn where_answers_are_small_the_rows_of_operations_that_come_together_take_a_query_each() {
        let in_time_ms = |second_ms, rows_per_query| {
            let mut plan = small_plan();
            plan.limits.rows_per_query = rows_per_query;
            let burst = |at_ms| Operation::new(at_ms, OperationKind::SendBurst { room: 1, events: 100 });
            plan.operations = vec![burst(1_000), burst(second_ms)];
            in_time_ms(&plan)
        };
        let transaction_ms = {
            let DatabasePlan { before_us, after_us, .. } = small_plan().database;
            (before_us.1 + after_us.1) / 1_000
        };
        let alone = in_time_ms(60_000, Some(2));
        assert_eq!(alone - in_time_ms(60_000, None), 100 * transaction_ms);
        assert_eq!(in_time_ms(2_000, Some(2)) - alone, 100 * transaction_ms);
        assert_eq!(in_time_ms(2_001, Some(2)), alone);
    }

    /// Seed 1003000 of `swarm`.
    #[test]
    fn rows_of_every_stream_take_queries() {
        let in_time_ms = |of_room| {
            let mut plan = small_plan();
            plan.limits.rows_per_query = Some(2);
            let burst = OperationKind::AccountDataBurst { user: 0, of_account: 0, of_room };
            plan.operations = vec![Operation::new(1_000, burst)];
            in_time_ms(&plan)
        };
        assert!(in_time_ms(46) > in_time_ms(1));
    }

    #[test]
    fn few_payloads_under_way_delay_rows_by_the_round_trips_of_two_operations() {
        let in_time_ms = |unanswered_max| {
            let mut plan = small_plan();
            plan.network.latency_us_max = 10_000;
            plan.operations = vec![Operation::new(1_000, OperationKind::SendBurst { room: 1, events: 50 })];
            plan.limits.unanswered_max = unanswered_max;
            in_time_ms(&plan)
        };
        assert_eq!(in_time_ms(Some(201)), in_time_ms(None), "both operations fit");
        assert_eq!(in_time_ms(Some(50)), in_time_ms(None) + 4 * 20, "two hundred payloads, fifty at a time");
    }
}
