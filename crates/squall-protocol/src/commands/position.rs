//! `POSITION <stream> <writer> <prev> <new>`: the position of a writer of a stream.
//!
//! It has two tokens since Synapse #8499. The writer promises that it has no row in the range between them, which lets a
//! follower skip tokens that other writers took.

use crate::arguments::{Arguments, integer};
use crate::{InstanceName, ParseErrorKind, StreamName, Token};

/// The position of a writer of a stream. The writer has no row after `prev` and not after `new`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The stream.
    pub stream: StreamName,
    /// The writer.
    pub writer: InstanceName,
    /// The previous position; equal to `new` when a position is only announced.
    pub prev: Token,
    /// The current position. It may be below `prev`: a stream kept in memory starts again with its writer.
    pub new: Token,
}

impl Position {
    pub(crate) fn parse(mut arguments: Arguments<'_>) -> Result<Position, ParseErrorKind> {
        Ok(Position {
            stream: arguments.word("stream")?.into(),
            writer: arguments.word("writer")?.into(),
            prev: Token(integer("previous token", arguments.word("previous token")?)?),
            new: Token(integer("new token", arguments.rest("new token")?)?),
        })
    }

    /// Parses `<stream> <writer> <token>`, the form before Synapse #8499. It promises nothing about earlier tokens.
    pub(crate) fn parse_1_19(mut arguments: Arguments<'_>) -> Result<Position, ParseErrorKind> {
        let stream = arguments.word("stream")?.into();
        let writer = arguments.word("writer")?.into();
        let token = Token(integer("token", arguments.rest("token")?)?);
        Ok(Position { stream, writer, prev: token, new: token })
    }

    pub(crate) fn render(&self) -> String {
        let Position { stream, writer, prev, new } = self;
        format!("{stream} {writer} {prev} {new}")
    }
}
