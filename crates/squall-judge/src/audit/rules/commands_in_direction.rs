//! Commands travel in their own direction.
//!
//! Over TCP each end may send only some commands. The other end closes the connection for anything else: a master that
//! passed on a `USER_SYNC` made all its clients reconnect for ever (Synapse #7318). Over Redis every command is broadcast,
//! but some instances do not subscribe to every channel: the IP addresses of users have a channel of their own (Synapse
//! #12809).
//!
//! No false alarm: the first command that only one end may send shows which end of a connection was recorded, and the
//! first channel shows the name of the server. Before Synapse 1.60 there was one channel for everything.
//!
//! Class: a command that travels the wrong way is load, because the other end closes the connection and fetches everything
//! again. A command on the wrong channel is a loss for each instance that does not subscribe to it.

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;

use crate::audit::class::Class;
use crate::audit::finding::{Findings, RuleViolation};
use crate::audit::payload::{ParsedPayload, Transport};
use crate::audit::rule::Rule;
use crate::observation::SimTime;
use squall_protocol::{Command, Dialect, Direction, Quoted};

/// Suffix of the channel for IP addresses of users, after the server's name.
const USER_IP: &str = "/USER_IP";

/// A violation of this rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error, IntoStaticStr, VariantNames)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum Violation {
    /// A command travelled against its direction.
    #[error("{command} must not be sent by this end of the connection")]
    WrongWay { command: &'static str },
    /// A command was published on a channel to which the instances that need it do not subscribe.
    #[error("{command} was published on {channel}, which is not its channel: instances that need it miss it")]
    WrongChannel { command: &'static str, channel: String },
}

impl RuleViolation for Violation {
    fn class(&self) -> Class {
        match self {
            Violation::WrongWay { .. } => Class::Load,
            Violation::WrongChannel { .. } => Class::Loss,
        }
    }
}

/// Checks the sender and the channel of every command.
#[derive(Debug, Default)]
pub(super) struct CommandsInDirection {
    /// TCP: the direction that was recorded.
    direction: Option<Direction>,
    /// Redis: the server's name, which is the name of the main channel.
    server: Option<String>,
    judged: u64,
}

impl CommandsInDirection {
    fn is_right_way(&mut self, command: &Command) -> bool {
        let direction = match self.direction {
            Some(direction) => direction,
            None => {
                let to_client = Direction::ServerToClient.allows(command);
                let to_server = Direction::ClientToServer.allows(command);
                match (to_client, to_server) {
                    (true, false) => *self.direction.insert(Direction::ServerToClient),
                    (false, true) => *self.direction.insert(Direction::ClientToServer),
                    (true, true) => return true,
                    // The command exists only over Redis.
                    (false, false) => return false,
                }
            }
        };
        direction.allows(command)
    }

    fn is_right_channel(&mut self, command: &Command, channel: &str) -> bool {
        let server = channel.strip_suffix(USER_IP).unwrap_or(channel);
        let server = self.server.get_or_insert_with(|| server.to_owned());
        match command {
            Command::UserIp(_) => channel.strip_suffix(USER_IP) == Some(server),
            _ => channel == server,
        }
    }
}

impl Rule for CommandsInDirection {
    type Violation = Violation;

    fn check(&mut self, payload: &ParsedPayload<'_>, findings: &mut Findings<Violation>) {
        let Ok(command) = payload.command else { return };
        match (payload.transport, payload.channel) {
            (Transport::Tcp, _) => {
                self.judged += 1;
                if !self.is_right_way(command) {
                    findings.add(payload.line, Violation::WrongWay { command: command.name() });
                }
            }
            (Transport::Redis, Some(channel)) if payload.dialect == Dialect::V1_163 => {
                self.judged += 1;
                if !self.is_right_channel(command, channel) {
                    let channel = Quoted(channel).to_string();
                    findings.add(payload.line, Violation::WrongChannel { command: command.name(), channel });
                }
            }
            (Transport::Redis, _) => {}
        }
    }

    fn missed(&mut self, _now: Option<SimTime>) {
        // The recorded end and the server stay the same.
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::payload::Unreadable;
    use crate::audit::testing::{kinds, payload};

    fn found(transport: Transport, payloads: &[(&str, &str)]) -> Vec<(u64, &'static str)> {
        let mut rule = CommandsInDirection::default();
        let mut findings = Findings::default();
        for (line, (channel, text)) in (1..).zip(payloads) {
            let channel = (transport == Transport::Redis).then_some(*channel);
            let command = Dialect::V1_163.parse(text).map_err(Unreadable::from);
            rule.check(&ParsedPayload { channel, transport, ..payload(line, None, &command) }, &mut findings);
        }
        kinds(&findings.0)
    }

    #[test]
    fn either_end_of_a_connection_may_send_its_own_commands() {
        let server = [("", "PING 1"), ("", "SERVER squall.test"), ("", "POSITION events a 1 1"), ("", "ERROR bye")];
        assert_eq!(found(Transport::Tcp, &server), []);
        let client = [("", "NAME worker"), ("", "PING 1"), ("", "USER_SYNC x @u:h None start 1"), ("", "REPLICATE")];
        assert_eq!(found(Transport::Tcp, &client), []);
    }

    #[test]
    fn a_command_of_the_other_end_is_found() {
        let server = [("", "SERVER squall.test"), ("", "USER_SYNC x @u:h None start 1"), ("", "NEW_ACTIVE_TASK x")];
        assert_eq!(found(Transport::Tcp, &server), [(2, "wrong_way"), (3, "wrong_way")]);
        let client = [("", "REPLICATE"), ("", "POSITION events a 1 1")];
        assert_eq!(found(Transport::Tcp, &client), [(2, "wrong_way")]);
    }

    #[test]
    fn ip_addresses_have_a_channel_of_their_own() {
        let seen = r#"USER_IP @u:h ["t","ip","agent","device",1]"#;
        let right = [("h", "REPLICATE"), ("h/USER_IP", seen), ("h", "USER_SYNC x @u:h None start 1")];
        assert_eq!(found(Transport::Redis, &right), []);
        let wrong = [("h/USER_IP", seen), ("h", seen), ("h/USER_IP", "REPLICATE"), ("elsewhere", "REPLICATE")];
        assert_eq!(found(Transport::Redis, &wrong), [(2, "wrong_channel"), (3, "wrong_channel"), (4, "wrong_channel")]);
    }
}
