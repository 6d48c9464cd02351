//! Graceful stops: the lines that a process has to write before it ends.
//!
//! A line counts when the kernel has it. The process cannot ensure that it arrives; if it does not, the syncs expire.
//!
//! No false alarm: nothing is due on a connection that the process knows to be over. A stop that takes as long as the grace
//! was cut short, because a peer did not read the last lines or because the machine was stalled.

use std::collections::{BTreeMap, BTreeSet};

use super::connections::Connections;
use super::violation::Violation;
use crate::observation::{Observation, SimTime};
use squall_protocol::InstanceName;

/// Time that a stopping process waits for its last lines to be written.
const STOP_GRACE_MS: u64 = 5_000;

/// Silence of the broker after which a connection to it is given up, without a line on that connection.
const SILENCE_MS: u64 = 25_000 - 1;

/// The lines that stopping processes have yet to write.
#[derive(Default)]
pub(super) struct Stops {
    due: BTreeMap<u64, Due>,
    /// The time of the broker's last answer on each connection.
    answered: BTreeMap<u64, SimTime>,
}

/// The ids to clear on one connection.
struct Due {
    instance: InstanceName,
    asked_at: SimTime,
    ids: BTreeSet<String>,
}

impl Due {
    fn violation(self, at: SimTime) -> Result<(), Violation> {
        match self.ids.into_iter().next() {
            Some(instance_id) if at.ms_since(self.asked_at) < STOP_GRACE_MS => {
                Err(Violation::NotCleared { instance: self.instance, instance_id })
            }
            _ => Ok(()),
        }
    }
}

impl Stops {
    /// Returns true if a stopping process has lines to write.
    pub(super) fn is_anything_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Takes one observation into account. `connections` are as they were before it.
    pub(super) fn observe(
        &mut self,
        at: SimTime,
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
