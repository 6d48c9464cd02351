//! The text of an error together with its causes.

use std::error::Error;
use std::fmt;
use std::iter;

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
    fn each_cause_is_told_once() {
        let error = Silent(Quoting(io::Error::other("disk full")));
        assert_eq!(Causes(&error).to_string(), "connection error: cannot write: disk full");
    }
}
