//! Plans and verdicts in words.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use crate::sim::plan::{BrokerPlan, ClientPlan, Fault, OperationKind, Plan, Reading, Writing};
use crate::sim::verdict::Verdict;

/// What is about to happen: every knob of the plan.
pub(super) fn of_plan(plan: &Plan) -> String {
    let mut text = String::new();
    let hosts: Vec<&str> = plan.topology.machines().collect();
    let _ = writeln!(text, "seed {}, scenario {}: {}", plan.seed, plan.scenario, hosts.join(", "));
    let network = &plan.network;
    let _ = writeln!(
        text,
        "latency {} to {} µs, {} operations and {} faults in {} s",
        network.latency_us_min,
        network.latency_us_max,
        plan.operations.len(),
        plan.faults.len(),
        plan.storm_ms / 1000,
    );
    if let Some(BrokerPlan { hard_bytes, soft_bytes, soft_for_ms, has_password }) = &plan.topology.broker {
        let password = if *has_password { "a password" } else { "no password" };
        let _ = writeln!(
            text,
            "broker with {password}: drops whoever has {hard_bytes} bytes waiting, or {soft_bytes} for {soft_for_ms} ms"
        );
    }
    let scheduling = &plan.scheduling;
    if scheduling.deferred_per_mille > 0 {
        let _ = writeln!(
            text,
            "{} ‰ of all polls deferred, by up to {} ms",
            scheduling.deferred_per_mille, scheduling.deferral_ms_max
        );
    }
    let mut kinds: BTreeMap<&'static str, usize> = BTreeMap::new();
    for entry in &plan.faults {
        *kinds.entry(entry.fault.family().name()).or_default() += 1;
    }
    if !kinds.is_empty() {
        let _ = writeln!(text, "faults planned: {}", tally(&kinds));
    }
    text
}

/// How a run ended.
pub(super) fn of_verdict(verdict: &Verdict) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} rows committed, {} applied by {} hosts, {} commands, {} faults took effect ({} found nothing to disturb)",
        verdict.rows_committed,
        verdict.rows_applied,
        verdict.hosts,
        verdict.commands,
        verdict.faults,
        verdict.faults_idle,
    );
    if verdict.faults_skipped > 0 {
        let (skipped, engine) = (verdict.faults_skipped, verdict.engine);
        let _ = writeln!(text, "{skipped} more faults skipped: the engine {engine} cannot inject them");
    }
    let _ = writeln!(text, "marks: {}", tally(&verdict.marks));
    let _ = writeln!(text, "checks: {}", tally(&verdict.exercised));
    let _ = writeln!(
        text,
        "{} simulated seconds in {} ms, trace {}",
        verdict.simulated_ms / 1000,
        verdict.wall_ms,
        verdict.trace_hash
    );
    text.push_str(&of_failure(verdict));
    let _ = writeln!(text, "verdict: {}", verdict.verdict);
    text
}

/// What went wrong; nothing if nothing did.
pub(super) fn of_failure(verdict: &Verdict) -> String {
    let mut text = String::new();
    if let Some(finding) = &verdict.violation {
        let _ = writeln!(text, "{} at {} ms: {}", finding.invariant, finding.at_ms, finding.message);
    }
    for pending in &verdict.pending {
        let _ = writeln!(text, "pending: {pending}");
    }
    if let Some(panic) = &verdict.panic {
        let _ = writeln!(text, "panicked: {panic}");
    }
    text
}

/// "partition from worker1 to writer2 for 3.0 s".
pub(super) fn of_fault(fault: &Fault) -> String {
    let mut text = match fault {
        Fault::Latency { from, to, min_us, max_us, .. } => {
            format!("latency from {from} to {to} {} to {} ms", min_us / 1000, max_us / 1000)
        }
        Fault::Cut { a, b } => format!("cut between {a} and {b}"),
        Fault::LostReply { server, after_ms, .. } => {
            format!("lost replies: HTTP connections to {server} live {after_ms} ms")
        }
        Fault::Flap { client, server, after_ms, .. } => {
            format!("flap: connections from {client} to {server} live {after_ms} ms")
        }
        Fault::Partition { from, to, both: false, .. } => format!("partition from {from} to {to}"),
        Fault::Partition { from, to, both: true, .. } => format!("partition between {from} and {to}"),
        Fault::HalfOpen { gone, survivor, .. } => {
            format!("half-open: {gone}'s end of a connection is gone, {survivor} hears nothing")
        }
        Fault::SlowDrip { from, to, bytes_per_sec, .. } => {
            format!("slow drip from {from} to {to}: {bytes_per_sec} bytes a second")
        }
        Fault::PowerCut { host, .. } => format!("power cut of {host}"),
        Fault::Restart { host, .. } => format!("restart of {host}"),
        Fault::RollingRestart { hosts, down_ms, pause_ms } => {
            format!("rolling restart of {}, each down {down_ms} ms, {pause_ms} ms apart", hosts.join(", "))
        }
        Fault::Freeze { host, .. } => format!("freeze of {host}"),
        Fault::SlowConsumer { host, bytes, pause_ms, .. } => {
            format!("slow consumer: {host} reads {bytes} bytes every {pause_ms} ms")
        }
        Fault::SlowWriter { host, delay_ms_min, delay_ms_max, rollback_per_mille, .. } => format!(
            "slow writer: {host}'s rows are committed {delay_ms_min} to {delay_ms_max} ms late, {rollback_per_mille} ‰ \
             never"
        ),
        Fault::SlowDatabase { host, extra_ms_min, extra_ms_max, .. } => {
            format!("slow database: {extra_ms_min} to {extra_ms_max} ms more each way for {}", host_or_all(host))
        }
        Fault::StalledDatabase { host, .. } => format!("stalled database for {}", host_or_all(host)),
        Fault::FailingDatabase { host, per_mille, .. } => {
            format!("failing database: {per_mille} ‰ of {host}'s transactions")
        }
        Fault::FailingHandlers { host, per_mille, .. } => {
            format!("failing handlers: {per_mille} ‰ of {host}'s reads of rows")
        }
        Fault::LostAcknowledgement { host, per_mille, .. } => {
            format!("lost acknowledgement: {per_mille} ‰ of {host}'s transactions")
        }
        Fault::BrokenStream { host, stream } => format!("broken stream: {host} cannot read {stream} any more"),
        Fault::Strangers { host, per_mille, .. } => {
            format!("strangers: {per_mille} ‰ of what {host} reads is of a newer version")
        }
        Fault::CancelledRequests { host, per_mille, .. } => {
            format!("cancelled requests: {per_mille} ‰ of {host}'s")
        }
    };
    if fault.for_ms() > 0 {
        let _ = write!(text, ", for {:.1} s", fault.for_ms() as f64 / 1000.0);
    }
    text
}

/// What happens in a plan that is small enough to be told, in order of time.
pub(super) fn of_shrunk(plan: &Plan) -> Vec<String> {
    let operations = plan.operations.iter().map(|operation| (operation.at_ms, of_operation(&operation.kind)));
    let faults = plan.faults.iter().map(|entry| (entry.at_ms, of_fault(&entry.fault)));
    let clients = plan.clients.iter().map(|client| (client.from_ms, of_client(client)));
    let mut lines: Vec<(u64, String)> = clients.chain(operations).chain(faults).collect();
    lines.sort_by_key(|(at_ms, _)| *at_ms);
    lines.into_iter().map(|(at_ms, line)| format!("{:.1} s {line}", at_ms as f64 / 1000.0)).collect()
}

/// "user 3 syncs on worker1, worker2".
fn of_client(client: &ClientPlan) -> String {
    format!("user {} begins to sync with device {} on {}", client.user, client.device, client.hosts.join(", "))
}

/// "120 rows of state in room 2, on 1 token".
pub(super) fn of_operation(operation: &OperationKind) -> String {
    match operation {
        OperationKind::Send { room } => format!("message to room {room}"),
        OperationKind::StateBurst { room, rows, tokens } => {
            format!("{} of state in room {room}, on {}", of_count(*rows, "row"), of_count(*tokens, "token"))
        }
        OperationKind::SendBurst { room, events } => {
            format!("{} at once to room {room}", of_count(*events, "message"))
        }
        OperationKind::AccountData { user, room, datum, type_bytes } => {
            format!("user {user} changes datum {datum} of {}, its type {type_bytes} bytes", account_or_room(room))
        }
        OperationKind::AccountDataBurst { user, of_account, of_room } => {
            format!("user {user} changes {of_account} data of the account and {of_room} of a room at once")
        }
        OperationKind::Receipt { user, room, through } => {
            format!("user {user} reads in room {room}{}", through_host(through))
        }
        OperationKind::ToDevice { users, through } => {
            format!("messages to the devices of {}{}", of_count(users.len(), "user"), through_host(through))
        }
        OperationKind::Sync { user, host, for_ms, .. } => {
            format!("user {user} syncs on {host} for {:.1} s", *for_ms as f64 / 1000.0)
        }
        OperationKind::ServerUp { server, host } => format!("{host} hears from server {server}, which was down"),
        OperationKind::Outlier { room, event } => format!("outlier {event} in room {room}"),
        OperationKind::ExOutlier { event, .. } => format!("outlier {event} becomes an ordinary event"),
        OperationKind::Read { host, what } => format!("{} is read on {host}", of_reading(what)),
        OperationKind::WriteThenRead { host, what } => {
            let what = match what {
                Writing::State { room } => of_reading(&Reading::State { room: *room }),
                Writing::AccountData { user, room, .. } => {
                    of_reading(&Reading::AccountData { user: *user, room: *room })
                }
            };
            format!("{what} is changed through {host} and read there")
        }
        OperationKind::Typing { room, user, typing, .. } => {
            format!("user {user} {} in room {room}", if *typing { "types" } else { "stops typing" })
        }
    }
}

/// "1 row", "120 rows".
pub(super) fn of_count(count: impl TryInto<u64>, thing: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

fn of_reading(what: &Reading) -> String {
    match what {
        Reading::State { room } => format!("the state of room {room}"),
        Reading::Event { event } => format!("event {event}"),
        Reading::Receipts { room } => format!("receipts in room {room}"),
        Reading::AccountData { user, room } => format!("data of user {user} of {}", account_or_room(room)),
    }
}

fn account_or_room(room: &Option<u32>) -> String {
    room.map_or("the account".to_owned(), |room| format!("room {room}"))
}

fn through_host(host: &Option<String>) -> String {
    host.as_ref().map_or(String::new(), |host| format!(", through {host}"))
}

fn host_or_all(host: &Option<String>) -> &str {
    host.as_deref().unwrap_or("all hosts")
}

/// "cut 12, partition 3".
pub(super) fn tally<K: Display, N: Display>(counts: &BTreeMap<K, N>) -> String {
    let parts: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}
