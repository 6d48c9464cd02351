//! A cursor over the arguments of a command, and the integers among them.
//!
//! Arguments are separated by exactly one space: two spaces enclose an empty argument. The last argument of most commands
//! is the rest of the line, spaces included.

use std::num::IntErrorKind;

use serde_json::{Map, Value};

use super::error::ParseErrorKind;
use super::excerpt::excerpt;
use super::json;

/// The remaining arguments of a command: `None` after the last one, which differs from an empty argument.
#[derive(Debug)]
pub(crate) struct Arguments<'a>(Option<&'a str>);

impl<'a> Arguments<'a> {
    pub(crate) fn new(arguments: &'a str) -> Arguments<'a> {
        Arguments(Some(arguments))
    }

    /// Returns the text up to the next space.
    pub(crate) fn word(&mut self, name: &'static str) -> Result<&'a str, ParseErrorKind> {
        let rest = self.rest(name)?;
        // Words are so short that a loop finds their end sooner than a search of the text does.
        let Some(end) = rest.bytes().position(|byte| byte == b' ') else { return Ok(rest) };
        self.0 = Some(&rest[end + 1..]);
        Ok(&rest[..end])
    }

    /// Returns the rest of the line.
    pub(crate) fn rest(&mut self, name: &'static str) -> Result<&'a str, ParseErrorKind> {
        self.0.take().ok_or(ParseErrorKind::MissingArgument(name))
    }

    /// Checks that no argument is left.
    pub(crate) fn finish(self) -> Result<(), ParseErrorKind> {
        match self.0 {
            None => Ok(()),
            Some(_) => Err(ParseErrorKind::TooManyArguments),
        }
    }
}

/// Returns the number of arguments of the command called `name`, if each of them is a word.
fn words_max(name: &str) -> Option<usize> {
    match name {
        "POSITION" => Some(4),
        "USER_SYNC" => Some(5),
        "FEDERATION_ACK" => Some(2),
        _ => None,
    }
}

/// Returns true if the arguments of the command called `name` are all words, and `text` has more of them.
pub(crate) fn has_too_many_words(name: &str, text: &str) -> bool {
    words_max(name).is_some_and(|most| text.trim_end().split(' ').count() > most)
}

/// Parses an integer as Python's `int()` does: with a sign, leading zeros and white space around it.
///
/// Underscores, and digits and spaces outside ASCII, which Python also accepts and no Synapse writes, are refused. So are
/// integers that do not fit into an `i64`.
pub(crate) fn integer(argument: &'static str, text: &str) -> Result<i64, ParseErrorKind> {
    text.trim_matches(is_space).parse().map_err(|error: std::num::ParseIntError| {
        let text = excerpt(text);
        match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
                ParseErrorKind::IntegerOutOfRange { argument, text }
            }
            _ => ParseErrorKind::BadInteger { argument, text },
        }
    })
}

/// Returns true for white space in ASCII, vertical tab included.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// Parses JSON and unpacks it into `N` values as Python unpacks an iterable: the elements of an array, the characters of a
/// string, or the keys of an object.
///
/// # Errors
/// Bad JSON, a value that cannot be iterated over, or another number of values than `N`.
pub(crate) fn unpack<const N: usize>(text: &str) -> Result<[Value; N], ParseErrorKind> {
    let values: Vec<Value> = match json::parse(text)? {
        Value::Array(elements) => elements,
        Value::String(text) => text.chars().map(|c| Value::String(c.into())).collect(),
        Value::Object(entries) => keys(entries),
        Value::Null | Value::Bool(_) | Value::Number(_) => return Err(ParseErrorKind::NotIterable { expected: N }),
    };
    <[Value; N]>::try_from(values).map_err(|values| ParseErrorKind::WrongLength { expected: N, found: values.len() })
}

fn keys(entries: Map<String, Value>) -> Vec<Value> {
    entries.into_iter().map(|(key, _)| Value::String(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_argument_is_not_a_missing_one() {
        let mut arguments = Arguments::new("a  b");
        assert_eq!(arguments.word("first"), Ok("a"));
        assert_eq!(arguments.word("second"), Ok(""));
        assert_eq!(arguments.word("third"), Ok("b"));
        assert_eq!(arguments.word("fourth"), Err(ParseErrorKind::MissingArgument("fourth")));
    }

    #[test]
    fn an_integer_is_read_as_python_reads_it() {
        for (text, value) in [("5", 5), ("+5", 5), ("-5", -5), ("007", 7), ("-0", 0), (" 5\t", 5), ("\x0b5\x0c", 5)] {
            assert_eq!(integer("token", text), Ok(value), "{text:?}");
        }
        assert_eq!(integer("token", "-9223372036854775808"), Ok(i64::MIN));
    }

    #[test]
    fn text_that_is_no_integer_is_refused() {
        for text in ["", " ", "+", "- 5", "+-5", "5 6", "5.0", "0x5", "1_0", "٣", "\x1c5", "\u{a0}5"] {
            assert!(matches!(integer("token", text), Err(ParseErrorKind::BadInteger { .. })), "{text:?}");
        }
    }

    #[test]
    fn an_integer_outside_64_bits_is_refused() {
        for text in ["9223372036854775808", "-9223372036854775809", "123456789012345678901234567890"] {
            assert!(matches!(integer("token", text), Err(ParseErrorKind::IntegerOutOfRange { .. })), "{text:?}");
        }
    }
}
