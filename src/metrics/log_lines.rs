//! The number of lines of the log that were dropped.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, Registry};

use super::names::opts;

/// A function that reads a count, which never gets smaller.
pub type ReadCount = Box<dyn Fn() -> u64 + Send + Sync>;

/// The counter `squall_log_lines_dropped_total`.
struct LogLinesDropped {
    counter: IntCounter,
    read: ReadCount,
}

/// Adds the counter of lines that were dropped, because the reader of the log is slow, to `registry`. `read` returns their
/// number.
///
/// # Errors
/// The registry already has such a counter.
pub fn count_log_lines_dropped(registry: &Registry, read: ReadCount) -> prometheus::Result<()> {
    let help = "Lines of the log that were dropped because its reader is slow.";
    let counter = IntCounter::with_opts(opts("log_lines_dropped_total", help))?;
    registry.register(Box::new(LogLinesDropped { counter, read }))
}

impl Collector for LogLinesDropped {
    fn desc(&self) -> Vec<&Desc> {
        self.counter.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.counter.inc_by((self.read)().saturating_sub(self.counter.get()));
        self.counter.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn the_counter_has_the_count_at_each_reading() {
        let count = Arc::new(AtomicU64::new(0));
        let (registry, read) = (Registry::new(), Arc::clone(&count));
        count_log_lines_dropped(&registry, Box::new(move || read.load(Ordering::Relaxed))).unwrap();
        for expected in [0, 3, 3, 7] {
            count.store(expected, Ordering::Relaxed);
            let families = registry.gather();
            assert_eq!(families[0].name(), "squall_log_lines_dropped_total");
            assert_eq!(families[0].get_metric()[0].get_counter().get_value(), expected as f64);
        }
    }
}
