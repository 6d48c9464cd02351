//! The contract between the judge and an invariant.

use std::error::Error;

use serde::Serialize;

use super::observation::{Observation, SimTime};
use super::pending::Pending;
use super::topology::Topology;

/// A property that must hold at every step of a run.
///
/// An invariant is a pure function of observations. It has no clock, and it knows only what it has observed.
pub trait Invariant: Sized {
    /// The evidence that the property does not hold: data, with its text by `thiserror`, serialised with a `kind`.
    type Violation: Error + Serialize;

    /// False if the stream of a violation differs from seed to seed and is no part of its fingerprint.
    const FINGERPRINT_NAMES_STREAM: bool = true;

    /// Returns the invariant for a deployment, before the first observation.
    fn new(topology: &Topology) -> Self;

    /// Takes one observation into account.
    ///
    /// # Errors
    /// The violation that the observation reveals. The invariant continues from there, and reports each violation once.
    fn observe(&mut self, at: SimTime, observation: &Observation) -> Result<(), Self::Violation>;

    /// Returns what has yet to happen. After the storm nothing may be pending for longer than the calm bound.
    fn pending(&self) -> Vec<Pending> {
        Vec::new()
    }

    /// Returns the number of times that the property could have been violated. At zero the run proves nothing about it.
    fn exercised(&self) -> u64;
}
