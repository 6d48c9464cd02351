//! The age of the oldest write whose ids are outstanding, for each stream that an instance writes.
//!
//! A position waits for such a write, and every reader of the stream with it (Synapse #16633). The age grows between two
//! reports of the instance, so it is computed when the metrics are read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Registry};
use tokio::time::Instant;

use super::names::{FOLLOWER_LABELS, opts};
use squall_protocol::{InstanceName, StreamName};

/// The gauge `squall_oldest_outstanding_seconds`: 0 for a stream without outstanding ids.
#[derive(Clone)]
pub(super) struct OldestOutstanding {
    gauge: GaugeVec,
    since: Arc<Mutex<SinceByWriter>>,
}

/// The time at which the oldest write of each stream and writer began.
type SinceByWriter = BTreeMap<(StreamName, InstanceName), Option<Instant>>;

impl OldestOutstanding {
    /// Creates the gauge and registers it.
    ///
    /// # Errors
    /// The registry already has such a gauge.
    pub(super) fn registered_with(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Age of the oldest write of this instance that its position waits for.";
        let gauge = GaugeVec::new(opts("oldest_outstanding_seconds", help), &FOLLOWER_LABELS)?;
        let outstanding = OldestOutstanding { gauge, since: Arc::default() };
        registry.register(Box::new(outstanding.clone()))?;
        Ok(outstanding)
    }

    /// Sets the time at which the oldest write of a stream began.
    pub(super) fn set(&self, stream: &StreamName, writer: &InstanceName, since: Option<Instant>) {
        self.since().insert((stream.clone(), writer.clone()), since);
    }

    fn since(&self) -> MutexGuard<'_, SinceByWriter> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for OldestOutstanding {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for ((stream, writer), since) in &*self.since() {
            let age = since.map_or(0.0, |since| since.elapsed().as_secs_f64());
            self.gauge.with_label_values(&[stream.as_str(), writer.as_str()]).set(age);
        }
        self.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::TextEncoder;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_age_grows_until_the_write_has_ended() {
        let registry = Registry::new();
        let outstanding = OldestOutstanding::registered_with(&registry).unwrap();
        let line = || {
            let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
            text.lines().find(|line| !line.starts_with('#')).map(str::to_owned)
        };
        assert_eq!(line(), None, "it writes no stream");
        outstanding.set(&"events".into(), &"writer1".into(), Some(Instant::now()));
        tokio::time::advance(Duration::from_millis(2_500)).await;
        let labels = r#"squall_oldest_outstanding_seconds{stream="events",writer="writer1"}"#;
        assert_eq!(line(), Some(format!("{labels} 2.5")));
        outstanding.set(&"events".into(), &"writer1".into(), None);
        assert_eq!(line(), Some(format!("{labels} 0")));
    }
}
