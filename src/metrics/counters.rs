//! The counters, and what each counts.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{CounterVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::env::Observer;
use crate::env::observer::Trouble;
use crate::protocol::{InstanceName, StreamName, Token};
use crate::replication::{Consumer, Side};
use crate::streams::Row;

/// Counts one instance's work. Labels are names of the program and of the configuration alone, so that nobody outside
/// can make there be ever more of them.
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
    tasks_started: IntCounterVec,
    tasks_running: IntGaugeVec,
    task_seconds: CounterVec,
}

/// The labels of what is counted for each writer of each stream.
const FEED: [&str; 2] = ["stream", "writer"];

impl Metrics {
    /// Counters in `registry`, all at the beginning.
    ///
    /// # Errors
    /// The registry has such counters already: it is another instance's.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name, help, labels: &[&str]| add(registry, IntCounterVec::new(opts(name, help), labels)?);
        let gauges = |name, help, labels: &[&str]| add(registry, IntGaugeVec::new(opts(name, help), labels)?);
        let counter = |name, help| add(registry, IntCounter::with_opts(opts(name, help))?);
        Ok(Metrics {
            lines_received: counters("lines_received_total", "Commands that came in.", &["command"])?,
            lines_sent: counters("lines_sent_total", "Commands that went out.", &["command"])?,
            connections: gauges("connections", "Open replication connections, by which end this is.", &["side"])?,
            connection_attempts: counters("connection_attempts_total", "Connections that were tried.", &["target"])?,
            connections_set_up: counters(
                "connections_set_up_total",
                "Connections on which everything was caught up with that was announced.",
                &["target"],
            )?,
            followed_from: gauges("followed_from", "The token behind which rows were first followed.", &FEED)?,
            position: gauges("position", "The token up to which all rows are known.", &FEED)?,
            rows_applied: counters("rows_applied_total", "Rows that were taken in.", &FEED)?,
            resets: counters("resets_total", "How often a writer started over, which voids its rows.", &FEED)?,
            fetches: counters("catch_up_fetches_total", "Answers to requests for missed rows.", &FEED)?,
            rows_fetched: counters("catch_up_rows_total", "Missed rows that were fetched.", &FEED)?,
            fetches_failed: counters("catch_up_failures_total", "Requests for missed rows that failed.", &FEED)?,
            requests: counters(
                "http_requests_total",
                "HTTP requests answered. Without an endpoint: there is none at that path.",
                &["endpoint", "status"],
            )?,
            troubles: counters("troubles_total", "Troubles that the instance gets over by itself.", &["kind"])?,
            users_expired: counter("users_expired_total", "Users whose processes were silent for too long.")?,
            unknown_caches: counter("unknown_caches_total", "Invalidations of caches that are not here.")?,
            tasks_started: counters("tasks_started_total", "Background tasks that began.", &["task"])?,
            tasks_running: gauges("tasks_running", "Background tasks under way.", &["task"])?,
            task_seconds: add(
                registry,
                CounterVec::new(opts("task_seconds_total", "From the beginning to the end of tasks."), &["task"])?,
            )?,
        })
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("squall")
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
        Side::Subscriber => "subscriber",
        Side::Publisher => "publisher",
    }
}

/// The first word of a line, which is the name of its command.
fn command_of(line: &[u8]) -> &str {
    let name = line.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
    std::str::from_utf8(name).unwrap_or_default()
}

impl Observer for Metrics {
    fn task_started(&self, name: &'static str, _running: u64) {
        self.tasks_started.with_label_values(&[name]).inc();
        self.tasks_running.with_label_values(&[name]).inc();
    }

    fn task_ended(&self, name: &'static str, took: Duration) {
        self.tasks_running.with_label_values(&[name]).dec();
        self.task_seconds.with_label_values(&[name]).inc_by(took.as_secs_f64());
    }

    fn trouble(&self, what: Trouble<'_>) {
        let kind = match what {
            Trouble::CatchUp { stream, writer, .. } => {
                self.fetches_failed.with_label_values(&[stream.as_str(), writer.as_str()]).inc();
                "catch_up"
            }
            Trouble::Streaming { .. } => "streaming",
            Trouble::Connection { .. } => "connection",
            Trouble::Row { .. } => "row",
            Trouble::UnknownStream { .. } => "unknown_stream",
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

    fn opened(&self, side: Side) {
        self.connections.with_label_values(&[side_name(side)]).inc();
    }

    fn closed(&self, side: Side) {
        self.connections.with_label_values(&[side_name(side)]).dec();
    }

    fn received(&self, command: &'static str) {
        self.lines_received.with_label_values(&[command]).inc();
    }

    fn sent(&self, line: &[u8]) {
        self.lines_sent.with_label_values(&[command_of(line)]).inc();
    }

    fn fetched(&self, stream: &StreamName, writer: &InstanceName, rows: usize) {
        let feed = [stream.as_str(), writer.as_str()];
        self.fetches.with_label_values(&feed).inc();
        self.rows_fetched.with_label_values(&feed).inc_by(rows as u64);
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
    use prometheus::TextEncoder;

    use super::*;
    use crate::streams::EventsRow;
    use crate::streams::events::StateAllRow;

    /// The lines that tell values, but for tasks'.
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
    fn what_ended_is_no_longer_counted_as_running_or_open() {
        let (registry, metrics) = metrics();
        metrics.opened(Side::Client);
        metrics.opened(Side::Server);
        metrics.closed(Side::Client);
        metrics.task_started("persist", 1);
        metrics.task_started("persist", 2);
        metrics.task_ended("persist", Duration::from_millis(1_500));
        let lines = counted(&registry);
        assert!(lines.contains(&r#"squall_connections{side="client"} 0"#.to_owned()), "{lines:?}");
        assert!(lines.contains(&r#"squall_connections{side="server"} 1"#.to_owned()), "{lines:?}");
        assert!(lines.contains(&r#"squall_tasks_running{task="persist"} 1"#.to_owned()), "{lines:?}");
        assert!(lines.contains(&r#"squall_task_seconds_total{task="persist"} 1.5"#.to_owned()), "{lines:?}");
    }

    #[test]
    fn one_registry_is_for_one_instance() {
        let (registry, _metrics) = metrics();
        assert!(Metrics::new(&registry).is_err());
    }
}
