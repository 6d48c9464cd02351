//! What went over a connection, or was fetched beside it, that must not be; and what did not come of it that must.

use std::fmt;

use serde::Serialize;

use super::observation::Side;
use super::topology::Feed;
use super::violation::list;
use crate::protocol::{InstanceName, StreamName, Token};

/// A promise about what instances say to each other that was not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "a variant's fields are the words of its own sentence")]
pub enum WireViolation {
    /// A position was announced over committed rows: whoever stands before them does not fetch them.
    Hidden { stream: StreamName, writer: InstanceName, prev: Token, new: Token, tokens: Vec<Token> },
    /// An end said what its side of a connection never says.
    WrongDirection { instance: InstanceName, side: Side, command: &'static str },
    /// An instance spoke of rows that it does not write.
    NotItsWriter { instance: InstanceName, stream: StreamName, writer: InstanceName, command: &'static str },
    /// A row was sent a second time on one connection, or after a later one.
    SaidAgain { instance: InstanceName, stream: StreamName, writer: InstanceName, token: Token, before: Token },
    /// More was said on a connection than anything can have caused.
    TooMuchSaid { instance: InstanceName, side: Side, command: &'static str, said: u64, caused: u64 },
    /// More was fetched than was lacking.
    TooMuchFetched {
        instance: InstanceName,
        stream: StreamName,
        fetches: u64,
        rows: u64,
        needed: u64,
        rows_needed: u64,
    },
    /// A client waited in vain for a position that its instance had reached.
    WaitedInVain {
        #[serde(flatten)]
        feed: Feed,
        awaited: Token,
        position: Token,
    },
    /// A client was told that its write is done and seen before its instance's position was there.
    ToldTooEarly {
        #[serde(flatten)]
        feed: Feed,
        awaited: Token,
        position: Token,
    },
    /// All is calm, and a writer still does not announce that its stream is settled up to the last row.
    StillInFlight { stream: StreamName, writer: InstanceName, announced: Option<Token>, highest: Token },
    /// An end gave up a connection for something that it need not understand.
    NotIsolated { instance: InstanceName, stream: StreamName },
    /// Something that could not be understood was passed over without a word.
    NotReported { instance: InstanceName, stream: StreamName },
    /// A connection was attempted later than the back-off allows, or has not been yet.
    TooLate { instance: InstanceName, target: InstanceName, waited_ms: u64, most_ms: u64 },
    /// A connection is dead at the other end, and has not been given up.
    Unnoticed { instance: InstanceName, target: InstanceName, silent_ms: u64, most_ms: u64 },
}

impl WireViolation {
    /// The name of the invariant that was violated.
    pub fn invariant(&self) -> &'static str {
        match self {
            WireViolation::Hidden { .. } => "positions_hide_no_row",
            WireViolation::WrongDirection { .. } => "directions_kept",
            WireViolation::NotItsWriter { .. } => "writers_announce",
            WireViolation::SaidAgain { .. } | WireViolation::TooMuchSaid { .. } => "causes_bounded",
            WireViolation::TooMuchFetched { .. } => "catch_up_bounded",
            WireViolation::WaitedInVain { .. } | WireViolation::ToldTooEarly { .. } => "waits_resolve",
            WireViolation::StillInFlight { .. } => "no_id_in_flight",
            WireViolation::NotIsolated { .. } | WireViolation::NotReported { .. } => "strangers_isolated",
            WireViolation::TooLate { .. } | WireViolation::Unnoticed { .. } => "reconnects_in_time",
        }
    }

    /// How it was violated, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            WireViolation::Hidden { .. } => "hidden",
            WireViolation::WrongDirection { .. } => "wrong_direction",
            WireViolation::NotItsWriter { .. } => "not_its_writer",
            WireViolation::SaidAgain { .. } => "said_again",
            WireViolation::TooMuchSaid { .. } => "too_much_said",
            WireViolation::TooMuchFetched { .. } => "too_much_fetched",
            WireViolation::WaitedInVain { .. } => "waited_in_vain",
            WireViolation::ToldTooEarly { .. } => "told_too_early",
            WireViolation::StillInFlight { .. } => "still_in_flight",
            WireViolation::NotIsolated { .. } => "not_isolated",
            WireViolation::NotReported { .. } => "not_reported",
            WireViolation::TooLate { .. } => "too_late",
            WireViolation::Unnoticed { .. } => "unnoticed",
        }
    }

    /// The stream it is about, if it is about one.
    pub fn stream(&self) -> Option<&StreamName> {
        match self {
            WireViolation::Hidden { stream, .. }
            | WireViolation::NotItsWriter { stream, .. }
            | WireViolation::SaidAgain { stream, .. }
            | WireViolation::TooMuchFetched { stream, .. }
            | WireViolation::StillInFlight { stream, .. } => Some(stream),
            WireViolation::WaitedInVain { feed, .. } | WireViolation::ToldTooEarly { feed, .. } => Some(&feed.stream),
            // That of a stranger's stream is drawn; it says nothing of the defect.
            WireViolation::NotIsolated { .. }
            | WireViolation::NotReported { .. }
            | WireViolation::WrongDirection { .. }
            | WireViolation::TooMuchSaid { .. }
            | WireViolation::TooLate { .. }
            | WireViolation::Unnoticed { .. } => None,
        }
    }
}

impl fmt::Display for WireViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireViolation::Hidden { stream, writer, prev, new, tokens } => {
                let tokens = list(tokens);
                write!(f, "{writer} said that {stream} has nothing in ({prev}, {new}], where it had committed {tokens}")
            }
            WireViolation::WrongDirection { instance, side, command } => {
                write!(f, "{instance} wrote {command}, which no {} may say", name(*side))
            }
            WireViolation::NotItsWriter { instance, stream, writer, command } => {
                write!(f, "{instance} wrote {command} for {writer}'s rows of {stream}")
            }
            WireViolation::SaidAgain { instance, stream, writer, token, before } => {
                write!(f, "{instance} sent token {token} of {stream} of {writer} after {before} on the same connection")
            }
            WireViolation::TooMuchSaid { instance, side, command, said, caused } => {
                write!(f, "{instance}, a {}, wrote {said} {command} on one connection, where ", name(*side))?;
                write!(f, "{caused} can have been caused")
            }
            WireViolation::TooMuchFetched { instance, stream, fetches, rows, needed, rows_needed } => {
                write!(f, "{instance} fetched {rows} rows of {stream} in {fetches} queries, where ")?;
                write!(f, "{rows_needed} rows in {needed} queries are the most that it can have lacked")
            }
            WireViolation::WaitedInVain { feed, awaited, position } => {
                write!(f, "{feed}: a client waited in vain for {awaited}, and the position is at {position} already")
            }
            WireViolation::ToldTooEarly { feed, awaited, position } => {
                write!(f, "{feed}: a client was told that {awaited} is done, when the position was at {position}")
            }
            WireViolation::StillInFlight { stream, writer, announced, highest } => {
                let announced = announced.map_or_else(|| "nothing".to_owned(), |token| token.to_string());
                write!(
                    f,
                    "{writer} announces {announced} for {stream}, long after {highest} was committed and all is calm"
                )
            }
            WireViolation::NotIsolated { instance, stream } => {
                write!(f, "{instance} gave up a connection for a line of {stream} that it need not understand")
            }
            WireViolation::NotReported { instance, stream } => {
                write!(f, "{instance} passed over a line of {stream} that it does not understand, without a word")
            }
            WireViolation::TooLate { instance, target, waited_ms, most_ms } => {
                write!(f, "{instance} has not tried {target} again for {waited_ms} ms, not within {most_ms} ms")
            }
            WireViolation::Unnoticed { instance, target, silent_ms, most_ms } => {
                write!(f, "{instance} has not noticed for {silent_ms} ms, not within {most_ms} ms, ")?;
                write!(f, "that its connection to {target} is dead at the other end")
            }
        }
    }
}

fn name(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
        Side::Publisher => "publisher",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Violation;

    #[test]
    fn in_json_and_in_fingerprints_it_is_a_violation_like_any_other() {
        let (stream, writer) = ("events".into(), "writer1".into());
        let hidden = WireViolation::Hidden { stream, writer, prev: Token(3), new: Token(7), tokens: vec![Token(5)] };
        let violation = Violation::Wire(hidden);
        assert_eq!(violation.fingerprint(), "positions_hide_no_row/events/hidden");
        assert_eq!(violation.to_string(), "writer1 said that events has nothing in (3, 7], where it had committed 5");
        let json = serde_json::to_value(&violation).unwrap();
        assert_eq!((json["kind"].as_str(), json["new"].as_i64()), (Some("hidden"), Some(7)));
        let violation = Violation::Wire(WireViolation::WrongDirection {
            instance: "master".into(),
            side: Side::Server,
            command: "USER_SYNC",
        });
        assert_eq!(violation.fingerprint(), "directions_kept/wrong_direction");
        assert_eq!(violation.to_string(), "master wrote USER_SYNC, which no server may say");
    }
}
