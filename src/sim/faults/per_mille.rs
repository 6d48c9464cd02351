//! The shape of faults that hit some of what one host does, for a time.

use std::marker::PhantomData;
use std::ops::RangeInclusive;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use super::cluster::Cluster;
use super::draw::Draw;
use super::kind::{FaultKind, Span};
use crate::sim::invalid::{InvalidValue, check_per_mille};
use crate::sim::switch::Switch;
use squall_netsim::Unsupported;
use squall_protocol::InstanceName;

/// A fault that hits some of what one host does, for a time. `K` is what it hits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerMilleFault<K> {
    /// The host.
    pub host: String,
    /// The number out of a thousand that is hit.
    pub per_mille: u32,
    /// The time during which what begins may be hit, in milliseconds.
    pub for_ms: u64,
    #[serde(skip)]
    kind: PhantomData<K>,
}

/// A kind of [`PerMilleFault`]: everything in which it differs from the others.
pub(super) trait PerMilleKind {
    /// The number of faults of this kind in a plan of one minute that has any.
    const PER_PLAN: RangeInclusive<u32>;

    /// The rates out of a thousand to draw one of: from a low one to all.
    const PER_MILLE: &'static [u32] = &[50, 200, 500, 1_000];

    /// The range of drawn durations, in milliseconds.
    const FOR_MS: RangeInclusive<u64>;

    /// True if only the scenarios of wide worlds have the fault.
    const WIDE_ONLY: bool = false;

    /// The longest that effects of the fault last after it is over, in milliseconds.
    const LINGER_MS: u64 = 0;

    /// Draws the host.
    fn draw_host(draw: &mut Draw<'_>) -> String;

    /// Injects the fault, waits until `until`, and heals it. Returns true if it hit something.
    async fn inject(cluster: &dyn Cluster, host: &InstanceName, per_mille: u32, until: Instant) -> bool;

    /// Describes the fault, without its duration.
    fn describe(host: &str, per_mille: u32) -> String;
}

/// Keeps a fault of `switch` on until `until`. Returns true if it hit something.
pub(super) async fn hit_until(switch: &Switch, per_mille: u32, until: Instant) -> bool {
    let guard = switch.begin(per_mille);
    sleep_until(until).await;
    guard.hits() > 0
}

impl<K> PerMilleFault<K> {
    /// Creates a fault that hits `per_mille` of a thousand on `host`, for `for_ms` milliseconds.
    pub fn new(host: impl Into<String>, per_mille: u32, for_ms: u64) -> Self {
        PerMilleFault { host: host.into(), per_mille, for_ms, kind: PhantomData }
    }
}

impl<K: PerMilleKind> FaultKind for PerMilleFault<K> {
    const PER_PLAN: RangeInclusive<u32> = K::PER_PLAN;
    const WIDE_ONLY: bool = K::WIDE_ONLY;
    const LINGER_MS: u64 = K::LINGER_MS;
    const SHRINKABLE: &'static [&'static str] = &["per_mille", "for_ms"];

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        let host = K::draw_host(draw);
        let per_mille = draw.one_of(K::PER_MILLE);
        Some(PerMilleFault::new(host, per_mille, draw.rng.random_range(K::FOR_MS)))
    }

    fn check(&self) -> Result<(), InvalidValue> {
        check_per_mille(self.per_mille)
    }

    fn hosts(&self) -> Vec<&str> {
        vec![&self.host]
    }

    fn for_ms(&self) -> u64 {
        self.for_ms
    }

    async fn inject(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported> {
        Ok(K::inject(cluster, &self.host.into(), self.per_mille, span.until).await)
    }

    fn describe(&self) -> String {
        K::describe(&self.host, self.per_mille)
    }
}
