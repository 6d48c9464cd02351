//! The follower's metrics for Prometheus.

use prometheus::core::Collector;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::event::Event;
use super::follower::Follower;
use squall_judge::audit::{Origin, Violation};
use squall_judge::observation::SimTime;

/// The follower's metrics. Their labels are names from the traffic, the number of which is bounded by
/// [`bounds`](squall_judge::audit::bounds).
pub struct FollowMetrics {
    payloads: IntCounter,
    findings: IntCounterVec,
    listening: IntGauge,
    gaps: IntCounter,
    gap_seconds: Gauge,
    position: IntGaugeVec,
    behind: IntGaugeVec,
    silent_seconds: IntGaugeVec,
    skipped: IntGaugeVec,
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
        Ok(FollowMetrics {
            payloads: counter("payloads_total", "Payloads received.")?,
            findings: add(registry, IntCounterVec::new(findings, &["rule", "kind", "stream", "class"])?)?,
            listening: add(registry, IntGauge::with_opts(listening)?)?,
            gaps: counter("away_total", "Times in which payloads may have been missed.")?,
            gap_seconds: add(registry, Gauge::with_opts(gap_seconds)?)?,
            position: gauges("position", "Last token of a writer.")?,
            behind: gauges("behind_tokens", "Tokens by which a writer is behind the first writer of its stream.")?,
            silent_seconds: gauges("silent_seconds", "Seconds since the last row or position of a writer.")?,
            skipped: gauges("skipped_tokens", "Tokens that a writer skipped and no instance sent.")?,
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
            Event::Gap(_) | Event::RecordingFailed(_) | Event::ReplicateFailed(_) | Event::Unheard(_) => {}
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
        self.ignored.inc_by(follower.ignored() - self.ignored.get());
        self.gaps.inc_by(gaps.count - self.gaps.get());
        self.gap_seconds.set(gaps.ms as f64 / 1_000.0);
        self.listening.set(i64::from(follower.disconnected().is_none()));
        for (stream, writers) in &tally.streams {
            let first = writers.values().filter_map(|counts| counts.last_token).max();
            for (writer, counts) in writers {
                let labels = [stream.as_str(), writer.as_str()];
                if let Some((token, first)) = counts.last_token.zip(first) {
                    self.position.with_label_values(&labels).set(token.0);
                    self.behind.with_label_values(&labels).set(first.0.saturating_sub(token.0));
                }
                if let Some(last_at) = counts.last_at {
                    self.silent_seconds.with_label_values(&labels).set((now.ms_since(last_at) / 1_000) as i64);
                }
                let origin = Origin { stream: stream.clone(), writer: writer.clone() };
                let skipped = follower.found_of(&origin).skipped;
                self.skipped.with_label_values(&labels).set(i64::try_from(skipped).unwrap_or(i64::MAX));
                self.unsent.with_label_values(&labels).set(i64::try_from(counts.unsent).unwrap_or(i64::MAX));
            }
        }
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("squall_follow_{name}"), help)
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
