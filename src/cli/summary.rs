//! Plans and verdicts in words and tables, on lines of at most 80 characters.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::table::{self, Align, Table, wrap};
use crate::sim::plan::{BrokerPlan, ClientPlan, OperationKind, Plan, Reading, Writing};
use crate::sim::soak::Tally;
use crate::sim::verdict::Verdict;

/// Returns a description of a plan before it runs: its hosts, its size and its settings.
pub(super) fn of_plan(plan: &Plan) -> String {
    let hosts: Vec<&str> = plan.topology.machines().collect();
    let mut text = wrap(&format!("seed {}, scenario {}: {}", plan.seed, plan.scenario, hosts.join(", ")), "  ");
    let network = &plan.network;
    let size = format!(
        "{} and {} in {} s; latency {} to {} µs",
        of_count(plan.operations.len(), "operation"),
        of_count(plan.faults.len(), "fault"),
        plan.storm_ms / 1000,
        network.latency_us_min,
        network.latency_us_max,
    );
    text.push_str(&wrap(&size, "  "));
    if let Some(BrokerPlan { hard_bytes, soft_bytes, soft_for_ms, has_password }) = &plan.topology.broker {
        let password = if *has_password { "a password" } else { "no password" };
        let broker = format!(
            "broker with {password}: drops a client with {hard_bytes} bytes waiting, or with {soft_bytes} bytes waiting \
             for {soft_for_ms} ms"
        );
        text.push_str(&wrap(&broker, "  "));
    }
    let scheduling = &plan.scheduling;
    if scheduling.deferred_per_mille > 0 {
        let per_mille = scheduling.deferred_per_mille;
        let ms_max = scheduling.deferral_ms_max;
        text.push_str(&wrap(&format!("{per_mille} ‰ of all polls deferred, by up to {ms_max} ms"), "  "));
    }
    text
}

/// Returns the tables of one run, and the reasons for which it failed. The verdict itself is printed after them.
pub(super) fn of_run(verdict: &Verdict, is_verbose: bool) -> String {
    let mut tally = Tally::default();
    tally.add(verdict);
    let mut text = format!("\n{}\n", of_tally(&tally, is_verbose));
    if verdict.faults_skipped > 0 {
        let skipped = of_count(verdict.faults_skipped, "fault");
        let line = format!("{skipped} skipped, because the engine {} cannot inject them", verdict.engine);
        text.push_str(&wrap(&line, "  "));
    }
    if is_verbose {
        text.push_str(&counters(verdict).render_side_by_side());
    } else {
        let line = format!(
            "{} committed, {} applied by {}",
            of_count(verdict.rows_committed, "row"),
            verdict.rows_applied,
            of_count(verdict.hosts, "host")
        );
        text.push_str(&wrap(&line, "  "));
    }
    let simulated_s = verdict.simulated_ms / 1000;
    let _ = writeln!(text, "{simulated_s} simulated seconds in {} ms, trace {}", verdict.wall_ms, verdict.trace_hash);
    text.push_str(&of_failure(verdict));
    text
}

/// Returns a table of every counter of a verdict that no other table shows.
fn counters(verdict: &Verdict) -> Table {
    let mut table = Table::new([("counter", Align::Left), ("value", Align::Right)]);
    for (name, value) in [
        ("hosts", verdict.hosts as u64),
        ("rows committed", verdict.rows_committed),
        ("rows applied, all hosts", verdict.rows_applied),
        ("lines read", verdict.commands),
        ("faults that took effect", verdict.faults as u64),
        ("faults without effect", verdict.faults_idle as u64),
        ("faults skipped", verdict.faults_skipped as u64),
        ("simulated time, ms", verdict.simulated_ms),
        ("real time, ms", verdict.wall_ms),
    ] {
        table.row([name.to_owned(), value.to_string()]);
    }
    table
}

/// Returns the tables of one or more runs: the faults, the situations that were reached, and the checks.
///
/// A situation that was not reached is only named below its table, unless `is_verbose`.
pub(super) fn of_tally(tally: &Tally, is_verbose: bool) -> String {
    let mut text = faults(tally);
    text.push('\n');
    text.push_str(&counts("situation", "times reached", "not reached", &tally.marks, is_verbose));
    text.push('\n');
    text.push_str(&counts("invariant", "checks", "never checked", &tally.exercised, is_verbose));
    text
}

fn faults(tally: &Tally) -> String {
    let mut families: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (family, planned) in &tally.faults_planned {
        families.entry(family).or_default().0 = *planned;
    }
    for (family, effective) in &tally.faults_by_family {
        families.entry(family).or_default().1 = *effective;
    }
    if families.is_empty() {
        return "no faults planned\n".to_owned();
    }
    let mut table = Table::new([("fault", Align::Left), ("planned", Align::Right), ("took effect", Align::Right)]);
    let mut planned_all = 0;
    let mut effective_all = 0;
    for (family, (planned, effective)) in families {
        planned_all += planned;
        effective_all += effective;
        table.row([family.to_owned(), planned.to_string(), effective.to_string()]);
    }
    table.row(["all".to_owned(), planned_all.to_string(), effective_all.to_string()]);
    table.render()
}

fn counts(name: &str, times: &str, none: &str, counts: &BTreeMap<String, u64>, is_verbose: bool) -> String {
    let mut table = Table::new([(name, Align::Left), (times, Align::Right)]);
    let mut zeros = Vec::new();
    for (name, count) in counts {
        if *count == 0 {
            zeros.push(name.as_str());
        }
        if *count > 0 || is_verbose {
            table.row([name.clone(), count.to_string()]);
        }
    }
    let mut text = if table.is_empty() { String::new() } else { table.render_side_by_side() };
    if !zeros.is_empty() {
        text.push_str(&table::list(none, zeros));
    }
    text
}

/// Returns the reasons for which a run failed: its violation, everything that had not converged, and its panic.
pub(super) fn of_failure(verdict: &Verdict) -> String {
    let mut text = String::new();
    if let Some(finding) = &verdict.violation {
        let line = format!("{} at {} ms: {}", finding.invariant, finding.at_ms, finding.message);
        text.push_str(&wrap(&line, "  "));
    }
    for pending in &verdict.pending {
        text.push_str(&wrap(&format!("pending: {pending}"), "  "));
    }
    if let Some(panic) = &verdict.panic {
        text.push_str(&wrap(&format!("panicked: {panic}"), "  "));
    }
    text
}

/// Returns every client, operation and fault of a small plan in words, in order of time.
pub(super) fn of_shrunk(plan: &Plan) -> Vec<String> {
    let operations = plan.operations.iter().map(|operation| (operation.at_ms, of_operation(&operation.kind)));
    let faults = plan.faults.iter().map(|entry| (entry.at_ms, entry.fault.to_string()));
    let clients = plan.clients.iter().map(|client| (client.from_ms, of_client(client)));
    let mut lines: Vec<(u64, String)> = clients.chain(operations).chain(faults).collect();
    lines.sort_by_key(|(at_ms, _)| *at_ms);
    lines.into_iter().map(|(at_ms, line)| format!("{:.1} s {line}", at_ms as f64 / 1000.0)).collect()
}

/// Returns a client in words: "user 3 begins to sync with device 0 on worker1, worker2".
fn of_client(client: &ClientPlan) -> String {
    format!("user {} begins to sync with device {} on {}", client.user, client.device, client.hosts.join(", "))
}

/// Returns an operation in words: "120 rows of state in room 2, on 1 token".
fn of_operation(operation: &OperationKind) -> String {
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
        OperationKind::Receipts { user, rooms, host } => {
            format!("user {user} reads in {} at once, through {host}", of_count(rooms.len(), "room"))
        }
        OperationKind::ToDevice { users, through } => {
            format!("messages to the devices of {}{}", of_count(users.len(), "user"), through_host(through))
        }
        OperationKind::Sync { user, host, for_ms, .. } => {
            format!("user {user} syncs on {host} for {:.1} s", *for_ms as f64 / 1000.0)
        }
        OperationKind::SetPresence { user, device, state, is_sync, through, .. } => {
            let device = device.map_or_else(String::new, |device| format!(" on device {device}"));
            let by = if *is_sync { ", by a sync" } else { "" };
            format!("user {user} is {}{device}{by}{}", state, through_host(through))
        }
        OperationKind::ServerUp { server, host } => format!("{host} hears from server {server}, which was down"),
        OperationKind::Outlier { room, event } => format!("outlier {event} in room {room}"),
        OperationKind::ExOutlier { event, .. } => format!("outlier {event} becomes an ordinary event"),
        OperationKind::Read { host, what } => format!("{} is read on {host}", of_reading(what)),
        OperationKind::WriteThenRead { host, what, twice } => {
            let what = match what {
                Writing::State { room } => of_reading(&Reading::State { room: *room }),
                Writing::FormerOutlier { room } => format!("a former outlier in room {room}"),
                Writing::AccountData { user, room, .. } => {
                    of_reading(&Reading::AccountData { user: *user, room: *room })
                }
                Writing::Receipt { user, room } => format!("user {user}'s receipt in room {room}"),
                Writing::ToDevice { user } => format!("the inbox of user {user}"),
                Writing::Presence { user } => format!("user {user}'s presence"),
                Writing::Typing { user, room } => format!("user {user}'s typing in room {room}"),
            };
            format!("{what} is changed{} through {host} and read there", if *twice { " twice at once" } else { "" })
        }
        OperationKind::Typing { room, user, typing, .. } => {
            format!("user {user} {} in room {room}", if *typing { "types" } else { "stops typing" })
        }
    }
}

/// Returns a number with its noun: "1 row", "120 rows".
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
