//! Directions are kept.
//!
//! Over TCP each end of a connection has commands of its own. Whoever hears one that the other end may not say closes the
//! connection, as for nonsense: a master that passed `USER_SYNC` on to everybody made all of them reconnect for ever
//! (Synapse #7257, #7318). So no end ever writes such a line.
//!
//! No false alarm: the lists are Synapse's own, and every end is judged by what it wrote, whether or not it arrived. They
//! are written down here once more, although [`Direction`](crate::protocol::Direction) has them: what the stack goes by
//! must not acquit it.

use super::Invariant;
use crate::judge::observation::{Moment, Observation, Side};
use crate::judge::violation::Violation;
use crate::judge::wire_violation::WireViolation;

/// What either end may say.
const OF_BOTH: [&str; 4] = ["PING", "ERROR", "REMOTE_SERVER_UP", "LOCK_RELEASED"];
/// What only the end that accepted may say.
const OF_SERVERS: [&str; 3] = ["SERVER", "RDATA", "POSITION"];
/// What only the end that connected may say.
const OF_CLIENTS: [&str; 6] = ["NAME", "REPLICATE", "USER_SYNC", "CLEAR_USER_SYNC", "FEDERATION_ACK", "USER_IP"];
/// What whoever publishes at a broker may say to everybody: nobody greets there, and nobody is to be pinged or refused.
const OF_PUBLISHERS: [&str; 10] = [
    "RDATA",
    "POSITION",
    "REPLICATE",
    "USER_SYNC",
    "CLEAR_USER_SYNC",
    "FEDERATION_ACK",
    "REMOTE_SERVER_UP",
    "LOCK_RELEASED",
    "NEW_ACTIVE_TASK",
    "CANCEL_TASK",
];

/// Judges every line that is written to a connection.
#[derive(Debug, Default)]
pub struct DirectionsKept {
    judged: u64,
}

impl Invariant for DirectionsKept {
    fn name(&self) -> &'static str {
        "directions_kept"
    }

    fn observe(&mut self, _at: Moment, observation: &Observation) -> Result<(), Violation> {
        let Observation::Wrote { instance, side, line, .. } = observation else { return Ok(()) };
        self.judged += 1;
        let of_side: &[&str] = match side {
            Side::Server => &OF_SERVERS,
            Side::Client => &OF_CLIENTS,
            Side::Publisher => &OF_PUBLISHERS,
        };
        let command = line.command();
        let is_of_both = *side != Side::Publisher && OF_BOTH.contains(&command);
        if is_of_both || of_side.contains(&command) {
            return Ok(());
        }
        let (instance, side) = (instance.clone(), *side);
        Err(Violation::Wire(WireViolation::WrongDirection { instance, side, command }))
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::observation::Line;
    use crate::protocol::Token;

    fn is_kept(side: Side, line: Line) -> bool {
        let wrote = Observation::Wrote { instance: "master".into(), attempt: 1, side, line };
        match DirectionsKept::default().observe(Moment(0), &wrote) {
            Ok(()) => true,
            Err(Violation::Wire(WireViolation::WrongDirection { .. })) => false,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_end_says_what_is_its_own_and_what_is_of_both() {
        for command in ["PING", "ERROR", "REMOTE_SERVER_UP", "LOCK_RELEASED"] {
            assert!(is_kept(Side::Server, Line::Other(command)) && is_kept(Side::Client, Line::Other(command)));
        }
        for command in ["NAME", "REPLICATE", "USER_SYNC", "CLEAR_USER_SYNC", "FEDERATION_ACK", "USER_IP"] {
            assert!(is_kept(Side::Client, Line::Other(command)) && !is_kept(Side::Server, Line::Other(command)));
        }
        let rdata = || Line::Rdata { stream: "s".into(), writer: "w".into(), token: None };
        assert!(is_kept(Side::Server, rdata()) && !is_kept(Side::Client, rdata()));
        let (prev, new) = (Token(1), Token(1));
        let position = || Line::Position { stream: "s".into(), writer: "w".into(), prev, new };
        assert!(is_kept(Side::Server, position()) && !is_kept(Side::Client, position()));
        assert!(is_kept(Side::Publisher, rdata()) && is_kept(Side::Publisher, position()));
    }

    #[test]
    fn what_is_for_redis_alone_is_said_there_alone_and_what_is_for_connections_nowhere_there() {
        for command in ["NEW_ACTIVE_TASK", "CANCEL_TASK"] {
            assert!(!is_kept(Side::Server, Line::Other(command)) && !is_kept(Side::Client, Line::Other(command)));
            assert!(is_kept(Side::Publisher, Line::Other(command)));
        }
        for command in ["SERVER", "NAME", "PING", "ERROR"] {
            assert!(!is_kept(Side::Publisher, Line::Other(command)), "{command}");
        }
    }

    #[test]
    fn nobody_says_what_is_no_command() {
        let sides = [Side::Server, Side::Client, Side::Publisher];
        assert!(sides.into_iter().all(|side| !is_kept(side, Line::Nonsense)));
    }
}
