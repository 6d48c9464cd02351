//! The text of an error together with its causes, and text of peers that is fit for a log.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::iter;

/// Largest number of characters of a text of a peer in a log.
const SHOWN_MAX: usize = 300;

/// The text of an error and of its causes. Some errors, such as those of hyper, tell nothing without these. A cause that
/// the text before it quotes is left out.
pub(crate) struct Causes<'a>(pub(crate) &'a (dyn Error + 'a));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        for cause in causes(self.0) {
            let cause = cause.to_string();
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        f.write_str(&text)
    }
}

/// A text that a peer may have chosen, as a log shows it: cut, with control characters and marks of direction escaped.
pub(crate) struct Shown<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = Cut { f, left: SHOWN_MAX };
        match write!(shown, "{}", self.0) {
            // The text was cut, unless the log itself failed.
            Err(_) if shown.left == 0 => f.write_str("…"),
            written => written,
        }
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

/// Returns the causes of an error, the outermost first.
pub(crate) fn causes<'a>(error: &'a (dyn Error + 'a)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(error.source(), cause)
}

fn cause<'a>(error: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    (**error).source()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("connection error")]
    struct Silent(#[source] Quoting);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write: {0}")]
    struct Quoting(#[source] io::Error);

    #[test]
    fn a_text_of_a_peer_is_cut_and_has_no_control_characters() {
        let shown = |text: &str| Shown(text).to_string();
        assert_eq!(shown("peer ä 1"), "peer ä 1");
        assert_eq!(shown("a\x1b[31m\r\u{9b}2J\u{2028}\u{202e}b"), "a\\u{1b}[31m\\r\\u{9b}2J\\u{2028}\\u{202e}b");
        assert_eq!(shown(&"x".repeat(SHOWN_MAX)), "x".repeat(SHOWN_MAX));
        assert_eq!(shown(&"x".repeat(SHOWN_MAX + 1)), "x".repeat(SHOWN_MAX) + "…");
    }

    #[test]
    fn each_cause_is_told_once() {
        let error = Silent(Quoting(io::Error::other("disk full")));
        assert_eq!(Causes(&error).to_string(), "connection error: cannot write: disk full");
    }
}
