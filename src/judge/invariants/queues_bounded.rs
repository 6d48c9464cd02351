//! Queues are bounded.
//!
//! However slowly a follower gets on with its rows, what waits for it takes a bounded amount of memory: rows queue as
//! rows, in a queue with a limit, and not as tasks. One background task for each queued command (Synapse #7861) made
//! whoever was behind slower still, and ended in a process out of memory.
//!
//! No false alarm: tasks that a request brings with it are as many as there are requests, which users decide; only the
//! tasks of replication itself are judged. Of those an instance has one for each stream, writer and connection, and a
//! few for each catch-up: [`TASKS_MAX`] is several times of what any deployment of the storm needs.

use super::Invariant;
use crate::judge::observation::{Moment, Observation};
use crate::judge::violation::Violation;

/// How many tasks of one name an instance may have at once.
pub const TASKS_MAX: u64 = 100;

/// The names of tasks that requests bring with them: they are as many as users want.
const OF_REQUESTS: [&str; 6] =
    ["operation", "persist", "typing_timeout", "http_connection", "http_client_connection", "request"];

/// Judges how many tasks an instance has.
#[derive(Debug, Default)]
pub struct QueuesBounded {
    judged: u64,
}

impl Invariant for QueuesBounded {
    fn name(&self) -> &'static str {
        "queues_bounded"
    }

    fn observe(&mut self, _at: Moment, observation: &Observation) -> Result<(), Violation> {
        let Observation::Tasks { instance, task, running } = observation else { return Ok(()) };
        if OF_REQUESTS.contains(task) {
            return Ok(());
        }
        self.judged += 1;
        if *running > TASKS_MAX {
            return Err(Violation::TooManyTasks { instance: instance.clone(), task, running: *running });
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

    fn judge(task: &'static str, running: u64) -> Result<(), Violation> {
        QueuesBounded::default().observe(Moment(0), &Observation::Tasks { instance: "worker".into(), task, running })
    }

    #[test]
    fn a_task_for_each_row_that_waits_is_too_many() {
        assert_eq!(judge("on_rdata", TASKS_MAX), Ok(()));
        assert!(matches!(judge("on_rdata", TASKS_MAX + 1), Err(Violation::TooManyTasks { .. })));
    }

    #[test]
    fn requests_are_as_many_as_users_want() {
        assert_eq!(judge("operation", 10_000), Ok(()));
    }
}
