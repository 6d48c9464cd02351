//! Unknown rows are isolated.
//!
//! In a deployment of mixed versions an instance reads lines of streams that it does not have, and rows of a shape that
//! it does not know. They harm nothing else: the connection goes on, and they are reported, so that an operator learns of
//! them. In Synapse a `POSITION` of an unknown stream raised an exception in the receive path, and every connection was
//! closed; a row that could not be read was skipped silently. `no_missed_rows` judges that no such row is missed: the
//! writer has it in a shape that every instance knows. The same holds for odd lines that are blank (Synapse #14449), of the
//! greatest length, or commands of a newer version, which are unknown or have an argument more (Synapse #19946): no
//! connection is closed because of one.
//!
//! No false alarm:
//!
//! - An end that gives up a connection writes `ERROR`. Within `AT_ONCE_MS` of the unknown line, the cause is that line
//!   and not a silence, which lasts longer.
//! - A subscription has no such line. It is closed because of an unknown line if that was read within
//!   `HANDLED_AFTER_MS`, the network had not ended it, the instance was not stopping, and the broker had answered a ping
//!   within `SILENCE_MS`. After a failover of the broker an instance may find that it does not hear itself. So for
//!   `FAILED_OVER_MS` a closed subscription is about the failover (seed 15 of `redis_swarm`).
//! - Lines are handled in order. A line is handled when a later position has arrived on the same connection. From a broker
//!   one task reads and another one handles, so there `HANDLED_AFTER_MS` have to pass as well.
//! - A process or a connection that has ended need not report.
//! - Over TCP an end closes the connection for a line that is too long. Then no earlier line is the cause.
//!
//! That an unknown row was reported is the instance's own word: the report itself is the property.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::observation::{Kind, Line, Observation, Role, SimTime};
use crate::scene::Scene;
use crate::topology::{SUBSCRIPTION, Topology};
use squall_protocol::{InstanceName, StreamName};

/// Time after an unknown line within which `ERROR` is written because of that line.
const AT_ONCE_MS: u64 = 100;

/// Longest time from reading a message of a broker to handling it. One task reads, another one handles, and the polls of
/// both may be delayed.
const HANDLED_AFTER_MS: u64 = 1_000;

/// Shortest silence of the broker after which a subscription is given up.
const SILENCE_MS: u64 = 24_000;

/// Time after a failover of the broker in which instances notice that their connections lead to different servers.
const FAILED_OVER_MS: u64 = 30_000;

/// An instance and the target that it connects to.
type Pair = (InstanceName, InstanceName);

/// An unknown row that did harm, or was passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// An end gave up a connection because of a line that it need not understand.
    #[error("{instance} gave up a connection because of an unknown line of {stream}")]
    NotIsolated { instance: InstanceName, stream: StreamName },
    /// An end gave up a connection because of an odd line that does no harm.
    #[error("{instance} gave up a connection because of {line}")]
    NotTolerated { instance: InstanceName, line: &'static str },
    /// A line that could not be understood was not reported.
    #[error("{instance} passed over an unknown line of {stream} and did not report it")]
    NotReported { instance: InstanceName, stream: StreamName },
}

/// A line that must not end a connection.
#[derive(Debug, Clone)]
enum Harmless {
    /// One of a stream or a shape that the instance does not know.
    Unknown(StreamName),
    /// An odd one.
    Odd(&'static str),
}

impl Harmless {
    fn ended_connection_of(self, instance: InstanceName) -> Violation {
        match self {
            Harmless::Unknown(stream) => Violation::NotIsolated { instance, stream },
            Harmless::Odd(line) => Violation::NotTolerated { instance, line },
        }
    }
}

/// Checks the connections on which unknown rows arrive.
#[derive(Debug, Default)]
pub struct UnknownRowsIsolated {
    pairs: BTreeMap<u64, Pair>,
    /// The last unknown or odd line on each connection.
    last: BTreeMap<Pair, (SimTime, Harmless)>,
    /// The unknown lines that were not reported yet, in order.
    unreported: BTreeMap<Pair, Vec<(SimTime, StreamName)>>,
    /// The subscriptions that the network has not ended, with the time of the broker's last answer on each.
    subscriptions: BTreeMap<u64, SimTime>,
    /// The instances that were asked to stop.
    stopping: BTreeSet<InstanceName>,
    /// The time of the last failover of the broker.
    failed_over: Option<SimTime>,
    judged: u64,
}

impl UnknownRowsIsolated {
    /// Removes an unknown line of a connection that should have been reported before `at`, and returns its stream.
    fn overdue(&mut self, at: SimTime, pair: &Pair) -> Option<StreamName> {
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

impl Invariant for UnknownRowsIsolated {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[
        Kind::AskedToStop,
        Kind::Stopped,
        Kind::Connecting,
        Kind::Failed,
        Kind::Ponged,
        Kind::Announced,
        Kind::Wrote,
        Kind::GivenUp,
        Kind::Closed,
        Kind::Frozen,
        Kind::BrokerFailedOver,
        Kind::UnknownRowRead,
        Kind::ForgedPositionRead,
        Kind::OddLineRead,
        Kind::Reported,
    ];

    /// The stream of an unknown row is drawn by the seed.
    const FINGERPRINT_NAMES_STREAM: bool = false;

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, at: SimTime, observation: &Observation, _scene: &Scene) -> Result<(), Violation> {
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
                    && self.failed_over.is_none_or(|failed_over| FAILED_OVER_MS < at.ms_since(failed_over))
                    && !self.stopping.contains(&over.0);
                let last = self.last.get(&over).filter(|(came, _)| at.ms_since(*came) <= HANDLED_AFTER_MS);
                let line = last.filter(|_| is_unexplained).map(|(_, line)| line.clone());
                self.forget(|pair| *pair == over);
                if let Some(line) = line {
                    return Err(line.ended_connection_of(over.0));
                }
            }
            Observation::BrokerFailedOver => self.failed_over = Some(at),
            Observation::Frozen { instance } => self.forget(|(from, _)| from == instance),
            Observation::Stopped { instance, .. } => {
                self.stopping.remove(instance);
                self.forget(|(from, _)| from == instance);
            }
            Observation::UnknownRowRead { instance, target, stream } => {
                self.judged += 1;
                let pair = (instance.clone(), target.clone());
                self.last.insert(pair.clone(), (at, Harmless::Unknown(stream.clone())));
                self.unreported.entry(pair).or_default().push((at, stream.clone()));
            }
            Observation::ForgedPositionRead { instance, target, .. } => {
                self.judged += 1;
                let forged = Harmless::Odd("a position that no instance has announced");
                self.last.insert((instance.clone(), target.clone()), (at, forged));
            }
            Observation::OddLineRead { instance, target, line, is_refused } => {
                self.judged += 1;
                let pair = (instance.clone(), target.clone());
                if *is_refused {
                    self.forget(|other| *other == pair);
                } else {
                    self.last.insert(pair, (at, Harmless::Odd(line)));
                }
            }
            Observation::Reported { instance, stream } => {
                let of_instance = self.unreported.iter_mut().filter(|((from, _), _)| from == instance);
                for (_, unreported) in of_instance {
                    if let Some(place) = unreported.iter().position(|(_, unknown)| unknown == stream) {
                        unreported.remove(place);
                        break;
                    }
                }
            }
            Observation::Wrote { instance, attempt, role: Role::Client, line: Line::Other("ERROR") } => {
                let last = self.pairs.get(attempt).and_then(|pair| self.last.get(pair));
                if let Some((_, line)) = last.filter(|(came, _)| at.ms_since(*came) <= AT_ONCE_MS) {
                    return Err(line.clone().ended_connection_of(instance.clone()));
                }
            }
            Observation::Announced { instance, attempt, .. } => {
                let Some(pair) = self.pairs.get(attempt).cloned() else { return Ok(()) };
                if let Some(stream) = self.overdue(at, &pair) {
                    return Err(Violation::NotReported { instance: instance.clone(), stream });
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
    use squall_protocol::Token;

    fn unknown(at: u64) -> (u64, Observation) {
        (at, Observation::UnknownRowRead { instance: "worker".into(), target: "writer".into(), stream: "newer".into() })
    }

    fn reported(at: u64) -> (u64, Observation) {
        (at, Observation::Reported { instance: "worker".into(), stream: "newer".into() })
    }

    fn gave_up(at: u64, attempt: u64) -> (u64, Observation) {
        let (instance, line) = ("worker".into(), Line::Other("ERROR"));
        (at, Observation::Wrote { instance, attempt, role: Role::Client, line })
    }

    fn announced(at: u64) -> (u64, Observation) {
        let (instance, stream, writer) = ("worker".into(), "events".into(), "writer".into());
        let (prev, position) = (Token(1), Token(1));
        (at, Observation::Announced { instance, attempt: 1, stream, writer, prev, position })
    }

    /// The violation of the last observation, on a worker that is connected to a writer and to the master.
    fn kind(story: &[(u64, Observation)]) -> String {
        let mut judge = Alone::<UnknownRowsIsolated>::default();
        for (attempt, target) in [(1, "writer"), (2, "master")] {
            let connecting = Observation::Connecting { instance: "worker".into(), target: target.into(), attempt };
            judge.observe(SimTime(0), &connecting).unwrap();
        }
        let verdicts: Vec<_> = story.iter().map(|(at, seen)| judge.observe(SimTime(*at), seen)).collect();
        assert!(verdicts[..verdicts.len() - 1].iter().all(Result::is_ok), "{verdicts:?}");
        violation::kind(verdicts.last().unwrap())
    }

    #[test]
    fn an_instance_gives_up_no_connection_for_an_unknown_line() {
        assert_eq!(kind(&[unknown(5), gave_up(5, 1)]), "not_isolated");
        assert_eq!(kind(&[unknown(5), gave_up(5, 2)]), "none", "that is another connection");
        assert_eq!(kind(&[unknown(5), gave_up(30_000, 1)]), "none", "that is about a silence");
    }

    fn odd(at: u64, is_refused: bool) -> (u64, Observation) {
        let (instance, target, line) = ("worker".into(), "writer".into(), "a blank line");
        (at, Observation::OddLineRead { instance, target, line, is_refused })
    }

    #[test]
    fn an_instance_gives_up_a_connection_for_a_refused_line_alone() {
        assert_eq!(kind(&[odd(5, false), gave_up(5, 1)]), "not_tolerated");
        assert_eq!(kind(&[odd(5, false), gave_up(5, 2)]), "none", "that is another connection");
        let (instance, target, stream) = ("worker".into(), "writer".into(), "events".into());
        let forged = Observation::ForgedPositionRead { instance, target, stream };
        assert_eq!(kind(&[(5, forged), gave_up(5, 1)]), "not_tolerated");
        assert_eq!(kind(&[odd(5, true), gave_up(5, 1)]), "none");
        assert_eq!(kind(&[unknown(5), odd(5, true), gave_up(5, 1)]), "none", "the later line is the cause");
        assert_eq!(kind(&[odd(5, false), announced(9)]), "none", "it need not be reported");
    }

    #[test]
    fn an_instance_reports_every_unknown_line() {
        assert_eq!(kind(&[unknown(5), reported(5), announced(9)]), "none");
        assert_eq!(kind(&[unknown(5), announced(5)]), "none", "it may not have been handled yet");
        assert_eq!(kind(&[unknown(5), announced(9)]), "not_reported");
        assert_eq!(
            kind(&[unknown(5), unknown(6), reported(6), announced(9)]),
            "not_reported",
            "each has to be reported"
        );
    }

    #[test]
    fn a_line_read_from_a_broker_is_handled_a_little_later() {
        let (instance, target) = (InstanceName::from("worker"), InstanceName::from(SUBSCRIPTION));
        let unreported = |ms: u64| {
            let mut judge = Alone::<UnknownRowsIsolated>::default();
            let (instance, target, stream) = (instance.clone(), target.clone(), "newer".into());
            let connecting = Observation::Connecting { instance: instance.clone(), target: target.clone(), attempt: 1 };
            let unknown = Observation::UnknownRowRead { instance, target, stream };
            judge.observe(SimTime(0), &connecting).and_then(|()| judge.observe(SimTime(5), &unknown)).unwrap();
            judge.observe(SimTime(5 + ms), &announced(0).1).is_err()
        };
        assert_eq!((unreported(HANDLED_AFTER_MS), unreported(HANDLED_AFTER_MS + 1)), (false, true));
    }

    #[test]
    fn an_instance_closes_no_subscription_for_an_unknown_line() {
        let attempt = 3;
        let of_worker =
            |at: u64, observation: fn(InstanceName, u64) -> Observation| (at, observation("worker".into(), attempt));
        let connecting = of_worker(0, |instance, attempt| Observation::Connecting {
            instance,
            target: SUBSCRIPTION.into(),
            attempt,
        });
        let unknown = |at| {
            let (instance, target, stream) = ("worker".into(), SUBSCRIPTION.into(), "newer".into());
            (at, Observation::UnknownRowRead { instance, target, stream })
        };
        let closed = |at| of_worker(at, |instance, attempt| Observation::Closed { instance, attempt });
        let ponged = |at| of_worker(at, |instance, attempt| Observation::Ponged { instance, attempt });
        let ended = |at| of_worker(at, |instance, attempt| Observation::GivenUp { instance, attempt });
        let stopping = |at| of_worker(at, |instance, boot| Observation::AskedToStop { instance, boot });
        let kind_of = |story: &[(u64, Observation)]| kind(&[std::slice::from_ref(&connecting), story].concat());
        assert_eq!(kind_of(&[unknown(5), closed(9)]), "not_isolated");
        assert_eq!(kind_of(&[unknown(5), closed(6 + HANDLED_AFTER_MS)]), "none", "that is about something else");
        assert_eq!(kind_of(&[unknown(5), ended(8), closed(9)]), "none", "the network has ended it");
        assert_eq!(kind_of(&[unknown(5), stopping(8), closed(9)]), "none", "it stops");
        let failed_over = |at| (at, Observation::BrokerFailedOver);
        assert_eq!(kind_of(&[failed_over(4), unknown(5), closed(9)]), "none", "it may not hear itself");
        let noticed = FAILED_OVER_MS + 5;
        assert_eq!(kind_of(&[failed_over(4), ponged(noticed), unknown(noticed), closed(noticed)]), "not_isolated");
        let late = SILENCE_MS + 5;
        assert_eq!(kind_of(&[unknown(late), closed(late)]), "none", "the broker was silent");
        assert_eq!(kind_of(&[ponged(5_000), unknown(late), closed(late)]), "not_isolated", "it was not");
    }

    #[test]
    fn a_process_or_connection_that_has_ended_need_not_report() {
        let frozen = (6, Observation::Frozen { instance: "worker".into() });
        assert_eq!(kind(&[unknown(5), frozen, announced(90)]), "none", "it handles the line when it continues");
        let stopped = (6, Observation::Stopped { instance: "worker".into(), boot: 1 });
        assert_eq!(kind(&[unknown(5), stopped, announced(9)]), "none");
        let closed = (6, Observation::Closed { instance: "worker".into(), attempt: 1 });
        assert_eq!(kind(&[unknown(5), closed, announced(9)]), "none");
    }
}
