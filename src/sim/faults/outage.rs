//! The shape of faults that take a host down for a time.

use std::marker::PhantomData;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use super::cluster::Cluster;
use super::draw::Draw;
use super::kind::{FaultKind, Outage, Span};
use squall_netsim::Unsupported;
use squall_protocol::InstanceName;

/// A fault that takes a host down for a time. `K` is the way in which the host goes down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutageFault<K> {
    /// The host.
    pub host: String,
    /// The time for which it stays down, in milliseconds.
    pub for_ms: u64,
    #[serde(skip)]
    kind: PhantomData<K>,
}

/// A kind of [`OutageFault`]: everything in which it differs from the others.
pub(super) trait OutageKind {
    /// The fault's name in its description.
    const NAME: &'static str;

    /// The number of faults of this kind in a plan of one minute that has any.
    const PER_PLAN: RangeInclusive<u32>;

    /// The fault's turn in [`Draw::outage`].
    const TURN: u64;

    /// Takes the host down. Returns false if it was down already.
    async fn take_down(cluster: &dyn Cluster, host: &InstanceName) -> bool;
}

impl<K> OutageFault<K> {
    /// Creates a fault that takes `host` down for `for_ms` milliseconds.
    pub fn new(host: impl Into<String>, for_ms: u64) -> Self {
        OutageFault { host: host.into(), for_ms, kind: PhantomData }
    }
}

impl<K: OutageKind> FaultKind for OutageFault<K> {
    const PER_PLAN: RangeInclusive<u32> = K::PER_PLAN;
    const HITS_BROKER: bool = true;
    const SHRINKABLE: &'static [&'static str] = &["for_ms"];

    fn draw(draw: &mut Draw<'_>) -> Option<Self> {
        let (host, for_ms) = draw.outage(K::TURN)?;
        Some(OutageFault::new(host, for_ms))
    }

    fn hosts(&self) -> Vec<&str> {
        vec![&self.host]
    }

    fn for_ms(&self) -> u64 {
        self.for_ms
    }

    fn outages(&self) -> Vec<Outage<'_>> {
        vec![Outage { host: &self.host, from_ms: 0, until_ms: self.for_ms }]
    }

    async fn inject(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported> {
        Ok(keep_down::<K>(cluster, &self.host.into(), span.until).await)
    }

    fn describe(&self) -> String {
        format!("{} of {}", K::NAME, self.host)
    }
}

/// Takes a host down, and starts it again at `until`, or when it is down if that is later. Returns false if it was down
/// already.
pub(super) async fn keep_down<K: OutageKind>(cluster: &dyn Cluster, host: &InstanceName, until: Instant) -> bool {
    if !cluster.claim_down(host) {
        return false;
    }
    let took_effect = K::take_down(cluster, host).await;
    sleep_until(until).await;
    cluster.release_down(host);
    took_effect
}
