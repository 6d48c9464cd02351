//! Processes that have just connected, recognised by their positions.
//!
//! `REPLICATE` does not name its sender. But a process of Synapse that connects to the broker sends `REPLICATE`, announces
//! its positions, receives its own `REPLICATE` like every other process, and announces them again. So it announces each
//! stream once more often than there were REPLICATEs, which no other process does. It does so when it is started and when
//! it has lost its connection; the traffic cannot tell these two apart. Every process of Synapse writes at least `caches`.
//!
//! One definition: a process has just connected if it has announced a stream more often than there were REPLICATEs, the
//! last two times together. There are at most as many such processes as REPLICATEs. If more announce too often, the first
//! ones count, and the others are [`Shown::TooOften`].
//!
//! The REPLICATEs and positions of the last [`TOGETHER_MS`] are counted, from a REPLICATE on: positions before it are
//! heartbeats, or answer another one. In recordings of Synapse 1.163 the second answer comes at most 83 ms after the
//! REPLICATE. A process that starts slowly, or stalls, answers later. If there was no REPLICATE for so long, all those of
//! the last [`AWAITED_MS`] are counted, because it may answer several together. A heartbeat does not come together with an
//! answer, with few exceptions.
//!
//! An instance that was away while others connected did not receive their REPLICATEs, and announces fewer positions. So in
//! a storm of many instances only a part of the connections is recognised, and a count is a lower bound. Without times
//! each REPLICATE stands alone, and every position after it is an answer.

use std::collections::{BTreeMap, VecDeque};

use super::origin::Origin;
use crate::observation::SimTime;
use squall_protocol::{Command, InstanceName, Position};

/// Time within which REPLICATEs, or the two answers of a process that has connected, come together, in milliseconds.
pub(super) const TOGETHER_MS: u64 = 400;

/// Time after a REPLICATE within which a position is an answer to it, in milliseconds.
pub(super) const AWAITED_MS: u64 = 5_000;

/// Number of REPLICATEs, and of positions of a writer, that are remembered.
const REMEMBERED_MAX: usize = 100;

/// Recognises the processes that have just connected.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// The times of the last REPLICATEs.
    replicates: VecDeque<SimTime>,
    /// The times of each writer's answers to them.
    answers: BTreeMap<Origin, VecDeque<SimTime>>,
    /// The processes that connected: at most one for each REPLICATE.
    connected: VecDeque<(SimTime, InstanceName)>,
}

/// The part of a payload in a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Shown {
    /// None: it is no answer to the last REPLICATEs.
    #[default]
    Nothing,
    /// An answer that every process gives.
    Answer,
    /// An answer that only a process gives that has just connected.
    Connected {
        /// True for the first such answer of a connection. Each of its streams shows the same connection.
        is_first: bool,
    },
    /// An answer that the REPLICATEs do not explain: as many processes have connected.
    TooOften,
}

impl Connections {
    /// Takes a payload into account.
    pub(super) fn check(&mut self, at: Option<SimTime>, command: Option<&Command>) -> Shown {
        match command {
            Some(Command::Replicate) => {
                self.replicate(at);
                Shown::Nothing
            }
            Some(Command::Position(position)) => self.position(at, position),
            _ => Shown::Nothing,
        }
    }

    fn replicate(&mut self, at: Option<SimTime>) {
        if at.is_none() {
            self.clear();
        }
        let at = at.unwrap_or_default();
        self.forget_before(at);
        remember(&mut self.replicates, at);
    }

    fn position(&mut self, at: Option<SimTime>, position: &Position) -> Shown {
        let at = at.unwrap_or_default();
        self.forget_before(at);
        if self.replicates.is_empty() || position.prev != position.new {
            return Shown::Nothing;
        }
        let together = self.replicates.iter().position(|replicate| at.ms_since(*replicate) < TOGETHER_MS);
        let first = together.unwrap_or_default();
        let since = self.replicates[first];
        let replicates = self.replicates.len() - first;
        let answers = self.answers.entry(Origin::from(position)).or_default();
        forget_before(answers, at);
        let is_second = answers.back().is_some_and(|before| at.ms_since(*before) < TOGETHER_MS);
        remember(answers, at);
        let surplus = answers.iter().filter(|answer| **answer >= since).count().saturating_sub(replicates);
        let connected: Vec<_> = self.connected.iter().filter(|(at, _)| *at >= since).collect();
        let of_writer = connected.iter().filter(|(_, writer)| *writer == position.writer).count();
        if surplus == 0 || !is_second {
            Shown::Answer
        } else if surplus <= of_writer {
            Shown::Connected { is_first: false }
        } else if connected.len() < replicates {
            self.connected.push_back((at, position.writer.clone()));
            Shown::Connected { is_first: true }
        } else {
            Shown::TooOften
        }
    }

    /// Returns true if the last payload, `command`, is a position of a process that had just connected when it came.
    pub(super) fn is_of_connected(&self, command: Option<&Command>) -> bool {
        let Some(Command::Position(position)) = command else { return false };
        self.connected.iter().any(|(_, connected)| *connected == position.writer)
    }

    /// Forgets everything: payloads may have been missed.
    pub(super) fn clear(&mut self) {
        *self = Connections::default();
    }

    /// Forgets the REPLICATEs to which no answer comes at `now`, and the connections of that time.
    fn forget_before(&mut self, now: SimTime) {
        forget_before(&mut self.replicates, now);
        while self.connected.front().is_some_and(|(at, _)| now.ms_since(*at) >= AWAITED_MS) {
            self.connected.pop_front();
        }
    }
}

fn forget_before(times: &mut VecDeque<SimTime>, now: SimTime) {
    while times.front().is_some_and(|at| now.ms_since(*at) >= AWAITED_MS) {
        times.pop_front();
    }
}

fn remember(times: &mut VecDeque<SimTime>, at: SimTime) {
    times.push_back(at);
    if times.len() > REMEMBERED_MAX {
        times.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns each payload's part in a connection, and whether the last one is of a process that has just connected.
    fn shown(payloads: &[(Option<u64>, &str)]) -> (Vec<Shown>, bool) {
        let mut connections = Connections::default();
        let mut shown = Vec::new();
        let mut is_of_connected = false;
        for (at, text) in payloads {
            let command = Command::parse(text).unwrap();
            shown.push(connections.check(at.map(SimTime), Some(&command)));
            is_of_connected = connections.is_of_connected(Some(&command));
        }
        (shown, is_of_connected)
    }

    /// Returns the processes that these payloads show to have connected, in order.
    fn connected(payloads: &[(u64, &str)]) -> Vec<String> {
        let payloads: Vec<_> = payloads.iter().map(|(at, text)| (Some(*at), *text)).collect();
        let (shown, _) = shown(&payloads);
        let mut connected = Vec::new();
        for ((_, text), shown) in payloads.iter().zip(shown) {
            if shown == (Shown::Connected { is_first: true }) {
                connected.push(text.split(' ').nth(2).unwrap().to_owned());
            }
        }
        connected
    }

    const A: &str = "POSITION caches a 5 5";
    const A_TYPING: &str = "POSITION typing a 1 1";
    const B: &str = "POSITION caches b 5 5";

    #[test]
    fn a_process_that_answers_twice_has_just_connected() {
        assert_eq!(connected(&[(0, "REPLICATE"), (1, B), (2, A), (3, A)]), ["a"]);
        let twice = [(0, "REPLICATE"), (1, A), (1, A_TYPING), (2, A), (2, A_TYPING), (3, B)];
        assert_eq!(connected(&twice), ["a"], "once for all of its streams");
        for after_ms in [10, 300, 401, 1_000, 9_000] {
            let again = twice.iter().map(|(at, text)| (at + after_ms, *text));
            let both: Vec<_> = twice.into_iter().chain(again).collect();
            assert_eq!(connected(&both), ["a", "a"], "{after_ms}");
        }
        assert_eq!(connected(&[(0, "REPLICATE"), (1, B), (1, "REPLICATE"), (2, A), (2, A), (3, A), (3, B)]), ["a"]);
    }

    #[test]
    fn a_process_that_answers_each_replicate_has_not_connected() {
        assert!(connected(&[(0, "REPLICATE"), (1, A), (2, B)]).is_empty());
        assert!(connected(&[(0, "REPLICATE"), (1, "REPLICATE"), (2, A), (3, A), (4, B), (5, B)]).is_empty());
        assert!(connected(&[(0, "REPLICATE"), (5, A), (402, "REPLICATE"), (403, A)]).is_empty(), "one answer to each");
        assert!(connected(&[(0, "REPLICATE"), (1, A), (2, "POSITION caches a 5 6")]).is_empty(), "a change");
    }

    #[test]
    fn a_heartbeat_is_no_second_answer() {
        assert!(connected(&[(0, A), (1, A)]).is_empty(), "without a REPLICATE");
        assert!(connected(&[(0, A), (1, "REPLICATE"), (2, A)]).is_empty());
        assert!(connected(&[(0, "REPLICATE"), (1, A), (401, A)]).is_empty());
        assert!(connected(&[(0, "REPLICATE"), (1, B), (2_001, B)]).is_empty());
        assert!(connected(&[(0, "REPLICATE"), (5_000, B), (5_001, B)]).is_empty());
    }

    #[test]
    fn each_replicate_has_one_sender() {
        assert_eq!(connected(&[(0, "REPLICATE"), (1, B), (2, B), (3, A), (4, A)]), ["b"]);
        let two = [(0, "REPLICATE"), (0, "REPLICATE"), (1, B), (2, B), (2, B), (3, A), (3, A), (4, A)];
        assert_eq!(connected(&two), ["b", "a"]);
        let first = Shown::Connected { is_first: true };
        let later = Shown::Connected { is_first: false };
        let payloads = ["REPLICATE", A, A_TYPING, A, A_TYPING, A, A_TYPING, B, B].map(|text| (Some(0), text));
        let expected = [Shown::Nothing, Shown::Answer, Shown::Answer, first, later];
        let rest = [Shown::TooOften, Shown::TooOften, Shown::Answer, Shown::TooOften];
        assert_eq!(shown(&payloads).0, [&expected[..], &rest].concat());
    }

    #[test]
    fn a_slow_process_answers_later() {
        assert_eq!(connected(&[(0, "REPLICATE"), (1, B), (1_500, A), (1_501, A)]), ["a"]);
        let two = [(0, "REPLICATE"), (1, B), (1_000, "REPLICATE"), (1_001, B), (1_500, A), (1_501, A)];
        assert!(connected(&two).is_empty(), "one answer to each");
        assert_eq!(connected(&[&two[..], &[(1_502, A)]].concat()), ["a"]);
    }

    #[test]
    fn a_process_has_just_connected_for_a_moment() {
        let twice = [(Some(0), "REPLICATE"), (Some(1), A), (Some(2), A)];
        let is_of_connected = |at, text| shown(&[&twice[..], &[(Some(at), text)]].concat()).1;
        assert!(is_of_connected(5_001, A_TYPING));
        assert!(!is_of_connected(5_002, A_TYPING));
        assert!(!is_of_connected(3, B) && !is_of_connected(3, "REPLICATE"));
    }

    #[test]
    fn without_times_each_replicate_stands_alone() {
        let payloads = ["REPLICATE", A, B, "REPLICATE", B, A, A].map(|text| (None, text));
        assert_eq!(shown(&payloads).0[5..], [Shown::Answer, Shown::Connected { is_first: true }]);
        assert!(shown(&payloads).1 && !shown(&payloads[..5]).1);
    }
}
