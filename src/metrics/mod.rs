//! Prometheus metrics and the health check of an instance.
//!
//! [`Metrics`] is an [`Observer`](crate::observer::Observer) and a [`Consumer`](crate::replication::Consumer) that counts an
//! instance's work in a registry. [`serve`] serves a registry over HTTP in Prometheus's text format, and the result of a
//! health check. Neither depends on the other or on an instance.

mod counters;
mod log_lines;
mod names;
mod outstanding;
mod server;

pub use counters::Metrics;
pub use log_lines::{ReadCount, count_log_lines_dropped};
pub use server::{Health, HealthCheck, METRICS_CONNECTIONS_MAX, serve};
