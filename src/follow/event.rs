//! Events that a follower reports.

use crate::transport::redis::BrokerError;
use squall_judge::audit::{Exceeded, Finding, Gap};

/// An event that a follower reports to its watcher.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// The subscription is in place: from now on every payload is received.
    Subscribed,
    /// The connection is lost or was not made, for this reason. It will be retried.
    Disconnected(&'a BrokerError),
    /// Payloads of this time may have been missed.
    Gap(&'a Gap),
    /// A rule was violated.
    Finding(&'a Finding),
    /// The number of further findings of the kind and class of this one that were not reported one by one.
    Suppressed(&'a Finding, u64),
    /// There was more to remember than a rule does: not all traffic is judged. Each bound is reported once.
    Exceeded(&'a Exceeded),
    /// The recording ended, for this reason.
    RecordingFailed(&'a str),
    /// The REPLICATE could not be sent, for this reason.
    ReplicateFailed(&'a str),
    /// Nothing has been heard for a while, though the subscription is in place.
    Unheard(Unheard),
    /// Time has passed.
    Tick,
}

/// A silence that a healthy deployment does not explain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unheard {
    /// No payload has come since the subscription.
    Nothing,
    /// No instance has answered the REPLICATE that was sent.
    NoAnswer,
}
