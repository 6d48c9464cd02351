//! Queues are bounded.
//!
//! However slowly a follower processes its rows, the rows that wait for it take a bounded amount of memory: they wait as
//! rows in a queue with a limit, not as tasks. One background task for each queued command (Synapse #7861) made a slow
//! follower slower still, and ended in a process out of memory.
//!
//! No false alarm: a kind of which there is a task for each request of a user is not judged, because users decide how many
//! requests there are. Of the other kinds an instance has one task for each stream, writer and connection, and a few for
//! each catch-up. `TASKS_MAX` is several times what any deployment of the storm needs.

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::observation::{Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::Topology;
use squall_protocol::InstanceName;

/// The most tasks of one kind that an instance may have at once.
pub const TASKS_MAX: u64 = 100;

/// Work that queues without a bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// An instance had more tasks of one kind at once than its work can need.
    #[error("{instance} had {running} tasks called {task} at once, where at most {TASKS_MAX} are needed")]
    TooManyTasks { instance: InstanceName, task: &'static str, running: u64 },
}

/// Checks the number of tasks that each instance has.
#[derive(Debug, Default)]
pub struct QueuesBounded {
    judged: u64,
}

impl Invariant for QueuesBounded {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[Kind::Tasks];

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation, _scene: &Scene) -> Result<(), Violation> {
        let Observation::Tasks { instance, task, running } = observation else { return Ok(()) };
        if task.per_request {
            return Ok(());
        }
        self.judged += 1;
        if *running > TASKS_MAX {
            return Err(Violation::TooManyTasks { instance: instance.clone(), task: task.label, running: *running });
        }
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::Alone;
    use crate::observation::Task;

    /// Returns the verdict on `running` tasks of one kind, and the number of times that the invariant was exercised.
    fn judge(per_request: bool, running: u64) -> (Result<(), Violation>, u64) {
        let task = Task { label: "made_up", per_request };
        let mut judge = Alone::<QueuesBounded>::default();
        let verdict = judge.observe(SimTime(0), &Observation::Tasks { instance: "worker".into(), task, running });
        (verdict, judge.exercised())
    }

    #[test]
    fn a_task_for_each_row_that_waits_is_too_many() {
        assert_eq!(judge(false, TASKS_MAX), (Ok(()), 1));
        let (verdict, _) = judge(false, TASKS_MAX + 1);
        let Err(Violation::TooManyTasks { task, running, .. }) = verdict else { panic!("{verdict:?}") };
        assert_eq!((task, running), ("made_up", TASKS_MAX + 1));
    }

    #[test]
    fn requests_are_as_many_as_users_want() {
        assert_eq!(judge(true, 10_000), (Ok(()), 0), "nothing is judged");
    }
}
