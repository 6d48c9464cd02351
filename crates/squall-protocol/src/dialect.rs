//! The versions of Synapse's grammar, for reading recordings.
//!
//! Squall's stack uses [`Dialect::V1_163`] only: a peer that leaves out an argument is refused, as by Synapse. A recording
//! may be older. This module has the changes since 1.19 of the commands that Squall has, so that an old recording can be read
//! without loosening the parser of the stack:
//!
//! | command | 1.19 | 1.163 |
//! |---|---|---|
//! | `POSITION` | one token | two, `<prev> <new>` (Synapse #8499) |
//! | `USER_SYNC` | no device | a device or `None` before the state (Synapse #16172) |
//! | `LOCK_RELEASED`, `NEW_ACTIVE_TASK`, `CANCEL_TASK` | unknown | known |
//!
//! The older version also had `REMOVE_PUSHER`, which a worker sent to its master until it became a request (Synapse #9465).
//! Squall has no use for it, and it is unknown in both.
//!
//! Rows of the older version are in [`rows::v1_19`].

use std::fmt;
use std::str::FromStr;

use serde_json::Value;
use thiserror::Error;

use super::arguments::Arguments;
use super::command::{Command, split_name};
use super::commands::{Position, UserSync};
use super::error::{ParseError, ParseErrorKind};
use super::excerpt::excerpt;
use super::names::StreamName;
use super::rows::{self, Row, RowError, v1_19};

/// A version of the grammar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// The grammar of Synapse 1.163, and of Squall.
    #[default]
    V1_163,
    /// The grammar of Synapse 1.19, over TCP and Redis alike.
    V1_19,
}

/// A name of no dialect.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no dialect: write 1.163 or 1.19")]
pub struct UnknownDialect(String);

impl Dialect {
    /// Parses a line without its delimiter, or a Redis payload, by this dialect's grammar.
    ///
    /// The resulting command is the same in both dialects. A position with one token becomes one whose tokens are equal.
    ///
    /// # Errors
    /// The line is not a command.
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

    /// Checks that a row has the shape of the rows of `stream` in this dialect.
    ///
    /// # Errors
    /// The version does not have the stream, or the row has another shape.
    pub fn check_row(self, stream: &StreamName, row: Value) -> Result<(), RowError> {
        match self {
            Dialect::V1_163 => Row::parse(stream, row).map(drop),
            Dialect::V1_19 => v1_19::Row::parse(stream, row).map(drop),
        }
    }

    /// Returns the names of all streams of this version.
    pub fn streams(self) -> &'static [&'static str] {
        match self {
            Dialect::V1_163 => &rows::NAMES,
            Dialect::V1_19 => &v1_19::NAMES,
        }
    }

    /// Returns the dialect of a line; `None` if the line is the same in both.
    ///
    /// For recordings of unknown origin: until a line shows the dialect, all lines read the same in both.
    pub fn detect(line: &str) -> Option<Dialect> {
        let (name, text) = split_name(line);
        let arguments: Vec<&str> = text.split(' ').collect();
        match (name, &*arguments) {
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
    use crate::Token;

    #[test]
    fn an_older_position_has_its_one_token_twice() {
        let position = Position { stream: "events".into(), writer: "master".into(), prev: Token(5), new: Token(5) };
        assert_eq!(Dialect::V1_19.parse("POSITION events master 5"), Ok(Command::Position(position)));
        assert!(Dialect::V1_163.parse("POSITION events master 5").is_err());
        assert!(Dialect::V1_19.parse("POSITION events master 5 6").is_err());
    }

    #[test]
    fn an_older_sync_has_no_device() {
        let line = "USER_SYNC abcde @u:h start 1000";
        let Ok(Command::UserSync(sync)) = Dialect::V1_19.parse(line) else { panic!("it reads") };
        assert_eq!((sync.device_id, sync.is_syncing, sync.last_sync_ms), (None, true, 1_000));
        assert!(Dialect::V1_163.parse(line).is_err());
        assert!(Dialect::V1_19.parse("USER_SYNC abcde @u:h DEVICE start 1000").is_err());
    }

    #[test]
    fn a_line_shows_its_dialect_or_reads_alike_in_both() {
        let lines = [
            ("POSITION events master 5", Some(Dialect::V1_19)),
            ("POSITION events master 5 5", Some(Dialect::V1_163)),
            ("USER_SYNC abcde @u:h end 1000", Some(Dialect::V1_19)),
            ("USER_SYNC abcde @u:h None end 1000", Some(Dialect::V1_163)),
            ("NEW_ACTIVE_TASK x", Some(Dialect::V1_163)),
            ("RDATA events master 5 [\"a b\"]", None),
            ("PING 5", None),
            ("POSITION", None),
        ];
        for (line, dialect) in lines {
            assert_eq!(Dialect::detect(line), dialect, "{line}");
            if dialect.is_none() {
                assert_eq!(Dialect::V1_19.parse(line), Dialect::V1_163.parse(line), "{line}");
            }
        }
    }

    #[test]
    fn a_row_is_checked_by_the_shape_of_its_version() {
        let older = serde_json::json!(["@u:h"]);
        assert_eq!(Dialect::V1_19.check_row(&"device_lists".into(), older.clone()), Ok(()));
        let refused = Dialect::V1_163.check_row(&"device_lists".into(), older.clone()).unwrap_err().to_string();
        assert!(refused.starts_with("not a row of device_lists: ") && refused.ends_with(r#": ["@u:h"]"#), "{refused}");
        for (dialect, gone) in [(Dialect::V1_163, "user_signature"), (Dialect::V1_19, "sticky_events")] {
            let unknown = Err(RowError::UnknownStream(gone.into()));
            assert_eq!(dialect.check_row(&gone.into(), older.clone()), unknown);
            assert!(!dialect.streams().contains(&gone));
        }
    }

    #[test]
    fn a_dialect_is_named_by_its_version() {
        for dialect in [Dialect::V1_163, Dialect::V1_19] {
            assert_eq!(dialect.to_string().parse(), Ok(dialect));
        }
        assert_eq!("1.20".parse::<Dialect>(), Err(UnknownDialect("1.20".into())));
    }
}
