//! JSON as Python writes and reads it.
//!
//! Synapse's rows are written by Python's `json` with compact separators: ASCII only, `\u` escapes in lower case, floats by
//! `repr`. Squall writes the same bytes, so that a recording of either can be compared with the other. `serde_json` escapes
//! less and writes floats differently; a [`Formatter`] corrects both.
//!
//! In reading, `serde_json` agrees with Python on key order, on the last of two equal keys, and on the nearest double. It
//! silently differs on two kinds of integers: one outside 64 bits becomes a float, and so does `-0`. So a pass over the
//! literals comes first. Stricter than Python, on purpose: NaN, infinities, floats that overflow, lone surrogates and
//! nesting deeper than 128 are errors.

use std::borrow::Cow;
use std::io::{self, BufRead};

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};
use thiserror::Error;

use super::excerpt::excerpt;

/// Text that is not JSON, or holds a number Squall does not represent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JsonError {
    /// The text is not JSON.
    #[error("{0}")]
    Syntax(String),
    /// An integer that fits neither `i64` nor `u64`. As a float it would be another number.
    #[error("integer does not fit into 64 bits: {0}")]
    IntegerOutOfRange(String),
}

/// Parses a JSON text.
///
/// # Errors
/// See [`JsonError`].
pub fn parse(text: &str) -> Result<Value, JsonError> {
    let checked = Checked::new(text)?;
    serde_json::from_str(&checked.text).map_err(|error| JsonError::Syntax(error.to_string()))
}

/// Returns the text of a value, on one line of ASCII.
pub fn render(value: &Value) -> String {
    let mut json = Vec::new();
    write(value, &mut json);
    String::from_utf8(json).expect("the formatter writes ASCII only")
}

/// Appends the text of a value to `json`, as [`render`] returns it.
pub(crate) fn write(value: &impl Serialize, json: &mut Vec<u8>) {
    value
        .serialize(&mut Serializer::with_formatter(json, Python))
        .expect("a Value has string keys and finite floats, as a row has, and a Vec takes every write");
}

/// Returns about how many bytes of memory a value takes.
pub fn held_bytes(value: &Value) -> usize {
    let within = match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(held_bytes).sum(),
        Value::Object(entries) => {
            entries.iter().map(|(key, value)| size_of::<String>() + key.len() + held_bytes(value)).sum()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    size_of::<Value>() + within
}

/// A JSON text that `serde_json` reads as Python does.
pub(crate) struct Checked<'a> {
    /// The text with `-0` as `0`, as Python reads it.
    pub(crate) text: Cow<'a, str>,
    /// The number of values in it, keys included.
    values: usize,
}

impl<'a> Checked<'a> {
    /// Checks a text.
    ///
    /// Lexical: text that is not JSON passes through and fails in the parser.
    ///
    /// # Errors
    /// An integer is outside 64 bits.
    pub(crate) fn new(text: &'a str) -> Result<Self, JsonError> {
        let bytes = text.as_bytes();
        let mut checked = Checked { text: Cow::Borrowed(text), values: 1 };
        let mut at = 0;
        while at < bytes.len() {
            match bytes[at] {
                b'"' => at = string_end(bytes, at),
                b'-' | b'0'..=b'9' => {
                    let end = at + bytes[at..].iter().take_while(|byte| is_number(**byte)).count();
                    let literal = &text[at..end];
                    if is_integer(literal) && !fits_64_bits(literal) {
                        return Err(JsonError::IntegerOutOfRange(excerpt(literal)));
                    }
                    if literal == "-0" {
                        // A blank keeps every later offset, and white space before a value means nothing.
                        checked.text.to_mut().replace_range(at..=at, " ");
                    }
                    at = end;
                }
                // A value begins the text, or stands behind one of these.
                b',' | b':' | b'[' | b'{' => {
                    checked.values += 1;
                    at += 1;
                }
                _ => at += 1,
            }
        }
        Ok(checked)
    }

    /// Returns about how many bytes of memory the value takes, and at least as many as [`held_bytes`] does.
    pub(crate) fn held_bytes(&self) -> usize {
        self.values * size_of::<Value>() + self.text.len()
    }
}

/// Returns the offset after the string that opens at `start`.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut end = start + 1;
    loop {
        let mut rest = &bytes[end..];
        let passed = rest.skip_until(b'"').expect("bytes in memory can be read");
        end += passed;
        // A quote behind an odd number of backslashes is within the string. Without a quote, the string has no end.
        let before_quote = bytes[start + 1..end].iter().rev().skip(1);
        let backslashes = before_quote.take_while(|byte| **byte == b'\\').count();
        if backslashes % 2 == 0 || passed == 0 {
            return end;
        }
    }
}

fn is_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

fn is_integer(literal: &str) -> bool {
    let digits = literal.strip_prefix('-').unwrap_or(literal);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn fits_64_bits(integer: &str) -> bool {
    integer.parse::<i64>().is_ok() || integer.parse::<u64>().is_ok()
}

/// Python's `json.dumps` with `separators=(",", ":")`.
struct Python;

impl Formatter for Python {
    /// Escapes everything outside printable ASCII, which includes DEL.
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(start) = rest.bytes().position(|byte| !matches!(byte, b' '..=b'~')) {
            let (plain, escaped) = rest.split_at(start);
            writer.write_all(plain.as_bytes())?;
            let mut characters = escaped.chars();
            let Some(c) = characters.next() else { break };
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    /// Writes a float as Python's `repr(float)`: the shortest digits that read back the same, with an exponent of at least two
    /// digits below 1e-4 and from 1e16 on.
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let scientific = shortest(value);
        let (digits, exponent) = scientific.split_once('e').expect("`{:e}` writes an exponent");
        let exponent: i32 = exponent.parse().expect("`{:e}` writes an integer after the e");
        if !(-4..16).contains(&exponent) {
            return write!(writer, "{digits}e{exponent:+03}");
        }
        let places = (decimals(digits) as i32 - exponent).max(1) as usize;
        write!(writer, "{value:.places$}")
    }
}

/// Returns the shortest digits that read back the same, in scientific notation.
///
/// Of two texts that are equally near, Rust takes the larger and Python the even one, as does rounding to that many digits.
/// Below a power of two doubles are closer, and the nearest text there may not read back.
fn shortest(value: f64) -> String {
    let shortest = format!("{value:e}");
    let nearest = format!("{value:.*e}", decimals(&shortest));
    if nearest.parse() == Ok(value) { nearest } else { shortest }
}

/// Returns the number of digits after the point, with or without an exponent.
fn decimals(number: &str) -> usize {
    let digits = number.split('e').next().unwrap_or(number);
    digits.split_once('.').map_or(0, |(_, decimals)| decimals.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_text_is_at_least_that_of_its_value() {
        for text in [r#"["ev",["a,\"b",null,false]]"#, r#"{"k":[0,0,{}]}"#, "[[[]]]", "1"] {
            let of_text = Checked::new(text).unwrap().held_bytes();
            let of_value = held_bytes(&parse(text).unwrap());
            assert!((of_value..=2 * of_value).contains(&of_text), "{text}: {of_text} and {of_value}");
        }
    }

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (value, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (1.5, "1.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (-1.25e-7, "-1.25e-07"),
            (9_999_999_999_999_998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (1.234e22, "1.234e+22"),
            (1e23, "1e+23"),
            (1e100, "1e+100"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (5e-324, "5e-324"),
            // Halfway between two shortest: the even digit.
            (8_093_389_204_627_405.0 / 4.0, "2023347301156851.2"),
            (8_093_389_204_627_407.0 / 4.0, "2023347301156851.8"),
            (129.0 / 2_097_152.0, "6.151199340820312e-05"),
            // 2 to the -44th: the nearest 16 digits end in 1 and read back as another number.
            (5.684341886080802e-14, "5.684341886080802e-14"),
        ] {
            assert_eq!(render(&Value::from(value)), text);
        }
    }

    #[test]
    fn everything_outside_printable_ascii_is_escaped() {
        let text = "a\u{8}\u{c}\n\r\t\0\u{1f}\u{7f}\"\\/é\u{2028}\u{ffff}🦀z";
        assert_eq!(
            render(&Value::from(text)),
            r#""a\b\f\n\r\t\u0000\u001f\u007f\"\\/\u00e9\u2028\uffff\ud83e\udd80z""#
        );
    }

    #[test]
    fn keys_keep_their_order_and_the_last_of_two_wins() {
        let value = parse(r#"{"b":1,"a":2,"b":3}"#).unwrap();
        assert_eq!(render(&value), r#"{"b":3,"a":2}"#);
    }

    #[test]
    fn integers_keep_their_kind() {
        for (text, again) in [
            ("-0", "0"),
            ("[-0,-0.0,-0e0]", "[0,-0.0,-0.0]"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("1E2", "100.0"),
            (r#"["-0","\"-0",-0]"#, r#"["-0","\"-0",0]"#),
            (r#"["123456789012345678901234567890"]"#, r#"["123456789012345678901234567890"]"#),
        ] {
            assert_eq!(render(&parse(text).unwrap()), again, "{text}");
        }
    }

    #[test]
    fn an_integer_outside_64_bits_never_becomes_a_float() {
        for text in ["18446744073709551616", "[1,-9223372036854775809]", r#"{"a\\":123456789012345678901234567890}"#] {
            assert!(matches!(parse(text), Err(JsonError::IntegerOutOfRange(_))), "{text}");
        }
    }

    #[test]
    fn text_that_is_not_json_is_refused() {
        for text in [
            "",
            " ",
            "NaN",
            "-Infinity",
            "1e400",
            "[1,]",
            "[01]",
            "- 0",
            "-",
            "--0",
            "true-0",
            "[1 -0]",
            "'a'",
            "\"a\tb\"",
            r#""\ud83e""#,
            r#""\udd80""#,
            r#""\ud83e\ud83e""#,
            "\u{feff}[]",
            "[] x",
            "\"",
            "\"\\",
            "\u{a0}1",
        ] {
            assert!(matches!(parse(text), Err(JsonError::Syntax(_))), "{text:?}");
        }
    }

    #[test]
    fn nesting_too_deep_for_the_stack_is_refused() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&deep(127)).is_ok());
        assert!(matches!(parse(&deep(100_000)), Err(JsonError::Syntax(_))));
    }
}
