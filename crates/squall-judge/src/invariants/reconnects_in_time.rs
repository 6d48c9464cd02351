//! Reconnects come in time.
//!
//! However a connection ended, the instance tries again, and again, no later than the longest delay of its back-off. An
//! instance that gives up after a failure in the middle of a handshake follows nothing until an operator restarts it
//! (Synapse #9391). A grown delay is reset once a connection works. In Synapse the delay of the connection on which an
//! instance publishes grows with every loss and is never reset, so after a few losses, days apart, the instance publishes
//! nothing for minutes. An instance that does not notice a loss does not reconnect either: without a ping, a connection
//! that is dead at the other end stays open (Synapse #9218). So
//!
//! - a connection whose other end is gone is given up within `NOTICED_WITHIN_MS`;
//! - after an attempt has ended, the next one comes within the longest delay;
//! - after a connection on which an instance has published, and was answered for `WELL_AFTER_MS`, it comes within the
//!   first delay;
//! - the broker's name is checked again within the interval of checks (seed 20083 of `redis_swarm`).
//!
//! No false alarm: nothing is due from a process that was asked to stop, has ended or is frozen; when a frozen process
//! continues, its delays start again. A connection that the accepting end gives up is not judged. Jitter is taken at its
//! highest, and `SLACK_MS` is more than delayed polls can add up to. A silence begins with the last line that was read,
//! because lines that were sent before the other end was gone may arrive after it, at a slow reader some seconds after it.
//! Such a line is a position, a greeting, a pong, or a row on the connection to its own writer (seed 3013 of `storm`), and
//! so is a line that the storm injects into what a process reads, also on a dead connection (seed 1002317 of `storm`). A
//! broker answers for itself alone: rows from it are no pong. What an instance publishes is answered only once all of it
//! was written: while the rest of a long row waits for a slow broker, the answer to the row before it is not the one that
//! the instance waits for (seed 129 of `redis_swarm`). A row that was fetched from the database begins the silence
//! anew as well. That can only delay a finding, because a dead connection brings no position that makes the instance fetch
//! more.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use strum::VariantArray;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::observation::{Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::{NAME_CHECK, PUBLICATIONS, Topology};
use squall_protocol::InstanceName;

/// An instance and the target that it connects to.
type Pair = (InstanceName, InstanceName);

/// First delay of the back-off, with the most jitter.
const FIRST_MS: u64 = 112;
/// Longest delay of the back-off, with the most jitter.
const LONGEST_MS: u64 = 5_600;
/// Interval of the checks of the broker's name, with the most jitter.
const NAME_CHECK_MS: u64 = 11_200;
/// Longest silence before a connection is given up: a ping or a check every 5 s, and then 25 s.
const NOTICED_WITHIN_MS: u64 = 30_000;
/// Time by which a process may be late with what it has decided to do.
const SLACK_MS: u64 = 1_500;
/// Time for which a connection was answered when it certainly works. It is set up with the first answer that comes five
/// seconds after it was made.
const WELL_AFTER_MS: u64 = 6_000;

/// A reconnect that is late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// The next connection attempt came later than the back-off allows, or has not come yet.
    #[error("{instance} did not reconnect to {target} within {most_ms} ms ({waited_ms} ms so far)")]
    TooLate { instance: InstanceName, target: InstanceName, waited_ms: u64, most_ms: u64 },
    /// A connection is dead at the other end, and has not been given up.
    #[error(
        "{instance} did not give up its connection to {target}, dead at the other end, within {most_ms} ms \
         ({silent_ms} ms so far)"
    )]
    Unnoticed { instance: InstanceName, target: InstanceName, silent_ms: u64, most_ms: u64 },
}

/// Checks the delay before every reconnect.
#[derive(Debug, Default)]
pub struct ReconnectsInTime {
    attempts: BTreeMap<u64, Attempt>,
    due: BTreeMap<Pair, Due>,
    /// The connections that are dead at the other end, with the instance that has to notice it.
    dead: BTreeMap<u64, (InstanceName, SimTime)>,
    /// The instances that were asked to stop.
    stopping: BTreeSet<InstanceName>,
    /// The instances that are frozen.
    frozen: BTreeSet<InstanceName>,
    /// A time before which none of these is due.
    earliest: Option<SimTime>,
    judged: u64,
}

#[derive(Debug)]
struct Attempt {
    pair: Pair,
    /// The times of the broker's first and last answer.
    answered: Option<(SimTime, SimTime)>,
}

/// The deadline of the next attempt.
#[derive(Debug)]
struct Due {
    since: SimTime,
    most_ms: u64,
}

impl Due {
    fn until(&self) -> SimTime {
        SimTime(self.since.0 + self.most_ms + SLACK_MS)
    }
}

impl ReconnectsInTime {
    fn forget(&mut self, instance: &InstanceName) {
        self.due.retain(|(from, _), _| from != instance);
        self.dead.retain(|_, (of, _)| of != instance);
    }

    /// Records a connection that is dead at the other end, unless its instance cannot be expected to notice.
    fn died(&mut self, at: SimTime, instance: &InstanceName, attempt: u64) {
        let Some(Attempt { pair: (of, _), .. }) = self.attempts.get(&attempt) else { return };
        if of == instance && !self.stopping.contains(of) && !self.frozen.contains(of) {
            self.dead.insert(attempt, (instance.clone(), at));
            self.look_again_at(noticed_until(at));
        }
    }

    /// Records that an instance has read a line of this target.
    fn heard(&mut self, at: SimTime, instance: &InstanceName, target: &InstanceName) {
        for (attempt, (of, since)) in &mut self.dead {
            let is_from_target = self.attempts.get(attempt).is_some_and(|attempt| attempt.pair.1 == *target);
            if of == instance && is_from_target {
                *since = at;
            }
        }
    }

    fn look_again_at(&mut self, until: SimTime) {
        self.earliest = Some(self.earliest.map_or(until, |earliest| earliest.min(until)));
    }

    /// Returns something that should have happened before `at`.
    fn overdue(&mut self, at: SimTime) -> Option<Violation> {
        if self.earliest.is_none_or(|earliest| at <= earliest) {
            return None;
        }
        let overdue = self.untried(at).or_else(|| self.unnoticed(at));
        let noticed = self.dead.values().map(|(_, since)| noticed_until(*since));
        self.earliest = self.due.values().map(Due::until).chain(noticed).min();
        overdue
    }

    fn untried(&mut self, at: SimTime) -> Option<Violation> {
        let pair = self.due.iter().find(|(_, due)| due.until() < at)?.0.clone();
        let ((instance, target), Due { since, most_ms }) = self.due.remove_entry(&pair)?;
        Some(Violation::TooLate { instance, target, waited_ms: at.ms_since(since), most_ms })
    }

    fn unnoticed(&mut self, at: SimTime) -> Option<Violation> {
        let attempt = *self.dead.iter().find(|(_, (_, since))| noticed_until(*since) < at)?.0;
        let (_, since) = self.dead.remove(&attempt)?;
        let (instance, target) = self.attempts.get(&attempt)?.pair.clone();
        Some(Violation::Unnoticed { instance, target, silent_ms: at.ms_since(since), most_ms: NOTICED_WITHIN_MS })
    }
}

/// Returns the time by which a connection has to be given up that is dead since `since`.
fn noticed_until(since: SimTime) -> SimTime {
    SimTime(since.0 + NOTICED_WITHIN_MS + SLACK_MS)
}

impl Invariant for ReconnectsInTime {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = Kind::VARIANTS;

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, at: SimTime, observation: &Observation, _scene: &Scene) -> Result<(), Violation> {
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
            Observation::Announced { attempt, .. }
            | Observation::Greeted { attempt, .. }
            | Observation::Ponged { attempt, .. } => {
                self.dead.entry(*attempt).and_modify(|(_, since)| *since = at);
            }
            Observation::Applied { instance, writer: target, .. }
            | Observation::UnknownRowRead { instance, target, .. }
            | Observation::ForgedPositionRead { instance, target, .. }
            | Observation::OddLineRead { instance, target, .. } => self.heard(at, instance, target),
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
            Observation::HalfOpened { survivor, attempt } => self.died(at, survivor, *attempt),
            Observation::GivenUp { attempt, .. } => drop(self.dead.remove(attempt)),
            Observation::Failed { attempt, .. } | Observation::Closed { attempt, .. } => {
                self.dead.remove(attempt);
                if let Some(Attempt { pair, answered }) = self.attempts.remove(attempt)
                    && !self.stopping.contains(&pair.0)
                {
                    let is_well = pair.1.as_str() == PUBLICATIONS
                        && answered.is_some_and(|(first, last)| last.ms_since(first) >= WELL_AFTER_MS);
                    let most_ms = match pair.1.as_str() {
                        NAME_CHECK => NAME_CHECK_MS,
                        _ if is_well => FIRST_MS,
                        _ => LONGEST_MS,
                    };
                    let due = Due { since: at, most_ms };
                    self.look_again_at(due.until());
                    self.due.insert(pair, due);
                }
            }
            _ => {}
        }
        overdue.map_or(Ok(()), Err)
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::Alone;

    fn connecting(attempt: u64) -> Observation {
        Observation::Connecting { instance: "worker".into(), target: PUBLICATIONS.into(), attempt }
    }

    fn greeted(attempt: u64) -> Observation {
        Observation::Greeted { instance: "worker".into(), attempt }
    }

    fn closed(attempt: u64) -> Observation {
        Observation::Closed { instance: "worker".into(), attempt }
    }

    /// The number of violations in a story; and true if the invariant was exercised.
    fn late(story: &[(u64, Observation)]) -> (usize, bool) {
        let mut judge = Alone::<ReconnectsInTime>::default();
        let verdicts = story.iter().map(|(at, seen)| judge.observe(SimTime(*at), seen));
        let late = verdicts.filter(Result::is_err).count();
        (late, judge.exercised() > 0)
    }

    #[test]
    fn the_next_attempt_comes_within_the_longest_delay() {
        let most = LONGEST_MS + SLACK_MS;
        assert_eq!(late(&[(0, connecting(1)), (10, closed(1)), (10 + most, connecting(2))]), (0, true));
        assert_eq!(late(&[(0, connecting(1)), (10, closed(1)), (11 + most, connecting(2))]), (1, false));
        let never = [(0, connecting(1)), (10, closed(1)), (11 + most, Observation::Calm), (90_000, Observation::Calm)];
        assert_eq!(late(&never).0, 1, "it is reported once");
    }

    #[test]
    fn the_name_of_the_broker_is_checked_again_within_its_interval() {
        let check = |attempt| Observation::Connecting { instance: "worker".into(), target: NAME_CHECK.into(), attempt };
        let most = NAME_CHECK_MS + SLACK_MS;
        assert_eq!(late(&[(0, check(1)), (10, closed(1)), (10 + most, check(2))]), (0, true));
        assert_eq!(late(&[(0, check(1)), (10, closed(1)), (11 + most, check(2))]), (1, false));
    }

    #[test]
    fn after_a_connection_that_worked_it_comes_at_once() {
        let lived = |ms: u64, then_ms: u64| {
            let (last, lost) = (5 + ms, 10_000 + ms);
            let answers = [(0, connecting(1)), (5, greeted(1)), (last, greeted(1))];
            late(&[&answers[..], &[(lost, closed(1)), (lost + then_ms, connecting(2))]].concat()).0
        };
        assert_eq!(lived(WELL_AFTER_MS, FIRST_MS + SLACK_MS), 0);
        assert_eq!(lived(WELL_AFTER_MS, FIRST_MS + SLACK_MS + 1), 1);
        assert_eq!(lived(WELL_AFTER_MS - 1, FIRST_MS + SLACK_MS + 1), 0, "the delay need not be reset yet");
    }

    fn half_opened(attempt: u64) -> Observation {
        Observation::HalfOpened { survivor: "worker".into(), attempt }
    }

    #[test]
    fn a_connection_that_is_dead_at_the_other_end_is_given_up_in_time() {
        let most = 5 + NOTICED_WITHIN_MS + SLACK_MS;
        let dead = [(0, connecting(1)), (5, half_opened(1))];
        let late_in = |story: &[(u64, Observation)]| late(&[&dead, story].concat()).0;
        assert_eq!(late_in(&[(most, closed(1))]), 0);
        assert_eq!(late_in(&[(most + 1, closed(1))]), 1);
        assert_eq!(late_in(&[(most + 1, Observation::Calm), (90_000, Observation::Calm)]), 1, "it is reported once");
        let given_up = Observation::GivenUp { instance: "worker".into(), attempt: 1 };
        assert_eq!(late_in(&[(20_000, given_up), (most + 1, Observation::Calm)]), 0);
        assert_eq!(late_in(&[(20, Observation::Frozen { instance: "worker".into() }), (most + 1, closed(1))]), 0);
        let frozen = [(3, Observation::Frozen { instance: "worker".into() }), (5, half_opened(1)), (90_000, closed(1))];
        assert_eq!(late(&[&dead[..1], &frozen].concat()).0, 0, "it is frozen already");
        let late_answer = [(9_000, greeted(1)), (9_000 - 5 + most, closed(1))];
        assert_eq!(late_in(&late_answer), 0, "the answer had been sent before");
        let other = Observation::HalfOpened { survivor: "writer".into(), attempt: 1 };
        assert_eq!(late(&[(0, connecting(1)), (5, other), (90_000, closed(1))]).0, 0, "the other end is not seen");
    }

    #[test]
    fn lines_of_the_target_that_still_arrive_begin_the_silence_anew_and_others_do_not() {
        let connecting = Observation::Connecting { instance: "worker".into(), target: "writer".into(), attempt: 1 };
        let applied = |instance: &str, writer: &str| Observation::Applied {
            instance: instance.into(),
            stream: "events".into(),
            writer: writer.into(),
            token: squall_protocol::Token(3),
            rows: Vec::new(),
        };
        let late_with = |row: Observation| {
            let closed_at = 9_000 + NOTICED_WITHIN_MS + SLACK_MS;
            late(&[(0, connecting.clone()), (5, half_opened(1)), (9_000, row), (closed_at, closed(1))]).0
        };
        assert_eq!(late_with(applied("worker", "writer")), 0);
        assert_eq!(late_with(applied("worker", "other")), 1, "it came on another connection");
        assert_eq!(late_with(applied("other", "writer")), 1, "another instance read it");
        let injected = |target: &str| {
            let (instance, target, stream) = ("worker".into(), target.into(), "newer".into());
            Observation::UnknownRowRead { instance, target, stream }
        };
        assert_eq!(late_with(injected("writer")), 0, "seed 1002317 of storm");
        assert_eq!(late_with(injected("other")), 1, "it came on another connection");
    }

    #[test]
    fn nothing_is_due_from_a_process_that_stops_or_is_frozen() {
        for excuse in [
            Observation::AskedToStop { instance: "worker".into(), boot: 1 },
            Observation::Stopped { instance: "worker".into(), boot: 1 },
            Observation::Frozen { instance: "worker".into() },
        ] {
            let story = [(0, connecting(1)), (10, closed(1)), (20, excuse.clone()), (60_000, Observation::Calm)];
            assert_eq!(late(&story).0, 0, "{excuse:?}");
        }
        let stopping = Observation::AskedToStop { instance: "worker".into(), boot: 1 };
        let story = [(0, connecting(1)), (10, stopping), (20, closed(1)), (60_000, Observation::Calm)];
        assert_eq!(late(&story).0, 0, "it closes its connections");
    }
}
