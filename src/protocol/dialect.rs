//! Which Synapse's grammar a recording is read by.
//!
//! Squall's stack speaks [`Dialect::V1_163`] and nothing else: a peer that leaves out an argument is refused, as Synapse
//! refuses it. A recording may be older. What changed since 1.19 and concerns commands that Squall has is here, so that
//! an old recording can be read without loosening the parser for anybody else:
//!
//! | command | 1.19 | 1.163 |
//! |---|---|---|
//! | `POSITION` | one token | two, `<prev> <new>` (Synapse #8499) |
//! | `USER_SYNC` | no device | a device or `None` before the state (Synapse #16172) |
//! | `LOCK_RELEASED`, `NEW_ACTIVE_TASK`, `CANCEL_TASK` | unknown | known |
//!
//! The older one also had `REMOVE_PUSHER`, which a worker said to its master until it became a request (Synapse #9465).
//! No Squall has a use for it, and it is unknown in both.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::arguments::Arguments;
use super::command::{Command, split_name};
use super::commands::{Position, UserSync};
use super::error::{ParseError, ParseErrorKind, excerpt};

/// A version of the commands' grammar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// What Synapse 1.163 speaks, and Squall.
    #[default]
    V1_163,
    /// What Synapse 1.19 spoke, over TCP and Redis alike.
    V1_19,
}

/// A name that is no dialect's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no dialect: write 1.163 or 1.19")]
pub struct UnknownDialect(String);

impl Dialect {
    /// Reads a line without its delimiter, or a Redis payload, by this dialect's grammar.
    ///
    /// The command is the same whichever dialect it was said in. A position of one token announces it: both of its tokens
    /// are that one.
    ///
    /// # Errors
    /// The line and what is wrong with it.
    pub fn parse(self, line: &str) -> Result<Command, ParseError> {
        if self == Dialect::V1_163 {
            return Command::parse(line);
        }
        let (name, text) = split_name(line);
        let arguments = Arguments::new(text);
        match name {
            "POSITION" => Position::parse_1_19(arguments).map(Command::Position),
            "USER_SYNC" => UserSync::parse_1_19(arguments).map(Command::UserSync),
            "LOCK_RELEASED" | "NEW_ACTIVE_TASK" | "CANCEL_TASK" => Err(ParseErrorKind::UnknownCommand(excerpt(name))),
            _ => return Command::parse(line),
        }
        .map_err(|kind| ParseError::new(line, kind))
    }

    /// The dialect that a line gives away; none for the lines that are alike in both.
    ///
    /// For recordings whose origin is not known: what has not given itself away yet reads the same either way.
    pub fn told_by(line: &str) -> Option<Dialect> {
        let (name, text) = split_name(line);
        let words: Vec<&str> = text.split(' ').collect();
        match (name, &*words) {
            ("POSITION", [_, _, _]) | ("USER_SYNC", [_, _, "start" | "end", _]) => Some(Dialect::V1_19),
            ("POSITION", [_, _, _, _]) | ("USER_SYNC", [_, _, _, "start" | "end", _]) => Some(Dialect::V1_163),
            ("LOCK_RELEASED" | "NEW_ACTIVE_TASK" | "CANCEL_TASK", _) => Some(Dialect::V1_163),
            _ => None,
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dialect::V1_163 => "1.163",
            Dialect::V1_19 => "1.19",
        })
    }
}

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(name: &str) -> Result<Dialect, UnknownDialect> {
        let named = [Dialect::V1_163, Dialect::V1_19].into_iter().find(|dialect| dialect.to_string() == name);
        named.ok_or_else(|| UnknownDialect(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Token;

    #[test]
    fn an_older_position_announces_its_one_token() {
        let position = Position { stream: "events".into(), writer: "master".into(), prev: Token(5), new: Token(5) };
        assert_eq!(Dialect::V1_19.parse("POSITION events master 5"), Ok(Command::Position(position)));
        assert!(Dialect::V1_163.parse("POSITION events master 5").is_err());
        assert!(Dialect::V1_19.parse("POSITION events master 5 6").is_err());
    }

    #[test]
    fn an_older_sync_names_no_device() {
        let line = "USER_SYNC abcde @u:h start 1000";
        let Ok(Command::UserSync(sync)) = Dialect::V1_19.parse(line) else { panic!("it reads") };
        assert_eq!((sync.device_id, sync.is_syncing, sync.last_sync_ms), (None, true, 1_000));
        assert!(Dialect::V1_163.parse(line).is_err());
        assert!(Dialect::V1_19.parse("USER_SYNC abcde @u:h DEVICE start 1000").is_err());
    }

    #[test]
    fn a_line_gives_its_dialect_away_or_reads_alike() {
        let told = [
            ("POSITION events master 5", Some(Dialect::V1_19)),
            ("POSITION events master 5 5", Some(Dialect::V1_163)),
            ("USER_SYNC abcde @u:h end 1000", Some(Dialect::V1_19)),
            ("USER_SYNC abcde @u:h None end 1000", Some(Dialect::V1_163)),
            ("NEW_ACTIVE_TASK x", Some(Dialect::V1_163)),
            ("RDATA events master 5 [\"a b\"]", None),
            ("PING 5", None),
            ("POSITION", None),
        ];
        for (line, dialect) in told {
            assert_eq!(Dialect::told_by(line), dialect, "{line}");
            if dialect.is_none() {
                assert_eq!(Dialect::V1_19.parse(line), Dialect::V1_163.parse(line), "{line}");
            }
        }
    }

    #[test]
    fn a_dialect_goes_by_its_version() {
        for dialect in [Dialect::V1_163, Dialect::V1_19] {
            assert_eq!(dialect.to_string().parse(), Ok(dialect));
        }
        assert_eq!("1.20".parse::<Dialect>(), Err(UnknownDialect("1.20".into())));
    }
}
