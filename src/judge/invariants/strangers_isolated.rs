//! Strangers are isolated.
//!
//! In a deployment of mixed versions come lines of streams that an instance does not have, and rows of a shape that it does
//! not know. They harm nothing else: the connection that they come on goes on, and they are reported, so that somebody
//! learns that rows cannot be understood. A `POSITION` of an unknown stream threw in Synapse's receive path and made all of
//! it reconnect; a row that could not be read was skipped. That no such row is missed is judged by `no_missed_rows`: the
//! source has it in a shape that everybody knows.
//!
//! No false alarm: an end that gives up a connection says so by `ERROR`; said within [`AT_ONCE_MS`] of the strange line, it
//! is not about a silence, which lasts longer. On a subscription nothing is said; but who closes one that the network has
//! not ended, within [`HANDLED_AFTER_MS`] of a strange line, neither stops nor was without an answer to a ping for
//! [`SILENCE_MS`], does it because of that line. Lines are taken in order, so that by the time at which the same connection
//! has brought another position, later, the line was taken. From a broker one task reads and another one handles what was
//! read, so there [`HANDLED_AFTER_MS`] have to pass. A process or a connection that has ended owes nothing. That it
//! was reported is the instance's own word, which is what is asked for.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::judge::observation::{Line, Moment, Observation, Side};
use crate::judge::topology::SUBSCRIPTION;
use crate::judge::violation::Violation;
use crate::judge::wire_violation::WireViolation;
use crate::protocol::{InstanceName, StreamName};

/// How soon after a line an end that gives up the connection does it because of that line.
const AT_ONCE_MS: u64 = 100;

/// How long after a message was read from a broker it is handled at the latest: one task reads and another one handles, and
/// the polls of either may be put off.
const HANDLED_AFTER_MS: u64 = 1_000;

/// For how long the broker has not answered, at least, when a subscription is given up for its silence.
const SILENCE_MS: u64 = 24_000;

type Pair = (InstanceName, InstanceName);

/// Judges what becomes of connections that bring something strange.
#[derive(Debug, Default)]
pub struct StrangersIsolated {
    pairs: BTreeMap<u64, Pair>,
    /// The last strange line on each connection.
    last: BTreeMap<Pair, (Moment, StreamName)>,
    /// What was not reported yet, in the order in which it came.
    unreported: BTreeMap<Pair, Vec<(Moment, StreamName)>>,
    /// The subscriptions that the network has not ended, and when the broker last answered on each.
    subscriptions: BTreeMap<u64, Moment>,
    /// Whoever was asked to stop.
    stopping: BTreeSet<InstanceName>,
    judged: u64,
}

impl StrangersIsolated {
    /// What came before `at` on a connection and was not reported.
    fn overdue(&mut self, at: Moment, pair: &Pair) -> Option<StreamName> {
        let unreported = self.unreported.get_mut(pair)?;
        let (came, _) = unreported.first()?;
        let handled_after_ms = if pair.1.as_str() == SUBSCRIPTION { HANDLED_AFTER_MS } else { 0 };
        (at.ms_since(*came) > handled_after_ms).then(|| unreported.remove(0).1)
    }

    fn forget(&mut self, is_over: impl Fn(&Pair) -> bool) {
        self.last.retain(|pair, _| !is_over(pair));
        self.unreported.retain(|pair, _| !is_over(pair));
    }
}

impl Invariant for StrangersIsolated {
    fn name(&self) -> &'static str {
        "strangers_isolated"
    }

    fn observe(&mut self, at: Moment, observation: &Observation) -> Result<(), Violation> {
        match observation {
            Observation::Connecting { instance, target, attempt } => {
                self.pairs.insert(*attempt, (instance.clone(), target.clone()));
                if target.as_str() == SUBSCRIPTION {
                    self.subscriptions.insert(*attempt, at);
                }
            }
            Observation::Ponged { attempt, .. } => {
                self.subscriptions.entry(*attempt).and_modify(|answered| *answered = at);
            }
            Observation::GivenUp { attempt, .. } => drop(self.subscriptions.remove(attempt)),
            Observation::AskedToStop { instance, .. } => drop(self.stopping.insert(instance.clone())),
            Observation::Closed { attempt, .. } | Observation::Failed { attempt, .. } => {
                let answered = self.subscriptions.remove(attempt);
                let Some(over) = self.pairs.remove(attempt) else { return Ok(()) };
                let is_unexplained = answered.is_some_and(|answered| at.ms_since(answered) < SILENCE_MS)
                    && !self.stopping.contains(&over.0);
                let last = self.last.get(&over).filter(|(came, _)| at.ms_since(*came) <= HANDLED_AFTER_MS);
                let not_isolated = last.filter(|_| is_unexplained).map(|(_, stream)| {
                    let (instance, stream) = (over.0.clone(), stream.clone());
                    Violation::Wire(WireViolation::NotIsolated { instance, stream })
                });
                self.forget(|pair| *pair == over);
                return not_isolated.map_or(Ok(()), Err);
            }
            Observation::Frozen { instance } => self.forget(|(from, _)| from == instance),
            Observation::Stopped { instance, .. } => {
                self.stopping.remove(instance);
                self.forget(|(from, _)| from == instance);
            }
            Observation::Strange { instance, target, stream } => {
                self.judged += 1;
                let pair = (instance.clone(), target.clone());
                self.last.insert(pair.clone(), (at, stream.clone()));
                self.unreported.entry(pair).or_default().push((at, stream.clone()));
            }
            Observation::Reported { instance, stream } => {
                let of_instance = self.unreported.iter_mut().filter(|((from, _), _)| from == instance);
                for (_, unreported) in of_instance {
                    if let Some(place) = unreported.iter().position(|(_, strange)| strange == stream) {
                        unreported.remove(place);
                        break;
                    }
                }
            }
            Observation::Wrote { instance, attempt, side: Side::Client, line: Line::Other("ERROR") } => {
                let last = self.pairs.get(attempt).and_then(|pair| self.last.get(pair));
                if let Some((_, stream)) = last.filter(|(came, _)| at.ms_since(*came) <= AT_ONCE_MS) {
                    let (instance, stream) = (instance.clone(), stream.clone());
                    return Err(Violation::Wire(WireViolation::NotIsolated { instance, stream }));
                }
            }
            Observation::Announced { instance, attempt, .. } => {
                let Some(pair) = self.pairs.get(attempt).cloned() else { return Ok(()) };
                if let Some(stream) = self.overdue(at, &pair) {
                    let instance = instance.clone();
                    return Err(Violation::Wire(WireViolation::NotReported { instance, stream }));
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
    use crate::protocol::Token;

    fn strange(at: u64) -> (u64, Observation) {
        (at, Observation::Strange { instance: "worker".into(), target: "writer".into(), stream: "newer".into() })
    }

    fn reported(at: u64) -> (u64, Observation) {
        (at, Observation::Reported { instance: "worker".into(), stream: "newer".into() })
    }

    fn gave_up(at: u64, attempt: u64) -> (u64, Observation) {
        let (instance, line) = ("worker".into(), Line::Other("ERROR"));
        (at, Observation::Wrote { instance, attempt, side: Side::Client, line })
    }

    fn announced(at: u64) -> (u64, Observation) {
        let (instance, stream, writer) = ("worker".into(), "events".into(), "writer".into());
        let (prev, position) = (Token(1), Token(1));
        (at, Observation::Announced { instance, attempt: 1, stream, writer, prev, position })
    }

    /// What the last of these violates, on a worker that is connected to a writer and to the master.
    fn kind(story: &[(u64, Observation)]) -> &'static str {
        let mut judge = StrangersIsolated::default();
        for (attempt, target) in [(1, "writer"), (2, "master")] {
            let connecting = Observation::Connecting { instance: "worker".into(), target: target.into(), attempt };
            judge.observe(Moment(0), &connecting).unwrap();
        }
        let verdicts: Vec<_> = story.iter().map(|(at, seen)| judge.observe(Moment(*at), seen)).collect();
        assert!(verdicts[..verdicts.len() - 1].iter().all(Result::is_ok), "{verdicts:?}");
        verdicts.last().unwrap().as_ref().map_or_else(Violation::kind, |()| "none")
    }

    #[test]
    fn whoever_gives_up_a_connection_for_a_strange_line_is_found() {
        assert_eq!(kind(&[strange(5), gave_up(5, 1)]), "not_isolated");
        assert_eq!(kind(&[strange(5), gave_up(5, 2)]), "none", "that is another connection");
        assert_eq!(kind(&[strange(5), gave_up(30_000, 1)]), "none", "that is about a silence");
    }

    #[test]
    fn whoever_passes_over_a_strange_line_without_a_word_is_found() {
        assert_eq!(kind(&[strange(5), reported(5), announced(9)]), "none");
        assert_eq!(kind(&[strange(5), announced(5)]), "none", "it may not have been taken yet");
        assert_eq!(kind(&[strange(5), announced(9)]), "not_reported");
        assert_eq!(kind(&[strange(5), strange(6), reported(6), announced(9)]), "not_reported", "each is to be told");
    }

    #[test]
    fn what_was_read_from_a_broker_is_handled_a_little_later() {
        let (instance, target) = (InstanceName::from("worker"), InstanceName::from(SUBSCRIPTION));
        let unreported = |ms: u64| {
            let mut judge = StrangersIsolated::default();
            let (instance, target, stream) = (instance.clone(), target.clone(), "newer".into());
            let connecting = Observation::Connecting { instance: instance.clone(), target: target.clone(), attempt: 1 };
            let strange = Observation::Strange { instance, target, stream };
            judge.observe(Moment(0), &connecting).and_then(|()| judge.observe(Moment(5), &strange)).unwrap();
            judge.observe(Moment(5 + ms), &announced(0).1).is_err()
        };
        assert_eq!((unreported(HANDLED_AFTER_MS), unreported(HANDLED_AFTER_MS + 1)), (false, true));
    }

    #[test]
    fn whoever_closes_a_subscription_for_a_strange_line_is_found() {
        let attempt = 3;
        let of_worker =
            |at: u64, observation: fn(InstanceName, u64) -> Observation| (at, observation("worker".into(), attempt));
        let connecting = of_worker(0, |instance, attempt| Observation::Connecting {
            instance,
            target: SUBSCRIPTION.into(),
            attempt,
        });
        let strange = |at| {
            let (instance, target, stream) = ("worker".into(), SUBSCRIPTION.into(), "newer".into());
            (at, Observation::Strange { instance, target, stream })
        };
        let closed = |at| of_worker(at, |instance, attempt| Observation::Closed { instance, attempt });
        let ponged = |at| of_worker(at, |instance, attempt| Observation::Ponged { instance, attempt });
        let ended = |at| of_worker(at, |instance, attempt| Observation::GivenUp { instance, attempt });
        let stopping = |at| of_worker(at, |instance, boot| Observation::AskedToStop { instance, boot });
        let told = |story: &[(u64, Observation)]| kind(&[std::slice::from_ref(&connecting), story].concat());
        assert_eq!(told(&[strange(5), closed(9)]), "not_isolated");
        assert_eq!(told(&[strange(5), closed(6 + HANDLED_AFTER_MS)]), "none", "that is about something else");
        assert_eq!(told(&[strange(5), ended(8), closed(9)]), "none", "the network has ended it");
        assert_eq!(told(&[strange(5), stopping(8), closed(9)]), "none", "it stops");
        let late = SILENCE_MS + 5;
        assert_eq!(told(&[strange(late), closed(late)]), "none", "the broker was silent");
        assert_eq!(told(&[ponged(5_000), strange(late), closed(late)]), "not_isolated", "it was not");
    }

    #[test]
    fn whoever_has_ended_owes_no_report() {
        let frozen = (6, Observation::Frozen { instance: "worker".into() });
        assert_eq!(kind(&[strange(5), frozen, announced(90)]), "none", "it handles that when it goes on");
        let stopped = (6, Observation::Stopped { instance: "worker".into(), boot: 1 });
        assert_eq!(kind(&[strange(5), stopped, announced(9)]), "none");
        let closed = (6, Observation::Closed { instance: "worker".into(), attempt: 1 });
        assert_eq!(kind(&[strange(5), closed, announced(9)]), "none");
    }
}
