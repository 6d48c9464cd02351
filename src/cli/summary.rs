//! Plans and verdicts in words.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use crate::sim::plan::{Fault, Plan};
use crate::sim::verdict::Verdict;

/// What is about to happen: every knob of the plan.
pub(super) fn of_plan(plan: &Plan) -> String {
    let mut text = String::new();
    let hosts: Vec<&str> = plan.topology.hosts().collect();
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

/// How a run ended. The last line is `reproduction`, a command that repeats it.
pub(super) fn of_verdict(verdict: &Verdict, reproduction: &str) -> String {
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
    let _ = writeln!(text, "{reproduction}");
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
        Fault::CancelledRequests { host, per_mille, .. } => {
            format!("cancelled requests: {per_mille} ‰ of {host}'s")
        }
    };
    if fault.for_ms() > 0 {
        let _ = write!(text, ", for {:.1} s", fault.for_ms() as f64 / 1000.0);
    }
    text
}

fn host_or_all(host: &Option<String>) -> &str {
    host.as_deref().unwrap_or("all hosts")
}

/// "cut 12, partition 3".
pub(super) fn tally<K: Display, N: Display>(counts: &BTreeMap<K, N>) -> String {
    let parts: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}
