//! The names of metrics and of their labels.

use prometheus::Opts;

/// The labels of metrics that are per writer of a stream.
pub(super) const FOLLOWER_LABELS: [&str; 2] = ["stream", "writer"];

/// Returns the options of a metric. Its name begins with `squall_`.
pub(super) fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("squall")
}
