//! The driver's timed work.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Time;

use super::segment::Flow;

/// Timed work of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    /// Look at the head of this flow.
    Arrive(Flow),
    /// The socket so named was closed a while ago: clean up after it.
    Reap(Flow),
    /// Look for connections whose other end is gone.
    Keepalive,
}

/// Tasks in the order of their time, and of their coming in where times are equal.
#[derive(Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<(Time, u64, Task)>>,
    serial: u64,
}

impl Agenda {
    /// Adds a task.
    pub(crate) fn push(&mut self, at: Time, task: Task) {
        self.serial += 1;
        self.heap.push(Reverse((at, self.serial, task)));
    }

    /// Takes the next task that is due.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<(Time, Task)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((at, _, task))| (at, task))
    }

    /// The time at which the next task is due.
    pub(crate) fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }
}
