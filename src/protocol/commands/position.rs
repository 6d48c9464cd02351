//! `POSITION <stream> <writer> <prev> <new>`: where a writer of a stream stands.
//!
//! With two tokens since Synapse #8499: the range between them is the writer's promise that it holds no row of its
//! own, which lets a follower move on over tokens other writers took.

use crate::protocol::arguments::{Arguments, integer};
use crate::protocol::{InstanceName, ParseErrorKind, StreamName, Token};

/// Where a writer of a stream stands. A follower from `prev` to `new` has missed nothing of this writer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The stream.
    pub stream: StreamName,
    /// Whose position it is.
    pub writer: InstanceName,
    /// The position before: equal to `new` when a position is only announced.
    pub prev: Token,
    /// The position now. May be below `prev`: a stream kept in memory starts again with its writer.
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

    /// `<stream> <writer> <token>`, as before Synapse #8499: an announcement, which promises nothing of what came before.
    pub(crate) fn parse_1_19(mut arguments: Arguments<'_>) -> Result<Position, ParseErrorKind> {
        let (stream, writer) = (arguments.word("stream")?.into(), arguments.word("writer")?.into());
        let token = Token(integer("token", arguments.rest("token")?)?);
        Ok(Position { stream, writer, prev: token, new: token })
    }

    pub(crate) fn render(&self) -> String {
        let Position { stream, writer, prev, new } = self;
        format!("{stream} {writer} {prev} {new}")
    }
}
