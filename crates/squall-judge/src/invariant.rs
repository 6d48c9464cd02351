//! The contract between the judge and an invariant.

use std::error::Error;
use std::iter;

use serde::Serialize;

use super::observation::{Kind, Observation, SimTime};
use super::pending::Pending;
use super::scene::Scene;
use super::topology::Topology;

/// A property that must hold at every step of a run.
///
/// An invariant is a pure function of observations. It has no clock, and it knows only what it has observed.
pub trait Invariant: Sized {
    /// The evidence that the property does not hold: data, with its text by `thiserror`, serialised with a `kind`.
    type Violation: Error + Serialize;

    /// The kinds of observation that it is given. One that goes by the time needs all of them.
    const OBSERVES: &'static [Kind];

    /// False if the stream of a violation differs from seed to seed and is no part of its fingerprint.
    const FINGERPRINT_NAMES_STREAM: bool = true;

    /// Returns the invariant for a deployment, before the first observation.
    fn new(topology: &Topology) -> Self;

    /// Takes one observation into account. `scene` has what all invariants share.
    ///
    /// # Errors
    /// The violation that the observation reveals. The invariant continues from there, and reports each violation once.
    fn observe(&mut self, at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Self::Violation>;

    /// Returns what has yet to happen. After the storm nothing may be pending for longer than the calm bound.
    fn pending<'a>(&'a self, _scene: &'a Scene) -> Box<dyn Iterator<Item = Pending> + 'a> {
        Box::new(iter::empty())
    }

    /// Returns true if something is pending.
    fn is_pending(&self, scene: &Scene) -> bool {
        self.pending(scene).next().is_some()
    }

    /// Returns the number of times that the property could have been violated. At zero the run proves nothing about it.
    fn exercised(&self) -> u64;
}

/// One invariant that is run as the judge runs it, for its tests.
#[cfg(test)]
pub(crate) struct Alone<I> {
    scene: Scene,
    pub(crate) invariant: I,
}

#[cfg(test)]
impl<I: Invariant> Default for Alone<I> {
    fn default() -> Self {
        Alone::new(&Topology::default())
    }
}

#[cfg(test)]
impl<I: Invariant> Alone<I> {
    /// Returns the invariant for a deployment.
    pub(crate) fn new(topology: &Topology) -> Self {
        Alone { scene: Scene::new(topology), invariant: I::new(topology) }
    }

    /// See [`Invariant::observe`].
    pub(crate) fn observe(&mut self, at: SimTime, observation: &Observation) -> Result<(), I::Violation> {
        self.scene.begin(at, observation);
        let is_given = I::OBSERVES.contains(&Kind::from(observation));
        let verdict = if is_given { self.invariant.observe(at, observation, &self.scene) } else { Ok(()) };
        self.scene.end(at, observation);
        verdict
    }

    /// See [`Invariant::pending`].
    pub(crate) fn pending(&self) -> Vec<Pending> {
        self.invariant.pending(&self.scene).collect()
    }

    /// See [`Invariant::exercised`].
    pub(crate) fn exercised(&self) -> u64 {
        self.invariant.exercised()
    }
}
