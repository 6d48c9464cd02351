//! The judge: the properties replication must have, checked over a stream of observations.
//!
//! It knows nothing of where the observations come from (a simulation, real processes, a recording) and takes nobody's
//! word for what was done: what was committed comes from the database, what was announced from the network, what was
//! applied from consumers registered on each instance.

pub mod audit;
pub mod client_violation;
pub mod invariants;
#[expect(clippy::module_inception, reason = "the file is named after the one thing in it")]
mod judge;
mod marks;
pub mod observation;
mod pending;
mod present;
mod reads;
mod set_up;
pub mod topology;
mod trace;
pub mod violation;
pub mod wire_violation;

pub use client_violation::ClientViolation;
pub use judge::{Judge, VIOLATIONS_MAX};
pub use observation::{Answer, Client, Device, Line, Moment, Observation, Side};
pub use pending::{Lack, Pending};
pub use topology::{Feed, PUBLICATIONS, SUBSCRIPTION, Topology};
pub use violation::{Differs, Violation};
pub use wire_violation::WireViolation;
