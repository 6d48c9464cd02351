//! Processes that have just connected.
//!
//! A process of Synapse that connects to the broker sends REPLICATE, announces its positions, receives its own REPLICATE
//! and announces them again. So after each REPLICATE one process answers twice: the one that has connected, because it was
//! started or had lost its connection. The traffic cannot tell these two apart.

use std::collections::{BTreeMap, BTreeSet};

use super::origin::Origin;
use super::payload::ParsedPayload;
use crate::observation::SimTime;
use squall_protocol::{Command, InstanceName, Position};

/// Time between two REPLICATEs after which each has its own answers, in milliseconds.
const APART_MS: u64 = 5_000;

/// Longest time between the two answers of a process that has connected, in milliseconds.
const TOGETHER_MS: u64 = 2_000;

/// The processes that have answered the last REPLICATEs twice.
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    /// Number of REPLICATEs that came together.
    replicates: usize,
    /// Time of the last of them.
    last: Option<SimTime>,
    /// The answers of each writer and stream.
    answers: BTreeMap<Origin, Answers>,
    /// The processes that answered once more than there were REPLICATEs: at most one for each REPLICATE.
    who: BTreeSet<InstanceName>,
}

/// The answers of a writer to the last REPLICATEs.
#[derive(Debug, Default)]
struct Answers {
    count: usize,
    last: Option<SimTime>,
}

impl Newcomers {
    /// Takes a payload into account.
    pub(super) fn check(&mut self, payload: &ParsedPayload<'_>) {
        match payload.command {
            Ok(Command::Replicate) => {
                if self.last.is_none() || ms_between(self.last, payload.at) >= APART_MS {
                    *self = Newcomers::default();
                }
                self.replicates += 1;
                self.last = payload.at;
            }
            Ok(Command::Position(position)) if self.is_answer(payload, position) => {
                self.answered(Origin::from(position), payload.at);
            }
            _ => {}
        }
    }

    /// Returns true if a position may answer the last REPLICATEs.
    pub(super) fn is_answer(&self, payload: &ParsedPayload<'_>, position: &Position) -> bool {
        position.prev == position.new && self.replicates > 0 && ms_between(self.last, payload.at) < APART_MS
    }

    fn answered(&mut self, origin: Origin, at: Option<SimTime>) {
        let answers = self.answers.entry(origin.clone()).or_default();
        answers.count += 1;
        let before = std::mem::replace(&mut answers.last, at);
        let is_second = answers.count > self.replicates && ms_between(before, at) < TOGETHER_MS;
        if is_second && self.who.len() < self.replicates {
            self.who.insert(origin.writer);
        }
    }

    /// Returns true if that process has just connected.
    pub(super) fn contains(&self, writer: &InstanceName) -> bool {
        self.who.contains(writer)
    }

    /// Returns true if that process has just connected, and has answered no more than twice for each REPLICATE.
    pub(super) fn may_repeat(&self, origin: &Origin) -> bool {
        let answers = self.answers.get(origin).map_or(0, |answers| answers.count);
        self.contains(&origin.writer) && answers <= 2 * self.replicates
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Newcomers::default();
    }
}

/// Returns the time from `since` to `until` in milliseconds, or 0 if either is not known.
fn ms_between(since: Option<SimTime>, until: Option<SimTime>) -> u64 {
    since.zip(until).map_or(0, |(since, until)| until.ms_since(since))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::payload::Transport;
    use squall_protocol::Dialect;

    /// Returns the processes that have just connected, after these payloads.
    fn newcomers(payloads: &[(u64, &str)]) -> Vec<String> {
        let mut newcomers = Newcomers::default();
        for (line, (at, text)) in (1..).zip(payloads) {
            let command = Command::parse(text).unwrap();
            newcomers.check(&ParsedPayload {
                line,
                at: Some(SimTime(*at)),
                channel: None,
                transport: Transport::Redis,
                dialect: Dialect::V1_163,
                command: Ok(&command),
                unread: None,
            });
        }
        newcomers.who.iter().map(InstanceName::to_string).collect()
    }

    const A: &str = "POSITION events a 5 5";
    const B: &str = "POSITION events b 5 5";

    #[test]
    fn a_process_that_answers_twice_has_just_connected() {
        assert!(newcomers(&[(0, "REPLICATE"), (1, B), (2, A)]).is_empty());
        assert_eq!(newcomers(&[(0, "REPLICATE"), (1, B), (2, B), (3, A)]), ["b"]);
        assert_eq!(newcomers(&[(0, "REPLICATE"), (1, B), (1, "REPLICATE"), (2, A), (2, A), (3, A), (3, B)]), ["a"]);
    }

    #[test]
    fn a_replicate_has_one_newcomer() {
        assert_eq!(newcomers(&[(0, "REPLICATE"), (1, B), (2, B), (3, A), (4, A)]), ["b"]);
        let again = [(0, "REPLICATE"), (1, B), (2, B), (9_000, "REPLICATE"), (9_001, A), (9_002, A), (9_003, B)];
        assert_eq!(newcomers(&again), ["a"]);
    }

    #[test]
    fn a_heartbeat_is_no_second_answer() {
        assert!(newcomers(&[(0, "REPLICATE"), (1, B), (2_001, B)]).is_empty());
        assert!(newcomers(&[(0, "REPLICATE"), (5_000, B), (5_001, B)]).is_empty());
        assert!(newcomers(&[(0, B), (1, B)]).is_empty());
    }
}
