//! The kind of a line, without parsing its JSON.
//!
//! An observer of the network sees every line on every connection, and needs only the stream and the writer of a row.
//! Parsing the row as well would cost more than carrying it.

use super::arguments::Arguments;
use super::command::split_name;
use super::commands::{Position, RdataHeader};
use super::error::ParseError;

/// The kind of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header<'a> {
    /// A row.
    Rdata(RdataHeader<'a>),
    /// A position, parsed whole.
    Position(Position),
    /// Any other command, known or not.
    Other {
        /// Its name.
        name: &'a str,
    },
}

impl<'a> Header<'a> {
    /// Classifies a line without its delimiter, or a Redis payload.
    ///
    /// Agrees with [`super::Command::parse`] on every line that parses, but also accepts some lines that do not parse.
    ///
    /// # Errors
    /// The line is an RDATA with an error before its row, or a POSITION with an error.
    pub fn peek(line: &'a str) -> Result<Header<'a>, ParseError> {
        let (name, text) = split_name(line);
        let arguments = Arguments::new(text);
        match name {
            "RDATA" => RdataHeader::parse(arguments).map(Header::Rdata),
            "POSITION" => Position::parse(arguments).map(Header::Position),
            _ => Ok(Header::Other { name }),
        }
        .map_err(|kind| ParseError::new(line, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Token;

    #[test]
    fn a_row_is_classified_without_parsing_it() {
        let header = RdataHeader { stream: "events", writer: "w", token: Some(Token(5)), row: "[ not json" };
        assert_eq!(Header::peek("RDATA events w 5 [ not json"), Ok(Header::Rdata(header)));
        assert!(Header::peek("RDATA events w five []").is_err());
    }

    #[test]
    fn a_position_is_parsed_whole() {
        let position = Position { stream: "s".into(), writer: "w".into(), prev: Token(1), new: Token(2) };
        assert_eq!(Header::peek("POSITION s w 1 2"), Ok(Header::Position(position)));
        assert!(Header::peek("POSITION s w 1").is_err());
    }

    #[test]
    fn any_other_line_has_a_name() {
        assert_eq!(Header::peek("PING 1"), Ok(Header::Other { name: "PING" }));
        assert_eq!(Header::peek("NOSUCH"), Ok(Header::Other { name: "NOSUCH" }));
        assert_eq!(Header::peek(""), Ok(Header::Other { name: "" }));
    }
}
