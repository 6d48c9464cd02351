//! Shortened copies of a peer's text, for errors and logs.

use std::fmt::{self, Write as _};

/// Largest number of characters of a peer's text in a log or a report.
const QUOTED_MAX: usize = 300;

/// The length of an excerpt, in characters.
pub(super) const EXCERPT_CHARS_MAX: usize = 200;

/// Returns the first [`EXCERPT_CHARS_MAX`] characters of `text`, marked with `…` where it is cut.
pub(super) fn excerpt(text: &str) -> String {
    truncate(text, EXCERPT_CHARS_MAX)
}

/// Returns the first `chars_max` characters of `text`, marked with `…` where it is cut.
pub(super) fn truncate(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// A text that a peer may have chosen, as a log or a report quotes it: [escaped](Escaped), and cut after 300 characters.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<T>(pub T);

impl<T: fmt::Display> fmt::Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut quoted = Cut { f, left: QUOTED_MAX };
        match write!(quoted, "{}", self.0) {
            // The text was cut, unless the log itself failed.
            Err(_) if quoted.left == 0 => f.write_str("…"),
            written => written,
        }
    }
}

/// A text that a peer may have chosen, with control characters and marks of direction escaped. They could move the cursor
/// of a terminal, begin another line, or reverse the text.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<T>(pub T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Cut { f, left: usize::MAX }, "{}", self.0)
    }
}

/// Escapes text, and fails once it has written so many characters.
struct Cut<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    left: usize,
}

impl fmt::Write for Cut<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            match c {
                // Controls, line and paragraph separators, and characters that change the direction of the text.
                c if c.is_control() => write!(self.f, "{}", c.escape_default())?,
                '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    write!(self.f, "{}", c.escape_unicode())?;
                }
                c => self.f.write_char(c)?,
            }
        }
        Ok(())
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
    fn a_text_of_a_peer_is_cut_and_has_no_control_characters() {
        let quoted = |text: &str| Quoted(text).to_string();
        assert_eq!(quoted("peer ä 1"), "peer ä 1");
        let (hostile, harmless) =
            ("a\x1b[31m\r\u{9b}2J\u{2028}\u{202e}b", "a\\u{1b}[31m\\r\\u{9b}2J\\u{2028}\\u{202e}b");
        assert_eq!((quoted(hostile).as_str(), Escaped(hostile).to_string().as_str()), (harmless, harmless));
        assert_eq!(quoted(&"x".repeat(QUOTED_MAX)), "x".repeat(QUOTED_MAX));
        let long = "x".repeat(QUOTED_MAX + 1);
        assert_eq!((quoted(&long), Escaped(&long).to_string()), ("x".repeat(QUOTED_MAX) + "…", long.clone()));
    }
}
