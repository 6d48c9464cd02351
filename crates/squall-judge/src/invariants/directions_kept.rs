//! Directions are kept.
//!
//! Over TCP each end of a connection has commands of its own. An end that reads a command of the wrong direction closes
//! the connection, as for a line that is no command. A master that passed `USER_SYNC` on to its followers made all of
//! them reconnect for ever (Synapse #7257, #7318). So no end ever writes such a line.
//!
//! No false alarm: the lists below are Synapse's own. An end is judged by the lines that it wrote, whether or not they
//! arrived. [`Direction`](squall_protocol::Direction) has the same lists for the stack; the judge has its own copy, so that a
//! mistake in the stack's list is found.

use serde::Serialize;
use thiserror::Error;

use crate::invariant::Invariant;
use crate::observation::{Kind, Observation, Role, SimTime};
use crate::scene::Scene;
use crate::topology::Topology;
use squall_protocol::InstanceName;

/// The commands that either end may write.
const OF_BOTH: [&str; 4] = ["PING", "ERROR", "REMOTE_SERVER_UP", "LOCK_RELEASED"];
/// The commands of the end that accepted.
const OF_SERVERS: [&str; 3] = ["SERVER", "RDATA", "POSITION"];
/// The commands of the end that connected.
const OF_CLIENTS: [&str; 6] = ["NAME", "REPLICATE", "USER_SYNC", "CLEAR_USER_SYNC", "FEDERATION_ACK", "USER_IP"];
/// The commands that an instance may publish at a broker. There is no greeting, ping or refusal there.
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

/// A command in the wrong direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence of a variant explains its fields")]
pub enum Violation {
    /// An end wrote a command that its role does not have.
    #[error("{instance} wrote {command}, which a {role} may not write")]
    WrongDirection { instance: InstanceName, role: Role, command: &'static str },
}

/// Checks the direction of every line written to a connection.
#[derive(Debug, Default)]
pub struct DirectionsKept {
    judged: u64,
}

impl Invariant for DirectionsKept {
    type Violation = Violation;
    const OBSERVES: &'static [Kind] = &[Kind::Wrote];

    fn new(_topology: &Topology) -> Self {
        Self::default()
    }

    fn observe(&mut self, _at: SimTime, observation: &Observation, _scene: &Scene) -> Result<(), Violation> {
        let Observation::Wrote { instance, role, line, .. } = observation else { return Ok(()) };
        self.judged += 1;
        let of_role: &[&str] = match role {
            Role::Server => &OF_SERVERS,
            Role::Client => &OF_CLIENTS,
            Role::Publisher => &OF_PUBLISHERS,
        };
        let command = line.command();
        let is_of_both = *role != Role::Publisher && OF_BOTH.contains(&command);
        if is_of_both || of_role.contains(&command) {
            return Ok(());
        }
        Err(Violation::WrongDirection { instance: instance.clone(), role: *role, command })
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariant::Alone;
    use crate::observation::Line;
    use squall_protocol::Token;

    fn is_kept(role: Role, line: Line) -> bool {
        let wrote = Observation::Wrote { instance: "master".into(), attempt: 1, role, line };
        Alone::<DirectionsKept>::default().observe(SimTime(0), &wrote).is_ok()
    }

    #[test]
    fn each_end_writes_its_own_commands_and_the_common_ones() {
        for command in ["PING", "ERROR", "REMOTE_SERVER_UP", "LOCK_RELEASED"] {
            assert!(is_kept(Role::Server, Line::Other(command)) && is_kept(Role::Client, Line::Other(command)));
        }
        for command in ["NAME", "REPLICATE", "USER_SYNC", "CLEAR_USER_SYNC", "FEDERATION_ACK", "USER_IP"] {
            assert!(is_kept(Role::Client, Line::Other(command)) && !is_kept(Role::Server, Line::Other(command)));
        }
        let rdata = || Line::Rdata { stream: "s".into(), writer: "w".into(), token: None };
        assert!(is_kept(Role::Server, rdata()) && !is_kept(Role::Client, rdata()));
        let (prev, new) = (Token(1), Token(1));
        let position = || Line::Position { stream: "s".into(), writer: "w".into(), prev, new };
        assert!(is_kept(Role::Server, position()) && !is_kept(Role::Client, position()));
        assert!(is_kept(Role::Publisher, rdata()) && is_kept(Role::Publisher, position()));
    }

    #[test]
    fn commands_of_redis_are_not_for_tcp_and_commands_of_tcp_are_not_for_redis() {
        for command in ["NEW_ACTIVE_TASK", "CANCEL_TASK"] {
            assert!(!is_kept(Role::Server, Line::Other(command)) && !is_kept(Role::Client, Line::Other(command)));
            assert!(is_kept(Role::Publisher, Line::Other(command)));
        }
        for command in ["SERVER", "NAME", "PING", "ERROR"] {
            assert!(!is_kept(Role::Publisher, Line::Other(command)), "{command}");
        }
    }

    #[test]
    fn no_role_writes_a_line_that_is_no_command() {
        let roles = [Role::Server, Role::Client, Role::Publisher];
        assert!(roles.into_iter().all(|role| !is_kept(role, Line::Nonsense)));
    }

    #[test]
    fn the_sentence_names_the_role() {
        let violation =
            Violation::WrongDirection { instance: "master".into(), role: Role::Server, command: "USER_SYNC" };
        assert_eq!(violation.to_string(), "master wrote USER_SYNC, which a server may not write");
    }
}
