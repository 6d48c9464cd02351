//! Reconnects come in time.
//!
//! Whatever ended a connection, an instance tries again, and again, no later than the longest delay of its back-off. One
//! that gives up after a failure in the middle of a handshake is deaf or dumb until somebody restarts it (Synapse #9391).
//! And a delay that has grown is forgotten once a connection is well: in Synapse that of the connection on which an
//! instance publishes grows with every loss and is never reset, so that after a few losses, days apart, an instance is
//! silent for minutes. Nor does it try again that has not noticed: one whose connection is dead at the other end, and that
//! does not ping, goes on believing in it (Synapse #9218). So
//!
//! - a connection whose other end is gone is given up within [`NOTICED_WITHIN_MS`];
//! - after any attempt that has ended the next one comes within the longest delay;
//! - after a connection on which an instance has published, and was answered for [`WELL_AFTER_MS`], it comes within the
//!   first delay.
//!
//! No false alarm: nothing is due from a process that was asked to stop, that has ended or that stands still, and what was
//! due from one that stood still is due anew; what the end that accepted gives up is not seen; jitter is taken at its
//! highest, and [`SLACK_MS`] is more than polls that are put off can add up to. A silence begins with the last that was
//! read: what had been sent before the other end was gone may come after it is.

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
/// How long a silence lasts at most that nobody notices: a ping every five seconds, or a look at what has come, and 25 s.
const NOTICED_WITHIN_MS: u64 = 30_000;
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
    /// The connections that are dead at the other end, and whose they are.
    dead: BTreeMap<u64, (InstanceName, Moment)>,
    /// Whoever was asked to stop.
    stopping: BTreeSet<InstanceName>,
    /// Whoever stands still.
    frozen: BTreeSet<InstanceName>,
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
        self.dead.retain(|_, (of, _)| of != instance);
    }

    /// A connection that is dead at the other end at `at`. None if nobody can be asked to notice.
    fn died(&mut self, at: Moment, instance: &InstanceName, attempt: u64) {
        let Some(Attempt { pair: (of, _), .. }) = self.attempts.get(&attempt) else { return };
        if of == instance && !self.stopping.contains(of) && !self.frozen.contains(of) {
            self.dead.insert(attempt, (instance.clone(), at));
            self.look_at(noticed_until(at));
        }
    }

    fn look_at(&mut self, until: Moment) {
        self.earliest = Some(self.earliest.map_or(until, |earliest| earliest.min(until)));
    }

    /// What should have happened before `at`.
    fn overdue(&mut self, at: Moment) -> Option<WireViolation> {
        if self.earliest.is_none_or(|earliest| at <= earliest) {
            return None;
        }
        let overdue = self.untried(at).or_else(|| self.unnoticed(at));
        let noticed = self.dead.values().map(|(_, since)| noticed_until(*since));
        self.earliest = self.due.values().map(Due::until).chain(noticed).min();
        overdue
    }

    fn untried(&mut self, at: Moment) -> Option<WireViolation> {
        let pair = self.due.iter().find(|(_, due)| due.until() < at)?.0.clone();
        let ((instance, target), Due { since, most_ms }) = self.due.remove_entry(&pair)?;
        Some(WireViolation::TooLate { instance, target, waited_ms: at.ms_since(since), most_ms })
    }

    fn unnoticed(&mut self, at: Moment) -> Option<WireViolation> {
        let attempt = *self.dead.iter().find(|(_, (_, since))| noticed_until(*since) < at)?.0;
        let (_, since) = self.dead.remove(&attempt)?;
        let (instance, target) = self.attempts.get(&attempt)?.pair.clone();
        Some(WireViolation::Unnoticed { instance, target, silent_ms: at.ms_since(since), most_ms: NOTICED_WITHIN_MS })
    }
}

/// Until when a connection has to be given up that is dead since then.
fn noticed_until(since: Moment) -> Moment {
    Moment(since.0 + NOTICED_WITHIN_MS + SLACK_MS)
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
            Observation::Frozen { instance } => {
                self.forget(instance);
                self.frozen.insert(instance.clone());
            }
            Observation::Thawed { instance } => drop(self.frozen.remove(instance)),
            Observation::Stopped { instance, .. } => {
                self.forget(instance);
                self.stopping.remove(instance);
                self.frozen.remove(instance);
                self.attempts.retain(|_, attempt| attempt.pair.0 != *instance);
            }
            _ => {}
        }
        if let Observation::Announced { attempt, .. }
        | Observation::Greeted { attempt, .. }
        | Observation::Ponged { attempt, .. } = observation
        {
            self.dead.entry(*attempt).and_modify(|(_, since)| *since = at);
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
            Observation::HalfOpened { survivor, attempt } => self.died(at, survivor, *attempt),
            Observation::GivenUp { attempt, .. } => drop(self.dead.remove(attempt)),
            Observation::Failed { attempt, .. } | Observation::Closed { attempt, .. } => {
                self.dead.remove(attempt);
                if let Some(Attempt { pair, answered }) = self.attempts.remove(attempt)
                    && !self.stopping.contains(&pair.0)
                {
                    let is_well = pair.1.as_str() == PUBLICATIONS
                        && answered.is_some_and(|(first, last)| last.ms_since(first) >= WELL_AFTER_MS);
                    let due = Due { since: at, most_ms: if is_well { FIRST_MS } else { LONGEST_MS } };
                    self.look_at(due.until());
                    self.due.insert(pair, due);
                }
            }
            _ => {}
        }
        overdue.map_or(Ok(()), |overdue| Err(Violation::Wire(overdue)))
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

    fn half_opened(attempt: u64) -> Observation {
        Observation::HalfOpened { survivor: "worker".into(), attempt }
    }

    #[test]
    fn a_connection_that_is_dead_at_the_other_end_is_given_up_in_time() {
        let most = 5 + NOTICED_WITHIN_MS + SLACK_MS;
        let dead = [(0, connecting(1)), (5, half_opened(1))];
        let told = |story: &[(u64, Observation)]| late(&[&dead, story].concat()).0;
        assert_eq!(told(&[(most, closed(1))]), 0);
        assert_eq!(told(&[(most + 1, closed(1))]), 1);
        assert_eq!(told(&[(most + 1, Observation::Calm), (90_000, Observation::Calm)]), 1, "it is said once");
        let given_up = Observation::GivenUp { instance: "worker".into(), attempt: 1 };
        assert_eq!(told(&[(20_000, given_up), (most + 1, Observation::Calm)]), 0);
        assert_eq!(told(&[(20, Observation::Frozen { instance: "worker".into() }), (most + 1, closed(1))]), 0);
        let frozen = [(3, Observation::Frozen { instance: "worker".into() }), (5, half_opened(1)), (90_000, closed(1))];
        assert_eq!(late(&[&dead[..1], &frozen].concat()).0, 0, "it stands still already");
        let late_answer = [(9_000, greeted(1)), (9_000 - 5 + most, closed(1))];
        assert_eq!(told(&late_answer), 0, "that had been on its way");
        let other = Observation::HalfOpened { survivor: "writer".into(), attempt: 1 };
        assert_eq!(late(&[(0, connecting(1)), (5, other), (90_000, closed(1))]).0, 0, "the other end is not seen");
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
