//! Shrinking with made-up failures: a function of the plan decides if it fails, without a run.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::sim::faults::{Cut, Latency};
use crate::sim::plan::{BrokerPlan, Fault, FaultEntry, LimitsPlan, Operation, OperationKind, Scenario, SchedulingPlan};
use crate::sim::runner::{Entropy, RunHooks, run};
use crate::sim::testing::small_plan;

fn swarm() -> Plan {
    Plan::generate(Scenario::Swarm, 23)
}

/// Shrinks `plan` as long as it `fails`. Returns the result and the number of runs.
fn shrunk(plan: &Plan, runs_max: usize, fails: impl Fn(&Plan) -> bool) -> (Plan, usize) {
    let runs = RefCell::new(0);
    let count_and_run = |plan: &Plan| {
        *runs.borrow_mut() += 1;
        fails(plan)
    };
    let mut shrinker = Shrinker::new(plan, runs_max, count_and_run);
    shrinker.run(None);
    (shrinker.plan, runs.into_inner())
}

fn bursts(plan: &Plan) -> usize {
    plan.operations.iter().filter(|op| matches!(op.kind, OperationKind::StateBurst { rows: 73.., .. })).count()
}

fn cuts(plan: &Plan) -> usize {
    plan.faults.iter().filter(|entry| matches!(entry.fault, Fault::Cut(..))).count()
}

#[test]
fn only_the_parts_that_the_failure_needs_are_left() {
    let plan = swarm();
    assert!(bursts(&plan) > 1 && cuts(&plan) > 1, "the plan has more than one of each");
    let (least, runs) = shrunk(&plan, RUNS_MAX, |plan| bursts(plan) > 0 && cuts(plan) > 0);
    assert_eq!((least.faults.len(), least.operations.len(), least.clients.len()), (1, 1, 0));
    let OperationKind::StateBurst { rows, tokens, .. } = least.operations[0].kind else { unreachable!() };
    assert!((73..=81).contains(&rows) && tokens == 1, "{rows} rows on {tokens} tokens");
    assert_eq!(least.topology.hosts().count(), 2, "a cut needs two hosts: {:?}", least.topology);
    assert_eq!((least.storm_ms, &least.scheduling), (0, &SchedulingPlan::default()));
    assert!(runs < RUNS_MAX, "{runs} runs");
    assert!(Plan::load(&least.to_json()).is_ok());
}

#[test]
fn a_broker_is_removed_if_it_is_not_needed_and_given_default_settings_if_it_is() {
    let plan = Plan::generate(Scenario::RedisSwarm, 23);
    let (least, _) = shrunk(&plan, RUNS_MAX, |plan| bursts(plan) > 0);
    assert_eq!(least.topology.broker, None);
    let (least, _) = shrunk(&plan, RUNS_MAX, |plan| plan.topology.broker.is_some() && bursts(plan) > 0);
    assert_eq!(least.topology.broker, Some(BrokerPlan::default()));
}

#[test]
fn only_the_limit_that_is_needed_stays_small() {
    let mut plan = small_plan();
    plan.limits = LimitsPlan { rows_per_query: Some(3), cached_max: Some(1), ..LimitsPlan::default() };
    let (least, _) = shrunk(&plan, RUNS_MAX, |plan| plan.limits.cached_max.is_some());
    assert_eq!(least.limits, LimitsPlan { cached_max: Some(1), ..LimitsPlan::default() });
}

#[test]
fn an_operation_keeps_its_id() {
    let plan = swarm();
    let last = plan.operations.len() - 1;
    let (least, _) = shrunk(&plan, RUNS_MAX, |plan| plan.operations.iter().any(|op| op.id == Some(last)));
    assert_eq!(least.operations.len(), 1);
    assert_eq!(least.operations[0].kind, plan.operations[last].kind);
}

#[test]
fn gaps_are_closed_and_times_made_round_as_far_as_the_failure_allows() {
    let entry = |at_ms| FaultEntry { at_ms, fault: Fault::Cut(Cut { a: "worker1".into(), b: "writer1".into() }) };
    let plan = Plan { faults: vec![entry(12_345), entry(20_789)], ..small_plan() };
    let distance = |plan: &Plan| match &plan.faults[..] {
        [first, second] => second.at_ms - first.at_ms,
        _ => 0,
    };
    let (least, _) = shrunk(&Plan { storm_ms: 30_000, ..plan }, RUNS_MAX, |plan| distance(plan) >= 4_321);
    let times: Vec<u64> = least.faults.iter().map(|entry| entry.at_ms).collect();
    assert_eq!(times, [0, 4_500], "4 321 within a tenth, then rounded");
}

#[test]
fn a_client_that_is_needed_keeps_its_pause() {
    let plan = swarm();
    let pauses = |plan: &Plan| plan.clients.iter().map(|client| client.pause_ms).collect::<Vec<_>>();
    assert!(pauses(&plan).iter().any(|pause_ms| *pause_ms > 0));
    let all = plan.clients.len();
    let (least, _) = shrunk(&plan, RUNS_MAX, |plan| plan.clients.len() == all);
    assert_eq!(pauses(&least), pauses(&plan));
    assert!(
        least.clients.iter().all(|client| client.lost_per_mille == 0),
        "every number that weakens a client is lowered"
    );
}

#[test]
fn the_budget_is_kept() {
    for runs_max in [0, 1, 17] {
        let (_, runs) = shrunk(&swarm(), runs_max, |plan| bursts(plan) > 0);
        assert_eq!(runs, runs_max);
    }
}

#[test]
fn a_plan_that_fails_by_chance_is_tried_with_other_seeds() {
    let plan = swarm();
    let (least, _) = shrunk(&plan, RUNS_MAX, |candidate| candidate.seed % 4 == 2 || candidate.faults.len() > 1);
    assert_eq!((least.faults.len(), least.seed % 4), (0, 2));
}

#[test]
fn a_plan_that_does_not_fail_with_the_fingerprint_is_not_shrunk() {
    assert!(shrink(EngineName::default(), &small_plan(), "no_missed_rows/events/missed", RUNS_MAX).is_none());
}

/// Returns the lines of the trace that contain `event`, the id of an operation's row.
fn trace_of(plan: &Plan, event: &str) -> Vec<String> {
    #[derive(Clone, Default)]
    struct Lines(Rc<RefCell<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let hooks = RunHooks { trace: Some(Box::new(lines.clone())), ..RunHooks::default() };
    assert!(run(plan, Entropy::Seed, hooks).passed());
    let text = String::from_utf8(lines.0.take()).unwrap();
    text.lines().filter(|line| line.contains(event)).map(str::to_owned).collect()
}

#[test]
fn removing_a_fault_or_an_operation_leaves_the_others_as_they_were() {
    let message = |at_ms| Operation::new(at_ms, OperationKind::Send { room: 1 });
    let latency = |from: &str| {
        let (from, to) = (from.to_owned(), "writer1".to_owned());
        let fault = Fault::Latency(Latency { from, to, min_us: 900, max_us: 1_900, for_ms: 500 });
        FaultEntry { at_ms: 1_500, fault }
    };
    let mut plan = Plan {
        operations: [2_000, 4_000, 8_000].map(message).into(),
        faults: vec![latency("worker1"), latency("worker2")],
        ..small_plan()
    };
    for (id, operation) in plan.operations.iter_mut().enumerate() {
        operation.id = Some(id);
    }
    let whole = trace_of(&plan, "$event2_0");
    assert!(whole.len() > 1, "{whole:?}");

    let mut without = plan.clone();
    without.operations.remove(0);
    // Its token and its times differ, because fewer rows and packets come before it. The observations are the same.
    assert_eq!(trace_of(&without, "$event2_0").len(), whole.len(), "it is still the third message");

    let mut without = plan.clone();
    without.faults.remove(1);
    assert_eq!(trace_of(&without, "$event2_0"), whole);
}
