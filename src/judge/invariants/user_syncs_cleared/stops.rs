//! Graceful stops: what has to be said before the process ends.
//!
//! What counts is what its kernel took. Whether it arrives is not the process's to decide; if it does not, the expiry
//! makes it good.
//!
//! No false alarm: a connection that the process knows to be over owes nothing, and a stop that takes as long as the
//! grace was cut short because somebody did not take the goodbye, or because the machine was held up.

use std::collections::{BTreeMap, BTreeSet};

use super::connections::Connections;
use crate::judge::observation::{Moment, Observation};
use crate::judge::violation::Violation;
use crate::protocol::InstanceName;

/// How long a stopping process waits for its goodbyes to be taken.
const STOP_GRACE_MS: u64 = 5_000;

/// After how long a silence of the broker a connection to it is given up. Nothing is said of that: there is nobody who
/// would hear it.
const SILENCE_MS: u64 = 25_000 - 1;

/// What stopping processes have yet to say.
#[derive(Default)]
pub(super) struct Stops {
    due: BTreeMap<u64, Due>,
    /// When the broker last answered on each connection.
    answered: BTreeMap<u64, Moment>,
}

/// What has to be said on one connection.
struct Due {
    instance: InstanceName,
    asked_at: Moment,
    ids: BTreeSet<String>,
}

impl Due {
    fn violation(self, at: Moment) -> Result<(), Violation> {
        match self.ids.into_iter().next() {
            Some(instance_id) if at.ms_since(self.asked_at) < STOP_GRACE_MS => {
                Err(Violation::NotCleared { instance: self.instance, instance_id })
            }
            _ => Ok(()),
        }
    }
}

impl Stops {
    /// Whether anybody has anything to say yet.
    pub fn is_anything_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// `connections` are as they were before this observation.
    pub fn observe(
        &mut self,
        at: Moment,
        observation: &Observation,
        connections: &Connections,
    ) -> Result<(), Violation> {
        match observation {
            Observation::AskedToStop { instance, .. } => {
                for (attempt, connection) in connections.all().filter(|(_, open)| open.instance == *instance) {
                    let ids: BTreeSet<String> = connection.ids().cloned().collect();
                    if !ids.is_empty() {
                        self.due.insert(attempt, Due { instance: instance.clone(), asked_at: at, ids });
                    }
                }
            }
            Observation::SyncsCleared { attempt, instance_id, .. } => {
                if let Some(due) = self.due.get_mut(attempt) {
                    due.ids.remove(instance_id);
                }
            }
            Observation::GivenUp { attempt, .. } => drop(self.due.remove(attempt)),
            Observation::Greeted { attempt, .. } => drop(self.answered.insert(*attempt, at)),
            Observation::Closed { attempt, .. } => {
                let due = self.due.remove(attempt);
                let answered = self.answered.remove(attempt);
                let is_given_up = answered.is_some_and(|answered| at.ms_since(answered) >= SILENCE_MS);
                return due.filter(|_| !is_given_up).map_or(Ok(()), |due| due.violation(at));
            }
            Observation::Started { instance, .. } | Observation::Stopped { instance, .. } => {
                let left = self.due.extract_if(.., |_, due| due.instance == *instance);
                let violations = left.map(|(_, due)| due.violation(at)).collect::<Vec<_>>();
                return violations.into_iter().collect();
            }
            _ => {}
        }
        Ok(())
    }
}
