//! Commands: parsing a line, and rendering one.
//!
//! The grammar is that of current Synapse (1.163): the name, one space, the arguments. The space is written even where no
//! argument follows (`REPLICATE `), and a bare name is read as well (Synapse #7239, #7326).

use super::arguments::{Arguments, has_too_many_words};
use super::commands::{FederationAck, LockReleased, Position, Rdata, UserIp, UserSync};
use super::error::{LineBreak, ParseError, ParseErrorKind};
use super::excerpt::excerpt;

/// A command from one instance to others. [`super::Direction`] has the commands that are allowed over TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The server's name, first on a TCP connection. A client of another server closes the connection.
    Server(String),
    /// The client's name, first on a TCP connection, for logs.
    Name(String),
    /// A keep-alive with any text; Synapse sends milliseconds since the epoch.
    Ping(String),
    /// The reason for which the sender is about to close the connection.
    Error(String),
    /// A request for the positions of every writer. Its arguments, which named a stream and a token before Synapse #7024, are
    /// ignored.
    Replicate,
    /// The position of a writer of a stream.
    Position(Position),
    /// A row of a stream.
    Rdata(Rdata),
    /// A user started or stopped syncing through an instance.
    UserSync(UserSync),
    /// No user syncs through the process of this id any more: it is shutting down (Synapse #7128).
    ClearUserSync(String),
    /// A federation sender has sent everything up to a token.
    FederationAck(FederationAck),
    /// A user was seen at an address.
    UserIp(UserIp),
    /// A remote server that was down is up again (Synapse #6706).
    RemoteServerUp(String),
    /// A lock was released (Synapse #15791).
    LockReleased(LockReleased),
    /// The task of this id may be started (Synapse #16184). Redis only.
    NewActiveTask(String),
    /// The task of this id must stop (Synapse #19310). Redis only.
    CancelTask(String),
}

impl Command {
    /// The names of all commands on the wire.
    pub const NAMES: [&str; 15] = [
        "SERVER",
        "NAME",
        "PING",
        "ERROR",
        "REPLICATE",
        "POSITION",
        "RDATA",
        "USER_SYNC",
        "CLEAR_USER_SYNC",
        "FEDERATION_ACK",
        "USER_IP",
        "REMOTE_SERVER_UP",
        "LOCK_RELEASED",
        "NEW_ACTIVE_TASK",
        "CANCEL_TASK",
    ];

    /// Parses a line without its delimiter, or a Redis payload.
    ///
    /// # Errors
    /// The line is not a command.
    pub fn parse(line: &str) -> Result<Command, ParseError> {
        let (name, arguments) = split_name(line);
        Command::from_parts(name, arguments).map_err(|kind| ParseError::new(line, kind))
    }

    fn from_parts(name: &str, text: &str) -> Result<Command, ParseErrorKind> {
        let known = Command::from_known_parts(name, text);
        known.map_err(|kind| if has_too_many_words(name, text) { ParseErrorKind::TooManyArguments } else { kind })
    }

    fn from_known_parts(name: &str, text: &str) -> Result<Command, ParseErrorKind> {
        let arguments = Arguments::new(text);
        Ok(match name {
            "SERVER" => Command::Server(text.into()),
            "NAME" => Command::Name(text.into()),
            "PING" => Command::Ping(text.into()),
            "ERROR" => Command::Error(text.into()),
            "REPLICATE" => Command::Replicate,
            "POSITION" => Command::Position(Position::parse(arguments)?),
            "RDATA" => Command::Rdata(Rdata::parse(arguments)?),
            "USER_SYNC" => Command::UserSync(UserSync::parse(arguments)?),
            "CLEAR_USER_SYNC" => Command::ClearUserSync(text.into()),
            "FEDERATION_ACK" => Command::FederationAck(FederationAck::parse(arguments)?),
            "USER_IP" => Command::UserIp(UserIp::parse(arguments)?),
            "REMOTE_SERVER_UP" => Command::RemoteServerUp(text.into()),
            "LOCK_RELEASED" => Command::LockReleased(LockReleased::parse(arguments)?),
            "NEW_ACTIVE_TASK" => Command::NewActiveTask(text.into()),
            "CANCEL_TASK" => Command::CancelTask(text.into()),
            _ => return Err(ParseErrorKind::UnknownCommand(excerpt(name))),
        })
    }

    /// Returns the line without a delimiter, which is also the Redis payload.
    ///
    /// A space inside an argument that ends at a space is written as it is, as by Synapse. The peer then refuses the line.
    ///
    /// # Errors
    /// The command holds a line break. Synapse refuses it over Redis too.
    pub fn to_line(&self) -> Result<String, LineBreak> {
        let line = format!("{} {}", self.name(), self.render());
        if line.contains('\n') {
            return Err(LineBreak { command: self.name() });
        }
        Ok(line)
    }

    fn render(&self) -> String {
        match self {
            Command::Replicate => String::new(),
            Command::Position(position) => position.render(),
            Command::Rdata(rdata) => rdata.render(),
            Command::UserSync(sync) => sync.render(),
            Command::FederationAck(ack) => ack.render(),
            Command::UserIp(seen) => seen.render(),
            Command::LockReleased(lock) => lock.render(),
            Command::Server(text)
            | Command::Name(text)
            | Command::Ping(text)
            | Command::Error(text)
            | Command::ClearUserSync(text)
            | Command::RemoteServerUp(text)
            | Command::NewActiveTask(text)
            | Command::CancelTask(text) => text.clone(),
        }
    }

    /// Returns the command's name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Server(_) => "SERVER",
            Command::Name(_) => "NAME",
            Command::Ping(_) => "PING",
            Command::Error(_) => "ERROR",
            Command::Replicate => "REPLICATE",
            Command::Position(_) => "POSITION",
            Command::Rdata(_) => "RDATA",
            Command::UserSync(_) => "USER_SYNC",
            Command::ClearUserSync(_) => "CLEAR_USER_SYNC",
            Command::FederationAck(_) => "FEDERATION_ACK",
            Command::UserIp(_) => "USER_IP",
            Command::RemoteServerUp(_) => "REMOTE_SERVER_UP",
            Command::LockReleased(_) => "LOCK_RELEASED",
            Command::NewActiveTask(_) => "NEW_ACTIVE_TASK",
            Command::CancelTask(_) => "CANCEL_TASK",
        }
    }
}

/// Splits a line into the name, which ends at the first space, and the arguments.
pub(super) fn split_name(line: &str) -> (&str, &str) {
    line.split_once(' ').unwrap_or((line, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_one_word_command_is_read_with_and_without_its_space_and_written_with_it() {
        assert_eq!(Command::parse("REPLICATE"), Ok(Command::Replicate));
        assert_eq!(Command::parse("REPLICATE "), Ok(Command::Replicate));
        assert_eq!(Command::Replicate.to_line(), Ok("REPLICATE ".into()));
    }

    #[test]
    fn exactly_the_listed_names_are_known() {
        let is_known = |name: &str| {
            let unknown = ParseErrorKind::UnknownCommand(excerpt(name));
            !matches!(Command::from_parts(name, ""), Err(error) if error == unknown)
        };
        assert!(Command::NAMES.into_iter().all(is_known));
        assert!(!is_known("REMOVE_PUSHER"));
        let named = Command::NAMES.into_iter().filter_map(|name| Command::from_parts(name, "").ok());
        assert!(named.clone().count() >= 8, "the commands without arguments");
        assert!(named.map(|command| command.name()).all(|name| Command::NAMES.contains(&name)));
    }

    #[test]
    fn a_line_break_is_refused() {
        let error = Command::Error("first\nREPLICATE".into()).to_line();
        assert_eq!(error, Err(LineBreak { command: "ERROR" }));
    }

    #[test]
    fn a_line_break_inside_json_is_escaped() {
        let row = Rdata { stream: "s".into(), writer: "w".into(), token: None, row: "a\nb".into() };
        assert_eq!(Command::Rdata(row).to_line(), Ok(r#"RDATA s w batch "a\nb""#.into()));
    }

    #[test]
    fn a_carriage_return_belongs_to_the_command() {
        assert_eq!(Command::parse("PING 1\r"), Ok(Command::Ping("1\r".into())));
        assert!(Command::parse("REPLICATE\r").is_err());
    }
}
