//! The metrics of an instance.

use std::fmt::Display;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{CounterVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::names::{FOLLOWER_LABELS, opts};
use super::outstanding::OldestOutstanding;
use crate::observer::{InstanceEvent, Observer, OutstandingWrite};
use crate::replication::Consumer;
use squall_env::{TaskKind, TaskObserver};
use squall_protocol::rows::Row;
use squall_protocol::{InstanceName, Role, StreamName, Token};

/// The metrics of one instance.
///
/// The values of labels are names from the program and the configuration only. So input from outside cannot create new
/// time series.
pub struct Metrics {
    lines_received: IntCounterVec,
    lines_sent: IntCounterVec,
    connections: IntGaugeVec,
    connection_attempts: IntCounterVec,
    connections_set_up: IntCounterVec,
    followed_from: IntGaugeVec,
    position: IntGaugeVec,
    rows_applied: IntCounterVec,
    resets: IntCounterVec,
    fetches: IntCounterVec,
    rows_fetched: IntCounterVec,
    fetches_failed: IntCounterVec,
    requests: IntCounterVec,
    troubles: IntCounterVec,
    users_expired: IntCounter,
    unknown_caches: IntCounter,
    database_writable: IntGauge,
    outstanding: OldestOutstanding,
    tasks_started: IntCounterVec,
    tasks_running: IntGaugeVec,
    task_seconds: CounterVec,
}

impl Metrics {
    /// Creates the metrics and registers them with `registry`.
    ///
    /// # Errors
    /// The registry already has such metrics, which belong to another instance.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name, help, labels: &[&str]| add(registry, IntCounterVec::new(opts(name, help), labels)?);
        let gauges = |name, help, labels: &[&str]| add(registry, IntGaugeVec::new(opts(name, help), labels)?);
        let counter = |name, help| add(registry, IntCounter::with_opts(opts(name, help))?);
        let writable = IntGauge::with_opts(opts("database_writable", "1 while the database can be written, or 0."))?;
        writable.set(1);
        Ok(Metrics {
            lines_received: counters("lines_received_total", "Commands received.", &["command"])?,
            lines_sent: counters("lines_sent_total", "Commands sent.", &["command"])?,
            connections: gauges(
                "connections",
                "Open replication connections by the role of this instance.",
                &["role"],
            )?,
            connection_attempts: counters("connection_attempts_total", "Attempts to connect.", &["target"])?,
            connections_set_up: counters(
                "connections_set_up_total",
                "Connections that were set up: every announced stream was caught up.",
                &["target"],
            )?,
            followed_from: gauges(
                "followed_from",
                "Token after which this instance began to follow the stream.",
                &FOLLOWER_LABELS,
            )?,
            position: gauges("position", "Token up to which every row has been applied.", &FOLLOWER_LABELS)?,
            rows_applied: counters("rows_applied_total", "Rows applied.", &FOLLOWER_LABELS)?,
            resets: counters("resets_total", "Restarts of a writer that invalidated its rows.", &FOLLOWER_LABELS)?,
            fetches: counters("catch_up_fetches_total", "Responses to requests for missed rows.", &FOLLOWER_LABELS)?,
            rows_fetched: counters("catch_up_rows_total", "Missed rows fetched.", &FOLLOWER_LABELS)?,
            fetches_failed: counters(
                "catch_up_failures_total",
                "Requests for missed rows that failed.",
                &FOLLOWER_LABELS,
            )?,
            requests: counters(
                "http_requests_total",
                "HTTP requests answered. The endpoint is empty if the path has none.",
                &["endpoint", "status"],
            )?,
            troubles: counters("troubles_total", "Errors that the instance recovers from by itself.", &["kind"])?,
            users_expired: counter(
                "users_expired_total",
                "Users taken offline because their process was silent for too long.",
            )?,
            unknown_caches: counter(
                "unknown_caches_total",
                "Invalidations of caches that this instance does not have.",
            )?,
            database_writable: add(registry, writable)?,
            outstanding: OldestOutstanding::registered_with(registry)?,
            tasks_started: counters("tasks_started_total", "Background tasks started.", &["task"])?,
            tasks_running: gauges("tasks_running", "Background tasks running.", &["task"])?,
            task_seconds: add(
                registry,
                CounterVec::new(
                    opts("task_seconds_total", "Time from the start to the end of background tasks."),
                    &["task"],
                )?,
            )?,
        })
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Server => "server",
        Role::Subscriber => "subscriber",
        Role::Publisher => "publisher",
    }
}

/// Returns the first word of a line, which is the name of its command.
fn command_of(line: &[u8]) -> &str {
    let name = line.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
    std::str::from_utf8(name).unwrap_or_default()
}

impl TaskObserver for Metrics {
    fn task_started(&self, kind: TaskKind, _running: u64) {
        self.tasks_started.with_label_values(&[kind.label()]).inc();
        self.tasks_running.with_label_values(&[kind.label()]).inc();
    }

    fn task_ended(&self, kind: TaskKind, took: Duration) {
        self.tasks_running.with_label_values(&[kind.label()]).dec();
        self.task_seconds.with_label_values(&[kind.label()]).inc_by(took.as_secs_f64());
    }
}

impl Observer for Metrics {
    fn event(&self, event: InstanceEvent<'_>) {
        let kind = match event {
            InstanceEvent::CatchUp { stream, writer, .. } => {
                self.fetches_failed.with_label_values(&[stream.as_str(), writer.as_str()]).inc();
                "catch_up"
            }
            InstanceEvent::Streaming { .. } => "streaming",
            InstanceEvent::Connection { .. } => "connection",
            InstanceEvent::Row { .. } => "row",
            InstanceEvent::ForeignDatabase { .. } => "foreign_database",
            InstanceEvent::NotAllocated { .. } => "not_allocated",
            InstanceEvent::UnknownStream { .. } => "unknown_stream",
            InstanceEvent::NewerCommand { .. } => "newer_command",
            InstanceEvent::AnnouncementIgnored { .. } => "announcement_ignored",
            InstanceEvent::UnknownWriter { .. } => "unknown_writer",
            InstanceEvent::UnclaimedPosition { .. } => "unclaimed_position",
        };
        self.troubles.with_label_values(&[kind]).inc();
    }

    fn set_up(&self, target: &str) {
        self.connections_set_up.with_label_values(&[target]).inc();
    }

    fn process_expired(&self, users: usize) {
        self.users_expired.inc_by(users as u64);
    }

    fn unknown_cache(&self, _name: &str) {
        self.unknown_caches.inc();
    }

    fn connecting(&self, target: &str) {
        self.connection_attempts.with_label_values(&[target]).inc();
    }

    fn opened(&self, role: Role) {
        self.connections.with_label_values(&[role_name(role)]).inc();
    }

    fn closed(&self, role: Role) {
        self.connections.with_label_values(&[role_name(role)]).dec();
    }

    fn received(&self, command: &'static str) {
        self.lines_received.with_label_values(&[command]).inc();
    }

    fn sent(&self, line: &[u8]) {
        self.lines_sent.with_label_values(&[command_of(line)]).inc();
    }

    fn fetched(&self, stream: &StreamName, writer: &InstanceName, rows: usize) {
        let follower = [stream.as_str(), writer.as_str()];
        self.fetches.with_label_values(&follower).inc();
        self.rows_fetched.with_label_values(&follower).inc_by(rows as u64);
    }

    fn outstanding(&self, stream: &StreamName, writer: &InstanceName, oldest: Option<&OutstandingWrite>) {
        self.outstanding.set(stream, writer, oldest.map(|write| write.since));
    }

    fn unwritable(&self, reason: Option<&dyn Display>) {
        self.database_writable.set(i64::from(reason.is_none()));
    }

    fn answered(&self, endpoint: &'static str, status: u16) {
        self.requests.with_label_values(&[endpoint, &status.to_string()]).inc();
    }
}

impl Consumer for Metrics {
    fn following(&self, stream: &StreamName, writer: &InstanceName, position: Token) {
        self.followed_from.with_label_values(&[stream.as_str(), writer.as_str()]).set(position.0);
        self.positioned(stream, writer, position);
    }

    fn applied(&self, stream: &StreamName, writer: &InstanceName, token: Token, rows: &[Row]) {
        self.rows_applied.with_label_values(&[stream.as_str(), writer.as_str()]).inc_by(rows.len() as u64);
        self.positioned(stream, writer, token);
    }

    fn positioned(&self, stream: &StreamName, writer: &InstanceName, position: Token) {
        self.position.with_label_values(&[stream.as_str(), writer.as_str()]).set(position.0);
    }

    fn reset(&self, stream: &StreamName, writer: &InstanceName) {
        self.resets.with_label_values(&[stream.as_str(), writer.as_str()]).inc();
        self.positioned(stream, writer, Token(0));
    }
}

#[cfg(test)]
mod tests {
    use crate::tasks;
    use prometheus::TextEncoder;

    use super::*;
    use squall_protocol::rows::EventsRow;
    use squall_protocol::rows::events::StateAllRow;

    /// Returns the lines of the exposition that hold values.
    fn counted(registry: &Registry) -> Vec<String> {
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    fn metrics() -> (Registry, Metrics) {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        (registry, metrics)
    }

    #[test]
    fn rows_and_positions_are_counted_by_stream_and_writer() {
        let (registry, metrics) = metrics();
        let (stream, writer) = ("events".into(), "writer1".into());
        let row = || Row::Events(EventsRow::StateAll(StateAllRow { room_id: "!r".into() }));
        metrics.following(&stream, &writer, Token(7));
        metrics.applied(&stream, &writer, Token(8), &[row(), row()]);
        metrics.positioned(&stream, &writer, Token(11));
        metrics.fetched(&stream, &writer, 5);
        assert_eq!(
            counted(&registry),
            [
                r#"squall_catch_up_fetches_total{stream="events",writer="writer1"} 1"#,
                r#"squall_catch_up_rows_total{stream="events",writer="writer1"} 5"#,
                "squall_database_writable 1",
                r#"squall_followed_from{stream="events",writer="writer1"} 7"#,
                r#"squall_position{stream="events",writer="writer1"} 11"#,
                r#"squall_rows_applied_total{stream="events",writer="writer1"} 2"#,
                "squall_unknown_caches_total 0",
                "squall_users_expired_total 0",
            ]
        );
        metrics.reset(&stream, &writer);
        let lines = counted(&registry);
        assert!(lines.contains(&r#"squall_position{stream="events",writer="writer1"} 0"#.to_owned()), "{lines:?}");
        assert!(lines.contains(&r#"squall_resets_total{stream="events",writer="writer1"} 1"#.to_owned()), "{lines:?}");
    }

    #[test]
    fn commands_are_counted_by_their_first_word_however_they_are_framed() {
        let (registry, metrics) = metrics();
        metrics.sent(b"POSITION events writer1 1 2\n");
        metrics.sent(b"POSITION events writer1 1 2");
        metrics.sent(b"REPLICATE\n");
        metrics.received("PING");
        let lines = counted(&registry);
        assert!(lines.contains(&r#"squall_lines_sent_total{command="POSITION"} 2"#.to_owned()), "{lines:?}");
        assert!(lines.contains(&r#"squall_lines_sent_total{command="REPLICATE"} 1"#.to_owned()), "{lines:?}");
        assert!(lines.contains(&r#"squall_lines_received_total{command="PING"} 1"#.to_owned()), "{lines:?}");
    }

    #[test]
    fn tasks_and_connections_that_ended_are_not_counted_as_running_or_open() {
        let (registry, metrics) = metrics();
        metrics.opened(Role::Client);
        metrics.opened(Role::Server);
        metrics.closed(Role::Client);
        metrics.task_started(tasks::PERSIST, 1);
        metrics.task_started(tasks::PERSIST, 2);
        metrics.task_ended(tasks::PERSIST, Duration::from_millis(1_500));
        let lines = counted(&registry);
        assert!(lines.contains(&r#"squall_connections{role="client"} 0"#.to_owned()), "{lines:?}");
        assert!(lines.contains(&r#"squall_connections{role="server"} 1"#.to_owned()), "{lines:?}");
        assert!(lines.contains(&r#"squall_tasks_running{task="persist"} 1"#.to_owned()), "{lines:?}");
        assert!(lines.contains(&r#"squall_task_seconds_total{task="persist"} 1.5"#.to_owned()), "{lines:?}");
    }

    #[test]
    fn the_database_is_writable_until_the_contrary_is_reported() {
        let (registry, metrics) = metrics();
        for (reason, value) in [(Some("the disk is full"), 0), (None, 1)] {
            metrics.unwritable(reason.as_ref().map(|reason| reason as &dyn Display));
            let lines = counted(&registry);
            assert!(lines.contains(&format!("squall_database_writable {value}")), "{lines:?}");
        }
    }

    #[test]
    fn a_registry_takes_the_metrics_of_one_instance_only() {
        let (registry, _metrics) = metrics();
        assert!(Metrics::new(&registry).is_err());
    }
}
