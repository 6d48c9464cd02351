//! What is followed, for Prometheus.

use prometheus::core::Collector;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::{Follower, News};
use crate::judge::audit::Origin;
use crate::judge::observation::Moment;

/// The follower's numbers. Labels are names that were heard, of which there are only so many
/// ([`bounds`](crate::judge::audit::bounds)).
pub struct FollowMetrics {
    payloads: IntCounter,
    findings: IntCounterVec,
    listening: IntGauge,
    away: IntCounter,
    away_seconds: Gauge,
    position: IntGaugeVec,
    behind: IntGaugeVec,
    silent_seconds: IntGaugeVec,
    skipped: IntGaugeVec,
}

const WRITER: [&str; 2] = ["stream", "writer"];

impl FollowMetrics {
    /// Numbers in `registry`, all at the beginning.
    ///
    /// # Errors
    /// The registry has such numbers already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauges = |name, help| add(registry, IntGaugeVec::new(opts(name, help), &WRITER)?);
        let counter = |name, help| add(registry, IntCounter::with_opts(opts(name, help))?);
        let findings = opts("findings_total", "Rules that were not kept.");
        let listening = opts("listening", "Whether everything is heard that is published.");
        let away_seconds = opts("away_seconds", "For how long nothing could be heard, in all.");
        Ok(FollowMetrics {
            payloads: counter("payloads_total", "What was published.")?,
            findings: add(registry, IntCounterVec::new(findings, &["rule", "kind", "stream"])?)?,
            listening: add(registry, IntGauge::with_opts(listening)?)?,
            away: counter("away_total", "Times in which nothing could be heard.")?,
            away_seconds: add(registry, Gauge::with_opts(away_seconds)?)?,
            position: gauges("position", "The last token of a writer.")?,
            behind: gauges("behind_tokens", "How far a writer is behind the first of its stream.")?,
            silent_seconds: gauges("silent_seconds", "How long ago a writer was last heard.")?,
            skipped: gauges("skipped_tokens", "Tokens a writer passed over that nobody sent.")?,
        })
    }

    /// Takes news into account.
    pub fn tell(&self, now: Moment, news: News<'_>, follower: &Follower) {
        match news {
            News::Finding(finding) => {
                let violation = &finding.violation;
                let stream = violation.stream().map_or("", |stream| stream.as_str());
                self.findings.with_label_values(&[violation.rule(), violation.kind(), stream]).inc();
            }
            News::Omitted(fingerprint, count) => {
                let Some(found) = follower.found().get(fingerprint) else { return };
                let violation = &found.first.violation;
                let stream = violation.stream().map_or("", |stream| stream.as_str());
                self.findings.with_label_values(&[violation.rule(), violation.kind(), stream]).inc_by(count);
            }
            News::Listening | News::Deaf(_) | News::Tick => self.update(now, follower),
            News::Away(_) | News::NotRecorded(_) | News::NotAsked(_) => {}
        }
    }

    fn update(&self, now: Moment, follower: &Follower) {
        let (tally, away) = (follower.tally(), follower.away());
        self.payloads.inc_by(tally.payloads - self.payloads.get());
        self.away.inc_by(away.count - self.away.get());
        self.away_seconds.set(away.ms as f64 / 1_000.0);
        self.listening.set(i64::from(follower.deaf().is_none()));
        for (stream, writers) in &tally.streams {
            let first = writers.values().filter_map(|said| said.last_token).max();
            for (writer, said) in writers {
                let labels = [stream.as_str(), writer.as_str()];
                if let (Some(token), Some(first)) = (said.last_token, first) {
                    self.position.with_label_values(&labels).set(token.0);
                    self.behind.with_label_values(&labels).set(first.0.saturating_sub(token.0));
                }
                if let Some(last_at) = said.last_at {
                    self.silent_seconds.with_label_values(&labels).set((now.ms_since(last_at) / 1_000) as i64);
                }
                let origin = Origin { stream: stream.clone(), writer: writer.clone() };
                let skipped = follower.found_of(&origin).skipped;
                self.skipped.with_label_values(&labels).set(i64::try_from(skipped).unwrap_or(i64::MAX));
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
