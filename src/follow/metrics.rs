//! The follower's metrics for Prometheus.

use prometheus::core::Collector;
use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::event::Event;
use super::follower::Follower;
use super::writers::WriterState;
use squall_judge::audit::Violation;
use squall_judge::observation::SimTime;

/// The follower's metrics. Their labels are names from the traffic, the number of which is bounded by
/// [`bounds`](squall_judge::audit::bounds).
pub struct FollowMetrics {
    payloads: IntCounter,
    commands: IntCounterVec,
    rows: IntCounterVec,
    findings: IntCounterVec,
    listening: IntGauge,
    gaps: IntCounter,
    gap_seconds: Gauge,
    position: IntGaugeVec,
    behind: IntGaugeVec,
    silent_seconds: IntGaugeVec,
    skipped: IntGaugeVec,
    late_seconds: GaugeVec,
    unsent: IntGaugeVec,
    ignored: IntCounter,
}

const WRITER: [&str; 2] = ["stream", "writer"];

impl FollowMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// The registry has metrics of these names already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauges = |name, help| add(registry, IntGaugeVec::new(opts(name, help), &WRITER)?);
        let counter = |name, help| add(registry, IntCounter::with_opts(opts(name, help))?);
        let findings = opts("findings_total", "Violations of rules.");
        let listening = opts("listening", "1 if subscribed, so that every payload is received, else 0.");
        let gap_seconds = opts("away_seconds", "Total length of the times in which payloads may have been missed.");
        let late_seconds = opts(
            "late_seconds",
            "Seconds from the time in a writer's last row to its arrival, by the clocks of both machines.",
        );
        Ok(FollowMetrics {
            payloads: counter("payloads_total", "Payloads received.")?,
            commands: add(registry, IntCounterVec::new(opts("commands_total", "Commands received."), &["command"])?)?,
            rows: add(registry, IntCounterVec::new(opts("rows_total", "Rows received."), &WRITER)?)?,
            findings: add(registry, IntCounterVec::new(findings, &["rule", "kind", "stream", "class"])?)?,
            listening: add(registry, IntGauge::with_opts(listening)?)?,
            gaps: counter("away_total", "Times in which payloads may have been missed.")?,
            gap_seconds: add(registry, Gauge::with_opts(gap_seconds)?)?,
            position: gauges("position", "Last token of a writer.")?,
            behind: gauges("behind_tokens", "Tokens by which a writer is behind the first writer of its stream.")?,
            silent_seconds: gauges("silent_seconds", "Seconds since the last row or position of a writer.")?,
            skipped: gauges("skipped_tokens", "Tokens that a writer skipped and no instance sent.")?,
            late_seconds: add(registry, GaugeVec::new(late_seconds, &WRITER)?)?,
            unsent: gauges("unsent_tokens", "Tokens for which no row was ever sent.")?,
            ignored: counter("ignored_findings_total", "Violations that the operator left out.")?,
        })
    }

    /// Updates the metrics after an event.
    pub fn on_event(&self, now: SimTime, event: Event<'_>, follower: &Follower) {
        match event {
            Event::Finding(finding) => {
                self.count(&finding.violation, 1);
            }
            Event::Suppressed(finding, count) => self.count(&finding.violation, count),
            Event::Subscribed | Event::Disconnected(_) | Event::Tick => self.update(now, follower),
            Event::Gap(_)
            | Event::Exceeded(_)
            | Event::RecordingFailed(_)
            | Event::ReplicateFailed(_)
            | Event::Unheard(_) => {}
        }
    }

    fn count(&self, violation: &Violation, count: u64) {
        let stream = violation.stream().map_or("", |stream| stream.as_str());
        let class = violation.class().to_string();
        self.findings.with_label_values(&[violation.rule(), violation.kind(), stream, &class]).inc_by(count);
    }

    fn update(&self, now: SimTime, follower: &Follower) {
        let tally = follower.tally();
        let gaps = follower.gaps();
        self.payloads.inc_by(tally.payloads - self.payloads.get());
        for (command, count) in &tally.commands {
            let commands = self.commands.with_label_values(&[*command]);
            commands.inc_by(count - commands.get());
        }
        self.ignored.inc_by(follower.ignored() - self.ignored.get());
        self.gaps.inc_by(gaps.count - self.gaps.get());
        self.gap_seconds.set(gaps.ms as f64 / 1_000.0);
        self.listening.set(i64::from(follower.disconnected().is_none()));
        for WriterState { origin, counts, behind, silent_ms, late_ms, found } in follower.writers(now) {
            let labels = [origin.stream.as_str(), origin.writer.as_str()];
            if let Some((token, behind)) = counts.last_token.zip(behind) {
                self.position.with_label_values(&labels).set(token.0);
                self.behind.with_label_values(&labels).set(gauge_value(behind));
            }
            let rows = self.rows.with_label_values(&labels);
            rows.inc_by(counts.rows - rows.get());
            if let Some(late_ms) = late_ms {
                self.late_seconds.with_label_values(&labels).set(late_ms as f64 / 1_000.0);
            }
            if let Some(silent_ms) = silent_ms {
                self.silent_seconds.with_label_values(&labels).set(gauge_value(silent_ms / 1_000));
            }
            self.skipped.with_label_values(&labels).set(gauge_value(found.skipped));
            self.unsent.with_label_values(&labels).set(gauge_value(counts.unsent));
        }
    }
}

/// Returns a count as the value of a gauge.
fn gauge_value(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("squall_follow_{name}"), help)
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;
    use crate::follow::{Journal, Watcher};
    use squall_env::SystemClock;
    use squall_judge::audit::{Audit, Transport};

    impl Watcher for FollowMetrics {
        fn on_event(&mut self, now: SimTime, event: Event<'_>, follower: &Follower) {
            FollowMetrics::on_event(self, now, event, follower);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rows_commands_and_lateness_are_those_of_the_traffic() {
        let registry = Registry::new();
        let mut metrics = FollowMetrics::new(&registry).unwrap();
        let journal = Journal::new(&SystemClock, None);
        let written_ms = journal.ms(SimTime(0)) - 2_500;
        let mut follower = Follower::new(Audit::new(Transport::Redis, None), journal, &mut metrics);
        follower.subscribed(&mut metrics);
        let row = format!(r#"RDATA caches a 2 ["f",[],{written_ms}]"#);
        for payload in ["REPLICATE", "POSITION caches a 1 1", &row] {
            follower.received("h", payload.as_bytes(), &mut metrics);
        }
        // Counters are counted once, however often they are updated.
        follower.tick(&mut metrics);
        follower.tick(&mut metrics);
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            r#"squall_follow_commands_total{command="REPLICATE"} 1"#,
            r#"squall_follow_rows_total{stream="caches",writer="a"} 1"#,
            r#"squall_follow_late_seconds{stream="caches",writer="a"} 2.5"#,
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
