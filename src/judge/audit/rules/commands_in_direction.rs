//! Commands travel the way that is theirs.
//!
//! Over TCP each end says only what its side may: the other one closes the connection for anything else, and a master that
//! passed on a `USER_SYNC` made all its clients reconnect for ever (Synapse #7318). Over Redis everything is broadcast,
//! but not everybody listens to every channel: addresses of users have one of their own (Synapse #12809).
//!
//! No false alarm: which end of a connection was recorded is told by the first command that only one of them may say, and
//! the name of the server by the first channel. Before Synapse 1.60 there was one channel for everything.

use super::Rule;
use crate::judge::audit::{Findings, Heard, Transport, Violation};
use crate::judge::observation::Moment;
use crate::protocol::{Command, Dialect, Direction};

/// The channel on which addresses of users are told, after the server's name.
const USER_IP: &str = "/USER_IP";

/// Judges which commands are said by whom, and where.
#[derive(Debug, Default)]
pub struct CommandsInDirection {
    /// TCP: which end was recorded.
    direction: Option<Direction>,
    /// Redis: the server's name, which is that of the main channel.
    server: Option<String>,
    judged: u64,
}

impl CommandsInDirection {
    fn is_right_way(&mut self, command: &Command) -> bool {
        let direction = match self.direction {
            Some(direction) => direction,
            None => {
                let may = |direction: Direction| direction.allows(command);
                match (may(Direction::ServerToClient), may(Direction::ClientToServer)) {
                    (true, false) => *self.direction.insert(Direction::ServerToClient),
                    (false, true) => *self.direction.insert(Direction::ClientToServer),
                    (true, true) => return true,
                    // Over Redis only.
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
    fn name(&self) -> &'static str {
        "commands_in_direction"
    }

    fn hear(&mut self, heard: &Heard<'_>, findings: &mut Findings) {
        let Ok(said) = heard.said else { return };
        let command = said.name();
        match (heard.transport, heard.channel) {
            (Transport::Tcp, _) => {
                self.judged += 1;
                if !self.is_right_way(said) {
                    findings.add(heard.line, Violation::WrongWay { command });
                }
            }
            (Transport::Redis, Some(channel)) if heard.dialect == Dialect::V1_163 => {
                self.judged += 1;
                if !self.is_right_channel(said, channel) {
                    findings.add(heard.line, Violation::WrongChannel { command, channel: channel.to_owned() });
                }
            }
            (Transport::Redis, _) => {}
        }
    }

    fn missed(&mut self, _now: Option<Moment>) {
        // Neither end became the other one.
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::audit::{Audit, Payload};

    fn found(transport: Transport, payloads: &[(&str, &str)]) -> Vec<(u64, &'static str)> {
        let mut audit = Audit::new(transport, Some(Dialect::V1_163));
        let mut found = Vec::new();
        for (line, (channel, text)) in (1..).zip(payloads) {
            let channel = (transport == Transport::Redis).then_some(*channel);
            let findings = audit.hear(&Payload { line, at: None, channel, data: text.as_bytes() });
            found.extend(findings.iter().map(|finding| (finding.line, finding.violation.kind())));
        }
        found
    }

    #[test]
    fn either_end_of_a_connection_says_what_it_may() {
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
    fn addresses_have_a_channel_of_their_own() {
        let seen = r#"USER_IP @u:h ["t","ip","agent","device",1]"#;
        let right = [("h", "REPLICATE"), ("h/USER_IP", seen), ("h", "USER_SYNC x @u:h None start 1")];
        assert_eq!(found(Transport::Redis, &right), []);
        let wrong = [("h/USER_IP", seen), ("h", seen), ("h/USER_IP", "REPLICATE"), ("elsewhere", "REPLICATE")];
        assert_eq!(found(Transport::Redis, &wrong), [(2, "wrong_channel"), (3, "wrong_channel"), (4, "wrong_channel")]);
    }
}
