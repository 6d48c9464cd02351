//! Lines of a newer version of the protocol: unknown commands, and known ones with more arguments.
//!
//! The line of an open Synapse change (#19946) is `USER_SYNC … start online <last_sync_ms>`, beside a command
//! `USER_SYNC_KEEPALIVE`. A receiver that closes a connection because of such a line closes it again and again while an
//! upgrade lasts. So it can tell such a line from garbage, and pass over it.
//!
//! New arguments have so far come before known ones, in `POSITION` (Synapse #8499), `USER_SYNC` (#7128, #16172) and
//! `FEDERATION_ACK` (#7798). So a longer line is not read as far as it is known: a `POSITION` could be taken for another
//! one, and hide rows.

use std::fmt;

use super::command::split_name;
use super::error::{ParseError, ParseErrorKind};

/// The longest name that is taken for a command's, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The part of a newer version that a line shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Newer {
    /// An unknown command of this name.
    Command(String),
    /// The known command of this name, with more arguments than it has in this version.
    Arguments(String),
}

impl Newer {
    /// Returns the part of a newer version that `line` shows, where `error` is the error of [`Command::parse`](super::Command::parse); `None` if
    /// the line is no command of any version.
    pub fn of(line: &str, error: &ParseError) -> Option<Newer> {
        let (name, _) = split_name(line);
        match error.kind {
            ParseErrorKind::UnknownCommand(_) if could_be_a_name(name) => Some(Newer::Command(name.to_owned())),
            ParseErrorKind::TooManyArguments => Some(Newer::Arguments(name.to_owned())),
            ParseErrorKind::WrongLength { expected, found } if found > expected => {
                Some(Newer::Arguments(name.to_owned()))
            }
            _ => None,
        }
    }

    /// Returns the command's name.
    pub fn name(&self) -> &str {
        let (Newer::Command(name) | Newer::Arguments(name)) = self;
        name
    }
}

impl fmt::Display for Newer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Newer::Command(name) => write!(f, "{name} is unknown to this version, and is passed over"),
            Newer::Arguments(name) => {
                write!(f, "{name} has more arguments than this version knows, and is passed over")
            }
        }
    }
}

/// Returns true for a word of capital letters, digits and underscores, as all names of commands are.
fn could_be_a_name(name: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_fit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;

    fn newer(line: &str) -> Option<Newer> {
        Newer::of(line, &Command::parse(line).expect_err(line))
    }

    #[test]
    fn an_unknown_name_in_capitals_is_a_newer_command() {
        for line in ["USER_SYNC_KEEPALIVE a 5", "NEWER2"] {
            let name = line.split(' ').next().unwrap();
            assert_eq!(newer(line), Some(Newer::Command(name.into())));
        }
    }

    #[test]
    fn garbage_is_no_command_of_any_version() {
        let long = "A".repeat(NAME_BYTES_MAX + 1);
        for line in ["ping 1", " PING 1", "REPLICATE\r", "Host: a", "\u{16}\u{3}\u{1}", "É", "", &long] {
            assert_eq!(newer(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_known_command_with_more_arguments_is_a_newer_one() {
        for line in [
            "USER_SYNC abcde @u:h DEVICE start online 1700000001000",
            "USER_SYNC abcde @u:h DEVICE start 1000 online",
            "POSITION events writer1 3 7 8",
            "POSITION events writer1 kind 3 7",
            "FEDERATION_ACK sender1 5 6",
            r#"LOCK_RELEASED ["a","b","c","d"]"#,
            r#"USER_IP @u:h ["t","1","ua",null,5,6]"#,
        ] {
            let name = line.split(' ').next().unwrap();
            assert_eq!(newer(line), Some(Newer::Arguments(name.into())), "{line}");
        }
    }

    #[test]
    fn a_command_with_too_few_or_wrong_arguments_is_not_a_newer_one() {
        for line in [
            "USER_SYNC abcde @u:h DEVICE begin 5",
            "POSITION events writer1 3",
            "POSITION events writer1 3 x",
            "FEDERATION_ACK sender1",
            "LOCK_RELEASED 1",
            r#"LOCK_RELEASED ["a"]"#,
            "RDATA events writer1 5 [",
        ] {
            assert_eq!(newer(line), None, "{line}");
        }
        assert!(Command::parse("USER_SYNC abcde @u:h DEVICE start  5 ").is_ok(), "a blank is no argument");
    }
}
