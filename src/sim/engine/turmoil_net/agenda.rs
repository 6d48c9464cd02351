//! What the driver has to do, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tokio::time::Instant;

use super::segment::Flow;

/// A thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// Look at the head of this flow.
    Arrive(Flow),
    /// The socket so named was closed a while ago: clean up after it.
    Reap(Flow),
    /// Look for connections whose other end is gone.
    Keepalive,
}

/// Tasks in the order of their time, and of their coming in where times are equal.
#[derive(Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<(Instant, u64, Task)>>,
    serial: u64,
}

impl Agenda {
    /// Adds a task.
    pub fn push(&mut self, at: Instant, task: Task) {
        self.serial += 1;
        self.heap.push(Reverse((at, self.serial, task)));
    }

    /// Takes the next task that is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, Task)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((at, _, task))| (at, task))
    }

    /// When the next task is due.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }
}
