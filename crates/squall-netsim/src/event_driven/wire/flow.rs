//! The packets under way along one flow, first in first out.
//!
//! A flow is strictly in order, acknowledgements included, and a lost packet is a late one: it backs off at the head while
//! everything behind it waits. So a socket never repairs anything: it needs no timers and keeps nothing to send again.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Time;

use super::segment::{Kind, Segment};

/// The longest time between two tries of one packet. Linux goes to two minutes, but gives up after fifteen; both are
/// scaled down alike. It also bounds how long after a partition's end its connections stand still.
pub const RETRY_MAX: Duration = Duration::from_secs(2);

/// A packet under way.
struct InFlight {
    at: Time,
    sent: Time,
    segment: Segment,
}

/// The packets under way along one flow.
#[derive(Default)]
pub(crate) struct Fifo {
    queue: VecDeque<InFlight>,
    /// The time at which the agenda next looks at this flow; entries of other times are stale.
    pub due: Option<Time>,
    /// The last acknowledgement number its sender announced, for a window update to repeat.
    pub acknowledged: u64,
    /// The last receive window its sender announced, in bytes.
    pub window: usize,
    tries: u32,
    stuck_since: Option<Time>,
}

impl Fifo {
    /// Queues a packet that would arrive at `at`, were there none before it.
    pub(crate) fn push(&mut self, segment: Segment, sent: Time, at: Time) {
        let at = self.queue.back().map_or(at, |last| at.max(last.at));
        self.queue.push_back(InFlight { at, sent, segment });
    }

    /// Brings forward what would arrive later than `at`.
    pub(crate) fn hasten(&mut self, at: Time) {
        self.queue.iter_mut().for_each(|one| one.at = one.at.min(at));
    }

    /// Puts a packet that was swallowed back to the head.
    pub(crate) fn push_front(&mut self, segment: Segment, now: Time) {
        self.queue.push_front(InFlight { at: now, sent: now, segment });
    }

    /// Returns true if the last packet is a bare acknowledgement that was queued at this very instant.
    pub(crate) fn ends_with_ack_of(&self, now: Time) -> bool {
        self.queue.back().is_some_and(|last| last.sent == now && last.segment.kind == Kind::Ack)
    }

    /// Replaces such an acknowledgement. They are cumulative, so the newer one, or the data that carries it, says all the
    /// older one did. Saves a quarter of the arrivals of request and reply.
    pub(crate) fn replace_last(&mut self, segment: Segment) {
        self.queue.back_mut().expect("there is an acknowledgement").segment = segment;
    }

    /// The arrival of the first packet that is not a bare acknowledgement. It comes no sooner than the head, which may have
    /// backed off.
    pub(crate) fn first_but_acks(&self) -> Option<Time> {
        let first = self.queue.iter().find(|one| one.segment.kind != Kind::Ack)?;
        self.queue.front().map(|head| head.at.max(first.at))
    }

    /// The kind of the packet at the head, and its arrival.
    pub(crate) fn head(&self) -> Option<(Time, Kind)> {
        self.queue.front().map(|head| (head.at, head.segment.kind))
    }

    /// Takes the packet at the head, which got through.
    pub(crate) fn pop(&mut self) -> Option<Segment> {
        let segment = self.queue.pop_front()?.segment;
        self.stuck_since = None;
        if segment.kind != Kind::Syn {
            // A SYN that arrives may still be swallowed by a full backlog, and then backs off further.
            self.tries = 0;
        }
        Some(segment)
    }

    /// Records that the head did not get through at `now`. Returns true the first time.
    pub(crate) fn stick(&mut self, now: Time) -> bool {
        let first = self.stuck_since.is_none();
        self.stuck_since.get_or_insert(now);
        first
    }

    /// Lets the head wait, exponentially longer each time, starting from `first`.
    pub(crate) fn back_off(&mut self, first: Duration, now: Time) {
        let wait = first.saturating_mul(1 << self.tries.min(8)).min(RETRY_MAX);
        self.tries += 1;
        if let Some(head) = self.queue.front_mut() {
            head.at = now + wait;
        }
    }

    /// The time since which nothing has got through.
    pub(crate) fn stuck_since(&self) -> Option<Time> {
        self.stuck_since
    }

    /// The time since which the sender has waited for an answer in vain. A bare acknowledgement, which wants no answer, does
    /// not count.
    pub(crate) fn unanswered_since(&self) -> Option<Time> {
        let first = self.queue.iter().find(|one| one.segment.kind != Kind::Ack)?;
        self.stuck_since.map(|since| since.max(first.sent))
    }

    /// The number of packets under way.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Returns true if nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
