//! Hosts, clock and links for simulated instances.
//!
//! An engine gives every instance of a run its [`Network`](crate::env::Network), lets the world inject faults into it,
//! and tells a [`Tap`] what went over the wire.

pub mod tap;
pub mod turmoil_net;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use tap::{Attempt, End, Side, Tap};

/// How long a packet travels, drawn uniformly. Tokio's timers round arrivals up to a millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyRange {
    /// Shortest journey, microseconds.
    pub min_us: u64,
    /// Longest journey, microseconds, included. Less than `min_us` means `min_us`.
    pub max_us: u64,
}

/// A slow consumer: how fast an application reads from each of its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowReader {
    /// Most bytes one read returns; at least one.
    pub bytes: usize,
    /// Time after each read before the next one succeeds.
    pub pause: Duration,
}
