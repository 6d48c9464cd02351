//! `RDATA <stream> <writer> <token|batch> <json>`: a row of a stream.
//!
//! Rows that share a token follow one another. All but the last have `batch` instead of the token, so that a follower
//! applies all of them or none.

use std::io::Write;

use serde_json::Value;

use crate::arguments::{Arguments, integer};
use crate::{InstanceName, LineBreak, ParseErrorKind, Row, StreamName, Token, json};

/// The text in place of the token, in a row that is not the last of its token.
const BATCH: &str = "batch";

/// A row of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rdata {
    /// The stream.
    pub stream: StreamName,
    /// The instance that wrote the row (Synapse #7364). An instance recognises its own echo over Redis by it.
    pub writer: InstanceName,
    /// The row's token; `None` is `batch`, and a later row has the token.
    pub token: Option<Token>,
    /// The row. Its shape depends on the stream.
    pub row: Value,
}

/// An RDATA whose row has not been parsed: its stream and writer, at the price of three splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RdataHeader<'a> {
    /// The stream.
    pub stream: &'a str,
    /// The instance that wrote the row.
    pub writer: &'a str,
    /// The row's token; `None` is `batch`.
    pub token: Option<Token>,
    /// The row's text, which may not be JSON.
    pub row: &'a str,
}

impl<'a> RdataHeader<'a> {
    /// The command's name.
    pub const NAME: &'static str = "RDATA";

    /// Returns the header of an `RDATA`. Returns none for any other command, and for an `RDATA` with an error before its
    /// row.
    pub fn of(line: &'a str) -> Option<RdataHeader<'a>> {
        let arguments = line.strip_prefix(Self::NAME)?.strip_prefix(' ')?;
        RdataHeader::parse(Arguments::new(arguments)).ok()
    }

    pub(crate) fn parse(mut arguments: Arguments<'a>) -> Result<RdataHeader<'a>, ParseErrorKind> {
        Ok(RdataHeader {
            stream: arguments.word("stream")?,
            writer: arguments.word("writer")?,
            token: match arguments.word("token")? {
                BATCH => None,
                text => Some(Token(integer("token", text)?)),
            },
            row: arguments.rest("row")?,
        })
    }
}

impl Rdata {
    pub(crate) fn parse(arguments: Arguments<'_>) -> Result<Rdata, ParseErrorKind> {
        let RdataHeader { stream, writer, token, row } = RdataHeader::parse(arguments)?;
        Ok(Rdata { stream: stream.into(), writer: writer.into(), token, row: json::parse(row)? })
    }

    pub(crate) fn render(&self) -> String {
        let Rdata { stream, writer, token, row } = self;
        let row = json::render(row);
        match token {
            Some(token) => format!("{stream} {writer} {token} {row}"),
            None => format!("{stream} {writer} {BATCH} {row}"),
        }
    }
}

/// Appends the command of a row to `to`, without the delimiter of a line.
///
/// # Errors
/// A name holds a line break.
pub(crate) fn write(
    stream: &StreamName,
    writer: &InstanceName,
    token: Option<Token>,
    row: &Row,
    to: &mut Vec<u8>,
) -> Result<(), LineBreak> {
    let names = [stream.as_str(), writer.as_str()];
    if names.iter().any(|name| name.contains('\n')) {
        return Err(LineBreak { command: RdataHeader::NAME });
    }
    for word in [RdataHeader::NAME].into_iter().chain(names) {
        to.extend_from_slice(word.as_bytes());
        to.push(b' ');
    }
    match token {
        Some(token) => write!(to, "{token}").expect("a Vec takes every write"),
        None => to.extend_from_slice(BATCH.as_bytes()),
    }
    to.push(b' ');
    json::write(row, to);
    Ok(())
}
