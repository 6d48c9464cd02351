//! The driver's timed work.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::task::{Context, Waker};

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

/// Tasks in the order of their time, and of their coming in where times are equal; and the driver that does them.
#[derive(Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<(Time, u64, Task)>>,
    serial: u64,
    driver: Option<Waker>,
    /// The time at which the driver next looks. `None` while it looks, or is about to.
    alarm: Option<Time>,
}

impl Agenda {
    /// Adds a task. The driver wakes in time for it.
    pub(crate) fn push(&mut self, at: Time, task: Task) {
        self.serial += 1;
        self.heap.push(Reverse((at, self.serial, task)));
        if self.alarm.is_some_and(|alarm| at < alarm) {
            self.wake();
        }
    }

    /// Has the driver look now.
    pub(crate) fn wake(&mut self) {
        if self.alarm.take().is_some() {
            self.driver.iter().for_each(Waker::wake_by_ref);
        }
    }

    /// The driver looks: it has no need to be woken until it has set its alarm.
    pub(crate) fn looks(&mut self, cx: &Context<'_>) {
        self.alarm = None;
        if !self.driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
            self.driver = Some(cx.waker().clone());
        }
    }

    /// The driver has looked. Returns the time at which it looks again.
    pub(crate) fn set_alarm(&mut self) -> Option<Time> {
        self.alarm = self.next();
        self.alarm
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
