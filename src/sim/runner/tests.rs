//! Verdicts on plans that are small enough to know the right one.

use std::cell::RefCell;

use super::*;
use crate::sim::faults::{Cut, HalfOpen, Partition, PowerCut};
use crate::sim::plan::{AddedWriter, Deployment, OperationKind, SchedulingPlan, Writing};
use crate::sim::testing::small_plan;
use squall_protocol::Token;

/// Returns the small plan with three messages, each of which three other instances have to apply.
fn plan_with(faults: &[(u64, Fault)]) -> Plan {
    let message = |at_ms| Operation::new(at_ms, OperationKind::Send { room: 1 });
    let entry = |(at_ms, fault): &(u64, Fault)| FaultEntry { at_ms: *at_ms, fault: fault.clone() };
    Plan {
        operations: [2_000, 4_000, 8_000].map(message).into(),
        faults: faults.iter().map(entry).collect(),
        ..small_plan()
    }
}

fn run_plan(plan: &Plan) -> Verdict {
    run(plan, Entropy::Seed, RunHooks::default())
}

fn cut(a: &str, b: &str) -> Fault {
    Fault::Cut(Cut { a: a.into(), b: b.into() })
}

#[test]
fn without_faults_every_row_arrives_everywhere() {
    let verdict = run_plan(&plan_with(&[]));
    assert!(verdict.passed(), "{verdict:?}");
    assert_eq!((verdict.faults, verdict.faults_idle, verdict.faults_skipped), (0, 0, 0));
    assert_eq!((verdict.rows_committed, verdict.rows_applied), (3, 9));
    assert_eq!((verdict.hosts, verdict.simulated_ms / 1000), (4, 10), "nothing was pending when the storm was over");
    assert!(verdict.commands > 0 && verdict.pending.is_empty());
}

#[test]
fn a_fault_that_found_nothing_to_disturb_is_idle() {
    // Before any instance is connected, and between two that never are.
    let verdict = run_plan(&plan_with(&[(0, cut("worker1", "writer1")), (5_000, cut("worker1", "worker2"))]));
    assert!(verdict.passed(), "{verdict:?}");
    assert_eq!((verdict.faults, verdict.faults_idle), (0, 2));
    assert!(verdict.faults_by_family.is_empty());
}

#[test]
fn faults_that_took_effect_are_counted_by_their_family() {
    let power_cut = |for_ms| Fault::PowerCut(PowerCut::new("worker2", for_ms));
    let faults = [
        (3_000, cut("worker1", "writer1")),
        (5_000, cut("writer1", "worker1")),
        (5_000, power_cut(2_000)),
        (6_000, power_cut(2_000)),
    ];
    let verdict = run_plan(&plan_with(&faults));
    assert!(verdict.passed(), "{verdict:?}");
    assert_eq!(verdict.faults_by_family, BTreeMap::from([("cut", 2), ("power_cut", 1)]));
    assert_eq!((verdict.faults, verdict.faults_idle), (3, 1));
}

#[test]
fn a_fault_that_outlasts_the_storm_is_healed_and_the_run_converges() {
    let (from, to) = ("writer1".to_owned(), "worker1".to_owned());
    let partition = Fault::Partition(Partition { from, to, both: true, for_ms: 3_600_000 });
    let power_cut = Fault::PowerCut(PowerCut::new("worker2", 3_600_000));
    let verdict = run_plan(&plan_with(&[(1_500, partition), (7_000, power_cut)]));
    assert!(verdict.passed(), "{verdict:?}");
    assert_eq!(verdict.faults, 2);
    assert!(verdict.simulated_ms > 10_000, "it took some of the calm");
}

#[test]
fn a_connection_that_is_half_open_for_ever_is_given_up_by_its_pings() {
    let half_open = Fault::HalfOpen(HalfOpen { gone: "writer1".into(), survivor: "worker1".into(), for_ms: 3_600_000 });
    let verdict = run_plan(&plan_with(&[(6_000, half_open)]));
    assert!(verdict.passed(), "{verdict:?}");
    assert_eq!((verdict.faults, verdict.rows_applied), (1, 9));
    assert!((30..45).contains(&(verdict.simulated_ms / 1000)), "{} ms", verdict.simulated_ms);
}

#[test]
fn the_same_plan_gives_the_same_trace_and_another_seed_another() {
    let plan = plan_with(&[(3_000, cut("worker1", "writer1"))]);
    let hash = |plan: &Plan| run_plan(plan).trace_hash;
    assert_eq!(hash(&plan), hash(&plan));
    assert_ne!(hash(&plan), hash(&Plan { seed: 8, ..plan.clone() }));
}

#[test]
fn polls_are_delayed_as_the_seed_says_and_every_row_still_arrives() {
    let plan = plan_with(&[(3_000, cut("worker1", "writer1"))]);
    let deferring = |seed, deferred_per_mille| {
        let scheduling = SchedulingPlan { deferred_per_mille, deferral_ms_max: 5 };
        run_plan(&Plan { seed, scheduling, ..plan.clone() })
    };
    for per_mille in [100, 1_000] {
        let verdict = deferring(7, per_mille);
        assert!(verdict.passed(), "{verdict:?}");
        assert_eq!(verdict.rows_applied, 9);
        assert_eq!(verdict.trace_hash, deferring(7, per_mille).trace_hash);
        assert_ne!(verdict.trace_hash, run_plan(&plan).trace_hash);
    }
    assert_eq!(deferring(7, 0).trace_hash, run_plan(&plan).trace_hash, "off is off");
}

#[test]
fn a_watcher_gets_each_fault_and_the_calm_in_order_of_time() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let seen_by_watcher = Rc::clone(&seen);
    let watcher = Box::new(move |progress| match progress {
        Progress::Fault { at, fault } => seen_by_watcher.borrow_mut().push((at.0, fault.family().name())),
        Progress::Calm { at } => seen_by_watcher.borrow_mut().push((at.0, "calm")),
        Progress::Moved { .. } => {}
    });
    let plan = plan_with(&[(3_000, cut("worker1", "writer1")), (6_000, cut("worker1", "worker2"))]);
    run(&plan, Entropy::Seed, RunHooks { watcher: Some(watcher), trace: None });
    assert_eq!(*seen.borrow(), [(3_000, "cut"), (6_000, "cut"), (10_000, "calm")]);
}

#[test]
fn a_client_sees_what_it_wrote_through_an_instance_that_does_not_write_it() {
    let state = || Writing::State { room: 1 };
    let account_data = || Writing::AccountData { user: 1, room: None, datum: 1 };
    let write = |at_ms, what| {
        let kind = OperationKind::WriteThenRead { host: "worker1".into(), what, twice: false };
        Operation::new(at_ms, kind)
    };
    let operations = vec![write(2_000, state()), write(3_000, account_data()), write(4_000, state())];
    let verdict = run_plan(&Plan { operations, ..small_plan() });
    assert!(verdict.passed(), "{verdict:?}");
    // The first reads prove nothing; every read after a write does, and so do those of both values at the end of the run.
    assert_eq!(verdict.exercised["caches_fresh_after_wait"], 4 + 2);
    assert!(verdict.marks["wait_that_waited"] >= 1, "{:?}", verdict.marks);
}

#[test]
fn the_calm_waits_for_a_request_that_is_under_way() {
    // Each transaction takes a second. So when the storm is over, the request has yet to write anything.
    let kind = OperationKind::WriteThenRead {
        host: "writer1".into(),
        what: Writing::Receipt { user: 1, room: 1 },
        twice: false,
    };
    let mut plan = Plan { operations: vec![Operation::new(9_000, kind)], ..small_plan() };
    plan.database.before_us = (1_000_000, 1_000_000);
    let verdict = run_plan(&plan);
    assert!(verdict.passed(), "{verdict:?}");
    assert_eq!((verdict.rows_committed, verdict.exercised["writes_read_back"]), (1, 1));
}

#[test]
fn a_run_without_the_violation_goes_on_to_its_end() {
    let plan = plan_with(&[(3_000, cut("worker1", "writer1"))]);
    let (whole, until) = (judge(&plan), judge_until("no_missed_rows/events", EngineName::default(), &plan));
    assert!(until.passed());
    assert_eq!((until.trace_hash, until.faults), (whole.trace_hash, 1));
}

#[test]
fn a_wait_for_a_violation_ends_with_that_violation() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let recorder = Recorder::new(Judge::new(topology(&small_plan())), None);
        let sees = async |fingerprint: &str| {
            tokio::time::timeout(Duration::from_millis(1), recorder.sees(fingerprint)).await.is_ok()
        };
        assert!(!sees("only_committed_applied/events").await);
        let (instance, writer) = ("worker1".into(), "writer1".into());
        let (stream, token) = ("events".into(), Token(5));
        recorder.observe(&Observation::Applied { instance, stream, writer, token, rows: Vec::new() });
        let fingerprint = recorder.judge().violations()[0].1.fingerprint();
        assert!(sees(&fingerprint).await, "{fingerprint}");
        assert!(!sees("another").await);
    });
}

#[test]
fn a_writer_is_added_while_configurations_differ_and_nothing_is_lost() {
    let sends = |at_ms| (0..4).map(move |room| Operation::new(at_ms, OperationKind::Send { room }));
    let mut plan = Plan { storm_ms: 30_000, ..small_plan() };
    plan.topology.events_writers.push("writer2".into());
    plan.topology.added = Some(AddedWriter { host: "writer2".into(), at_ms: 5_000, pause_ms: 500 });
    plan.operations = [1_000, 25_000].into_iter().flat_map(sends).collect();
    let verdict = run_plan(&plan);
    assert!(verdict.passed(), "{verdict:?}");
    assert_eq!((verdict.marks["writer_added"], verdict.rows_committed), (1, 8));
    // The first four are those of the first writer alone, which three instances follow; the others have two writers.
    assert!(verdict.rows_applied >= 4 * 3, "{}", verdict.rows_applied);
    let late = Plan { topology: Deployment { added: None, ..plan.topology.clone() }, ..plan.clone() };
    assert_eq!(run_plan(&late).marks["writer_added"], 0);
}
