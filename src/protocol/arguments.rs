//! A cursor over a command's arguments, and the integers among them.
//!
//! Arguments are separated by exactly one space: two spaces enclose an empty argument, they are not one separator.
//! The last argument of most commands takes whatever is left, spaces included.

use std::num::IntErrorKind;

use serde_json::{Map, Value};

use super::error::{ParseErrorKind, excerpt};
use super::json;

/// What is left of a command's arguments: `None` once the last was taken, which differs from an empty one.
#[derive(Debug)]
pub(crate) struct Arguments<'a>(Option<&'a str>);

impl<'a> Arguments<'a> {
    pub(crate) fn new(arguments: &'a str) -> Arguments<'a> {
        Arguments(Some(arguments))
    }

    /// The text up to the next space.
    pub(crate) fn word(&mut self, name: &'static str) -> Result<&'a str, ParseErrorKind> {
        let rest = self.rest(name)?;
        let Some((word, rest)) = rest.split_once(' ') else { return Ok(rest) };
        self.0 = Some(rest);
        Ok(word)
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self, name: &'static str) -> Result<&'a str, ParseErrorKind> {
        self.0.take().ok_or(ParseErrorKind::MissingArgument(name))
    }

    /// Nothing may be left.
    pub(crate) fn finish(self) -> Result<(), ParseErrorKind> {
        match self.0 {
            None => Ok(()),
            Some(_) => Err(ParseErrorKind::TooManyArguments),
        }
    }
}

/// An integer as Python's `int()` reads it: a sign, leading zeros and white space around it are accepted.
///
/// Underscores, digits and spaces outside ASCII, which Python also takes and no Synapse writes, are refused, as is
/// what does not fit into an `i64`.
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

/// ASCII's white space, vertical tab included.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// JSON unpacked into `N` values as Python unpacks an iterable: an array's elements, a string's characters, an
/// object's keys.
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
    fn what_is_no_integer_is_refused() {
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
