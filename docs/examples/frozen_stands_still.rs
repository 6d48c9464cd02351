//! A frozen process stands still.
//!
//! A process that is stopped by SIGSTOP runs no code, so it applies no rows until it continues. If it did, the fault
//! `freeze` would not be real, and every run that relies on it would prove nothing about ping time-outs.
//!
//! No false alarm: rows that were applied before the freeze are observed before it. A process that is killed while it is
//! frozen ends the freeze.

use std::collections::BTreeSet;

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::observation::{Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::Topology;
use squall_protocol::{InstanceName, StreamName, Token};

/// Work done by a frozen process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A frozen process applied rows.
    #[error("{instance} applied token {token} of {stream} while it was frozen")]
    AppliedRows { instance: InstanceName, stream: StreamName, token: Token },
}

/// Checks that no process applies rows between its freeze and its thaw.
#[derive(Debug, Default)]
pub struct FrozenStandsStill {
    frozen: BTreeSet<InstanceName>,
    freezes: u64,
}

impl Invariant for FrozenStandsStill {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[Kind::Stopped, Kind::Applied, Kind::Frozen, Kind::Thawed];

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation, _scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::Frozen { instance } => {
                self.frozen.insert(instance.clone());
                self.freezes += 1;
            }
            Observation::Thawed { instance } | Observation::Stopped { instance, .. } => {
                self.frozen.remove(instance);
            }
            Observation::Applied { instance, stream, token, .. } if self.frozen.contains(instance) => {
                let (instance, stream, token) = (instance.clone(), stream.clone(), *token);
                return Err(Violation::AppliedRows { instance, stream, token });
            }
            _ => {}
        }
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.freezes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::Alone;

    fn applied() -> Observation {
        let (stream, writer) = ("events".into(), "writer1".into());
        Observation::Applied { instance: "worker1".into(), stream, writer, token: Token(7), rows: Vec::new() }
    }

    fn observe(observations: &[Observation]) -> Result<(), Violation> {
        let mut invariant = Alone::<FrozenStandsStill>::default();
        observations.iter().try_for_each(|observation| invariant.observe(SimTime(0), observation))
    }

    #[test]
    fn a_frozen_process_applies_no_rows() {
        let frozen = Observation::Frozen { instance: "worker1".into() };
        let violation = observe(&[applied(), frozen, applied()]).unwrap_err();
        assert_eq!(violation.to_string(), "worker1 applied token 7 of events while it was frozen");
    }

    #[test]
    fn a_process_applies_rows_after_it_has_thawed_or_was_started_anew() {
        let frozen = || Observation::Frozen { instance: "worker1".into() };
        assert_eq!(observe(&[frozen(), Observation::Thawed { instance: "worker1".into() }, applied()]), Ok(()));
        let stopped = Observation::Stopped { instance: "worker1".into(), boot: 1 };
        assert_eq!(observe(&[frozen(), stopped, applied()]), Ok(()));
    }
}
