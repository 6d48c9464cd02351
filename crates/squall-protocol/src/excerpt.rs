//! Shortened copies of a peer's text, for errors and logs.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_between_characters() {
        assert_eq!(excerpt(&"é".repeat(EXCERPT_CHARS_MAX)), "é".repeat(EXCERPT_CHARS_MAX));
        assert_eq!(excerpt(&"é".repeat(EXCERPT_CHARS_MAX + 1)), format!("{}…", "é".repeat(EXCERPT_CHARS_MAX)));
    }
}
