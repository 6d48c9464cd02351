//! Reconnects are spread.
//!
//! After an outage that many instances share, they do not try again in step. Delays that are the same on every instance
//! bring all of them back at the same instant, again and again, to a server that has just started. Synapse takes its
//! jitter from the generator of each process, for this reason.
//!
//! No false alarm: a violation is five growing delays in a row that two instances share to the millisecond. Jitter of
//! ±12 % leaves 25 values for the shortest delay, 49, 97 and 193 for the next ones, and 385 for the fifth, so two
//! instances share five by chance once in nine thousand million times. Delays that do not grow are left out: of a
//! connection that is set up and lost again and again, every delay is the shortest one, and two instances share five of
//! those once in ten million times.

use std::collections::BTreeMap;

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::observation::{Kind, Observation, SimTime};
use crate::scene::Scene;
use crate::topology::Topology;
use squall_protocol::InstanceName;

/// The number of delays that are compared.
const DELAYS: usize = 5;

/// Two instances that try in step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// Two instances waited for the same times between their attempts at one target.
    #[error("{instance} waited {delays_ms:?} ms between its attempts at {target}, and {other} did so too")]
    InStep { instance: InstanceName, other: InstanceName, target: InstanceName, delays_ms: [u64; DELAYS] },
}

/// Compares the delays of instances between their attempts at a target.
#[derive(Debug, Default)]
pub struct ReconnectsSpread {
    attempts: BTreeMap<u64, (InstanceName, InstanceName)>,
    pauses: BTreeMap<(InstanceName, InstanceName), Pauses>,
    /// The first instance that had these delays, by target.
    seen: BTreeMap<(InstanceName, [u64; DELAYS]), InstanceName>,
    judged: u64,
}

/// The pauses between the attempts of one process at one target.
#[derive(Debug, Default)]
struct Pauses {
    ended_at: Option<SimTime>,
    /// The last delays of which each was half as long again as the one before, or longer; the oldest first.
    delays_ms: Vec<u64>,
}

impl Pauses {
    /// Ends a pause at `at`. Returns the last delays, if there are enough.
    fn end(&mut self, at: SimTime) -> Option<[u64; DELAYS]> {
        let delay_ms = at.ms_since(self.ended_at.take()?);
        if self.delays_ms.last().is_some_and(|before| 2 * delay_ms < 3 * before) {
            self.delays_ms.clear();
        }
        self.delays_ms.push(delay_ms);
        if self.delays_ms.len() > DELAYS {
            self.delays_ms.remove(0);
        }
        self.delays_ms.as_slice().try_into().ok()
    }
}

impl Invariant for ReconnectsSpread {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[Kind::Started, Kind::Connecting, Kind::Failed, Kind::Closed];

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, at: SimTime, observation: &Observation, _scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::Started { instance, .. } => self.pauses.retain(|(of, _), _| of != instance),
            Observation::Failed { attempt, .. } | Observation::Closed { attempt, .. } => {
                if let Some(pair) = self.attempts.remove(attempt) {
                    self.pauses.entry(pair).or_default().ended_at = Some(at);
                }
            }
            Observation::Connecting { instance, target, attempt } => {
                let pair = (instance.clone(), target.clone());
                self.attempts.insert(*attempt, pair.clone());
                let Some(delays_ms) = self.pauses.entry(pair).or_default().end(at) else { return Ok(()) };
                self.judged += 1;
                let first = self.seen.entry((target.clone(), delays_ms)).or_insert_with(|| instance.clone());
                if first != instance {
                    let (instance, other, target) = (instance.clone(), first.clone(), target.clone());
                    return Err(Violation::InStep { instance, other, target, delays_ms });
                }
            }
            _ => {}
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
    use crate::violation;

    /// The attempts of `instance`, which all fail at once, with these delays between them.
    fn attempts(instance: &str, first: u64, delays_ms: &[u64]) -> Vec<(u64, Observation)> {
        let mut at = 0;
        let mut story = Vec::new();
        for (attempt, delay_ms) in (first..).zip(std::iter::once(&0).chain(delays_ms)) {
            at += delay_ms;
            let target = "writer".into();
            story.push((at, Observation::Connecting { instance: instance.into(), target, attempt }));
            story.push((at, Observation::Failed { instance: instance.into(), attempt }));
        }
        story
    }

    fn judge(stories: &[Vec<(u64, Observation)>]) -> (String, u64) {
        let mut invariant = Alone::<ReconnectsSpread>::default();
        let mut verdict = Ok(());
        for (at, observation) in stories.concat() {
            verdict = verdict.and(invariant.observe(SimTime(at), &observation));
        }
        (violation::kind(&verdict), invariant.exercised())
    }

    #[test]
    fn instances_that_wait_for_other_times_are_spread() {
        let (one, other) = ([100, 200, 400, 800, 1_600], [100, 200, 400, 800, 1_601]);
        assert_eq!(judge(&[attempts("a", 0, &one), attempts("b", 10, &other)]), ("none".into(), 2));
        assert_eq!(judge(&[attempts("a", 0, &one), attempts("a", 10, &one)]).0, "none", "one instance, twice");
    }

    #[test]
    fn instances_that_wait_for_the_same_times_are_in_step() {
        let delays = [100, 200, 400, 800, 1_600];
        assert_eq!(judge(&[attempts("a", 0, &delays), attempts("b", 10, &delays)]).0, "in_step");
        assert_eq!(judge(&[attempts("a", 0, &delays[..4]), attempts("b", 10, &delays[..4])]), ("none".into(), 0));
        let shifted = [90, 100, 200, 400, 800, 1_600];
        assert_eq!(judge(&[attempts("a", 0, &shifted), attempts("b", 10, &delays)]).0, "in_step");
    }

    #[test]
    fn delays_that_do_not_grow_are_not_compared() {
        let shortest = [100; 9];
        assert_eq!(judge(&[attempts("a", 0, &shortest), attempts("b", 10, &shortest)]), ("none".into(), 0));
        let longest = [4_900, 5_100, 5_000, 5_200, 4_800, 5_000];
        assert_eq!(judge(&[attempts("a", 0, &longest), attempts("b", 10, &longest)]), ("none".into(), 0));
        let reset = [100, 200, 400, 800, 100, 200, 400, 800, 1_600];
        assert_eq!(judge(&[attempts("a", 0, &reset), attempts("b", 20, &reset)]).0, "in_step");
    }

    #[test]
    fn a_new_process_begins_anew() {
        let delays = [100, 200, 400, 800, 1_600];
        let restarted = Observation::Started { instance: "b".into(), boot: 2 };
        let (before, after) = (attempts("b", 10, &delays[..2]), attempts("b", 20, &delays[2..]));
        let story = [attempts("a", 0, &delays), before, vec![(9_000, restarted)], after];
        assert_eq!(judge(&story), ("none".into(), 1));
    }
}
