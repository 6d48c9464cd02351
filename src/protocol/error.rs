//! Why a line is not a command.
//!
//! A command's own parser sees only its arguments, so it returns the kind; [`super::Command::parse`] adds the line.
//! Both are cut: payloads and lines are long, and an error must be fit for a log and for `ERROR <text>`.

use thiserror::Error;

use super::json::JsonError;

/// How much of a peer's text an error repeats, in characters.
const EXCERPT_CHARS_MAX: usize = 200;

/// A line that is not a command, and why. Over TCP it costs the peer its connection, over Redis the message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("cannot parse {line:?}: {kind}")]
pub struct ParseError {
    /// The line, cut to about 200 characters.
    pub line: String,
    /// What is wrong with it.
    pub kind: ParseErrorKind,
}

impl ParseError {
    pub(super) fn new(line: &str, kind: ParseErrorKind) -> ParseError {
        ParseError { line: excerpt(line), kind }
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseErrorKind {
    /// The first word is no command of this protocol. Names are case-sensitive, and a blank line has none.
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
        /// Which argument.
        argument: &'static str,
        /// What stands there, cut to about 200 characters.
        text: String,
    },
    /// An integer outside `i64`. Python's have no bound, but no database column holds such a token.
    #[error("{argument} does not fit into 64 bits: {text:?}")]
    IntegerOutOfRange {
        /// Which argument.
        argument: &'static str,
        /// What stands there, cut to about 200 characters.
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
        /// How many values the command has.
        expected: usize,
    },
    /// The JSON argument holds another number of values than the command has.
    #[error("expected {expected} JSON values, got {found}")]
    WrongLength {
        /// How many values the command has.
        expected: usize,
        /// How many there are.
        found: usize,
    },
}

/// The beginning of a text, marked where it is cut.
pub(super) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT_CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_between_characters() {
        assert_eq!(excerpt(&"é".repeat(EXCERPT_CHARS_MAX)), "é".repeat(EXCERPT_CHARS_MAX));
        assert_eq!(excerpt(&"é".repeat(EXCERPT_CHARS_MAX + 1)), format!("{}…", "é".repeat(EXCERPT_CHARS_MAX)));
    }

    #[test]
    fn the_error_names_the_line_and_the_cause() {
        let error = ParseError::new("NOSUCH \"a\"\r", ParseErrorKind::UnknownCommand("NOSUCH".into()));
        assert_eq!(error.to_string(), r#"cannot parse "NOSUCH \"a\"\r": unknown command "NOSUCH""#);
    }
}
