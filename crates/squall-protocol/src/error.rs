//! Errors of the command parser.
//!
//! The parser of a command gets only its arguments, so it returns the kind; [`super::Command::parse`] adds the line. Both
//! are cut: payloads and lines are long, and an error must be fit for a log and for `ERROR <text>`.

use thiserror::Error;

use super::excerpt::excerpt;
use super::json::JsonError;

/// A command that cannot be sent, because its line holds a line break: the peer would read two commands.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{command} holds a line break")]
pub struct LineBreak {
    /// The command's name.
    pub command: &'static str,
}

/// A line that is not a command. Over TCP the receiver closes the connection, over Redis it drops the message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("cannot parse {line:?}: {kind}")]
pub struct ParseError {
    /// The line, cut to about 200 characters.
    pub line: String,
    /// The error in it.
    pub kind: ParseErrorKind,
}

impl ParseError {
    pub(super) fn new(line: &str, kind: ParseErrorKind) -> ParseError {
        ParseError { line: excerpt(line), kind }
    }
}

/// The kind of error in a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseErrorKind {
    /// The first word is not a command of this protocol. Names are case-sensitive, and a blank line has none.
    #[error("unknown command {0:?}")]
    UnknownCommand(String),
    /// The line ends before this argument.
    #[error("missing argument: {0}")]
    MissingArgument(&'static str),
    /// The line goes on after its last argument.
    #[error("too many arguments")]
    TooManyArguments,
    /// Neither an integer nor, where one is allowed, `batch`.
    #[error("{argument} is not an integer: {text:?}")]
    BadInteger {
        /// The name of the argument.
        argument: &'static str,
        /// The text of the argument, cut to about 200 characters.
        text: String,
    },
    /// An integer outside `i64`. Python's integers have no bound, but no database column holds such a token.
    #[error("{argument} does not fit into 64 bits: {text:?}")]
    IntegerOutOfRange {
        /// The name of the argument.
        argument: &'static str,
        /// The text of the argument, cut to about 200 characters.
        text: String,
    },
    /// A syncing state other than `start` and `end`.
    #[error("state is neither start nor end: {0:?}")]
    BadState(String),
    /// The JSON argument cannot be read.
    #[error("bad JSON: {0}")]
    Json(#[from] JsonError),
    /// The JSON argument is a number, a boolean or null where several values are expected.
    #[error("expected {expected} JSON values, got one that holds none")]
    NotIterable {
        /// The number of values the command has.
        expected: usize,
    },
    /// The JSON argument holds another number of values than the command has.
    #[error("expected {expected} JSON values, got {found}")]
    WrongLength {
        /// The number of values the command has.
        expected: usize,
        /// The number of values in the argument.
        found: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_line_and_the_cause() {
        let error = ParseError::new("NOSUCH \"a\"\r", ParseErrorKind::UnknownCommand("NOSUCH".into()));
        assert_eq!(error.to_string(), r#"cannot parse "NOSUCH \"a\"\r": unknown command "NOSUCH""#);
    }
}
