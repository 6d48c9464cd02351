//! Requests are answered.
//!
//! A client of the storm sends correct requests alone. One of them may fail while something is wrong with a server, the
//! network or the database, and no longer. In detail:
//!
//! 1. No correct request is refused as a wrong one, with a status below 500, and no answer 200 is unreadable. A request
//!    that is repeated because its answer was lost is a correct one too (Synapse #8476), and so is one to a writer that is
//!    behind.
//! 2. A request fails in another way only with an explanation: some host was not sound between its beginning and its end.
//!    A request that was repeated and failed without an answer, or with 500 or above, needs one from its last
//!    `LAST_ATTEMPTS_MS`: by then nothing that is over refuses it any more.
//! 3. In the calm a request succeeds, if it is repeated. A cause of failure that is over refuses nothing any more: a client
//!    that counts on that would lose its messages for good.
//!
//! A failed request is no evidence for any other invariant: it wrote nothing, or its writer knows nothing of it. So a stack
//! that refuses every second request would be a perfect one to them.
//!
//! No false alarm:
//!
//! - A request that fails without an answer is one that met a fault. A host counts as sound again some seconds after its
//!   last fault, and here all hosts count: the writer may wait for rows of a third instance.
//! - Where one end of a connection is gone unnoticed, or the broker's name leads to another server, an instance may be deaf
//!   until it finds out by its pings. For that time only the first rule holds.
//! - A stream that is broken for good delays every request that waits for its rows. From then on only the first rule holds
//!   in the storm. In the calm, the simulator asks no host whose stream is broken.
//! - In the calm the request is repeated for the calm bound, in which every instance has to be up to date.

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::observation::{Kind, Observation, RequestFailure, SimTime};
use crate::scene::Scene;
use crate::topology::Topology;
use squall_protocol::InstanceName;

/// Time within which a request that is repeated is certainly sent again and answered: the longest delay, and the time-outs of
/// a connection and of an answer, which make 26 s together, with some seconds more.
const LAST_ATTEMPTS_MS: u64 = 35_000;

/// A failure that has no reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// A correct request was refused as a wrong one.
    #[error("a correct request of {what} through {instance} was refused with the status {status}")]
    Refused { instance: InstanceName, what: &'static str, status: u16 },
    /// A request that succeeded had an answer that cannot be read.
    #[error("a request of {what} through {instance} was answered with 200, and the answer cannot be read")]
    Unreadable { instance: InstanceName, what: &'static str },
    /// A request failed although nothing was disturbed, or nothing any more for long.
    #[error(
        "a request of {what} through {instance} failed after {after_ms} ms: {failure}; no disturbance explains that"
    )]
    Unexplained { instance: InstanceName, what: &'static str, after_ms: u64, failure: RequestFailure },
    /// A request failed over and over, long into the calm.
    #[error("a request of {what} through {instance} still fails in the calm, after {after_ms} ms of repeating it")]
    Unanswered { instance: InstanceName, what: &'static str, after_ms: u64 },
}

/// Checks that requests fail only for a reason, and only for as long as the reason lasts.
#[derive(Debug, Default)]
pub struct RequestsAnswered {
    has_broken_stream: bool,
    judged: u64,
}

impl RequestsAnswered {
    /// Returns true if something may have disturbed a request in the time from `from` to `at`.
    fn is_explained(&self, from: SimTime, at: SimTime, scene: &Scene) -> bool {
        let sound_since = scene.disturbances.all_sound_since(at);
        self.has_broken_stream || from < scene.disturbances.deaf_until() || sound_since.is_none_or(|since| from < since)
    }

    fn failed(
        &mut self,
        at: SimTime,
        (instance, what): (&InstanceName, &'static str),
        after_ms: u64,
        failure: RequestFailure,
        scene: &Scene,
    ) -> Result<(), Violation> {
        self.judged += 1;
        let instance = instance.clone();
        let ago = |ms| SimTime(at.0.saturating_sub(ms));
        match failure {
            RequestFailure::Refused { status } => Err(Violation::Refused { instance, what, status }),
            RequestFailure::Unreadable => Err(Violation::Unreadable { instance, what }),
            RequestFailure::Unavailable { .. } | RequestFailure::Lost
                if self.is_explained(ago(after_ms.min(LAST_ATTEMPTS_MS)), at, scene) =>
            {
                Ok(())
            }
            RequestFailure::NotSeen | RequestFailure::NotWritten if self.is_explained(ago(after_ms), at, scene) => {
                Ok(())
            }
            _ => Err(Violation::Unexplained { instance, what, after_ms, failure }),
        }
    }
}

impl Invariant for RequestsAnswered {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[Kind::StreamBroken, Kind::RequestFailed, Kind::Probed];

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, at: SimTime, observation: &Observation, scene: &Scene) -> Result<(), Violation> {
        match observation {
            Observation::StreamBroken { .. } => self.has_broken_stream = true,
            Observation::RequestFailed { instance, what, after_ms, failure } => {
                return self.failed(at, (instance, what), *after_ms, *failure, scene);
            }
            Observation::Probed { instance, what, after_ms, is_answered } => {
                self.judged += 1;
                if !is_answered {
                    return Err(Violation::Unanswered { instance: instance.clone(), what, after_ms: *after_ms });
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
    use crate::violation::kind;

    const REFUSED: RequestFailure = RequestFailure::Refused { status: 400 };

    /// The violation of a request that fails in this way, two seconds after it began, as the last of the story.
    fn told(story: &[(u64, Observation)], at: u64, failure: RequestFailure) -> String {
        told_after(2_000, story, at, failure)
    }

    fn told_after(after_ms: u64, story: &[(u64, Observation)], at: u64, failure: RequestFailure) -> String {
        let mut judge = Alone::<RequestsAnswered>::default();
        for (at, observation) in story {
            judge.observe(SimTime(*at), observation).expect("nothing is wrong before");
        }
        let (instance, what) = ("worker".into(), "receipts");
        let failed = Observation::RequestFailed { instance, what, after_ms, failure };
        kind(&judge.observe(SimTime(at), &failed))
    }

    fn fault(from: u64, to: u64) -> [(u64, Observation); 2] {
        let hosts = vec!["master".into()];
        let began = Observation::FaultBegan { hosts: hosts.clone() };
        [(from, began), (to, Observation::FaultEnded { hosts, lingers_ms: 0 })]
    }

    #[test]
    fn a_correct_request_is_never_refused_and_its_answer_is_readable() {
        let story = fault(0, 60_000);
        assert_eq!(told(&story[..1], 5_000, REFUSED), "refused");
        assert_eq!(told(&story[..1], 5_000, RequestFailure::Unreadable), "unreadable");
        assert_eq!(told(&[(0, Observation::StreamBroken { stream: "receipts".into() })], 5_000, REFUSED), "refused");
    }

    #[test]
    fn a_request_fails_while_something_is_disturbed_and_not_otherwise() {
        for failure in [RequestFailure::Lost, RequestFailure::Unavailable { status: 503 }, RequestFailure::NotSeen] {
            let story = fault(10_000, 20_000);
            assert_eq!(told(&story[..1], 60_000, failure), "none", "the fault lasts");
            assert_eq!(told(&story, 26_000, failure), "none", "it began before the hosts were sound again");
            assert_eq!(told(&story, 27_001, failure), "unexplained");
            assert_eq!(told(&[], 27_001, failure), "unexplained");
        }
    }

    #[test]
    fn a_request_that_was_repeated_fails_only_if_something_was_disturbed_at_its_last_attempts() {
        let story = fault(10_000, 20_000);
        // A host is sound again five seconds after its fault.
        let sound_for = |ms, failure| told_after(58_000, &story, 25_000 + ms, failure);
        for failure in [RequestFailure::Lost, RequestFailure::Unavailable { status: 503 }] {
            assert_eq!(sound_for(LAST_ATTEMPTS_MS - 1, failure), "none");
            assert_eq!(sound_for(LAST_ATTEMPTS_MS, failure), "unexplained");
        }
        assert_eq!(sound_for(LAST_ATTEMPTS_MS, RequestFailure::NotSeen), "none", "it is not repeated");
    }

    #[test]
    fn an_instance_that_may_be_deaf_and_a_broken_stream_explain_a_failure() {
        let half_opened = (0, Observation::HalfOpened { survivor: "worker".into(), attempt: 1 });
        assert_eq!(told(std::slice::from_ref(&half_opened), 100_000, RequestFailure::NotSeen), "none");
        assert_eq!(told(&[half_opened], 122_000, RequestFailure::NotSeen), "unexplained");
        let broken = (0, Observation::StreamBroken { stream: "receipts".into() });
        assert_eq!(told(&[broken], 400_000, RequestFailure::NotSeen), "none");
    }

    #[test]
    fn a_request_that_is_repeated_in_the_calm_is_answered() {
        let probed = |is_answered| {
            let (instance, what) = ("worker".into(), "receipts");
            let mut judge = Alone::<RequestsAnswered>::default();
            kind(&judge.observe(SimTime(9), &Observation::Probed { instance, what, after_ms: 5, is_answered }))
        };
        assert_eq!((probed(true), probed(false)), ("none".into(), "unanswered".into()));
    }
}
