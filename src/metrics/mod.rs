//! What an instance does, for whoever watches it from outside.
//!
//! [`Metrics`] counts what it tells of its work, as an [`Observer`](crate::env::Observer) and a
//! [`Consumer`](crate::replication::Consumer), into a registry. [`serve`] shows a registry over HTTP, in Prometheus's text
//! format, and whether all is well. Neither knows of the other, nor of an instance.

mod counters;
mod server;

pub use counters::Metrics;
pub use server::{Health, serve};
