//! Payloads that came right before REPLICATEs, one of which may have made an instance reconnect.
//!
//! A process of Synapse closes its connection when it receives a position of a stream that it does not have. It connects
//! again about a second later, and sends `REPLICATE`. So the payload that a storm of REPLICATEs comes from precedes nearly
//! all of them. A payload that it cannot parse ends nothing over Redis: Synapse logs and drops it.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde::Serialize;

use super::payload::Unreadable;
use super::streams;
use crate::observation::SimTime;
use squall_protocol::{Command, InstanceName, StreamName};

/// Longest time by which a payload precedes the REPLICATE that it caused, in milliseconds.
const PRECEDING_MS: u64 = 1_500;

/// Number of kinds of payloads that are remembered.
const KINDS_MAX: usize = 1_000;

/// Number of kinds of payloads before one REPLICATE that are remembered: the most suspicious ones.
const KEPT_MAX: usize = 16;

/// The degree to which a payload can make a process reconnect, the greatest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Suspicion {
    /// It concerns a stream that Synapse 1.163 does not have.
    UnknownStream,
    /// It is a position of a stream that an older Synapse may not have. The number is that of the streams that are newer.
    NewStream(usize),
    /// It is not a command. Over Redis Synapse drops it, so it is hardly the cause.
    NotACommand,
    /// It is a command that every process knows.
    Known,
}

/// Payloads that are alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PayloadKind {
    /// The degree to which it can make a process reconnect.
    pub suspicion: Suspicion,
    /// The name of the command, or the first word of a payload that is none.
    pub command: String,
    /// The stream that it concerns, if it concerns one.
    pub stream: Option<StreamName>,
    /// The instance that sent it, if it has a name.
    pub writer: Option<InstanceName>,
}

impl PayloadKind {
    fn of(command: Result<&Command, &Unreadable>) -> Option<PayloadKind> {
        let command = match command {
            Ok(command) => command,
            Err(error) => {
                let command = first_word(error)?.to_owned();
                return Some(PayloadKind { suspicion: Suspicion::NotACommand, command, stream: None, writer: None });
            }
        };
        let (stream, writer) = match command {
            Command::Rdata(rdata) => (Some(rdata.stream.clone()), Some(rdata.writer.clone())),
            Command::Position(position) => (Some(position.stream.clone()), Some(position.writer.clone())),
            Command::Replicate | Command::Ping(_) => return None,
            _ => (None, None),
        };
        let is_position = matches!(command, Command::Position(_));
        let suspicion = stream.as_ref().map_or(Suspicion::Known, |stream| suspicion(stream, is_position));
        // Every process announces the positions of known streams after each REPLICATE.
        let is_answer = is_position && suspicion == Suspicion::Known;
        let command = command.name().to_owned();
        (!is_answer).then_some(PayloadKind { suspicion, command, stream, writer })
    }
}

impl std::fmt::Display for PayloadKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.suspicion, &self.stream, &self.writer) {
            (Suspicion::NotACommand, ..) => write!(f, "a payload that is no command ({})", self.command),
            (_, Some(stream), Some(writer)) => write!(f, "{} {stream} of {writer}", self.command),
            _ => f.write_str(&self.command),
        }
    }
}

/// Returns the first word of a payload that is not a command: payloads are alike if they begin alike. Returns none for a
/// payload that only this audit does not read.
fn first_word(error: &Unreadable) -> Option<&str> {
    match error {
        Unreadable::NotACommand(error) => Some(error.line.split(' ').next().unwrap_or_default()),
        Unreadable::NotUtf8(_) => Some("not UTF-8"),
        Unreadable::TooLong(_) | Unreadable::Unfollowed(_) => None,
    }
}

fn suspicion(stream: &StreamName, is_position: bool) -> Suspicion {
    match streams::newer_than(stream.as_str()) {
        Some(newer) if is_position => Suspicion::NewStream(newer),
        _ if streams::is_known(stream.as_str()) => Suspicion::Known,
        _ => Suspicion::UnknownStream,
    }
}

/// Remembers the payloads of the last moments.
#[derive(Debug, Default)]
pub(super) struct Preceding {
    /// The time of the last payload of each kind.
    last: BTreeMap<Rc<PayloadKind>, SimTime>,
}

impl Preceding {
    /// Takes a payload into account.
    pub(super) fn payload(&mut self, at: SimTime, command: Result<&Command, &Unreadable>) {
        let Some(kind) = PayloadKind::of(command) else { return };
        self.last.insert(Rc::new(kind), at);
        if self.last.len() > KINDS_MAX {
            self.last.retain(|_, then| at.ms_since(*then) <= PRECEDING_MS);
        }
        if self.last.len() > KINDS_MAX {
            self.last.clear();
        }
    }

    /// Returns the kinds of payloads that came right before `at`, the most suspicious first.
    pub(super) fn before(&self, at: SimTime) -> Vec<Rc<PayloadKind>> {
        let recent = self.last.iter().filter(|(_, then)| at.ms_since(**then) <= PRECEDING_MS);
        recent.map(|(kind, _)| Rc::clone(kind)).take(KEPT_MAX).collect()
    }

    /// Forgets every payload.
    pub(super) fn missed(&mut self) {
        self.last.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::bounds::Excess;

    fn before(payloads: &[(u64, &str)], at: u64) -> Vec<String> {
        let mut preceding = Preceding::default();
        for (at, text) in payloads {
            let command = Command::parse(text).map_err(Unreadable::from);
            preceding.payload(SimTime(*at), command.as_ref());
        }
        preceding.before(SimTime(at)).iter().map(|kind| kind.to_string()).collect()
    }

    #[test]
    fn the_most_suspicious_payload_comes_first() {
        let payloads = [
            (0, "POSITION caches a 1 1"),
            (1, "RDATA caches a 2 [\"x\"]"),
            (2, "POSITION sticky_events a 1 1"),
            (3, "POSITION profile_updates b 1 1"),
            (4, "POSITION nonesuch c 5 5"),
            (5, "NOSUCH 1"),
            (6, "PING 1"),
        ];
        let expected = [
            "POSITION nonesuch of c",
            "POSITION profile_updates of b",
            "POSITION sticky_events of a",
            "a payload that is no command (NOSUCH)",
            "RDATA caches of a",
        ];
        assert_eq!(before(&payloads, 100), expected);
    }

    #[test]
    fn payloads_that_are_no_command_are_alike_if_they_begin_alike() {
        let payloads =
            [(0, "NOSUCH 1"), (1, "NOSUCH 2"), (2, "RDATA typing a 5 ["), (3, "RDATA typing a 6 ["), (4, "")];
        let expected = ["", "NOSUCH", "RDATA"].map(|word| format!("a payload that is no command ({word})"));
        assert_eq!(before(&payloads, 100), expected);
    }

    #[test]
    fn a_payload_that_only_the_audit_does_not_read_is_no_suspect() {
        let mut preceding = Preceding::default();
        preceding.payload(SimTime(0), Err(&Unreadable::TooLong(2_000_000)));
        preceding.payload(SimTime(0), Err(&Unreadable::Unfollowed(Excess::Streams)));
        assert_eq!(preceding.before(SimTime(0)), []);
    }

    #[test]
    fn a_payload_of_earlier_is_forgotten() {
        let payloads = [(0, "POSITION nonesuch c 5 5"), (1_000, "POSITION nonesuch d 5 5")];
        assert_eq!(before(&payloads, PRECEDING_MS + 1), ["POSITION nonesuch of d"]);
    }

    #[test]
    fn the_number_of_kinds_is_bounded() {
        let mut preceding = Preceding::default();
        for number in 0..3 * KINDS_MAX as u64 {
            let command = Command::parse(&format!("POSITION s{number} a 1 1")).unwrap();
            preceding.payload(SimTime(0), Ok(&command));
            assert!(preceding.last.len() <= KINDS_MAX);
        }
        assert_eq!(preceding.before(SimTime(0)).len(), KEPT_MAX);
    }
}
