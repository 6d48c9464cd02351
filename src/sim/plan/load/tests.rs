//! Plans that cannot be run, each refused with the place and the remedy.

use super::super::{FaultEntry, NetworkPlan, Operation, Reading, Scenario, SchedulingPlan};
use super::*;
use crate::sim::faults::{
    BrokenStream, CancelledRequests, ClockStep, Cut, FailingDatabase, FailingHandlers, Latency, LostAcknowledgement,
    OddFraming, RollingRestart, SlowDatabase, SlowDrip, SlowWriter, StalledDatabase, VersionSkew,
};

fn edited(edit: impl FnOnce(&mut Plan)) -> PlanError {
    let mut plan = Plan::generate(Scenario::Storm, 7);
    edit(&mut plan);
    Plan::load(&plan.to_json()).unwrap_err()
}

fn with_fault(fault: impl Into<Fault>) -> PlanError {
    let fault = fault.into();
    edited(|plan| plan.faults = vec![FaultEntry { at_ms: 5, fault }])
}

fn cut(a: &str, b: &str) -> Cut {
    Cut { a: a.to_owned(), b: b.to_owned() }
}

#[test]
fn a_plan_comes_back_from_json_as_it_was() {
    for &scenario in Scenario::ALL {
        let plan = Plan::generate(scenario, 7);
        assert_eq!(Plan::load(&plan.to_json()).unwrap(), plan);
    }
}

#[test]
fn the_error_for_a_malformed_plan_names_line_and_column() {
    let error = Plan::load("{\"format\": 1,\n  \"seed\": x}").unwrap_err();
    assert!(matches!(error, PlanError::Malformed { line: 2, column: 11, .. }), "{error}");
    let misspelt = Plan::generate(Scenario::Quiet, 7).to_json().replace("\"storm_ms\"", "\"strom_ms\"");
    let error = Plan::load(&misspelt).unwrap_err().to_string();
    assert!(error.contains("line 5") && error.contains("strom_ms"), "{error}");
}

#[test]
fn a_plan_of_another_format_is_refused_for_that_alone() {
    let error = Plan::load("{\"format\": 2, \"host_faults\": []}").unwrap_err();
    assert!(matches!(error, PlanError::UnknownFormat { found: 2 }), "{error}");
}

#[test]
fn the_error_for_an_unknown_host_names_the_known_ones() {
    let error = with_fault(cut("writer1", "writer9")).to_string();
    assert_eq!(
        error,
        "faults[0] names the host `writer9`: use one of master, writer1, writer2, worker1, worker2, worker3, or \
         add it to the topology"
    );
    let error = edited(|plan| plan.topology.typing_writer = "worker9".to_owned());
    assert!(
        matches!(error, PlanError::Invalid { place: Place::Field(_), problem: InvalidValue::UnknownHost { .. } }),
        "{error}"
    );
    let error = with_fault(StalledDatabase { host: Some("worker9".to_owned()), for_ms: 1 });
    assert!(
        matches!(error, PlanError::Invalid { place: Place::Fault(0), problem: InvalidValue::UnknownHost { .. } }),
        "{error}"
    );
}

#[test]
fn the_error_for_a_read_from_an_unknown_host_names_the_known_ones() {
    let kind = OperationKind::Read { host: "worker9".to_owned(), what: Reading::State { room: 0 } };
    let error = edited(|plan| plan.operations = vec![Operation::new(1, kind)]).to_string();
    assert!(error.starts_with("operations[0] names the host `worker9`: use one of master, "), "{error}");
}

#[test]
fn a_stream_that_is_not_in_the_database_cannot_break_there() {
    let error = with_fault(BrokenStream { host: "master".to_owned(), stream: "typing".to_owned() });
    assert_eq!(
        error.to_string(),
        "faults[0] names the stream `typing`: use one of events, receipts, to_device, account_data, presence, caches"
    );
}

#[test]
fn a_fault_between_a_host_and_itself_is_refused() {
    assert!(matches!(
        with_fault(cut("writer1", "writer1")),
        PlanError::Invalid { problem: InvalidValue::SameHost { .. }, .. }
    ));
}

#[test]
fn a_rolling_restart_names_hosts_and_only_known_ones() {
    let rolling = |hosts: &[&str]| {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        with_fault(RollingRestart { hosts, down_ms: 1, pause_ms: 1 })
    };
    assert!(matches!(rolling(&[]), PlanError::Invalid { place: Place::Fault(0), problem: InvalidValue::NoHost }));
    assert!(matches!(
        rolling(&["master", "writer1", "worker9"]),
        PlanError::Invalid { problem: InvalidValue::UnknownHost { .. }, .. }
    ));
}

#[test]
fn a_number_above_its_bound_is_refused() {
    let error = edited(|plan| plan.scheduling.deferred_per_mille = 1_001);
    assert!(
        matches!(error, PlanError::Invalid { problem: InvalidValue::TooLarge { value: 1_001, max: 1_000 }, .. }),
        "{error}"
    );
    let error = edited(|plan| plan.database.rollback_per_mille = 1_001);
    assert_eq!(error.to_string(), "database.rollback_per_mille has 1001 where 1000 is the most: lower it");
    let error = edited(|plan| plan.scheduling.deferral_ms_max = DEFERRAL_MS_MAX + 1);
    assert!(
        matches!(error, PlanError::Invalid { problem: InvalidValue::TooLarge { max: DEFERRAL_MS_MAX, .. }, .. }),
        "{error}"
    );
}

#[test]
fn a_limit_that_nothing_could_get_past_is_refused() {
    let error = edited(|plan| plan.limits.items_queued_max = Some(0));
    assert_eq!(error.to_string(), "limits.items_queued_max has 0 where 1 is the least: raise it, or leave it out");
    let error = edited(|plan| plan.limits.rows_per_query = Some(1));
    assert_eq!(error.to_string(), "limits.rows_per_query has 1 where 2 is the least: raise it, or leave it out");
}

#[test]
fn a_plan_without_scheduling_delays_no_poll() {
    let plan = Plan { scheduling: SchedulingPlan::default(), ..Plan::generate(Scenario::Storm, 7) };
    let mut json: serde_json::Value = serde_json::from_str(&plan.to_json()).unwrap();
    json.as_object_mut().unwrap().remove("scheduling").expect("it is written");
    assert_eq!(Plan::load(&json.to_string()).unwrap(), plan);
}

#[test]
fn a_topology_has_writers_and_no_host_twice() {
    let error = edited(|plan| plan.topology.events_writers.clear());
    assert!(matches!(error, PlanError::NoWriter { stream: "events" }), "{error}");
    let error = edited(|plan| plan.topology.workers.push("master".to_owned()));
    assert!(matches!(error, PlanError::DuplicateHost { .. }), "{error}");
    let twice = || vec!["master".to_owned(), "master".to_owned()];
    let error = edited(|plan| plan.topology.events_writers = twice());
    assert!(matches!(error, PlanError::TwiceAWriter { stream: "events", .. }), "{error}");
    let error = edited(|plan| plan.topology.receipts_writers = twice());
    assert!(matches!(error, PlanError::TwiceAWriter { stream: "receipts", .. }), "{error}");
}

#[test]
fn a_plan_that_would_take_all_memory_or_never_end_is_refused() {
    let burst = |kind: OperationKind| move |plan: &mut Plan| plan.operations = vec![Operation::new(1, kind.clone())];
    let sync = OperationKind::Sync { user: 1, device: None, host: "master".into(), for_ms: u64::MAX };
    type Edit<'a> = &'a dyn Fn(&mut Plan);
    let hostile: [(&str, Edit<'_>); 14] = [
        ("storm_ms", &|plan| plan.storm_ms = u64::MAX),
        ("topology", &|plan| plan.topology.workers = (0..2_000).map(|number| format!("w{number}")).collect()),
        ("network", &|plan| plan.network = NetworkPlan { latency_us_min: u64::MAX, latency_us_max: u64::MAX }),
        ("database.before_us", &|plan| plan.database.before_us = (u64::MAX, u64::MAX)),
        ("database.after_us", &|plan| plan.database.after_us = (0, u64::MAX)),
        ("presence.process_expiry_ms", &|plan| plan.presence.process_expiry_ms = u64::MAX),
        ("presence.busy_ms", &|plan| plan.presence.busy_ms = u64::MAX),
        ("limits.http_connections_max", &|plan| plan.limits.http_connections_max = Some(usize::MAX)),
        ("limits.rows_per_query", &|plan| plan.limits.rows_per_query = Some(usize::MAX)),
        ("operations[0]", &burst(OperationKind::StateBurst { room: 1, rows: u32::MAX, tokens: 1 })),
        ("operations[0]", &burst(OperationKind::SendBurst { room: 1, events: u32::MAX })),
        ("operations[0]", &burst(OperationKind::AccountDataBurst { user: 1, of_account: u32::MAX, of_room: u32::MAX })),
        ("operations[0]", &burst(OperationKind::AccountData { user: 1, room: None, datum: 1, type_bytes: u32::MAX })),
        ("operations[0]", &burst(sync)),
    ];
    for (place, edit) in hostile {
        let error = edited(|plan| {
            plan.operations.clear();
            plan.faults.clear();
            edit(plan);
        });
        assert!(error.to_string().starts_with(&format!("{place} has ")), "{place}: {error}");
    }
    let many = |plan: &mut Plan| {
        let kind = OperationKind::SendBurst { room: 1, events: 100_000 };
        plan.operations = vec![Operation::new(1, kind); 11];
        plan.faults.clear();
    };
    assert!(edited(many).to_string().starts_with("operations has 1100000 where"));
    let error = edited(|plan| plan.topology.workers = vec!["../x\u{1b}[2J y".into()]);
    assert!(error.to_string().contains(r#"named "../x\u{1b}[2J y""#), "{error}");
}

#[test]
fn only_a_writer_beside_others_can_be_added() {
    let added = |host: &str, pause_ms| AddedWriter { host: host.into(), at_ms: 1, pause_ms };
    let error = |host| edited(|plan| plan.topology.added = Some(added(host, 0)));
    for host in ["master", "worker1", "stranger"] {
        assert!(matches!(error(host), PlanError::CannotBeAdded { .. }), "{host}");
    }
    let mut plan = Plan::generate(Scenario::Storm, 7);
    plan.topology.events_writers = vec!["writer1".into(), "writer2".into()];
    plan.topology.added = Some(added("writer2", ADDED_PAUSE_MS_MAX));
    for single in [true, false] {
        plan.topology.typing_writer = if single { "writer2".into() } else { "master".into() };
        assert_eq!(Plan::load(&plan.to_json()).is_err(), single);
    }
    plan.topology.added = Some(added("writer2", ADDED_PAUSE_MS_MAX + 1));
    assert!(Plan::load(&plan.to_json()).unwrap_err().to_string().contains("topology.added.pause_ms"));
    plan.topology.added = Some(AddedWriter { at_ms: plan.storm_ms + 1, ..added("writer2", 0) });
    assert!(matches!(Plan::load(&plan.to_json()), Err(PlanError::TooLate { .. })));
}

#[test]
fn nothing_happens_after_the_storm() {
    let error = edited(|plan| plan.storm_ms = 30_000);
    assert!(matches!(error, PlanError::TooLate { place: Place::Operation(_), storm_ms: 30_000, .. }), "{error}");
    let fault = FaultEntry { at_ms: 60_001, fault: cut("master", "writer1").into() };
    let error = edited(|plan| plan.faults = vec![fault]);
    assert!(matches!(error, PlanError::TooLate { place: Place::Fault(0), at_ms: 60_001, .. }), "{error}");
}

#[test]
fn an_empty_range_is_refused_in_every_place() {
    let place = |error| match error {
        PlanError::Invalid { place, problem: InvalidValue::EmptyRange { .. } } => place.to_string(),
        other => panic!("not an empty range: {other}"),
    };
    assert_eq!(place(edited(|plan| plan.network.latency_us_min = u64::MAX)), "network");
    assert_eq!(place(edited(|plan| plan.database.before_us = (2, 1))), "database.before_us");
    assert_eq!(place(edited(|plan| plan.database.after_us = (2, 1))), "database.after_us");
    let (from, to) = ("master".to_owned(), "writer1".to_owned());
    assert_eq!(place(with_fault(Latency { from, to, min_us: 2, max_us: 1, for_ms: 1 })), "faults[0]");
    let (from, to) = ("master".to_owned(), "writer1".to_owned());
    assert_eq!(place(with_fault(SlowDrip { from, to, bytes_per_sec: 0, for_ms: 1 })), "faults[0]");
    let slow = SlowDatabase { host: None, extra_ms_min: 2, extra_ms_max: 1, for_ms: 1 };
    assert_eq!(place(with_fault(slow)), "faults[0]");
    for (rows, tokens) in [(3, 4), (3, 0)] {
        let kind = OperationKind::StateBurst { room: 0, rows, tokens };
        let error = edited(|plan| plan.operations = vec![Operation::new(1, kind)]);
        assert_eq!(place(error), "operations[0]");
    }
}

#[test]
fn two_operations_of_one_id_are_refused() {
    let error = edited(|plan| plan.operations[0].id = Some(4));
    assert!(
        matches!(error, PlanError::DuplicateOperation { place: Place::Operation(4), id: 4 }),
        "the place of one is the id of another: {error}"
    );
}

#[test]
fn a_fault_of_the_database_beyond_its_bounds_is_refused() {
    let host = || "writer1".to_owned();
    let slow = |delay_ms_max, rollback_per_mille| {
        let host = host();
        SlowWriter { host, delay_ms_min: 1, delay_ms_max, rollback_per_mille, for_ms: 1 }
    };
    let per_mille = 1_002;
    let for_ms = 1;
    let extra_ms_max = 2_001;
    let faults: [(Fault, u64, u64); 10] = [
        (slow(10_001, 0).into(), 10_001, 10_000),
        (slow(10_000, 1_001).into(), 1_001, 1_000),
        (SlowDatabase { host: None, extra_ms_min: 1, extra_ms_max, for_ms }.into(), 2_001, 2_000),
        (FailingDatabase::new("writer1", per_mille, for_ms).into(), 1_002, 1_000),
        (FailingHandlers::new("writer1", per_mille, for_ms).into(), 1_002, 1_000),
        (LostAcknowledgement::new("writer1", per_mille, for_ms).into(), 1_002, 1_000),
        (CancelledRequests::new("writer1", per_mille, for_ms).into(), 1_002, 1_000),
        (VersionSkew::new("writer1", per_mille, for_ms).into(), 1_002, 1_000),
        (OddFraming::new("writer1", per_mille, for_ms).into(), 1_002, 1_000),
        (ClockStep { host: host(), by_ms: -86_400_001 }.into(), 86_400_001, 86_400_000),
    ];
    for (fault, expected, most) in faults {
        let error = with_fault(fault);
        assert!(
            matches!(error, PlanError::Invalid { place: Place::Fault(0), problem: InvalidValue::TooLarge { value, max } } if (value, max) == (expected, most)),
            "{error}"
        );
    }
}
