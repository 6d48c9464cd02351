//! The seam between a fault and the run that it disturbs.

use std::rc::Rc;

use crate::sim::broker::LostConnections;
use crate::sim::cancellations::Cancellations;
use crate::sim::database::faults::{DatabaseFaultGuard, DatabaseFaults};
use crate::sim::odd_framing::OddFraming;
use crate::sim::strange_lines::StrangeLines;
use crate::store::Source;
use squall_env::LocalBoxFuture;
use squall_judge::Observation;
use squall_netsim::Engine;
use squall_protocol::InstanceName;

/// The running cluster, with the handles by which a fault disturbs it.
pub(in crate::sim) trait Cluster {
    /// Returns the engine, for faults of the network and of machines.
    fn engine(&self) -> &dyn Engine;

    /// Reports an observation to the judge.
    fn observe(&self, observation: &Observation);

    /// Returns the names of all instances.
    fn instances(&self) -> &[InstanceName];

    /// Returns the faults of the database as the instance `name` sees it.
    fn database_faults(&self, name: &InstanceName) -> &Rc<DatabaseFaults>;

    /// Makes every read of `source` fail on the instance `name`, for the rest of the run.
    fn break_stream(&self, name: &InstanceName, source: &Source) -> Rc<DatabaseFaultGuard>;

    /// Returns the cancellations of requests to the instance `name`.
    fn cancellations(&self, name: &InstanceName) -> &Cancellations;

    /// Returns the version skew of the peers of the instance `name`.
    fn version_skew(&self, name: &InstanceName) -> &StrangeLines;

    /// Returns the odd framing of what the instance `name` reads.
    fn odd_framing(&self, name: &InstanceName) -> &OddFraming;

    /// Returns the forged positions among what the instance `name` reads.
    fn forged_positions(&self, name: &InstanceName) -> &StrangeLines;

    /// Moves the wall clock of the host `name` forwards by so many milliseconds, or backwards.
    fn step_clock(&self, name: &InstanceName, by_ms: i64);

    /// Moves the broker's name to another server, and breaks the connections `lost` to the old one, which lives on. Returns
    /// false if there were none.
    fn fail_over_broker(&self, lost: LostConnections) -> bool;

    /// Claims a host for a fault that keeps it down. Returns false if another fault keeps it down already.
    fn claim_down(&self, name: &InstanceName) -> bool;

    /// Ends the claim on a host that a fault kept down, and starts its process.
    fn release_down(&self, name: &InstanceName);

    /// Cuts the power of a host. Returns false if it was down already.
    fn power_cut(&self, name: &InstanceName) -> bool;

    /// Asks the process on a host to stop, and ends it when it has stopped or when its grace is over. Returns false if no
    /// process is running there.
    fn stop<'a>(&'a self, name: &'a InstanceName) -> LocalBoxFuture<'a, bool>;
}
