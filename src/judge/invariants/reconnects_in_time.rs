//! Reconnects come in time.
//!
//! Whatever ended a connection, an instance tries again, and again, no later than the longest delay of its back-off. One
//! that gives up after a failure in the middle of a handshake is deaf or dumb until somebody restarts it (Synapse #9391).
//! And a delay that has grown is forgotten once a connection is well: in Synapse that of the connection on which an
//! instance publishes grows with every loss and is never reset, so that after a few losses, days apart, an instance is
//! silent for minutes. So
//!
//! - after any attempt that has ended the next one comes within the longest delay;
//! - after a connection on which an instance has published, and was answered for [`WELL_AFTER_MS`], it comes within the
//!   first delay.
//!
//! No false alarm: nothing is due from a process that was asked to stop, that has ended or that stands still, and what was
//! due from one that stood still is due anew; jitter is taken at its highest, and [`SLACK_MS`] is more than polls that are
//! put off can add up to.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::judge::observation::{Moment, Observation};
use crate::judge::set_up::Pair;
use crate::judge::topology::PUBLICATIONS;
use crate::judge::violation::Violation;
use crate::judge::wire_violation::WireViolation;
use crate::protocol::InstanceName;

/// The first delay of the back-off, with all of its jitter.
const FIRST_MS: u64 = 112;
/// The longest delay of the back-off, with all of its jitter.
const LONGEST_MS: u64 = 5_600;
/// How much later a process may do what it has decided to do.
const SLACK_MS: u64 = 1_500;
/// For how long a connection on which an instance publishes was answered when it is well for certain: it counts as set up
/// with the first answer that comes five seconds after it was made.
const WELL_AFTER_MS: u64 = 6_000;

/// Judges when instances try again.
#[derive(Debug, Default)]
pub struct ReconnectsInTime {
    attempts: BTreeMap<u64, Attempt>,
    due: BTreeMap<Pair, Due>,
    /// Whoever was asked to stop.
    stopping: BTreeSet<InstanceName>,
    /// When the first of those is due, or earlier.
    earliest: Option<Moment>,
    judged: u64,
}

#[derive(Debug)]
struct Attempt {
    pair: Pair,
    /// When the broker answered first, and last.
    answered: Option<(Moment, Moment)>,
}

/// The next attempt.
#[derive(Debug)]
struct Due {
    since: Moment,
    most_ms: u64,
}

impl Due {
    fn until(&self) -> Moment {
        Moment(self.since.0 + self.most_ms + SLACK_MS)
    }
}

impl ReconnectsInTime {
    fn forget(&mut self, instance: &InstanceName) {
        self.due.retain(|(from, _), _| from != instance);
    }

    /// What should have come before `at`.
    fn overdue(&mut self, at: Moment) -> Option<(Pair, Due)> {
        if self.earliest.is_none_or(|earliest| at <= earliest) {
            return None;
        }
        let pair = self.due.iter().find(|(_, due)| due.until() < at).map(|(pair, _)| pair.clone());
        let overdue = pair.and_then(|pair| self.due.remove_entry(&pair));
        self.earliest = self.due.values().map(Due::until).min();
        overdue
    }
}

impl Invariant for ReconnectsInTime {
    fn name(&self) -> &'static str {
        "reconnects_in_time"
    }

    fn observe(&mut self, at: Moment, observation: &Observation) -> Result<(), Violation> {
        match observation {
            Observation::AskedToStop { instance, .. } => {
                self.forget(instance);
                self.stopping.insert(instance.clone());
            }
            Observation::Frozen { instance } => self.forget(instance),
            Observation::Stopped { instance, .. } => {
                self.forget(instance);
                self.stopping.remove(instance);
                self.attempts.retain(|_, attempt| attempt.pair.0 != *instance);
            }
            _ => {}
        }
        let overdue = self.overdue(at);
        match observation {
            Observation::Connecting { instance, target, attempt } => {
                let pair = (instance.clone(), target.clone());
                self.judged += u64::from(self.due.remove(&pair).is_some());
                self.attempts.insert(*attempt, Attempt { pair, answered: None });
            }
            Observation::Greeted { attempt, .. } => {
                if let Some(attempt) = self.attempts.get_mut(attempt) {
                    attempt.answered.get_or_insert((at, at)).1 = at;
                }
            }
            Observation::Failed { attempt, .. } | Observation::Closed { attempt, .. } => {
                if let Some(Attempt { pair, answered }) = self.attempts.remove(attempt)
                    && !self.stopping.contains(&pair.0)
                {
                    let is_well = pair.1.as_str() == PUBLICATIONS
                        && answered.is_some_and(|(first, last)| last.ms_since(first) >= WELL_AFTER_MS);
                    let due = Due { since: at, most_ms: if is_well { FIRST_MS } else { LONGEST_MS } };
                    self.earliest = Some(self.earliest.map_or(due.until(), |earliest| earliest.min(due.until())));
                    self.due.insert(pair, due);
                }
            }
            _ => {}
        }
        let Some(((instance, target), due)) = overdue else { return Ok(()) };
        let (waited_ms, most_ms) = (at.ms_since(due.since), due.most_ms);
        Err(Violation::Wire(WireViolation::TooLate { instance, target, waited_ms, most_ms }))
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connecting(attempt: u64) -> Observation {
        Observation::Connecting { instance: "worker".into(), target: PUBLICATIONS.into(), attempt }
    }

    fn greeted(attempt: u64) -> Observation {
        Observation::Greeted { instance: "worker".into(), attempt }
    }

    fn closed(attempt: u64) -> Observation {
        Observation::Closed { instance: "worker".into(), attempt }
    }

    /// How many of these violate anything, and whether the invariant was exercised.
    fn late(story: &[(u64, Observation)]) -> (usize, bool) {
        let mut judge = ReconnectsInTime::default();
        let verdicts = story.iter().map(|(at, seen)| judge.observe(Moment(*at), seen));
        let late = verdicts.filter(Result::is_err).count();
        (late, judge.exercised() > 0)
    }

    #[test]
    fn the_next_attempt_comes_within_the_longest_delay() {
        let most = LONGEST_MS + SLACK_MS;
        assert_eq!(late(&[(0, connecting(1)), (10, closed(1)), (10 + most, connecting(2))]), (0, true));
        assert_eq!(late(&[(0, connecting(1)), (10, closed(1)), (11 + most, connecting(2))]), (1, false));
        let never = [(0, connecting(1)), (10, closed(1)), (11 + most, Observation::Calm), (90_000, Observation::Calm)];
        assert_eq!(late(&never).0, 1, "it is said once");
    }

    #[test]
    fn after_a_connection_that_was_well_it_comes_at_once() {
        let lived = |ms: u64, then_ms: u64| {
            let (last, lost) = (5 + ms, 10_000 + ms);
            let answers = [(0, connecting(1)), (5, greeted(1)), (last, greeted(1))];
            late(&[&answers[..], &[(lost, closed(1)), (lost + then_ms, connecting(2))]].concat()).0
        };
        assert_eq!(lived(WELL_AFTER_MS, FIRST_MS + SLACK_MS), 0);
        assert_eq!(lived(WELL_AFTER_MS, FIRST_MS + SLACK_MS + 1), 1);
        assert_eq!(lived(WELL_AFTER_MS - 1, FIRST_MS + SLACK_MS + 1), 0, "the delay may not be forgotten yet");
    }

    #[test]
    fn nothing_is_due_from_a_process_that_stops_or_stands_still() {
        for excuse in [
            Observation::AskedToStop { instance: "worker".into(), boot: 1 },
            Observation::Stopped { instance: "worker".into(), boot: 1 },
            Observation::Frozen { instance: "worker".into() },
        ] {
            let story = [(0, connecting(1)), (10, closed(1)), (20, excuse.clone()), (60_000, Observation::Calm)];
            assert_eq!(late(&story).0, 0, "{excuse:?}");
        }
        let asked = Observation::AskedToStop { instance: "worker".into(), boot: 1 };
        let story = [(0, connecting(1)), (10, asked), (20, closed(1)), (60_000, Observation::Calm)];
        assert_eq!(late(&story).0, 0, "it closes what it had");
    }
}
