//! The parts that every fault has.

use std::ops::RangeInclusive;

use tokio::time::Instant;

use super::cluster::Cluster;
use super::draw::Draw;
use crate::sim::invalid::InvalidValue;
use squall_netsim::Unsupported;

/// A kind of fault: its data, and everything that the simulator does with it.
pub(super) trait FaultKind: Sized {
    /// The number of faults of this kind in a plan of one minute that has any.
    const PER_PLAN: RangeInclusive<u32>;

    /// True if the fault can hit the broker's host too, and not only an instance.
    const HITS_BROKER: bool = false;

    /// True if the fault hits the broker alone, so that a deployment without one has no such faults.
    const NEEDS_BROKER: bool = false;

    /// True if only the scenarios of wide worlds have the fault.
    const WIDE_ONLY: bool = false;

    /// False if everything must go on as if there were no such fault. Then it excuses nothing.
    const DISTURBS: bool = true;

    /// The fields in which a lower number means a milder fault. Shrinking lowers them.
    const SHRINKABLE: &'static [&'static str];

    /// The longest that effects of the fault last after it is over, in milliseconds. The calm waits for them.
    const LINGER_MS: u64 = 0;

    /// Draws a fault. Returns none if there is no room for it at that time.
    fn draw(draw: &mut Draw<'_>) -> Option<Self>;

    /// Checks the fault's values, besides the names of its hosts.
    ///
    /// # Errors
    /// The first value that cannot be used.
    fn check(&self) -> Result<(), InvalidValue> {
        Ok(())
    }

    /// Returns the hosts that the fault names: none if it hits all of them.
    fn hosts(&self) -> Vec<&str>;

    /// Returns how long the fault lasts, in milliseconds: 0 if it is over at once, or never.
    fn for_ms(&self) -> u64;

    /// Returns the times at which the fault keeps hosts down.
    fn outages(&self) -> Vec<Outage<'_>> {
        Vec::new()
    }

    /// Injects the fault, waits until it is over, and heals it. Returns true if it found something to disturb.
    ///
    /// # Errors
    /// [`Unsupported`] if the engine cannot inject it.
    async fn inject(self, cluster: &dyn Cluster, span: Span) -> Result<bool, Unsupported>;

    /// Describes the fault, without its duration: `cut between writer1 and worker2`.
    fn describe(&self) -> String;
}

/// The time that a fault has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// The time at which the fault is over: after its duration, or when the storm ends.
    pub until: Instant,
    /// The time at which the storm ends.
    pub storm_end: Instant,
}

/// A time at which a host is down, if no process takes longer than planned to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) struct Outage<'a> {
    /// The host.
    pub host: &'a str,
    /// The time at which it goes down, in milliseconds since the fault began.
    pub from_ms: u64,
    /// The time at which it comes back, in milliseconds since the fault began.
    pub until_ms: u64,
}
